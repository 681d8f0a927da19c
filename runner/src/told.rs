//! What one run of Packer has told: its AMIs, why it failed, and in which step.
//!
//! Must never grow with the length of the output, and must never look at anything but events.

use std::collections::{BTreeMap, VecDeque};

use ciab_core::build::Artifact;

use crate::failure::template_complaint;
use crate::packer_output::{Event, Ui, UiKind};

/// So many lines before a failure are kept.
const LAST_LINES: usize = 40;
/// Among so many recent lines, those of the failed build are looked for: others may build beside it.
const RECENT_LINES: usize = 200;
/// So many bytes of a line are kept.
const LONGEST_KEPT_LINE: usize = 2_000;
/// More builds or AMIs than any template has.
const MOST: usize = 100;

/// What Packer says when it cleans up: no step that could fail a build.
const CLEAN_UP: [&str; 11] = [
    "Provisioning step had errors",
    "Terminating the source AWS instance",
    "Cleaning up any extra volumes",
    "No volumes to clean up",
    "Destroying volume",
    "Deleting temporary",
    "Detaching temporary",
    "Removing policy from temporary",
    "Removing snapshots since",
    "Deregistering the AMI",
    "Deleting the created EBS volume",
];

/// What has been told so far.
#[derive(Debug, Default)]
pub struct Told {
    images: Vec<Artifact>,
    errors: BTreeMap<String, String>,
    error_count: u64,
    version: Option<String>,
    last_ui_error: Option<String>,
    steps: BTreeMap<String, String>,
    recent: VecDeque<Recent>,
    failed: Option<FailedStep>,
}

#[derive(Debug)]
struct Recent {
    build: Option<String>,
    text: String,
}

/// The step that failed first, and what was printed before it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedStep {
    /// The step in Packer's words, such as `Provisioning with shell script: install.sh`.
    pub step: Option<String>,
    /// The lines before the failure, oldest first.
    pub last_lines: Vec<String>,
}

impl Told {
    /// Takes in one event of stdout.
    pub fn hear(&mut self, event: &Event) {
        match event {
            Event::Ui(ui) => self.hear_ui(ui),
            Event::ArtifactId { images, .. } => {
                for image in images {
                    if self.images.len() < MOST && !self.images.contains(image) {
                        self.images.push(image.clone());
                    }
                }
            }
            Event::BuildError { build, message } => {
                if self.errors.len() < MOST {
                    self.errors.entry(build.clone()).or_insert_with(|| message.clone());
                }
            }
            Event::ErrorCount(count) => self.error_count = *count,
            Event::Version(version) => self.version = Some(version.clone()),
            Event::Unstructured(text) => self.keep(None, text),
            Event::Other => {}
        }
    }

    /// Takes in one line of stderr.
    pub fn hear_stderr(&mut self, line: &str) {
        self.keep(None, line);
    }

    fn hear_ui(&mut self, ui: &Ui) {
        let said = ui.said();
        let provisioning_failed = said.starts_with("Provisioning step had errors");
        let failed_build = ui
            .text
            .strip_prefix("Build '")
            .and_then(|rest| rest.split_once("' errored"))
            .map(|(build, _)| build.to_owned())
            .or_else(|| provisioning_failed.then(|| ui.build.clone()).flatten());
        if let Some(build) = failed_build {
            if self.failed.is_none() {
                self.failed = Some(self.failed_step(Some(&build)));
            }
        } else if ui.kind == UiKind::Say
            && let Some(build) = &ui.build
            && !CLEAN_UP.iter().any(|words| said.starts_with(words))
            && (self.steps.len() < MOST || self.steps.contains_key(build))
        {
            self.steps.insert(build.clone(), said.trim_end_matches('.').to_owned());
        }
        if ui.kind == UiKind::Error && !ui.text.trim().is_empty() {
            self.last_ui_error = Some(ui.text_without_build());
        }
        let text = ui.text_without_build();
        for line in text.trim_matches('\n').split('\n') {
            self.keep(ui.build.as_deref(), line);
        }
    }

    fn keep(&mut self, build: Option<&str>, text: &str) {
        if self.recent.len() == RECENT_LINES {
            self.recent.pop_front();
        }
        let text = text[..text.floor_char_boundary(LONGEST_KEPT_LINE)].to_owned();
        self.recent.push_back(Recent { build: build.map(str::to_owned), text });
    }

    fn failed_step(&self, build: Option<&str>) -> FailedStep {
        let of_build =
            |recent: &&Recent| build.is_none() || recent.build.is_none() || recent.build.as_deref() == build;
        let mut last_lines: Vec<String> = self
            .recent
            .iter()
            .rev()
            .filter(of_build)
            .take(LAST_LINES)
            .map(|recent| recent.text.clone())
            .collect();
        last_lines.reverse();
        let step = build.and_then(|build| self.steps.get(build)).cloned();
        FailedStep { step, last_lines }
    }

    /// The AMIs, each once, in the order in which Packer named them.
    pub fn images(&self) -> &[Artifact] {
        &self.images
    }

    /// How many builds Packer says have failed.
    pub fn error_count(&self) -> u64 {
        self.error_count
    }

    /// Packer's version, where it was asked for.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The step that failed; where none did, the lines printed last.
    pub fn failed_or_last_step(&self) -> FailedStep {
        self.failed.clone().unwrap_or_else(|| {
            let only =
                if self.steps.len() == 1 { self.steps.keys().next().map(String::as_str) } else { None };
            self.failed_step(only)
        })
    }

