//! Stores the build's ledger whenever it changes, so that it is there for whoever cleans up after a runner that died.
//!
//! Must never make Packer wait: changes that come while one is stored are stored together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ciab_core::ids::BuildId;
use ciab_core::ledger::Ledger;
use ciab_core::ports::ObjectStore;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::named_resources;
use crate::packer_output::Event;
use crate::progress::Progress;

/// How long one try may take.
const LONGEST_CALL: Duration = Duration::from_secs(20);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is noted of a build while Packer runs.
#[derive(Debug, Default)]
pub struct Notes {
    ledger: Ledger,
    progress: Progress,
}

impl Notes {
    /// Takes note of what an event says. Tells whether that changed the ledger.
    pub fn note(&mut self, event: &Event) -> bool {
        let named = named_resources::note(&mut self.ledger, event);
        self.progress.note(&mut self.ledger, event) | named
    }

    /// What is noted so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// Notes what Packer says and stores it.
pub struct LedgerWriter {
    notes: Mutex<Notes>,
    changes: watch::Sender<Option<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl LedgerWriter {
    /// Starts with an empty ledger, which is not stored.
    pub fn start(objects: Arc<dyn ObjectStore>, build_id: BuildId) -> Self {
        let (changes, receiver) = watch::channel(None);
        let task = tokio::spawn(store(objects, Ledger::key(build_id), receiver));
        Self { notes: Mutex::default(), changes, task }
    }

    /// Says whether the template has post-processors.
    pub fn post_processed(&self, post_processed: bool) {
        self.notes().progress.post_processed(post_processed);
    }

    /// Whether Packer has said that it copies its AMI to other regions.
    pub fn has_copies(&self) -> bool {
        !self.notes().ledger.copy_regions.is_empty()
    }

    /// Takes note of what an event says.
    pub fn note(&self, event: &Event) {
        let mut notes = self.notes();
        if notes.note(event) {
            match serde_json::to_vec(notes.ledger()) {
                Ok(document) => {
                    self.changes.send_replace(Some(document));
                }
                Err(error) => tracing::error!(%error, "the ledger has no JSON form"),
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what is not stored yet, for at most `patience`. Tells whether all of it is stored.
    pub async fn finish(self, patience: Duration) -> bool {
        let Self { changes, mut task, .. } = self;
        drop(changes);
        let ended = tokio::time::timeout(patience, &mut task).await;
        if ended.is_err() {
            task.abort();
        }
        matches!(ended, Ok(Ok(())))
    }
}

async fn store(objects: Arc<dyn ObjectStore>, key: String, mut changes: watch::Receiver<Option<Vec<u8>>>) {
    // A closed channel still shows its last value once.
    while changes.changed().await.is_ok() {
        let mut pause = Duration::from_millis(200);
        loop {
            let Some(document) = changes.borrow_and_update().clone() else { break };
            match timeout(LONGEST_CALL, objects.put(&key, document)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    tracing::warn!(%key, error = &error as &dyn std::error::Error, "the ledger was not stored; trying again");
                }
                Err(_) => tracing::warn!(%key, "the ledger was not stored in time; trying again"),
            }
            // What is new may be what matters most: it goes out at once. There is only so much that can be new.
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = changes.changed() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::packer_output::decode;

    /// A line that has something of Packer's in it, or nothing.
    fn line() -> impl Strategy<Value = String> {
        let kind = prop_oneof![Just("say"), Just("message"), Just("error"), Just("shout")];
        let name = prop_oneof![
            Just("==> amazon-ebs.x: ".to_owned()),
            Just("    amazon-ebs.x: ".to_owned()),
            Just("==> amazon-ebs.x (shell-local): ".to_owned()),
            "==> [a-z]{1,9}\\.[a-z]{1,9}: ",
            Just(String::new()),
            ".{0,20}",
        ];
        let words = prop_oneof![
            Just("Copying/Encrypting AMI (ami-7e319ab59b900e8a7) to other regions...".to_owned()),
            "Copying to: [a-z]{2}-[a-z]{4,9}-[0-9]",
            "Adding tags to AMI \\(ami-[0-9a-f]{17}\\)...",
            "Instance ID: i-[0-9a-f]{17}",
            "Creating temporary keypair: .{0,300}",
            "Running post-processor: .{0,20}",
            "Provisioning with .{0,20}",
            "Build '[a-z.-]{1,20}' (finished after|errored after|errored:|) .{0,20}",
            "(Adding tags to AMI|Waiting for instance|Creating AMI|security group ID:)[ (]?.{0,9}",
            ".{0,60}",
        ];
        prop_oneof![
            8 => (kind, name, words).prop_map(|(kind, name, words)| format!("1,,ui,{kind},{name}{words}")),
            1 => "1,[a-z.]{0,9},artifact,[0-9],id,([a-z]{2}-east-1:ami-[0-9a-f]{17}[,]?){0,3}",
            1 => ".{0,80}",
        ]
    }

    fn sizes(ledger: &Ledger) -> Vec<usize> {
        let Ledger {
            instances,
            volumes,
            security_groups,
            key_pairs,
            images,
            snapshots,
            launch_templates,
            instance_profiles,
            roles,
            copy_regions,
            begun,
            provisioned,
        } = ledger;
        let all: [&BTreeSet<String>; 12] = [
            instances,
            volumes,
            security_groups,
            key_pairs,
            images,
            snapshots,
            launch_templates,
            instance_profiles,
            roles,
            copy_regions,
            begun,
            provisioned,
        ];
        all.iter().map(|set| set.len()).collect()
    }

    proptest! {
        #[test]
        fn whatever_is_printed_is_noted_without_panic_and_within_bounds(
            lines in prop::collection::vec(line(), 0..60),
        ) {
            let mut notes = Notes::default();
            for line in &lines {
                let before = notes.ledger().clone();
                let changed = notes.note(&decode(line));
                prop_assert_eq!(changed, *notes.ledger() != before, "{}", line);
                prop_assert!(notes.ledger().provisioned.is_subset(&notes.ledger().begun), "{}", line);
            }
            prop_assert!(sizes(notes.ledger()).iter().all(|size| *size <= 200));
            let stored = serde_json::to_vec(notes.ledger()).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Ledger>(&stored).unwrap(), notes.ledger());
        }
    }

    #[test]
    fn a_flood_of_builds_names_and_regions_is_bounded() {
        let mut notes = Notes::default();
        for n in 0..5_000_u64 {
            let letters = n.to_string().replace(|c: char| c.is_ascii_digit(), "x")
                + &"y".repeat(usize::try_from(n % 17).unwrap());
            for said in [
                "Copying/Encrypting AMI (ami-7e319ab59b900e8a7) to other regions...".to_owned(),
                format!("Copying to: {letters}-{letters}-{}", n % 10),
                format!("Adding tags to AMI (ami-{n:017x})..."),
                format!("Tagging snapshot: snap-{n:017x}"),
                format!("Creating temporary keypair: {}{n}", "k".repeat(200)),
            ] {
                notes.note(&decode(&format!("1,,ui,say,==> b{n}.x: {said}")));
                notes.note(&decode(&format!("1,,ui,say,==> b0.x: {said}")));
            }
        }
        assert!(sizes(notes.ledger()).iter().all(|size| *size <= 200), "{:?}", sizes(notes.ledger()));
        assert!(serde_json::to_vec(notes.ledger()).unwrap().len() < 256 * 1024);
    }
}
