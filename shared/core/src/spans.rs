//! Spans: what the log lines of a piece of work are about.
//!
//! A line about a build names the build and the request that asked for it, so that one query follows a build from the API through
//! all functions to its runner. Must never hold more than ids.
//!
//! They are of the level `error`: whatever lines a log filter lets through, these fields are in them.

use tracing::field::Empty;
use tracing::{Span, error_span};

use crate::build::BuildRecord;
use crate::ids::{BuildId, RequestId};

/// Of work on a build whose record is at hand.
pub(crate) fn of_build(record: &BuildRecord) -> Span {
    error_span!("build", build_id = %record.build_id, request_id = request_of(record))
}

/// Of work that begins with an id alone: [`name_request`] adds the rest once the record was read.
pub(crate) fn of_build_id(id: BuildId) -> Span {
    error_span!("build", build_id = %id, request_id = Empty)
}

/// Has the lines of the current span, one of [`of_build_id`], name the request that asked for its build.
pub(crate) fn name_request(record: &BuildRecord) {
    Span::current().record("request_id", request_of(record));
}

/// Empty where nobody noted it: else a span around this one, of another build or request, would lend its own.
fn request_of(record: &BuildRecord) -> &str {
    record.request_id.as_ref().map_or("", RequestId::as_str)
}
