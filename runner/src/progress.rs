//! How far Packer's builds have come, for the ledger: which have begun, where to their AMIs are copied, and which have been
//! provisioned to the end.
//!
//! An AMI whose runner died is taken over by that last word alone, so what cannot be known is not said. It is said when the
//! AMI gets its tags, the last step of every Amazon builder: newer plugins tag an AMI as they make it, before it is
//! copied, encrypted or shared. Where a template has post-processors it is said only once they have ended. It is taken back
//! by whatever cannot come after it, since newer Packers show a script's output as their own words.

use std::collections::{BTreeMap, BTreeSet};

use ciab_core::ids::Region;
use ciab_core::ledger::Ledger;

use crate::packer_output::{Event, Ui, UiKind};
use crate::step::Step;

/// More builds or regions than any template has.
const MOST: usize = 100;
/// A longer name of a build is none.
const LONGEST_NAME: usize = 255;

/// Follows the builds of one run of Packer.
#[derive(Debug, Default)]
pub struct Progress {
    builds: BTreeMap<String, Build>,
    post_processed: bool,
    cancelled: bool,
}

#[derive(Debug, Default)]
struct Build {
    copying: bool,
    tagged: bool,
}

impl Progress {
    /// Says whether the template has post-processors.
    pub fn post_processed(&mut self, post_processed: bool) {
        self.post_processed = post_processed;
    }

    /// Notes what an event says of a build's progress. Tells whether that changed the ledger.
    pub fn note(&mut self, ledger: &mut Ledger, event: &Event) -> bool {
        let Event::Ui(ui) = event else { return false };
        if ui.kind == UiKind::Error && ui.text.starts_with("Cancelling build after receiving") {
            self.cancelled = true;
        }
        if let Some((name, well)) = ui.ended() {
            return self.ended(ledger, name, well);
        }
        // What a post-processor says has its type behind the build's name.
        let (Some(name), None) = (&ui.build, &ui.post_processor) else { return false };
        // A provisioner's stderr.
        if ui.kind == UiKind::Error || !name.contains('.') || name.len() > LONGEST_NAME {
            return false;
        }
        if !self.builds.contains_key(name) {
            if ui.kind != UiKind::Say || self.builds.len() >= MOST {
                return false;
            }
            self.builds.insert(name.clone(), Build::default());
            ledger.begun.insert(name.clone());
            self.step(ledger, name, ui);
            return true;
        }
        self.step(ledger, name, ui)
    }

    fn step(&mut self, ledger: &mut Ledger, name: &str, ui: &Ui) -> bool {
        let Some(build) = self.builds.get_mut(name) else { return false };
        let said = ui.said();
        if build.copying
            && let Some(region) = said.strip_prefix("Copying to: ")
        {
            return add_region(&mut ledger.copy_regions, region);
        }
        if ui.kind != UiKind::Say {
            return false;
        }
        let step = Step::of(said);
        build.copying = step == Step::CopyImage;
        match step {
            Step::Provision | Step::MakeImage | Step::CopyImage => {
                build.tagged = false;
                ledger.provisioned.remove(name)
            }
            Step::TagImage => {
                build.tagged = true;
                !self.post_processed && !self.cancelled && ledger.provisioned.insert(name.to_owned())
            }
            // There are some after all.
            Step::PostProcess => ledger.provisioned.remove(name),
            Step::CleanUp if said.starts_with("Provisioning step had errors") || of_a_failure(said) => {
                build.tagged = false;
                ledger.provisioned.remove(name)
            }
            Step::CleanUp | Step::Other => false,
        }
    }

    fn ended(&mut self, ledger: &mut Ledger, name: &str, well: bool) -> bool {
        let tagged = self.builds.get(name).is_some_and(|build| build.tagged);
        if !well {
            ledger.provisioned.remove(name)
        } else {
            // One that is cancelled after its AMI is made skips its post-processors and says that it has finished.
            tagged && !self.cancelled && ledger.provisioned.insert(name.to_owned())
        }
    }
}

/// The same words without that reason are said of the unencrypted AMI that an encrypted one was copied from.
fn of_a_failure(said: &str) -> bool {
    said.contains("because of cancellation")
}

