//! What one run of Packer has told: its AMIs, why it failed, and in which step.
//!
//! Must never grow with the length of the output, and must never look at anything but events.

use std::collections::{BTreeMap, VecDeque};

use ciab_core::build::Artifact;

use crate::failure::template_complaint;
use crate::packer_output::{Event, Ui, UiKind};
use crate::step::Step;

/// So many lines before a failure are kept.
const LAST_LINES: usize = 40;
/// Among so many recent lines, those of the failed build are looked for: others may build beside it.
const RECENT_LINES: usize = 200;
/// So many bytes of a line are kept.
const LONGEST_KEPT_LINE: usize = 2_000;
/// More builds or AMIs than any template has.
const MOST: usize = 100;

/// More post-processors of one build, or complaints of Packer's own, than anybody reads.
const MOST_NAMED: usize = 10;

/// What has been told so far.
#[derive(Debug, Default)]
pub struct Told {
    images: Vec<Artifact>,
    errors: BTreeMap<String, String>,
    error_count: u64,
    version: Option<String>,
    /// What Packer itself complained of, outside of any build.
    complaints: Vec<String>,
    /// The first line of a Go program's last words.
    panic: Option<String>,
    steps: BTreeMap<String, CurrentStep>,
    recent: VecDeque<Recent>,
    failed: Option<FailedStep>,
}

#[derive(Debug, Default)]
struct CurrentStep {
    words: String,
    provisions: bool,
    post_processors: Vec<String>,
}

#[derive(Debug)]
struct Recent {
    build: Option<String>,
    text: String,
}

