//! Carries out what [`crate::life::decide`] says: looks at what it asks for, acts, looks again, for many builds at once.
//!
//! Looks are made for all builds together, so that their cost grows by pages and not by builds; one build's trouble stays its
//! own. What a look has proven is written before anything is deleted because of it. Must never wait: where something takes
//! its time, the caller comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use tracing::Instrument as _;

use crate::build::{Artifact, BuildRecord, Failure, Left, RunnerKind, Stage};
use crate::dispatch::Dispatcher;
use crate::finish_build;
use crate::ids::{BuildId, Region};
use crate::ledger::Ledger;
use crate::life::{Action, Observation, copy_regions, decide, is_out_of_patience, leftovers};
use crate::manifest::{Manifest, Outcome};
use crate::ports::{
    Clock, Cloud, Deletion, ObjectStore, PortError, Records, RunnerState, Runners, Trace, Workflows, Write,
};
use crate::resource::{ByKind, Resource};
use crate::spans;
use crate::step::StepError;

/// Decisions about one build within one go: a bound above what any way through a build's end takes.
const ROUNDS: usize = 24;
/// Looks for resources within one go: one to find, one to see what the deletions did, some for what those made free.
const LOOKS: usize = 4;
/// Builds that are worked on at once.
const BUILDS_AT_ONCE: usize = 8;
/// Objects that are read at once.
const READS_AT_ONCE: usize = 16;

/// What it needs.
#[derive(Clone)]
pub struct Deps {
    /// The stack's name: part of every proof.
    pub stack: String,
    /// How many builds may run at once.
    pub slots: u32,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Build records.
    pub records: Arc<dyn Records>,
    /// The bucket, which holds ledgers and manifests.
    pub objects: Arc<dyn ObjectStore>,
    /// What runs Packer.
    pub runners: Arc<dyn Runners>,
    /// EC2 and IAM.
    pub cloud: Arc<dyn Cloud>,
    /// The state machine.
    pub workflows: Arc<dyn Workflows>,
}

impl Deps {
    /// What gives slots to the builds that wait.
    pub fn dispatcher(&self) -> Dispatcher {
        Dispatcher { records: self.records.clone(), workflows: self.workflows.clone(), slots: self.slots }
    }
}

/// How far a build was brought.
#[derive(Debug)]
pub struct Brought {
    /// Its record now.
    pub record: BuildRecord,
    /// Whether anything was done for it.
    pub acted: bool,
    /// Whether there is nothing to do for now (`true`), or something takes its time.
    pub outcome: Result<bool, StepError>,
}

/// Brings one build on. Answers its record.
///
/// # Errors
/// `LeftoversRemain` while something takes its time; otherwise those that every step has.
pub async fn bring_on_one(deps: &Deps, record: BuildRecord) -> Result<BuildRecord, StepError> {
    let id = record.build_id;
    let brought = bring_on(deps, vec![(record, Observation::nothing())]).await;
    let Brought { record, outcome, .. } = brought.into_iter().next().ok_or(StepError::BuildMissing(id))?;
    if outcome? || record.status.is_final() {
        Ok(record)
    } else {
        let left = record.leftovers.found.without(&record.leftovers.removed);
        Err(StepError::LeftoversRemain(left.ids().count().max(1)))
    }
}

/// Brings builds on as far as they go now, each from what was seen of it already. Answers for each, in the same order.
pub async fn bring_on(deps: &Deps, builds: Vec<(BuildRecord, Observation)>) -> Vec<Brought> {
    let mut going: Vec<Going> = builds.into_iter().map(|(record, seen)| Going::new(record, seen)).collect();
    for _ in 0..ROUNDS {
        let mut looks: BTreeMap<Look, Vec<usize>> = BTreeMap::new();
        let steps = going.iter_mut().enumerate().filter(|(_, build)| build.outcome.is_none()).map(
            async |(at, build)| {
                let about = spans::of_build(&build.record);
                (at, build.go(deps).instrument(about).await)
            },
        );
        let steps: Vec<(usize, Result<Next, StepError>)> =
            stream::iter(steps).buffered(BUILDS_AT_ONCE).collect().await;
        for (at, next) in steps {
            let build = &mut going[at];
            match next {
                Ok(Next::Decide) => {}
                Ok(Next::Look(look)) => looks.entry(look).or_default().push(at),
                Ok(Next::Done) => build.outcome = Some(Ok(true)),
                Ok(Next::ComeBack) => build.outcome = Some(Ok(false)),
                Err(error) => build.outcome = Some(Err(error)),
            }
        }
        for (look, at) in looks {
            match look {
                Look::Runners => look_at_runners(deps, &mut going, &at).await,
                Look::Outcome => look_for_outcomes(deps, &mut going, &at).await,
                Look::Resources => look_for_resources(deps, &mut going, &at).await,
            }
        }
        if going.iter().all(|build| build.outcome.is_some()) {
            break;
        }
    }
    for build in &mut going {
        let about = spans::of_build(&build.record);
        if let Err(error) = build.end(deps).instrument(about).await {
            // What went wrong before says more.
            if !matches!(build.outcome, Some(Err(_))) {
                build.outcome = Some(Err(error));
            }
        }
    }
    let ended: Vec<&BuildRecord> =
        going.iter().filter(|build| build.has_ended()).map(|build| &build.record).collect();
    if !ended.is_empty() {
        deps.dispatcher().pass_on(&ended).await;
    }
    going.into_iter().map(Going::brought).collect()
}

