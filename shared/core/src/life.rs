//! The life of a build: the one place that decides what happens next.
//!
//! The steps of the state machine and the poller observe, call [`decide`], and carry out what it says. It is a pure
//! function, so that each decision can be tested, and made again after a crash with the same result. Must never act.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::build::{Artifact, BuildRecord, BuildStatus, Failure, Left, Stage};
use crate::ids::Region;
use crate::ledger::Ledger;
use crate::manifest::Outcome;
use crate::ports::{ExecutionState, RunnerState};
use crate::resource::{self, Owner, Resource, ResourceKind};

/// How long Packer has to clean up after itself once the time is over, before the rest is torn down around it.
pub const STOP_GRACE: SignedDuration = SignedDuration::from_secs(45);
/// How long the state machine has to react after a runner ended that made no report.
pub const SILENT_RUNNER_GRACE: SignedDuration = SignedDuration::from_secs(10);
/// How long the state machine has to finish a build whose runner has reported, and EC2 to show its AMI.
pub const FINISH_GRACE: SignedDuration = SignedDuration::from_secs(300);
/// How long preparing a build may take, and starting its runner.
pub const START_GRACE: SignedDuration = SignedDuration::from_secs(300);
/// How long a failed build may be cleaned up before it is told as failed although something is left.
pub const CLEAN_UP_PATIENCE: SignedDuration = SignedDuration::from_secs(900);
/// How long nothing of a build may have been seen before it is called clean: what was asked for just before its end may turn
/// up after it. Also how long a runner that has reported has to end by itself.
pub const QUIET: SignedDuration = SignedDuration::from_secs(60);
/// The longest pause between two tries to remove what cannot be removed.
pub const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);

/// What was seen of a build in AWS.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Its execution; none where nobody looked.
    pub execution: Option<ExecutionState>,
    /// Its runners by id, the noted one among them whether it exists or not; none where nobody looked.
    pub runners: Option<BTreeMap<String, RunnerState>>,
    /// How the runner says that Packer ended, where it says so; none where nobody looked.
    pub outcome: Option<Option<Outcome>>,
    /// What EC2 and IAM hold that may be its own; none where nobody looked.
    pub resources: Option<Vec<Resource>>,
    /// What the runner noted.
    pub ledger: Ledger,
}

impl Observation {
    /// Nobody has looked at anything.
    pub fn nothing() -> Self {
        Self { execution: None, runners: None, outcome: None, resources: None, ledger: Ledger::default() }
    }
}

/// What to do next. Every action may be done twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Look at its runners.
    LookAtRunners,
    /// Read what the runner said at its end, and its ledger.
    LookForOutcome,
    /// Look for what it has in EC2 and IAM.
    LookForResources,
    /// Start its execution, which may have been lost between slot and start.
    StartExecution,
    /// Stop its execution.
    StopExecution,
    /// Note a runner that was started and never noted.
    NoteRunner(String),
    /// Stop a runner.
    StopRunner(String),
    /// Record that it fails, and why.
    BeginCleanUp(Failure),
    /// Record that it ends without an image; with the reason where it has turned out.
    Doom(Option<Failure>),
    /// Check these AMIs, and record that it succeeded with them.
    Finish(Vec<Artifact>),
    /// Delete this, which is proven to be its own.
    Delete(Resource),
    /// Come back soon: something takes its time.
    Wait,
    /// Record that it failed.
    RecordFailed(Left),
    /// Record that nothing of it was seen now, or that something was.
    NoteQuiet(bool),
    /// Record that removing was tried in vain.
    NoteTried,
    /// Record that nothing is left of a build that has ended.
    RecordClean,
}

/// What happens next with a build. Empty: nothing, for good or for now.
pub fn decide(record: &BuildRecord, seen: &Observation, stack: &str, now: Timestamp) -> Vec<Action> {
    match record.status {
        BuildStatus::Queued => queued(seen, now),
        BuildStatus::Building if record.failure.is_none() => building(record, seen, now),
        BuildStatus::Building if !record.doomed => undecided(record, seen, stack, now),
        BuildStatus::Building => doomed(record, seen, stack, now),
        BuildStatus::Succeeded | BuildStatus::Failed if record.clean => Vec::new(),
        BuildStatus::Succeeded | BuildStatus::Failed => ended(record, seen, stack, now),
    }
}

