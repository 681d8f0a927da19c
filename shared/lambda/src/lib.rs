//! What every function needs: tracing, metrics, settings from the environment, HTTP events to the domain's requests,
//! the table's stream to changes of builds, errors to answers.
//!
//! Must never decide anything: a handler in here only translates.

#![warn(missing_docs)]

mod environment;
mod http;
mod invocation;
mod metrics;
mod stream;
mod task;
mod wiring;

pub use environment::{seconds, settings, variable};
pub use http::{serve_authorizer, serve_http, serve_http_and_events};
pub use invocation::start_tracing;
pub use lambda_runtime::Error;
pub use metrics::{Measure, write_metrics, write_metrics_by_provider};
pub use serde::de::IgnoredAny as Ignored;
pub use stream::serve_changes;
pub use task::{serve_runners, serve_task};
pub use wiring::{reconcile_deps, runners};