/// What can be looked at for many builds together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    Runners,
    Outcome,
    Resources,
}

enum Next {
    /// Decide again: something has changed.
    Decide,
    /// Look first.
    Look(Look),
    /// There is nothing to do, for good or for now.
    Done,
    /// Something takes its time.
    ComeBack,
}

/// A build on its way.
struct Going {
    record: BuildRecord,
    /// What the table holds.
    stored: BuildRecord,
    was_final: bool,
    seen: Observation,
    looks: usize,
    stopped: BTreeSet<String>,
    acted: bool,
    outcome: Option<Result<bool, StepError>>,
}

impl Going {
    fn new(record: BuildRecord, seen: Observation) -> Self {
        Self {
            stored: record.clone(),
            was_final: record.status.is_final(),
            record,
            seen,
            looks: 0,
            stopped: BTreeSet::new(),
            acted: false,
            outcome: None,
        }
    }

    /// Whether it ended on this way, and the table says so.
    fn has_ended(&self) -> bool {
        !self.was_final && self.stored.status.is_final()
    }

    fn brought(self) -> Brought {
        Brought { record: self.record, acted: self.acted, outcome: self.outcome.unwrap_or(Ok(false)) }
    }

    async fn save(&mut self, deps: &Deps) -> Result<(), StepError> {
        if self.record == self.stored {
            return Ok(());
        }
        match deps.records.replace(&self.record).await? {
            Write::Done => {
                self.record.revision += 1;
                if self.record.phase != self.stored.phase {
                    tracing::info!(status = %self.record.status, phase = ?self.record.phase, "the build goes on");
                }
                self.stored = self.record.clone();
                self.acted = true;
                Ok(())
            }
            Write::Conflict => {
                self.record = self.stored.clone();
                Err(StepError::RecordContended)
            }
        }
    }

    /// The last write of this go.
    async fn end(&mut self, deps: &Deps) -> Result<(), StepError> {
        let now = deps.clock.now();
        // What cannot even be looked at cannot be waited for either: it is told as failed, and tried again.
        if matches!(self.outcome, Some(Err(_))) && is_out_of_patience(&self.record, now) {
            self.record.doom(None)?;
            self.record.fail(Left::Something, now)?;
        }
        self.save(deps).await
    }

    /// Notes in the record what is left of a build that is to leave nothing, and what of that is gone.
    fn note_leftovers(&mut self, stack: &str) {
        let Some(found) = &self.seen.resources else { return };
        if !self.record.doomed && !self.record.status.is_final() {
            return;
        }
        let left = leftovers(&self.record, found, stack, &self.seen.ledger);
        for resource in &left {
            self.record.leftovers.found.insert(resource);
        }
        self.record.leftovers.removed = self.record.leftovers.found.without(&ByKind::of_all(&left));
    }