/// Whoever observes a queued build's execution knows that it has a slot: without one there is nothing to see.
fn queued(seen: &Observation, now: Timestamp) -> Vec<Action> {
    let fails =
        |what| vec![Action::BeginCleanUp(Failure::of(Stage::PrepareBuild, what)), Action::StopExecution];
    match seen.execution {
        None => Vec::new(),
        Some(ExecutionState::Absent) => vec![Action::StartExecution],
        Some(ExecutionState::Running { since }) if now.duration_since(since) > START_GRACE => {
            fails("the build was not taken up in time")
        }
        Some(ExecutionState::Running { .. }) => Vec::new(),
        Some(ExecutionState::Ended) => fails("the build's execution ended before the build began"),
    }
}

fn building(record: &BuildRecord, seen: &Observation, now: Timestamp) -> Vec<Action> {
    let fails = |failure| vec![Action::BeginCleanUp(failure), Action::StopExecution];
    if record.deadline.is_some_and(|deadline| now > deadline + STOP_GRACE) {
        return fails(Failure::timed_out(record.timeout_secs));
    }
    let began = record.started_at.unwrap_or(record.created_at);
    // A service may not show yet what it has just started: what is absent has ended only after a while.
    let execution_ended = match seen.execution {
        Some(ExecutionState::Ended) => true,
        Some(ExecutionState::Absent) => now.duration_since(began) > START_GRACE,
        Some(ExecutionState::Running { .. }) | None => false,
    };
    let execution_lost = || Failure::lost(record.stage(), "the build's execution ended before the build");
    let Some(requested_at) = record.runner_requested_at else {
        return if execution_ended {
            fails(execution_lost())
        } else if now.duration_since(began) > START_GRACE {
            fails(Failure::of(Stage::PrepareBuild, "the build was not prepared in time"))
        } else {
            Vec::new()
        };
    };
    let Some(runners) = &seen.runners else { return vec![Action::LookAtRunners] };
    let Some(runner_id) = &record.runner_id else {
        return match runners.keys().next() {
            Some(found) => vec![Action::NoteRunner(found.clone())],
            None if execution_ended => fails(execution_lost()),
            None if now.duration_since(requested_at) > START_GRACE => {
                fails(Failure::lost(Stage::StartRunner, "the build's runner was not started in time"))
            }
            None => Vec::new(),
        };
    };
    match runners.get(runner_id).copied().unwrap_or(RunnerState::Absent) {
        RunnerState::Running if execution_ended => fails(execution_lost()),
        RunnerState::Running => Vec::new(),
        RunnerState::Absent if now.duration_since(requested_at) <= START_GRACE => Vec::new(),
        RunnerState::Absent => reported(seen, SignedDuration::MAX, execution_ended, false),
        RunnerState::Ended { at, reported: told } => {
            reported(seen, now.duration_since(at), execution_ended, told)
        }
    }
}

/// What happens after a runner has ended: `ago` says since when, `told` whether it certainly made its report.
fn reported(seen: &Observation, ago: SignedDuration, execution_ended: bool, told: bool) -> Vec<Action> {
    let state_machine_has = |time: SignedDuration| !execution_ended && ago <= time;
    match &seen.outcome {
        None => vec![Action::LookForOutcome],
        Some(Some(Outcome::Succeeded(_))) if state_machine_has(FINISH_GRACE) => Vec::new(),
        Some(Some(Outcome::Succeeded(artifacts))) => {
            vec![Action::Finish(artifacts.clone()), Action::StopExecution]
        }
        Some(_) if state_machine_has(if told { FINISH_GRACE } else { SILENT_RUNNER_GRACE }) => Vec::new(),
        Some(Some(Outcome::Failed(failure))) => {
            vec![Action::BeginCleanUp(failure.clone()), Action::StopExecution]
        }
        Some(None) => vec![
            Action::BeginCleanUp(Failure::lost(
                Stage::RunPacker,
                "the build's runner ended without a report",
            )),
            Action::StopExecution,
        ],
    }
}

