//! Carries out what [`crate::life::decide`] says for a build that fails or has ended: stops its runner, looks for what it
//! left, deletes what is proven to be its own, looks again.
//!
//! Must never wait: where something takes its time, the caller comes back.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::build::BuildRecord;
use crate::ledger::Ledger;
use crate::life::{Action, Observation, decide, leftovers};
use crate::ports::{Clock, Cloud, ObjectStore, PortError, Records, RunnerState, Runners, Trace};
use crate::resource::{ByKind, Resource};

/// Looks within one go: one to find, one to see what the deletions did, one for what those made free.
const LOOKS: usize = 4;

/// What it needs.
#[derive(Clone)]
pub struct Deps {
    /// The stack's name: part of every proof.
    pub stack: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Build records.
    pub records: Arc<dyn Records>,
    /// The bucket, which holds the ledgers.
    pub objects: Arc<dyn ObjectStore>,
    /// What runs Packer.
    pub runners: Arc<dyn Runners>,
    /// EC2.
    pub cloud: Arc<dyn Cloud>,
}

/// Goes as far as it goes now, and changes the record (which the caller writes) by what it found. Answers how many things
/// are left.
///
/// # Errors
/// The first call that fails; the record then holds what was found until there.
pub async fn tear_down(deps: &Deps, record: &mut BuildRecord) -> Result<usize, PortError> {
    let mut seen = Observation { ledger: ledger(deps, record).await?, ..Observation::nothing() };
    let mut looks = 0;
    let mut stopped = false;
    loop {
        let mut look_again = false;
        for action in decide(record, &seen, &deps.stack, deps.clock.now()) {
            match action {
                Action::LookAtRunner => {
                    seen.runner = Some(runner_state(deps, record).await?);
                    look_again = true;
                }
                Action::StopRunner(id) => {
                    if stopped {
                        return Ok(1);
                    }
                    deps.runners.stop(&id).await?;
                    stopped = true;
                    seen.runner = None;
                    look_again = true;
                }
                Action::LookForLeftovers => {
                    looks += 1;
                    look(deps, record, &mut seen).await?;
                    look_again = true;
                }
                Action::Delete(resource) => {
                    deps.cloud.delete(&record.region, &resource).await?;
                    look_again = looks < LOOKS;
                    if look_again {
                        seen.resources = None;
                    }
                }
                Action::RecordFailed { clean } => {
                    // Allowed by the decision that this comes from; were it not, the record simply stays as it is.
                    if record.fail(clean, deps.clock.now()).is_err() {
                        return Ok(record.remaining.len());
                    }
                }
                Action::RecordClean => record.clean = true,
                Action::Wait | Action::Dispatch | Action::BeginCleanUp(_) => {}
            }
        }
        if !look_again {
            return Ok(record.remaining.len());
        }
    }
}

async fn ledger(deps: &Deps, record: &BuildRecord) -> Result<Ledger, PortError> {
    let bytes = deps.objects.get(&Ledger::key(record.build_id)).await?;
    // A ledger that cannot be read is none: it only says where else to look.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
}

async fn runner_state(deps: &Deps, record: &BuildRecord) -> Result<RunnerState, PortError> {
    let Some(id) = &record.runner_id else { return Ok(RunnerState::Absent) };
    let states = deps.runners.states(&BTreeSet::from([id.clone()])).await?;
    Ok(states.get(id).copied().unwrap_or(RunnerState::Absent))
}

async fn look(deps: &Deps, record: &mut BuildRecord, seen: &mut Observation) -> Result<(), PortError> {
    let trace = Trace {
        stack: &deps.stack,
        build_id: record.build_id,
        ledger: &seen.ledger,
        known: &record.remaining,
    };
    let found = deps.cloud.find(&record.region, &trace).await?;
    let left = leftovers(record, &found, &deps.stack, &seen.ledger);
    note(record, &left);
    seen.resources = Some(found);
    Ok(())
}

/// Notes in the record what was found, and what of it is gone.
fn note(record: &mut BuildRecord, left: &[Resource]) {
    for resource in left {
        record.leftovers.found.insert(resource);
    }
    let mut still_there = ByKind::default();
    for resource in left {
        still_there.insert(resource);
    }
    record.leftovers.removed = record.leftovers.found.without(&still_there);
    record.remaining = left.to_vec();
}