    /// One decision, and what it says.
    async fn go(&mut self, deps: &Deps) -> Result<Next, StepError> {
        self.note_leftovers(&deps.stack);
        let now = deps.clock.now();
        let actions = decide(&self.record, &self.seen, &deps.stack, now);
        let mut next = if actions.is_empty() { Next::Done } else { Next::Decide };
        let mut deletions = Vec::new();
        // Whether deciding again may bring it further; else to wait is to come back later.
        let mut changed = false;
        for action in actions {
            match action {
                Action::LookAtRunners => return Ok(Next::Look(Look::Runners)),
                Action::LookForOutcome => return Ok(Next::Look(Look::Outcome)),
                Action::LookForResources if self.looks == LOOKS => return Ok(Next::ComeBack),
                Action::LookForResources => {
                    self.looks += 1;
                    return Ok(Next::Look(Look::Resources));
                }
                Action::StartExecution => {
                    deps.workflows.start(self.record.build_id).await?;
                    self.acted = true;
                    next = Next::Done;
                }
                Action::StopExecution => {
                    deps.workflows.stop(self.record.build_id).await?;
                    self.seen.execution = None;
                    self.acted = true;
                }
                Action::NoteRunner(id) => {
                    self.record.runner_found(id);
                    self.save(deps).await?;
                }
                Action::StopRunner(id) => {
                    if !self.stopped.insert(id.clone()) {
                        return Ok(Next::ComeBack);
                    }
                    self.save(deps).await?;
                    deps.runners.stop(&id).await?;
                    self.acted = true;
                    self.seen.runners = None;
                    changed = true;
                }
                Action::BeginCleanUp(failure) => {
                    self.record.begin_clean_up(failure, now)?;
                    self.save(deps).await?;
                }
                Action::Doom(truth) => {
                    self.record.doom(truth)?;
                    self.save(deps).await?;
                }
                Action::Finish(artifacts) => match self.finish(deps, &artifacts).await {
                    Ok(()) => changed = true,
                    Err(StepError::ImageNotReady(_)) => {
                        self.seen.images_not_ready = true;
                        return Ok(Next::Decide);
                    }
                    Err(StepError::ImageRejected(message)) => {
                        let failure = Failure::of(Stage::FinishBuild, message);
                        self.record.begin_clean_up(failure, now)?;
                        self.save(deps).await?;
                        changed = true;
                    }
                    Err(error) => return Err(error),
                },
                Action::Delete(resource) => deletions.push(resource),
                Action::Wait if deletions.is_empty() && !changed => next = Next::ComeBack,
                Action::Wait => {}
                Action::RecordFailed(left) => {
                    self.record.fail(left, now)?;
                    self.save(deps).await?;
                    self.forget_looks();
                }
                Action::NoteQuiet(quiet) => self.record.quiet_since = quiet.then_some(now),
                Action::NoteTried => self.record.tried_at = Some(now),
                Action::RecordClean => {
                    self.record.clean = true;
                    self.save(deps).await?;
                    tracing::info!("the build is clean");
                }
            }
        }
        if !deletions.is_empty() {
            self.delete(deps, &deletions).await?;
        }
        Ok(next)
    }

    async fn finish(&mut self, deps: &Deps, artifacts: &[Artifact]) -> Result<(), StepError> {
        let mut record = self.record.clone();
        finish_build::take_over(deps, &mut record, artifacts).await?;
        self.stored = record.clone();
        self.record = record;
        self.acted = true;
        self.forget_looks();
        Ok(())
    }

    /// What was seen before the end says nothing of what there is a while after it, however long the last write took.
    fn forget_looks(&mut self) {
        self.seen = Observation { execution: self.seen.execution, ..Observation::nothing() };
    }

