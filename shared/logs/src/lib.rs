//! The log lines of functions and runner: one JSON object each, of one shape, so that one query finds what all of them say.
//!
//! A line has `time`, `level`, `message` and `target`, then the fields of its event and of the spans around it, all at the top: a
//! query needs no path to them. tracing-subscriber's own JSON keeps the spans' apart, shows the innermost alone, and leaves out what
//! an error comes from.
//!
//! Must never choose what is told: who logs an event or opens a span names no secret in it.

#![warn(missing_docs)]

mod fields;
mod layer;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use layer::JsonLines;

/// Starts logging, with `always` in every line. `RUST_LOG` sets what is logged; `info` where it is not set. A panic is a line like
/// any other. The first call counts.
pub fn start<W>(writer: W, always: impl IntoIterator<Item = (&'static str, String)>)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = Registry::default().with(filter).with(JsonLines::new(writer, always));
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("without a message");
            let location = panic.location().map(tracing::field::display);
            tracing::error!(location, "panicked: {message}");
        }));
    }
}
