//! Reads a buildspec and says what runs, in CodeBuild's order.
//!
//! Pure. What it does not know is an error, so that a buildspec cannot mean something else here than in AWS. Facts from
//! "Build specification reference for CodeBuild", version 0.2.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildspecError {
    #[error("the buildspec is not understood")]
    Malformed(#[from] serde_norway::Error),
    #[error("the buildspec has version {0}; only 0.2 is known here")]
    Version(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: serde_norway::Value,
    #[serde(default)]
    env: Environment,
    phases: Phases,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Environment {
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Phases {
    install: Option<Commands>,
    pre_build: Option<Commands>,
    build: Option<Commands>,
    post_build: Option<Commands>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commands {
    commands: Vec<String>,
    #[serde(default)]
    finally: Vec<String>,
}

/// One phase that has something to run.
#[derive(Debug, PartialEq)]
pub(crate) struct Phase {
    /// As BatchGetBuilds names it.
    pub(crate) name: &'static str,
    pub(crate) script: String,
    pub(crate) finally: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Buildspec {
    pub(crate) variables: BTreeMap<String, String>,
    /// In the order they run in.
    pub(crate) phases: Vec<Phase>,
}

impl Buildspec {
    pub(crate) fn parse(text: &str) -> Result<Self, BuildspecError> {
        let document: Document = serde_norway::from_str(text)?;
        let version = match &document.version {
            serde_norway::Value::Number(number) => number.to_string(),
            serde_norway::Value::String(text) => text.clone(),
            other => format!("{other:?}"),
        };
        if version != "0.2" {
            return Err(BuildspecError::Version(version));
        }
        let Phases { install, pre_build, build, post_build } = document.phases;
        let phases =
            [("INSTALL", install), ("PRE_BUILD", pre_build), ("BUILD", build), ("POST_BUILD", post_build)];
        let phases = phases.into_iter().filter_map(|(name, commands)| {
            let Commands { commands, finally } = commands?;
            let finally = (!finally.is_empty()).then(|| script(&finally));
            Some(Phase { name, script: script(&commands), finally })
        });
        Ok(Self { variables: document.env.variables, phases: phases.collect() })
    }
}

/// Whether a phase runs after these have ended: a failure ends the build, but one in `build` still lets `post_build` run.
pub(crate) fn runs(phase: &str, failed: Option<&str>) -> bool {
    match failed {
        None => true,
        Some(failed) => phase == "POST_BUILD" && failed == "BUILD",
    }
}

/// The commands as one shell script: they share the shell, and the first that fails ends it.
fn script(commands: &[String]) -> String {
    commands.iter().map(|command| format!("{{\n{command}\n}} || exit $?\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_buildspec_makes_the_runner_executable_and_runs_it() {
        let text = include_str!("../../../infra/buildspec.yml");
        let spec = Buildspec::parse(text).unwrap();
        let names: Vec<_> = spec.phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["INSTALL", "BUILD"]);
        assert!(spec.phases[1].script.contains("./ciab-runner"));
    }

    #[test]
    fn phases_come_in_codebuilds_order_however_they_are_written() {
        let text = "version: 0.2\nphases: {post_build: {commands: [c]}, build: {commands: [b]}, install: {commands: [a]}}";
        let names: Vec<_> = Buildspec::parse(text).unwrap().phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["INSTALL", "BUILD", "POST_BUILD"]);
    }

    #[test]
    fn only_post_build_runs_after_a_failed_build() {
        assert!(runs("POST_BUILD", Some("BUILD")));
        assert!(!runs("POST_BUILD", Some("INSTALL")));
        assert!(!runs("BUILD", Some("PRE_BUILD")));
    }

    #[test]
    fn what_it_does_not_know_is_refused() {
        assert!(Buildspec::parse("version: 0.1\nphases: {}").is_err());
        assert!(Buildspec::parse("version: 0.2\nphases: {}\nartifacts: {files: [a]}").is_err());
    }
}