    /// Deletes all of these: one that cannot be deleted does not keep the others.
    async fn delete(&mut self, deps: &Deps, resources: &[Resource]) -> Result<(), StepError> {
        // The proof first: what is deleted no longer vouches for what it held.
        self.save(deps).await?;
        let mut failed = None;
        for resource in resources {
            let (kind, id) = (resource.kind, &resource.id);
            match deps.cloud.delete(resource).await {
                Ok(Deletion::Gone | Deletion::Going) => {
                    tracing::info!(?kind, id, "removed");
                    self.acted = true;
                }
                Ok(Deletion::InUse) => {}
                Err(error) => {
                    let cause = &error as &dyn std::error::Error;
                    tracing::warn!(?kind, id, error = cause, "not removed");
                    failed.get_or_insert(error);
                }
            }
        }
        self.seen.resources = None;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// How the runners of these builds stand: those that are noted by their ids, and those that may never have been noted by their
/// builds.
async fn look_at_runners(deps: &Deps, going: &mut [Going], at: &[usize]) {
    for kind in [RunnerKind::Codebuild, RunnerKind::Ec2] {
        let of_kind: Vec<usize> = at.iter().copied().filter(|at| going[*at].record.runner == kind).collect();
        match runners_of(deps, kind, of_kind.iter().map(|at| &going[*at].record)).await {
            Ok(mut runners) => {
                for at in of_kind {
                    let build = &mut going[at];
                    build.seen.runners = Some(runners.remove(&build.record.build_id).unwrap_or_default());
                }
            }
            Err(error) => fail_all(going, &of_kind, error),
        }
    }
}

/// The runners of builds, by build and id.
///
/// # Errors
/// The first call that fails.
pub async fn runners_of(
    deps: &Deps,
    kind: RunnerKind,
    builds: impl Iterator<Item = &BuildRecord> + Clone,
) -> Result<BTreeMap<BuildId, BTreeMap<String, RunnerState>>, PortError> {
    let unnoted: BTreeSet<BuildId> = builds
        .clone()
        .filter(|record| record.runner_id.is_none() && record.may_have_runner())
        .map(|record| record.build_id)
        .collect();
    let mut ids =
        if unnoted.is_empty() { BTreeMap::new() } else { deps.runners.of_builds(kind, &unnoted).await? };
    for record in builds {
        if let Some(id) = &record.runner_id {
            ids.entry(record.build_id).or_default().insert(id.clone());
        }
    }
    let all: BTreeSet<String> = ids.values().flatten().cloned().collect();
    let states = if all.is_empty() { BTreeMap::new() } else { deps.runners.states(&all).await? };
    let state = |id: &String| states.get(id).copied().unwrap_or(RunnerState::Absent);
    let with_states = |ids: BTreeSet<String>| ids.into_iter().map(|id| (state(&id), id));
    Ok(ids
        .into_iter()
        .map(|(build, ids)| (build, with_states(ids).map(|(state, id)| (id, state)).collect()))
        .collect())
}

async fn look_for_outcomes(deps: &Deps, going: &mut [Going], at: &[usize]) {
    let ids: Vec<BuildId> = at.iter().map(|at| going[*at].record.build_id).collect();
    let read: Vec<_> = stream::iter(ids).map(|id| outcome(deps, id)).buffered(READS_AT_ONCE).collect().await;
    for (at, read) in at.iter().zip(read) {
        match read {
            Ok((outcome, ledger)) => {
                going[*at].seen.outcome = Some(outcome);
                going[*at].seen.ledger = ledger;
            }
            Err(error) => going[*at].outcome = Some(Err(error.into())),
        }
    }
}

/// What the runner said at its end, and its ledger. What cannot be read was not said.
async fn outcome(deps: &Deps, id: BuildId) -> Result<(Option<Outcome>, Ledger), PortError> {
    let manifest = deps.objects.get(&Manifest::key(id)).await?;
    let outcome = manifest
        .and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok())
        .and_then(Manifest::outcome);
    let ledger = deps.objects.get(&Ledger::key(id)).await?;
    let ledger = ledger.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    Ok((outcome, ledger))
}

async fn look_for_resources(deps: &Deps, going: &mut [Going], at: &[usize]) {
    let mut found: BTreeMap<usize, Vec<Resource>> = at.iter().map(|at| (*at, Vec::new())).collect();
    let mut places: BTreeMap<(Region, Place), Vec<usize>> = BTreeMap::new();
    for at in at {
        let build = &going[*at];
        places.entry((build.record.region.clone(), Place::Home)).or_default().push(*at);
        for region in copy_regions(&build.record, &build.seen) {
            places.entry((region, Place::Copies)).or_default().push(*at);
        }
    }
    for ((region, place), at) in places {
        for (at, answer) in find(deps, going, &region, place, &at).await {
            match answer {
                Ok(resources) => found.entry(at).or_default().extend(resources),
                Err(error) => going[at].outcome = Some(Err(error)),
            }
        }
    }
    for (at, resources) in found {
        going[at].seen.resources = Some(resources);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Where the build builds.
    Home,
    /// Where it may have copied to.
    Copies,
}

/// What these builds may have in a region: for all in one question; where that is refused, for each alone, so that the one
/// that is the reason stands alone with it.
async fn find(
    deps: &Deps,
    going: &[Going],
    region: &Region,
    place: Place,
    at: &[usize],
) -> Vec<(usize, Result<Vec<Resource>, StepError>)> {
    let ask = async |at: &[usize]| {
        let traces: Vec<Trace<'_>> = at.iter().map(|at| going[*at].trace(&deps.stack)).collect();
        match place {
            Place::Home => deps.cloud.find(region, &traces).await,
            Place::Copies => deps.cloud.find_copies(region, &traces).await,
        }
    };
    match ask(at).await {
        Ok(resources) => at.iter().map(|at| (*at, Ok(resources.clone()))).collect(),
        Err(PortError::Refused { .. } | PortError::Unreadable { .. }) if at.len() > 1 => {
            let mut answers = Vec::new();
            for one in at {
                answers.push((*one, ask(&[*one]).await.map_err(StepError::from)));
            }
            answers
        }
        Err(error) => shared(error, at),
    }
}

impl Going {
    fn trace<'a>(&'a self, stack: &'a str) -> Trace<'a> {
        Trace {
            stack,
            build_id: self.record.build_id,
            ledger: &self.seen.ledger,
            proven: &self.record.leftovers.found,
        }
    }
}

fn fail_all(going: &mut [Going], at: &[usize], error: PortError) {
    for (at, error) in shared::<()>(error, at) {
        going[at].outcome = error.err().map(Err);
    }
}

/// One error for several builds: the first is told where it comes from.
fn shared<T>(error: PortError, at: &[usize]) -> Vec<(usize, Result<T, StepError>)> {
    let mut all: Vec<(usize, Result<T, StepError>)> =
        at.iter().skip(1).map(|at| (*at, Err(error.echo().into()))).collect();
    all.extend(at.first().map(|at| (*at, Err(error.into()))));
    all
}