/// Whoever could still make something goes first. None where nobody can any more.
fn stop_runners(record: &BuildRecord, seen: &Observation) -> Option<Vec<Action>> {
    if !record.may_have_runner() {
        return None;
    }
    let Some(runners) = &seen.runners else { return Some(vec![Action::LookAtRunners]) };
    let running = runners.iter().filter(|(_, state)| **state == RunnerState::Running);
    let mut actions: Vec<Action> = running.map(|(id, _)| Action::StopRunner(id.clone())).collect();
    if actions.is_empty() {
        return None;
    }
    actions.push(Action::Wait);
    Some(actions)
}

/// It fails, and nobody has said how Packer ended: an AMI that is whole is taken over, and any other is nobody's.
fn undecided(record: &BuildRecord, seen: &Observation, stack: &str, now: Timestamp) -> Vec<Action> {
    if let Some(actions) = stop_runners(record, seen) {
        return actions;
    }
    let patience_is_over = record.failing_since.is_some_and(|since| now.duration_since(since) > FINISH_GRACE);
    match &seen.outcome {
        None => vec![Action::LookForOutcome],
        Some(Some(Outcome::Failed(failure))) => vec![Action::Doom(Some(failure.clone()))],
        // EC2 may be late to show it; but not for ever.
        Some(Some(Outcome::Succeeded(_))) if patience_is_over => vec![Action::Doom(None)],
        Some(Some(Outcome::Succeeded(artifacts))) => vec![Action::Finish(artifacts.clone()), Action::Wait],
        Some(None) => match &seen.resources {
            None => vec![Action::LookForResources],
            Some(found) => match complete_images(record, found, stack, &seen.ledger) {
                Some(artifacts) if !patience_is_over => vec![Action::Finish(artifacts), Action::Wait],
                Some(_) | None => vec![Action::Doom(None)],
            },
        },
    }
}

fn doomed(record: &BuildRecord, seen: &Observation, stack: &str, now: Timestamp) -> Vec<Action> {
    if let Some(actions) = stop_runners(record, seen) {
        return actions;
    }
    let left = match left(record, seen, stack) {
        Ok(left) => left,
        Err(look) => return vec![look],
    };
    if left.is_empty() {
        let left = if record.may_have_runner() { Left::Nothing } else { Left::NeverAnything };
        return vec![Action::RecordFailed(left)];
    }
    let mut actions: Vec<Action> = deletable(&left).into_iter().cloned().map(Action::Delete).collect();
    if record.failing_since.is_some_and(|since| now.duration_since(since) > CLEAN_UP_PATIENCE) {
        actions.push(Action::RecordFailed(Left::Something));
    }
    actions.push(Action::Wait);
    actions
}

/// It has ended, and it is not proven yet that nothing of it is left.
fn ended(record: &BuildRecord, seen: &Observation, stack: &str, now: Timestamp) -> Vec<Action> {
    if record.quiet_since.is_some_and(|since| now.duration_since(since) < QUIET) {
        return Vec::new();
    }
    let since = record.completed_at.unwrap_or(record.created_at);
    if record.tried_at.is_some_and(|tried| now.duration_since(tried) < pause(now.duration_since(since))) {
        return Vec::new();
    }
    if let Some(mut actions) = stop_runners(record, seen) {
        if record.quiet_since.is_some() && actions != [Action::LookAtRunners] {
            actions.insert(0, Action::NoteQuiet(false));
        }
        return actions;
    }
    let left = match left(record, seen, stack) {
        Ok(left) => left,
        Err(look) => return vec![look],
    };
    let mut actions = Vec::new();
    if let Some(ExecutionState::Running { .. }) = seen.execution {
        actions.push(Action::StopExecution);
    }
    if left.is_empty() {
        actions.push(if record.quiet_since.is_some() {
            Action::RecordClean
        } else {
            Action::NoteQuiet(true)
        });
        return actions;
    }
    if record.quiet_since.is_some() {
        actions.push(Action::NoteQuiet(false));
    }
    actions.extend(deletable(&left).into_iter().cloned().map(Action::Delete));
    if now.duration_since(since) > CLEAN_UP_PATIENCE {
        actions.push(Action::NoteTried);
    }
    actions.push(Action::Wait);
    actions
}

/// The pause before the next try to remove what is left since `since_end`: an eighth of it, and an hour at most. None while
/// there is patience.
fn pause(since_end: SignedDuration) -> SignedDuration {
    if since_end <= CLEAN_UP_PATIENCE { SignedDuration::ZERO } else { (since_end / 8).min(LONGEST_PAUSE) }
}