fn add_region(regions: &mut BTreeSet<String>, name: &str) -> bool {
    let Ok(region) = name.trim().parse::<Region>() else { return false };
    regions.len() < MOST && regions.insert(region.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packer_output::decode;

    fn ledger_of(lines: &[&str], post_processed: bool) -> Ledger {
        let mut progress = Progress::default();
        progress.post_processed(post_processed);
        let mut ledger = Ledger::default();
        for line in lines {
            let before = ledger.clone();
            let changed = progress.note(&mut ledger, &decode(line));
            assert_eq!(changed, ledger != before, "{line}");
        }
        ledger
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What Packer 1.6.6 says of an amazon-ebs build with a copy, shortened.
    const COPIED: &[&str] = &[
        "1,,ui,say,==> amazon-ebs.x: Prevalidating AMI Name: t-1795556070",
        "1,,ui,message,    amazon-ebs.x: Found Image ID: ami-03cf127a",
        "1,,ui,say,==> amazon-ebs.x: Launching a source AWS instance...",
        "1,,ui,say,==> amazon-ebs.x: Adding tags to source instance",
        "1,,ui,say,==> amazon-ebs.x: Running local shell script: /tmp/packer-shell3187259386",
        "1,,ui,message,    amazon-ebs.x: out",
        "1,,ui,error,==> amazon-ebs.x: err",
        "1,,ui,say,==> amazon-ebs.x: Stopping the source instance...",
        "1,,ui,message,    amazon-ebs.x: Stopping instance",
        "1,,ui,say,==> amazon-ebs.x: Waiting for the instance to stop...",
        "1,,ui,say,==> amazon-ebs.x: Creating AMI t-1795556070 from instance i-ab7b29bb2396e21b0",
        "1,,ui,message,    amazon-ebs.x: AMI: ami-7e319ab59b900e8a7",
        "1,,ui,say,==> amazon-ebs.x: Waiting for AMI to become ready...",
        "1,,ui,say,==> amazon-ebs.x: Copying/Encrypting AMI (ami-7e319ab59b900e8a7) to other regions...",
        "1,,ui,message,    amazon-ebs.x: Copying to: eu-west-1",
        "1,,ui,message,    amazon-ebs.x: Copying to: eu-west-2",
        "1,,ui,message,    amazon-ebs.x: Waiting for all copies to complete...",
        "1,,ui,say,==> amazon-ebs.x: Adding tags to AMI (ami-7e319ab59b900e8a7)...",
        "1,,ui,say,==> amazon-ebs.x: Tagging snapshot: snap-f2de1764f687a516e",
        "1,,ui,say,==> amazon-ebs.x: Creating AMI tags",
        "1,,ui,message,    amazon-ebs.x: Adding tag: \"a\": \"b\"",
        "1,,ui,say,==> amazon-ebs.x: Creating snapshot tags",
        "1,,ui,say,==> amazon-ebs.x: Deregistering the AMI and deleting unencrypted temporary AMIs and snapshots",
        "1,,ui,say,==> amazon-ebs.x: Terminating the source AWS instance...",
        "1,,ui,say,==> amazon-ebs.x: No volumes to clean up%!(PACKER_COMMA) skipping",
        "1,,ui,say,==> amazon-ebs.x: Deleting temporary keypair...",
    ];
    const POST_PROCESSOR: &[&str] = &[
        "1,,ui,say,==> amazon-ebs.x: Running post-processor:  (type shell-local)",
        "1,,ui,say,==> amazon-ebs.x (shell-local): Running local shell script: /tmp/packer-shell2631050091",
        "1,,ui,message,    amazon-ebs.x (shell-local): pp",
    ];
    const FINISHED: &str = "1,,ui,say,Build 'amazon-ebs.x' finished after 1 second 895 milliseconds.";

    #[test]
    fn a_build_is_provisioned_to_the_end_from_when_its_image_gets_its_tags() {
        let tagging = COPIED.iter().position(|line| line.contains("Adding tags to AMI (")).unwrap();
        for taken in 1..=COPIED.len() {
            let ledger = ledger_of(&COPIED[..taken], false);
            assert_eq!(ledger.begun, set(&["amazon-ebs.x"]));
            assert_eq!(ledger.provisioned_to_the_end(), taken > tagging, "{}", COPIED[taken - 1]);
        }
        assert_eq!(ledger_of(COPIED, false).copy_regions, set(&["eu-west-1", "eu-west-2"]));
    }

    #[test]
    fn with_post_processors_it_is_only_once_they_have_ended_well() {
        let with_end = |end: &[&'static str]| [COPIED, POST_PROCESSOR, end].concat();
        assert!(!ledger_of(COPIED, true).provisioned_to_the_end());
        assert!(ledger_of(&with_end(&[FINISHED]), true).provisioned_to_the_end());
        // Should the template's text not have shown them.
        assert!(!ledger_of(&with_end(&[]), false).provisioned_to_the_end());
        assert!(ledger_of(&with_end(&[FINISHED]), false).provisioned_to_the_end());
        let failed = r"1,,ui,error,Build 'amazon-ebs.x' errored after 216 milliseconds: 1 error(s) occurred:\n\n* Post-processor failed: Script exited with non-zero exit status: 4.Allowed exit codes are: [0]";
        assert!(!ledger_of(&with_end(&[failed]), false).provisioned_to_the_end());
    }

    #[test]
    fn post_processors_that_a_cancelled_build_skips_have_not_ended() {
        let cancelled = "1,,ui,error,Cancelling build after receiving terminated";
        assert!(!ledger_of(&[COPIED, &[cancelled, FINISHED]].concat(), true).provisioned_to_the_end());
    }

    #[test]
    fn a_failed_build_is_not_provisioned() {
        for end in [
            "1,,ui,say,==> amazon-ebs.x: Provisioning step had errors: Running the cleanup provisioner%!(PACKER_COMMA) if present...",
            "1,,ui,say,==> amazon-ebs.x: Deregistering the AMI and deleting associated snapshots because of cancellation%!(PACKER_COMMA) or error...",
            "1,,ui,error,Build 'amazon-ebs.x' errored after 2 seconds: unexpected EOF",
        ] {
            assert!(!ledger_of(&[COPIED, &[end]].concat(), false).provisioned_to_the_end(), "{end}");
        }
    }

    #[test]
    fn of_several_builds_each_stands_for_itself() {
        let ledger =
            ledger_of(&[&["1,,ui,say,==> amazon-ebs.y: Prevalidating AMI Name: u"], COPIED].concat(), false);
        assert_eq!(ledger.begun, set(&["amazon-ebs.x", "amazon-ebs.y"]));
        assert_eq!(ledger.provisioned, set(&["amazon-ebs.x"]));
        assert!(!ledger.provisioned_to_the_end());
    }

    #[test]
    fn a_script_that_prints_packers_words_is_not_taken_for_packer() {
        let begun = "1,,ui,say,==> amazon-ebs.x: Provisioning with shell script: install.sh";
        let words = "Adding tags to AMI (ami-7e319ab59b900e8a7)...";
        for printed in [
            // Packer 1.6.6: stdout, stderr, and a post-processor's.
            format!("1,,ui,message,    amazon-ebs.x: {words}"),
            format!("1,,ui,error,==> amazon-ebs.x: {words}"),
            format!("1,,ui,say,==> amazon-ebs.x (shell-local): {words}"),
            // A Packer that runs inside of the build.
            format!("1,,ui,say,==> amazon-ebs.x: ==> amazon-ebs.x: {words}"),
            "1,,ui,message,    amazon-ebs.x: Build 'amazon-ebs.x' finished after 1 second.".to_owned(),
        ] {
            assert!(!ledger_of(&[begun, &printed], false).provisioned_to_the_end(), "{printed}");
        }
        // Where stdout has the form of Packer's own words, the next step takes it back.
        let said = format!("1,,ui,say,==> amazon-ebs.x: {words}");
        for next in [
            "Provisioning with shell script: b.sh",
            "Stopping the source instance...",
            "Creating AMI t from instance i-0123456789abcdef0",
        ] {
            let next = format!("1,,ui,say,==> amazon-ebs.x: {next}");
            assert!(!ledger_of(&[begun, &said, &next], false).provisioned_to_the_end(), "{next}");
        }
    }

    #[test]
    fn regions_that_a_script_names_are_none_that_packer_copies_to() {
        let ledger = ledger_of(
            &[
                "1,,ui,say,==> amazon-ebs.x: Provisioning with shell script: install.sh",
                "1,,ui,message,    amazon-ebs.x: Copying to: eu-west-1",
                "1,,ui,say,==> amazon-ebs.x: Copying/Encrypting AMI (ami-7e319ab59b900e8a7) to other regions...",
                "1,,ui,message,    amazon-ebs.x: Copying to: /etc/passwd",
                // The newest plugin's form.
                "1,,ui,say,==> amazon-ebs.x: Copying to: us-west-2",
            ],
            false,
        );
        assert_eq!(ledger.copy_regions, set(&["us-west-2"]));
    }
}
