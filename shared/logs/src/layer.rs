//! The layer that writes a line for each event.

use std::io::Write as _;

use jiff::Timestamp;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::fields::Fields;

/// Writes lines; keeps the fields of spans with the spans.
pub(crate) struct JsonLines<W> {
    writer: W,
    always: Fields,
}

impl<W> JsonLines<W> {
    pub(crate) fn new(writer: W, always: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self { writer, always: always.into_iter().collect() }
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = self.always.clone();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.extend(of_span);
            }
        }
        event.record(&mut fields);
        if let Ok(line) = fields.line(Timestamp::now(), event.metadata()) {
            // In one piece, so that no other line comes between. Where the output is closed there is nobody to tell.
            let _ = self.writer.make_writer_for(event.metadata()).write_all(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `log` runs, line by line.
    fn lines(log: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let layer = JsonLines::new(move || writer.clone(), [("always", "so".to_owned())]);
        tracing::subscriber::with_default(Registry::default().with(layer), log);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        text.lines().map(str::to_owned).collect()
    }

    /// The one line that is written, without its time.
    fn line(log: impl FnOnce()) -> Value {
        let lines = lines(log);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let mut line: Value = serde_json::from_str(&lines[0]).unwrap();
        let time = line.as_object_mut().unwrap().remove("time").unwrap();
        let time = time.as_str().unwrap();
        time.parse::<Timestamp>().unwrap();
        assert_eq!(time.len(), "2026-03-25T14:30:00.000Z".len(), "{time}");
        line
    }

    #[derive(Debug)]
    struct Chained(&'static str, Option<Box<Chained>>);

    impl std::fmt::Display for Chained {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Chained {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|error| error as _)
        }
    }

    #[test]
    fn a_line_is_one_object_that_begins_with_the_fixed_fields() {
        let lines = lines(|| tracing::info!(target: "a::target", zebra = 1, ant = true, "hello\nthere"));
        assert_eq!(lines.len(), 1);
        let (time, rest) = lines[0].split_once(',').unwrap();
        assert!(time.starts_with(r#"{"time":"2"#), "{time}");
        assert_eq!(
            rest,
            r#""level":"INFO","message":"hello\nthere","target":"a::target","always":"so","ant":true,"zebra":1}"#
        );
    }

    #[test]
    fn fields_of_all_spans_stand_in_the_line_and_an_inner_ones_count() {
        let line = line(|| {
            let outer = tracing::error_span!("outer", request_id = "of-the-function", invocation_id = "i");
            let _outer = outer.enter();
            let inner = tracing::error_span!("inner", build_id = "b", request_id = tracing::field::Empty);
            let _inner = inner.enter();
            inner.record("request_id", "of-the-build");
            tracing::warn!(target: "t", count = 2, "text");
        });
        let expected = json!({
            "level": "WARN", "message": "text", "target": "t", "always": "so", "count": 2,
            "build_id": "b", "request_id": "of-the-build", "invocation_id": "i",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_span_has_no_field_that_was_never_recorded_and_none_of_a_span_that_was_left() {
        let line = line(|| {
            tracing::error_span!("left", build_id = "b").in_scope(|| ());
            let none: Option<&str> = None;
            let _span = tracing::error_span!("span", request_id = tracing::field::Empty, none).entered();
            tracing::info!(target: "t", "text");
        });
        assert_eq!(line, json!({"level": "INFO", "message": "text", "target": "t", "always": "so"}));
    }

    #[test]
    fn an_error_is_told_with_all_that_it_comes_from() {
        let error =
            Chained("outer", Some(Box::new(Chained("middle", Some(Box::new(Chained("root", None)))))));
        let line =
            line(|| tracing::error!(target: "t", error = &error as &dyn std::error::Error, "it failed"));
        assert_eq!(line["error"], "outer: middle: root");
        assert_eq!(line["message"], "it failed");
    }

    #[test]
    fn no_field_takes_the_place_of_a_fixed_one() {
        let lines = lines(|| tracing::info!(target: "t", level = "none", time = "never", "text"));
        assert_eq!(lines[0].matches(r#""level":"#).count(), 1, "{}", lines[0]);
        assert!(!lines[0].contains("never") && lines[0].contains(r#""level":"INFO""#), "{}", lines[0]);
    }

    #[test]
    fn an_event_without_a_message_has_an_empty_one() {
        assert_eq!(line(|| tracing::info!(target: "t", a = 1))["message"], "");
    }
}