/// The step that failed first, and what was printed before it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedStep {
    /// The build that it belongs to, where one failed.
    pub build: Option<String>,
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
                if self.errors.len() < MOST || self.errors.contains_key(build) {
                    self.errors.insert(build.clone(), message.clone());
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
        if self.panic.is_none() && is_panic(line) {
            self.panic = Some(line[..line.floor_char_boundary(LONGEST_KEPT_LINE)].trim().to_owned());
        }
        self.keep(None, line);
    }

    fn hear_ui(&mut self, ui: &Ui) {
        if let Some((build, false)) = ui.ended() {
            self.hear_failure(build, &ui.text);
        } else if let (Some(build), None, UiKind::Say) = (&ui.build, &ui.post_processor, ui.kind) {
            self.hear_step(build, ui.said());
        } else if ui.kind == UiKind::Error
            && ui.build.is_none()
            && is_complaint(&ui.text)
            && self.complaints.len() < MOST_NAMED
        {
            self.complaints.push(template_complaint(&ui.text));
        }
        let text = ui.text_without_build();
        for line in text.trim_matches('\n').split('\n') {
            self.keep(ui.build.as_deref(), line);
        }
    }

    /// `Build 'amazon-ebs.x' errored after 2 seconds: why`.
    fn hear_failure(&mut self, build: &str, text: &str) {
        let why = text.split_once("' errored").and_then(|(_, rest)| rest.split_once(": "));
        if let Some((_, why)) = why
            && self.errors.len() < MOST
        {
            self.errors.entry(build.to_owned()).or_insert_with(|| why.to_owned());
        }
        if self.failed.is_some() {
            return;
        }
        let mut failed = self.failed_step(Some(build));
        let post_processors = self.steps.get(build).map(|step| step.post_processors.as_slice());
        if text.contains(POST_PROCESSOR_FAILED)
            && let Some(several @ [_, _, ..]) = post_processors
        {
            // Packer runs the others too, and does not say which one it was.
            failed.step = Some(format!("Running post-processors: {}", several.join(", ")));
        }
        self.failed = Some(failed);
    }

    fn hear_step(&mut self, build: &str, said: &str) {
        let step = Step::of(said);
        if step == Step::CleanUp {
            if said.starts_with("Provisioning step had errors") && self.failed.is_none() {
                self.failed = Some(self.failed_step(Some(build)));
            }
            return;
        }
        if self.steps.len() >= MOST && !self.steps.contains_key(build) {
            return;
        }
        let current = self.steps.entry(build.to_owned()).or_default();
        // Newer Packers show what a provisioner prints as if they said it themselves.
        if current.provisions && step == Step::Other {
            return;
        }
        current.provisions = step == Step::Provision;
        current.words = said.trim_end_matches('.').to_owned();
        if let Some(name) = said.strip_prefix("Running post-processor: ") {
            let name = post_processor(name);
            current.words = format!("Running post-processor: {name}");
            if current.post_processors.len() < MOST_NAMED {
                current.post_processors.push(name);
            }
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
        let step = build.and_then(|build| self.steps.get(build)).map(|step| step.words.clone());
        FailedStep { build: build.map(str::to_owned), step, last_lines }
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

    /// Why it failed, in one sentence of Packer's own words. Never what a provisioner printed.
    pub fn complaint(&self) -> Option<String> {
        let failed = self.failed.as_ref().and_then(|failed| failed.build.as_ref());
        let first =
            failed.and_then(|build| self.errors.get_key_value(build)).or_else(|| self.errors.iter().next());
        if let Some((build, why)) = first {
            let why = self.why(why);
            let others: Vec<&str> =
                self.errors.keys().filter(|name| *name != build).map(String::as_str).collect();
            return Some(if others.is_empty() {
                why
            } else {
                format!("{build}: {why} (also failed: {})", others.join(", "))
            });
        }
        if !self.complaints.is_empty() {
            return Some(self.complaints.join(" "));
        }
        self.panic.as_ref().map(|panic| format!("Packer crashed: {panic}"))
    }

    fn why(&self, why: &str) -> String {
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let why = ["1 error(s) occurred: * ", "1 error occurred: * "]
            .iter()
            .find_map(|list_of_one| why.strip_prefix(list_of_one))
            .unwrap_or(&why);
        // All that Packer knows of a plugin that is gone.
        if !["unexpected EOF", "connection is shut down"].contains(&why) {
            return why.to_owned();
        }
        let panic = self.panic.as_ref().map(|panic| format!(", {panic}")).unwrap_or_default();
        format!("A plugin of Packer's crashed: {why}{panic}")
    }
}

/// What `packer build` puts before a post-processor's error.
const POST_PROCESSOR_FAILED: &str = "Post-processor failed: ";

/// Whether Packer says by this why it failed: not in the summary that it ends with, nor when it is told to stop.
fn is_complaint(text: &str) -> bool {
    let text = text.trim();
    let summary = text.starts_with("==> ") || text.starts_with("--> ") || text.starts_with("Build '");
    !text.is_empty() && !summary && !text.starts_with("Cancelling build after receiving")
}

/// Go's words, with or without a log's time and plugin before them.
fn is_panic(line: &str) -> bool {
    ["panic: ", "fatal error: "].iter().any(|words| {
        line.starts_with(words) || line.split_once(words).is_some_and(|(before, _)| before.ends_with(": "))
    })
}

/// `name (type kind)`; one without a name of its own is called by its type.
fn post_processor(said: &str) -> String {
    let said = said.trim();
    said.strip_prefix("(type ").and_then(|kind| kind.strip_suffix(')')).unwrap_or(said).to_owned()
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
    fn of_several_failed_builds_the_first_is_told_with_its_own_step_and_the_others_are_named() {
        // Packer 1.6.6's own lines.
        let told = told(&[
            "1,,ui,say,==> null.n: Running local shell script: /tmp/packer-shell626320550",
            "1,,ui,say,==> null.m: Running local shell script: /tmp/packer-shell2980086878",
            "1,,ui,message,    null.n: hello n",
            "1,,ui,message,    null.m: hello m",
            "1,,ui,say,==> null.n: Provisioning step had errors: Running the cleanup provisioner%!(PACKER_COMMA) if present...",
            "1,,ui,error,Build 'null.n' errored after 13 milliseconds 612 microseconds: Script exited with non-zero exit status: 3.Allowed exit codes are: [0]",
            "1,,ui,error,Build 'null.m' errored after 15 milliseconds 8 microseconds: Script exited with non-zero exit status: 4.Allowed exit codes are: [0]",
            "1,,error-count,2",
            "1,null.m,error,Script exited with non-zero exit status: 4.Allowed exit codes are: [0]",
            "1,null.n,error,Script exited with non-zero exit status: 3.Allowed exit codes are: [0]",
        ]);
        assert_eq!(
            told.complaint().unwrap(),
            "null.n: Script exited with non-zero exit status: 3.Allowed exit codes are: [0] (also failed: null.m)"
        );
        let failed = told.failed_or_last_step();
        assert_eq!(failed.step.as_deref(), Some("Running local shell script: /tmp/packer-shell626320550"));
        assert_eq!(failed.last_lines, ["Running local shell script: /tmp/packer-shell626320550", "hello n"]);
        assert_eq!(told.error_count(), 2);
    }

    /// Packer 1.6.6's own lines, from the AMI on, for a build whose post-processor fails.
    const FAILED_POST_PROCESSOR: &[&str] = &[
        "1,,ui,say,==> amazon-ebs.x: Adding tags to AMI (ami-afa6fb0ebf91ee8ed)...",
        "1,,ui,say,==> amazon-ebs.x: Terminating the source AWS instance...",
        "1,,ui,say,==> amazon-ebs.x: Running post-processor:  (type shell-local)",
        "1,,ui,say,==> amazon-ebs.x (shell-local): Running local shell script: /tmp/packer-shell411365418",
        "1,,ui,error,==> amazon-ebs.x (shell-local): oops",
    ];
    const POST_PROCESSORS_END: &[&str] = &[
        r"1,,ui,error,Build 'amazon-ebs.x' errored after 216 milliseconds 229 microseconds: 1 error(s) occurred:\n\n* Post-processor failed: Script exited with non-zero exit status: 4.Allowed exit codes are: [0]",
        "1,,error-count,1",
        r"1,amazon-ebs.x,error,1 error(s) occurred:\n\n* Post-processor failed: Script exited with non-zero exit status: 4.Allowed exit codes are: [0]",
    ];

    #[test]
    fn a_failed_post_processor_is_the_step_that_failed() {
        let one = told(&[FAILED_POST_PROCESSOR, POST_PROCESSORS_END].concat());
        assert_eq!(
            one.complaint().unwrap(),
            "Post-processor failed: Script exited with non-zero exit status: 4.Allowed exit codes are: [0]"
        );
        let failed = one.failed_or_last_step();
        assert_eq!(failed.step.as_deref(), Some("Running post-processor: shell-local"));
        assert_eq!(failed.last_lines.last().unwrap(), "oops");

        let next = "1,,ui,say,==> amazon-ebs.x: Running post-processor: list (type manifest)";
        let two = told(&[FAILED_POST_PROCESSOR, &[next], POST_PROCESSORS_END].concat());
        assert_eq!(
            two.failed_or_last_step().step.as_deref(),
            Some("Running post-processors: shell-local, list (type manifest)")
        );
    }

    #[test]
    fn a_plugin_that_crashed_is_told_as_such() {
        // Packer 1.6.6's own lines when a plugin's process is killed.
        let lines = [
            "1,,ui,say,==> null.n: Running local shell script: /tmp/packer-shell2839328675",
            "1,,ui,message,    null.n: hello",
            "1,,ui,error,Build 'null.n' errored after 46 milliseconds 804 microseconds: unexpected EOF",
            "1,,error-count,1",
            "1,null.n,error,unexpected EOF",
        ];
        let mut told = told(&lines);
        assert_eq!(told.complaint().unwrap(), "A plugin of Packer's crashed: unexpected EOF");
        assert_eq!(
            told.failed_or_last_step().step.as_deref(),
            Some("Running local shell script: /tmp/packer-shell2839328675")
        );
        told.hear_stderr("panic: runtime error: invalid memory address or nil pointer dereference");
        assert_eq!(
            told.complaint().unwrap(),
            "A plugin of Packer's crashed: unexpected EOF, panic: runtime error: invalid memory address or nil pointer dereference"
        );
    }

    #[test]
    fn a_crash_of_packer_is_told_by_its_panic_and_not_by_what_a_script_printed() {
        let mut told = told(&[
            "1,,ui,say,==> null.n: Running local shell script: /tmp/packer-shell2839328675",
            "1,,ui,error,==> null.n: a warning of no importance",
        ]);
        assert_eq!(told.complaint(), None);
        told.hear_stderr("2018/09/11 20:03:57 packer: panic: interface conversion: interface {} is nil");
        told.hear_stderr("goroutine 27 [running]:");
        assert_eq!(
            told.complaint().unwrap(),
            "Packer crashed: 2018/09/11 20:03:57 packer: panic: interface conversion: interface {} is nil"
        );
    }

    #[test]
    fn plugins_that_cannot_be_installed_are_all_told() {
        // In the form of `packer init` of 1.7 and later: what failed, and why, for each plugin.
        let told = told(&[
            r#"1,,ui,error,Failed getting the "github.com/hashicorp/amazon" plugin:"#,
            "1,,ui,error,1 error occurred:\\n\t* could not get the list of releases\\n\\n",
            r#"1,,ui,error,Failed getting the "github.com/hashicorp/ansible" plugin:"#,
            "1,,ui,error,1 error occurred:\\n\t* could not get the list of releases\\n\\n",
        ]);
        assert_eq!(
            told.complaint().unwrap(),
            "Failed getting the \"github.com/hashicorp/amazon\" plugin: 1 error occurred: * could not get the list of releases Failed getting the \"github.com/hashicorp/ansible\" plugin: 1 error occurred: * could not get the list of releases"
        );
    }

    #[test]
    fn what_a_script_prints_is_no_step_though_newer_packers_show_it_as_one() {
        let told = told(&[
            "1,,ui,say,==> amazon-ebs.x: Provisioning with shell script: install.sh",
            "1,,ui,say,==> amazon-ebs.x: fetching",
            "1,,ui,say,==> amazon-ebs.x: Provisioning step had errors: Running the cleanup provisioner%!(PACKER_COMMA) if present...",
        ]);
        assert_eq!(
            told.failed_or_last_step().step.as_deref(),
            Some("Provisioning with shell script: install.sh")
        );
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
        for n in 0..1_000 {
            told.hear(&decode(&format!("1,,ui,error,complaint {n}")));
            told.hear(&decode(&format!("1,,ui,say,==> b0.x: Running post-processor: p{n}")));
        }
        assert!(told.recent.len() <= RECENT_LINES && told.steps.len() <= MOST);
        assert!(told.complaints.len() <= MOST_NAMED);
        assert!(told.steps.values().all(|step| step.post_processors.len() <= MOST_NAMED));
    }
}
