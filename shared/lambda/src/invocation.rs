//! Logs of a function, and the span of one invocation, which all of its lines stand in.

use lambda_runtime::Context;
use tracing::Span;
use tracing::field::Empty;

/// Starts logging: to stdout, as CloudWatch takes it.
pub fn start_tracing() {
    ciab_logs::start(std::io::stdout, []);
}

/// The span of one invocation. `request_id` is for whoever knows which request it serves.
pub(crate) fn span(context: &Context) -> Span {
    tracing::error_span!(
        "invocation",
        invocation_id = context.request_id,
        trace_id = context.xray_trace_id.as_deref().and_then(trace_id),
        request_id = Empty,
    )
}

/// The id of a trace that X-Ray keeps, out of a tracing header (AWS X-Ray Developer Guide, "Tracing header"). Lambda gives one
/// to every invocation, and without `Sampled=1` nothing stands behind it.
fn trace_id(header: &str) -> Option<&str> {
    let field =
        |name: &str| header.split(';').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
    if field("Sampled") == Some("1") { field("Root") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_named_where_x_ray_keeps_it() {
        let root = "Root=1-5759e988-bd862e3fe1be46a994272793";
        let kept = format!("{root};Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a87bd80c:1");
        assert_eq!(trace_id(&kept), Some("1-5759e988-bd862e3fe1be46a994272793"));
        assert_eq!(trace_id(&format!("Sampled=1; {root}")), Some("1-5759e988-bd862e3fe1be46a994272793"));
        assert_eq!(trace_id(&format!("{root};Parent=53995c3f42cd8ad8;Sampled=0")), None);
        assert_eq!(trace_id(root), None);
        assert_eq!(trace_id("Sampled=1"), None);
        assert_eq!(trace_id(""), None);
    }
}
