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
