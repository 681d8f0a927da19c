//! What the demo has to say at its end: for a person a few lines, for a program one JSON document.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

#[derive(Default, Serialize)]
pub(crate) struct Report {
    pub(crate) build_id: Option<String>,
    pub(crate) image_id: Option<String>,
    pub(crate) status: Option<String>,
    /// What the agent's `--version` printed in an instance started from the image.
    pub(crate) agent_version: Option<String>,
    /// Seconds, in the order in which they passed.
    #[serde(serialize_with = "as_map")]
    phases: Vec<(&'static str, f64)>,
    /// What EC2 holds at the end and did not hold before.
    pub(crate) leftovers: Vec<String>,
    /// What /etc/ciab-image.json says is in the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) versions: BTreeMap<String, String>,
    /// Why the demo failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Report {
    /// Records what a phase took, in seconds.
    pub(crate) fn phase(&mut self, name: &'static str, seconds: f64) {
        self.phases.push((name, (seconds * 1000.0).round() / 1000.0));
    }

    /// Does a phase's work and records what it took, whether it succeeds or not.
    pub(crate) fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let result = work();
        self.phase(name, begun.elapsed().as_secs_f64());
        result
    }

    /// Prints it on stdout.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        let text = if json { serde_json::to_string(self)? + "\n" } else { self.to_text() };
        std::io::stdout().write_all(text.as_bytes()).context("print the report")
    }

    fn to_text(&self) -> String {
        let or_none = |value: &Option<String>| value.as_deref().unwrap_or("--").to_owned();
        let mut text = String::from("\n");
        let mut line = |name: &str, value: &str| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{:<15} {value}", format!("{name}:"));
        };
        line("Build ID", &or_none(&self.build_id));
        line("Status", &or_none(&self.status));
        line("AMI ID", &or_none(&self.image_id));
        line("Agent version", &or_none(&self.agent_version));
        let versions: Vec<String> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        if !versions.is_empty() {
            line("In the image", &versions.join(", "));
        }
        let phases: Vec<String> =
            self.phases.iter().map(|(name, seconds)| format!("{name} {seconds:.1} s")).collect();
        line("Phases", &phases.join(", "));
        line(
            "Left in EC2",
            &if self.leftovers.is_empty() { "nothing".to_owned() } else { self.leftovers.join(", ") },
        );
        line(
            "Result",
            &self.error.as_ref().map_or_else(|| "all of it held".to_owned(), |e| format!("FAILED: {e}")),
        );
        text
    }
}

/// The tools' versions in an image's description of itself.
pub(crate) fn versions(description: &Value) -> BTreeMap<String, String> {
    let tools = description["tools"].as_object().into_iter().flatten();
    tools.filter_map(|(name, version)| Some((name.clone(), version.as_str()?.to_owned()))).collect()
}

/// Fails unless an image's description of itself names the build it is from, the agent, and the version that the agent
/// answered with.
pub(crate) fn agrees(description: &Value, build_id: &str, provider: &str, agent_version: &str) -> Result<()> {
    let described = description["agent"]["version"].as_str().unwrap_or_default();
    ensure!(
        description["build_id"] == build_id
            && description["agent"]["provider"] == provider
            && !described.is_empty()
            && agent_version.contains(described),
        "/etc/ciab-image.json is not of build {build_id} with {provider} {agent_version}: {description}"
    );
    Ok(())
}

fn as_map<S: Serializer>(phases: &[(&'static str, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(phases.len()))?;
    for (name, seconds) in phases {
        map.serialize_entry(name, seconds)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_of_a_success_has_what_was_promised() {
        let mut report =
            Report { build_id: Some("b".into()), status: Some("succeeded".into()), ..Report::default() };
        report.phase("setup", 1.23456);
        report.phase("boot", 0.5);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(
            text,
            r#"{"build_id":"b","image_id":null,"status":"succeeded","agent_version":null,"phases":{"setup":1.235,"boot":0.5},"leftovers":[]}"#
        );
    }

    #[test]
    fn a_failed_phase_is_timed_too_and_the_report_says_why() {
        let mut report = Report::default();
        report.time::<()>("boot", || anyhow::bail!("no")).unwrap_err();
        report.error = Some("no login".into());
        let text = report.to_text();
        assert!(text.contains("boot 0.0 s") && text.contains("FAILED: no login"), "{text}");
    }

    #[test]
    fn an_image_that_describes_something_else_is_noticed() {
        let description = serde_json::json!({
            "build_id": "b", "agent": {"provider": "codex", "version": "0.46.0"}, "tools": {"node": "22.1.0"}
        });
        agrees(&description, "b", "codex", "codex-cli 0.46.0").unwrap();
        agrees(&description, "b", "gemini", "codex-cli 0.46.0").unwrap_err();
        agrees(&description, "b", "codex", "codex-cli 0.45.0").unwrap_err();
        agrees(&description, "c", "codex", "codex-cli 0.46.0").unwrap_err();
        agrees(&serde_json::json!({"build_id": "b"}), "b", "codex", "1").unwrap_err();
        assert_eq!(versions(&description), BTreeMap::from([("node".to_owned(), "22.1.0".to_owned())]));
    }
}
