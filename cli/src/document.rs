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
        match phase(&self.document) {
            Some(phase) => format!("{}, {phase}", self.status.name()),
            None => self.status.name().to_owned(),
        }
    }

    /// Whether it has ended because somebody cancelled it.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.status == Status::Failed && self.document.get("phase").is_some_and(|phase| phase == "cancelled")
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

/// The phase in words, where it says more than the status.
fn phase(build: &Value) -> Option<String> {
    let named = |field: &str| build.get(field).and_then(Value::as_str);
    named("phase")
        .filter(|phase| Some(*phase) != named("status"))
        .map(|phase| inline(&phase.replace('_', " ").into()))
}

/// What was found of a build after its end and is not known to be gone: each kind with its ids. None where all is.
fn still_left(build: &Value) -> Option<String> {
    let leftovers = build.get("leftovers")?;
    let ids = |part: &str, kind: &str| {
        leftovers
            .get(part)
            .and_then(|part| part.get(kind))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let left: Vec<String> = leftovers
        .get("found")?
        .as_object()?
        .keys()
        .filter_map(|kind| {
            let removed = ids("removed", kind);
            let left: Vec<Value> =
                ids("found", kind).into_iter().filter(|id| !removed.contains(id)).collect();
            (!left.is_empty())
                .then(|| format!("{} {}", neutralise(&kind.replace('_', " ")), inline(&left.into())))
        })
        .collect();
    (!left.is_empty()).then(|| left.join("; "))
}

/// The documented block that shows one build. Below it, what went wrong: the phase, where it says more than the status,
/// the error, and what is still to be removed.
pub(crate) fn build_block(build: &Value) -> String {
    let mut rows = vec![
        ("Build ID:", cell(build, "build_id")),
        ("Provider:", cell(build, "provider")),
        ("Region:", cell(build, "region")),
        ("Status:", cell(build, "status")),
        ("Started:", time_cell(build, "started_at")),
        ("AMI ID:", cell(build, "image_id")),
    ];
    let error = build.get("error").filter(|error| !error.is_null()).map(inline);
    // While the service finds out how a lost build went there is no error yet. `cancelled` is both.
    let phase =
        phase(build).filter(|phase| error.as_ref().map_or(phase == "cleaning up", |error| error != phase));
    rows.extend(phase.map(|phase| ("Phase:", phase)));
    rows.extend(error.map(|error| ("Error:", error)));
    rows.extend(still_left(build).map(|left| ("Left:", left)));
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
    fn a_build_that_fails_shows_where_it_stands_and_what_is_left() {
        let build = json!({
            "build_id": "550e8400-e29b-41d4-a716-446655440000", "status": "building", "phase": "cleaning_up",
            "error": "cancelled",
            "leftovers": {
                "found": {"instances": ["i-1"], "security_groups": ["sg-1", "sg-2"], "volumes": [], "images": ["ami-1"]},
                "removed": {"images": ["ami-1"], "security_groups": ["sg-2"]}
            }
        });
        let expected = "\
Phase:      cleaning up
Error:      cancelled
Left:       instances i-1; security groups sg-1
";
        assert!(build_block(&build).ends_with(expected), "{}", build_block(&build));
    }

    #[test]
    fn a_build_that_is_cleaned_up_before_its_end_is_known_says_so() {
        let shown = |phase: &str| build_block(&json!({"status": "building", "phase": phase, "error": null}));
        assert!(
            shown("cleaning_up").ends_with("AMI ID:     --\nPhase:      cleaning up\n"),
            "{}",
            shown("cleaning_up")
        );
        assert!(shown("running_packer").ends_with("AMI ID:     --\n"), "{}", shown("running_packer"));
    }

    #[test]
    fn a_build_that_is_clean_shows_nothing_as_left() {
        let sets = json!({"instances": ["i-1"], "volumes": []});
        let build = json!({"status": "failed", "phase": "cancelled", "error": "cancelled",
                           "leftovers": {"found": sets, "removed": sets}});
        assert!(
            build_block(&build).ends_with("AMI ID:     --\nError:      cancelled\n"),
            "{}",
            build_block(&build)
        );
    }

    #[test]
    fn only_a_build_that_has_ended_is_called_cancelled() {
        let id = "550e8400-e29b-41d4-a716-446655440000";
        let read = |status: &str, phase: &str| {
            let document = json!({"build_id": id, "status": status, "phase": phase, "error": "cancelled"});
            Build::read(document).unwrap().is_cancelled()
        };
        assert!(read("failed", "cancelled"));
        assert!(!read("building", "cleaning_up"));
        assert!(!read("failed", "failed"));
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
