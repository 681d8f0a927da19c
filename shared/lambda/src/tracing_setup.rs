//! Structured logs: one JSON document a line, on stdout, as CloudWatch takes them.

use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` sets the level; `info` where it is not set.
pub fn start_tracing() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        // Lambda adds the time of its own.
        .without_time()
        .init();
}
