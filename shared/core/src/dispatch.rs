//! Dispatch: gives free slots to the builds that have waited longest, and each of those an execution.
//!
//! Whoever may have freed a slot, or submitted a build, calls it; so a slot never idles and nobody waits inside of the state
//! machine. Must never take a slot away from a build: that is for whoever has seen it end.

use std::sync::Arc;

use crate::build::{BuildRecord, BuildStatus};
use crate::ids::BuildId;
use crate::ports::{PortError, Records, Slot, Workflows};
use crate::spans;

/// Pages of active builds that one dispatch reads at most: a bound, far above what a stack has.
const PAGES: usize = 1_000;

/// What it needs.
#[derive(Clone)]
pub struct Dispatcher {
    /// Build records.
    pub records: Arc<dyn Records>,
    /// The state machine.
    pub workflows: Arc<dyn Workflows>,
    /// How many builds may run at once.
    pub slots: u32,
}

impl Dispatcher {
    /// Gives every free slot to the oldest build that waits. `submitted` is a build that the listing of active builds may not
    /// show yet. Answers how many were dispatched.
    ///
    /// # Errors
    /// The first call that fails. A build that has its slot by then gets its execution from the poller.
    pub async fn dispatch(&self, submitted: Option<&BuildRecord>) -> Result<usize, PortError> {
        let taken = self.records.slots_taken().await?;
        let mut free = usize::try_from(self.slots).unwrap_or(usize::MAX).saturating_sub(taken.len());
        if free == 0 {
            return Ok(0);
        }
        let waits =
            |record: &&BuildRecord| record.status == BuildStatus::Queued && !taken.contains(&record.build_id);
        let mut waiting: Vec<BuildRecord> = submitted.into_iter().filter(waits).cloned().collect();
        let mut next = None;
        for _ in 0..PAGES {
            let page = self.records.active_builds(next.as_deref()).await?;
            for record in page.items.iter().filter(waits) {
                if waiting.iter().all(|other| other.build_id != record.build_id) {
                    waiting.push(record.clone());
                }
            }
            next = page.next;
            // Oldest first: whatever comes later has waited less than those that fill the slots.
            let listed = waiting.len().saturating_sub(usize::from(submitted.is_some()));
            if next.is_none() || listed >= free {
                break;
            }
        }
        waiting.sort_by_key(|record| (record.created_at, record.build_id));

        let mut dispatched = 0;
        for record in waiting {
            if free == 0 {
                break;
            }
            match self.records.take_slot(record.build_id, self.slots).await? {
                Slot::Taken => {}
                // Whoever gave it that slot starts it, or else the poller: many that dispatch at once must not all start all.
                Slot::Held => {
                    free -= 1;
                    continue;
                }
                Slot::Full => break,
            }
            if self.still_waits(record.build_id).await? {
                self.workflows.start(record.build_id).await?;
                spans::of_build(&record).in_scope(|| tracing::info!("the build has a slot and an execution"));
                dispatched += 1;
                free -= 1;
            } else {
                self.records.release_slot(record.build_id).await?;
                // It stood in the listing in the place of one on the next page, who waits longer than what follows here.
                if next.is_some() {
                    break;
                }
            }
        }
        Ok(dispatched)
    }

    /// The listing may be a moment behind: a build that has ended since must not hold a slot.
    async fn still_waits(&self, id: BuildId) -> Result<bool, PortError> {
        Ok(self.records.build(id).await?.is_some_and(|record| !record.status.is_final()))
    }

    /// Gives back the slot of a build that has ended, and gives it to the next. What fails in here is made up for by the poller.
    pub async fn pass_on(&self, ended: &[&BuildRecord]) {
        for record in ended {
            if let Err(error) = self.records.release_slot(record.build_id).await {
                let error = &error as &dyn std::error::Error;
                spans::of_build(record)
                    .in_scope(|| tracing::warn!(error, "the build's slot was not given back yet"));
            }
        }
        if let Err(error) = self.dispatch(None).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "no build was dispatched");
        }
    }
}
