//! What the commands read out of the service's documents. The documents themselves are kept and printed as they came.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::terminal_text::neutralise;

/// A build's documented statuses; no other ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Queued,
    Building,
    Succeeded,
    Failed,
}

/// A build's document whose id and status are understood.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    pub(crate) id: Uuid,
    pub(crate) status: Status,
    pub(crate) document: Value,
}

impl Build {
    /// Refuses, with what is wrong, a document from which no verdict may be drawn.
    pub(crate) fn read(document: Value) -> Result<Self, String> {
        let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = text("build_id").parse().map_err(|_| "its build_id is no UUID".to_owned())?;
        let status =
            Status::named(&text("status")).ok_or_else(|| format!("its status is `{}`", text("status")))?;
        Ok(Self { id, status, document })
    }

    /// Its status for people, with the phase where there is one.
    pub(crate) fn progress(&self) -> String {
        match self.document.get("phase").and_then(Value::as_str) {
            Some(phase) if phase != self.status.name() => format!("{}, {phase}", self.status.name()),
            _ => self.status.name().to_owned(),
        }
    }
}

impl Status {
    fn named(name: &str) -> Option<Self> {
        match name {
            "queued" => Some(Self::Queued),
            "building" => Some(Self::Building),
            "succeeded" => Some(Self::Succeeded),
            "failed" => Some(Self::Failed),
            _ => None,
        }
    }

    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Building => "building",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// A field as a table shows it: on one line, and `--` for none.
pub(crate) fn cell(document: &Value, field: &str) -> String {
    match document.get(field) {
        None | Some(Value::Null) => "--".to_owned(),
        Some(value) => inline(value),
    }
}

/// A time field in UTC, without fractions and zone.
pub(crate) fn time_cell(document: &Value, field: &str) -> String {
    match document.get(field).and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => cell(document, field),
    }
}

/// Any value on one line, lists joined by commas.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        Value::Null => "--".to_owned(),
        Value::String(text) if text.is_empty() => "--".to_owned(),
        Value::String(text) => neutralise(text),
        Value::Array(items) if items.is_empty() => "--".to_owned(),
        Value::Array(items) => items.iter().map(inline).collect::<Vec<_>>().join(", "),
        other => neutralise(&other.to_string()),
    }
}

/// The documented block that shows one build, with its error below if it has one.
pub(crate) fn build_block(build: &Value) -> String {
    let mut rows = vec![
        ("Build ID:", cell(build, "build_id")),
        ("Provider:", cell(build, "provider")),
        ("Region:", cell(build, "region")),
        ("Status:", cell(build, "status")),
        ("Started:", time_cell(build, "started_at")),
        ("AMI ID:", cell(build, "image_id")),
    ];
    if build.get("error").is_some_and(|error| !error.is_null()) {
        rows.push(("Error:", cell(build, "error")));
    }
    rows.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect()
}

/// The sentence that says why a build failed.
pub(crate) fn build_error(build: &Value) -> String {
    let failure_message = build.get("failure").and_then(|failure| failure.get("message"));
    let sentence = build.get("error").filter(|error| !error.is_null()).or(failure_message);
    sentence.map_or_else(|| "the service gave no reason".to_owned(), inline)
}

/// What is known about a failure beyond its sentence: where it happened, and the end of the log.
pub(crate) fn failure_details(build: &Value) -> Vec<String> {
    let Some(failure) = build.get("failure").filter(|failure| failure.is_object()) else { return Vec::new() };
    let mut details = Vec::new();
    for field in ["stage", "step"] {
        if failure.get(field).is_some_and(|value| !value.is_null()) {
            details.push(format!("{field}: {}", cell(failure, field)));
        }
    }
    let message = cell(failure, "message");
    if message != "--" && message != build_error(build) {
        details.push(format!("message: {message}"));
    }
    details
}

/// The last lines of a failed build's log, as the build's document repeats them.
pub(crate) fn last_log_lines(build: &Value) -> Vec<String> {
    let lines =
        build.get("failure").and_then(|failure| failure.get("last_log_lines")).and_then(Value::as_array);
    lines.into_iter().flatten().map(|line| line.get("text").map_or_else(|| inline(line), inline)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_build_is_shown_as_documented() {
        let build = json!({
            "build_id": "550e8400-e29b-41d4-a716-446655440000", "provider": "claude-code", "region": "us-east-1",
            "status": "building", "started_at": "2026-03-25T14:30:00.123Z", "image_id": null, "error": null
        });
        let expected = "\
Build ID:   550e8400-e29b-41d4-a716-446655440000
Provider:   claude-code
Region:     us-east-1
Status:     building
Started:    2026-03-25 14:30:00
AMI ID:     --
";
        assert_eq!(build_block(&build), expected);
    }

    #[test]
    fn times_are_shown_in_utc_wherever_they_came_from() {
        let document = json!({"at": "2026-03-25T16:30:00+02:00", "odd": "yesterday"});
        assert_eq!(time_cell(&document, "at"), "2026-03-25 14:30:00");
        assert_eq!(time_cell(&document, "odd"), "yesterday");
        assert_eq!(time_cell(&document, "none"), "--");
    }

    #[test]
    fn only_the_documented_statuses_are_known() {
        let id = "550e8400-e29b-41d4-a716-446655440000";
        let read = |status: &str| Build::read(json!({"build_id": id, "status": status}));
        assert_eq!(read("succeeded").unwrap().status, Status::Succeeded);
        assert_eq!(read("cancelled").unwrap_err(), "its status is `cancelled`");
        assert!(Build::read(json!({"build_id": "../x", "status": "queued"})).is_err());
        assert!(Build::read(json!([])).is_err());
    }

    #[test]
    fn a_failure_tells_where_and_why() {
        let build = json!({
            "error": "Packer failed",
            "failure": {"stage": "provision", "step": "install-agent", "message": "exit status 1",
                        "last_log_lines": ["one", {"text": "two"}]}
        });
        assert_eq!(build_error(&build), "Packer failed");
        assert_eq!(
            failure_details(&build),
            ["stage: provision", "step: install-agent", "message: exit status 1"]
        );
        assert_eq!(last_log_lines(&build), ["one", "two"]);
    }
}
