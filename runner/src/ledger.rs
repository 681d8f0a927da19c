//! Stores the build's ledger whenever it changes, so that it is there for whoever cleans up after a runner that died.
//!
//! Must never make Packer wait: changes that come while one is stored are stored together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ciab_core::ids::BuildId;
use ciab_core::ledger::Ledger;
use ciab_core::ports::ObjectStore;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::named_resources::NamedResources;
use crate::packer_output::Event;

/// Notes what Packer names and stores it.
pub struct LedgerWriter {
    named: Mutex<NamedResources>,
    changes: watch::Sender<Option<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl LedgerWriter {
    /// Starts with an empty ledger, which is not stored.
    pub fn start(objects: Arc<dyn ObjectStore>, build_id: BuildId) -> Self {
        let (changes, receiver) = watch::channel(None);
        let task = tokio::spawn(store(objects, Ledger::key(build_id), receiver));
        Self { named: Mutex::new(NamedResources::default()), changes, task }
    }

    /// Takes note of what an event names.
    pub fn note(&self, event: &Event) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.note(event) {
            match serde_json::to_vec(&*named) {
                Ok(document) => {
                    self.changes.send_replace(Some(document));
                }
                Err(error) => tracing::error!(%error, "the ledger has no JSON form"),
            }
        }
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
            match objects.put(&key, document).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(%key, error = &error as &dyn std::error::Error, "the ledger was not stored; trying again");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(10));
                }
            }
        }
    }
}