    /// Why it failed, in one sentence of Packer's own words.
    pub fn complaint(&self) -> Option<String> {
        let mut errors = self.errors.iter();
        let Some((_, first)) = errors.next() else {
            return self.last_ui_error.as_deref().map(template_complaint);
        };
        let first = first.split_whitespace().collect::<Vec<_>>().join(" ");
        let others: Vec<&str> = errors.map(|(build, _)| build.as_str()).collect();
        Some(if others.is_empty() { first } else { format!("{first} (also failed: {})", others.join(", ")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packer_output::decode;

    fn told(lines: &[&str]) -> Told {
        let mut told = Told::default();
        for line in lines {
            told.hear(&decode(line));
        }
        told
    }

    /// Packer 1.6.6's own lines for a failing shell provisioner.
    const FAILED_PROVISIONER: &[&str] = &[
        "1,,ui,say,==> amazon-ebs.x: Launching a source AWS instance...",
        "1,,ui,say,==> amazon-ebs.x: Provisioning with shell script: install.sh",
        "1,,ui,message,    amazon-ebs.x: line 1",
        "1,,ui,message,    amazon-ebs.y: somebody else's line",
        "1,,ui,error,==> amazon-ebs.x: oops%!(PACKER_COMMA) bad",
        "1,,ui,say,==> amazon-ebs.x: Provisioning step had errors: Running the cleanup provisioner%!(PACKER_COMMA) if present...",
        "1,,ui,say,==> amazon-ebs.x: Terminating the source AWS instance...",
        "1,,ui,say,==> amazon-ebs.x: Deleting temporary keypair...",
        "1,,ui,error,Build 'amazon-ebs.x' errored after 6 milliseconds: Script exited with non-zero exit status: 3.Allowed exit codes are: [0]",
        r"1,,ui,say,\n==> Wait completed after 6 milliseconds",
        "1,,error-count,1",
        r"1,,ui,error,\n==> Some builds didn't complete successfully and had errors:",
        "1,amazon-ebs.x,error,Script exited with non-zero exit status: 3.Allowed exit codes are: [0]",
        "1,,ui,error,--> amazon-ebs.x: Script exited with non-zero exit status: 3.Allowed exit codes are: [0]",
        r"1,,ui,say,\n==> Builds finished but no artifacts were created.",
    ];

    #[test]
    fn a_failed_provisioner_is_told_with_its_own_last_lines() {
        let told = told(FAILED_PROVISIONER);
        let failed = told.failed_or_last_step();
        assert_eq!(failed.step.as_deref(), Some("Provisioning with shell script: install.sh"));
        assert_eq!(
            failed.last_lines,
            [
                "Launching a source AWS instance...",
                "Provisioning with shell script: install.sh",
                "line 1",
                "oops, bad"
            ]
        );
        assert_eq!(
            told.complaint().unwrap(),
            "Script exited with non-zero exit status: 3.Allowed exit codes are: [0]"
        );
        assert_eq!(told.error_count(), 1);
    }

    #[test]
    fn a_refused_call_is_told_with_the_step_that_made_it() {
        let told = told(&[
            "1,,ui,say,==> amazon-ebs.x: Prevalidating AMI Name: t",
            "1,,ui,error,==> amazon-ebs.x: Error querying AMI: InvalidAMIID.NotFound\\n==> amazon-ebs.x: \tstatus code: 400",
            "1,,ui,error,Build 'amazon-ebs.x' errored after 1 second: Error querying AMI: InvalidAMIID.NotFound",
            "1,,error-count,1",
            "1,amazon-ebs.x,error,Error querying AMI: InvalidAMIID.NotFound\\n\tstatus code: 400%!(PACKER_COMMA) request id: r",
        ]);
        assert_eq!(told.failed_or_last_step().step.as_deref(), Some("Prevalidating AMI Name: t"));
        assert_eq!(
            told.complaint().unwrap(),
            "Error querying AMI: InvalidAMIID.NotFound status code: 400, request id: r"
        );
    }

    #[test]
    fn an_image_that_post_processors_repeat_counts_once() {
        let id = "id,us-east-1:ami-00000001%!(PACKER_COMMA)us-west-2:ami-00000002";
        let told = told(&[&format!("1,a.x,artifact,0,{id}"), &format!("1,a.x,artifact,1,{id}")]);
        let ids: Vec<&str> = told.images().iter().map(|image| image.image_id.as_str()).collect();
        assert_eq!(ids, ["ami-00000001", "ami-00000002"]);
    }

    #[test]
    fn every_failed_build_is_named() {
        let told = told(&["1,a.x,error,first", "1,a.y,error,second"]);
        assert_eq!(told.complaint().unwrap(), "first (also failed: a.y)");
    }

    #[test]
    fn a_complaint_before_any_build_is_the_error_that_was_shown() {
        let told = told(&[r#"1,,ui,error,Error: Unset variable "need"\n\nIt must be set.\n\n"#]);
        assert_eq!(told.complaint().unwrap(), "Unset variable \"need\": It must be set.");
    }

    #[test]
    fn a_long_output_costs_no_memory() {
        let mut told = Told::default();
        for n in 0..100_000 {
            told.hear(&decode(&format!("1,,ui,say,==> b{n}.x: {}", "y".repeat(50))));
        }
        assert!(told.recent.len() <= RECENT_LINES && told.steps.len() <= MOST);
    }
}