/// What is left, or what has to be looked at to tell.
fn left(record: &BuildRecord, seen: &Observation, stack: &str) -> Result<Vec<Resource>, Action> {
    if !record.may_have_runner() {
        return Ok(Vec::new());
    }
    // The ledger comes with the outcome, and says where to look.
    if seen.outcome.is_none() {
        return Err(Action::LookForOutcome);
    }
    let found = seen.resources.as_ref().ok_or(Action::LookForResources)?;
    Ok(leftovers(record, found, stack, &seen.ledger))
}

/// The regions, beside its own, that a build may have copied its AMI to.
pub fn copy_regions(record: &BuildRecord, seen: &Observation) -> BTreeSet<Region> {
    let noted = seen.ledger.copy_regions.iter().filter_map(|region| region.parse().ok());
    noted.filter(|region| *region != record.region).collect()
}

/// The AMIs of a build whose runner died without a word, if all that it was to make is there and whole: provisioning is known
/// to have ended, and in its own region and in each that Packer said it copies to there is one AMI, which is `available` and
/// carries the tags that Packer gives last. None where that is not so, or cannot be known.
pub fn complete_images(
    record: &BuildRecord,
    found: &[Resource],
    stack: &str,
    ledger: &Ledger,
) -> Option<Vec<Artifact>> {
    if !ledger.provisioned_to_the_end() {
        return None;
    }
    let mut regions: BTreeSet<Region> = [record.region.clone()].into();
    for region in &ledger.copy_regions {
        regions.insert(region.parse().ok()?);
    }
    let ours = resource::owned(found, &owner(record, stack, ledger));
    let images: Vec<&Resource> =
        ours.iter().map(|(resource, _)| resource).filter(|thing| thing.kind == ResourceKind::Image).collect();
    let whole = |image: &&&Resource| image.available && image.is_tagged(stack, record.build_id);
    if images.iter().filter(whole).count() != images.len() {
        return None;
    }
    regions
        .into_iter()
        .map(|region| {
            let mut here = images.iter().filter(|image| image.region == region);
            let (Some(image), None) = (here.next(), here.next()) else { return None };
            Some(Artifact { image_id: image.id.parse().ok()?, region })
        })
        .collect()
}

fn owner<'a>(record: &'a BuildRecord, stack: &'a str, ledger: &'a Ledger) -> Owner<'a> {
    Owner {
        stack,
        build_id: record.build_id,
        began: record.created_at,
        succeeded: record.status == BuildStatus::Succeeded,
        ledger,
        proven: &record.leftovers.found,
    }
}

/// What of `found` is the build's own and must go: everything but the AMIs that it succeeded with, and what is gone already.
pub fn leftovers(record: &BuildRecord, found: &[Resource], stack: &str, ledger: &Ledger) -> Vec<Resource> {
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    if record.status == BuildStatus::Succeeded {
        kept.extend(record.artifacts.iter().map(|artifact| artifact.image_id.as_str()));
        kept.extend(record.kept_snapshots.iter().map(String::as_str));
    }
    resource::owned(found, &owner(record, stack, ledger))
        .into_iter()
        .map(|(resource, _)| resource)
        .filter(|resource| !resource.gone && !kept.contains(resource.id.as_str()))
        .collect()
}

/// Those that can be deleted now: EC2 refuses a group or volume while its instance lives, and a snapshot while its AMI
/// is registered; IAM a role that a profile holds, and a profile that an instance uses is taken from under it.
fn deletable(left: &[Resource]) -> Vec<&Resource> {
    let has = |kind, region: &Region| {
        left.iter().any(|resource| resource.kind == kind && resource.region == *region)
    };
    left.iter()
        .filter(|resource| !resource.going)
        .filter(|resource| match resource.kind {
            ResourceKind::Instance
            | ResourceKind::KeyPair
            | ResourceKind::Image
            | ResourceKind::LaunchTemplate => true,
            ResourceKind::Volume | ResourceKind::SecurityGroup | ResourceKind::InstanceProfile => {
                !has(ResourceKind::Instance, &resource.region)
            }
            ResourceKind::Snapshot => !has(ResourceKind::Image, &resource.region),
            ResourceKind::Role => !has(ResourceKind::InstanceProfile, &resource.region),
        })
        .collect()
}
