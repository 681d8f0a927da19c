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
/// How long the state machine has to act on a runner's report. Acting on it twice does no harm, so that it is short.
pub const REPORT_GRACE: SignedDuration = SignedDuration::from_secs(60);
/// How long EC2 has to show an AMI that the runner has reported.
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
    /// Whether its AMIs were looked at just now, to record that it succeeded, and EC2 does not show them whole.
    pub images_not_ready: bool,
    /// What the runner noted.
    pub ledger: Ledger,
}

impl Observation {
    /// Nobody has looked at anything.
    pub fn nothing() -> Self {
        Self {
            execution: None,
            runners: None,
            outcome: None,
            resources: None,
            images_not_ready: false,
            ledger: Ledger::default(),
        }
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
        Some(Some(Outcome::Succeeded(_))) if state_machine_has(REPORT_GRACE) => Vec::new(),
        Some(Some(Outcome::Succeeded(_))) if seen.images_not_ready && ago <= FINISH_GRACE => {
            vec![Action::Wait]
        }
        Some(Some(Outcome::Succeeded(_))) if seen.images_not_ready => vec![
            Action::BeginCleanUp(Failure::lost(
                Stage::FinishBuild,
                "EC2 does not show the image that the build's runner reported",
            )),
            Action::StopExecution,
        ],
        Some(Some(Outcome::Succeeded(artifacts))) => {
            vec![Action::Finish(artifacts.clone()), Action::StopExecution]
        }
        Some(_) if state_machine_has(if told { REPORT_GRACE } else { SILENT_RUNNER_GRACE }) => Vec::new(),
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
    // EC2 may be late to show them, but not for ever. However late it is, they are looked at once more before it is doomed:
    // nobody may have come by in the meantime.
    let finish = |artifacts| match (seen.images_not_ready, patience_is_over) {
        (false, _) => vec![Action::Finish(artifacts), Action::Wait],
        (true, false) => vec![Action::Wait],
        (true, true) => vec![Action::Doom(None)],
    };
    match &seen.outcome {
        None => vec![Action::LookForOutcome],
        Some(Some(Outcome::Failed(failure))) => vec![Action::Doom(Some(failure.clone()))],
        Some(Some(Outcome::Succeeded(artifacts))) => finish(artifacts.clone()),
        Some(None) => match &seen.resources {
            None => vec![Action::LookForResources],
            Some(found) => match complete_images(record, found, stack, &seen.ledger) {
                Some(artifacts) => finish(artifacts),
                None => vec![Action::Doom(None)],
            },
        },
    }
}

fn doomed(record: &BuildRecord, seen: &Observation, stack: &str, now: Timestamp) -> Vec<Action> {
    if let Some(actions) = stop_runners(record, seen) {
        return actions;
    }
    let Some(left) = left(record, seen, stack) else { return look(seen) };
    if left.is_empty() {
        let left = if record.may_have_runner() { Left::Nothing } else { Left::NeverAnything };
        return vec![Action::RecordFailed(left)];
    }
    let mut actions: Vec<Action> = deletable(&left).into_iter().cloned().map(Action::Delete).collect();
    if is_out_of_patience(record, now) {
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
    let Some(left) = left(record, seen, stack) else { return look(seen) };
    let mut actions = Vec::new();
    // It ends by itself, as what it is; one that still waits for something is waited for no longer.
    if let Some(ExecutionState::Running { .. }) = seen.execution
        && now.duration_since(since) >= QUIET
    {
        actions.push(Action::StopExecution);
    }
    if left.is_empty() {
        match record.quiet_since {
            None => actions.push(Action::NoteQuiet(true)),
            // A runner that nobody knew of at the first look: what it asked for last may turn up after its end.
            Some(_) if runner_ended_within(QUIET, seen, now) => {}
            Some(_) => actions.push(Action::RecordClean),
        }
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

fn runner_ended_within(time: SignedDuration, seen: &Observation, now: Timestamp) -> bool {
    seen.runners
        .iter()
        .flatten()
        .any(|(_, state)| matches!(state, RunnerState::Ended { at, .. } if now.duration_since(*at) < time))
}

/// Whether a build that fails is told as failed although something of it may be left.
pub fn is_out_of_patience(record: &BuildRecord, now: Timestamp) -> bool {
    !record.status.is_final()
        && record.failing_since.is_some_and(|since| now.duration_since(since) > CLEAN_UP_PATIENCE)
}

/// Whether a build should be clean by now and is not: what an alarm is for.
pub fn has_leftovers(record: &BuildRecord, now: Timestamp) -> bool {
    let since = record.failing_since.or(record.completed_at);
    !record.clean && since.is_some_and(|since| now.duration_since(since) > CLEAN_UP_PATIENCE)
}

/// The pause before the next try to remove what is left since `since_end`: a sixteenth of it, and an hour at most. None while
/// there is patience.
fn pause(since_end: SignedDuration) -> SignedDuration {
    if since_end <= CLEAN_UP_PATIENCE { SignedDuration::ZERO } else { (since_end / 16).min(LONGEST_PAUSE) }
}

/// What is left; none where something has to be looked at first, which [`look`] says.
fn left(record: &BuildRecord, seen: &Observation, stack: &str) -> Option<Vec<Resource>> {
    if !record.may_have_runner() {
        return Some(Vec::new());
    }
    seen.outcome.as_ref()?;
    Some(leftovers(record, seen.resources.as_ref()?, stack, &seen.ledger))
}

/// The ledger comes with the outcome, and says where to look for resources.
fn look(seen: &Observation) -> Vec<Action> {
    vec![if seen.outcome.is_none() { Action::LookForOutcome } else { Action::LookForResources }]
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
    // Whoever copies a finished AMI may copy its tags as well: the copy is theirs.
    let is_copy_of_kept =
        |resource: &Resource| resource.copied_from.as_deref().is_some_and(|original| kept.contains(original));
    resource::owned(found, &owner(record, stack, ledger))
        .into_iter()
        .map(|(resource, _)| resource)
        .filter(|resource| {
            !resource.gone && !kept.contains(resource.id.as_str()) && !is_copy_of_kept(resource)
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::FailureKind;
    use crate::build::tests::{building, made, queued, time};
    use crate::resource::tag;

    const AMI: &str = "ami-0abcdef1234567890";
    /// Ten minutes into the build.
    const DURING: &str = "2026-03-25T14:40:00Z";
    const ENDED: RunnerState = RunnerState::Ended { at: Timestamp::UNIX_EPOCH, reported: false };

    fn decided(record: &BuildRecord, seen: &Observation, now: &str) -> Vec<Action> {
        decide(record, seen, "prod", time(now))
    }

    fn runner(state: RunnerState) -> Observation {
        Observation { runners: Some([("runner:1".to_owned(), state)].into()), ..Observation::nothing() }
    }

    fn runs() -> Observation {
        let execution = Some(ExecutionState::Running { since: time("2026-03-25T14:30:01Z") });
        Observation { execution, ..runner(RunnerState::Running) }
    }

    fn after(state: RunnerState, outcome: Option<Outcome>) -> Observation {
        Observation { outcome: Some(outcome), ..Observation { runners: runner(state).runners, ..runs() } }
    }

    fn lost() -> BuildRecord {
        let mut record = building();
        record.begin_clean_up(Failure::lost(Stage::RunPacker, "gone"), time(DURING)).unwrap();
        record
    }

    fn failing() -> BuildRecord {
        let mut record = building();
        record.begin_clean_up(Failure::of(Stage::RunPacker, "broken"), time(DURING)).unwrap();
        record
    }

    fn ours(kind: ResourceKind, id: &str) -> Resource {
        let mut resource = Resource::bare(kind, "us-east-1".parse().unwrap(), id);
        resource.tags.insert(tag::STACK.to_owned(), "prod".to_owned());
        resource.tags.insert(tag::BUILD_ID.to_owned(), building().build_id.to_string());
        resource
    }

    fn whole_image(id: &str, region: &str) -> Resource {
        Resource { available: true, region: region.parse().unwrap(), ..ours(ResourceKind::Image, id) }
    }

    fn left_behind(resources: Vec<Resource>) -> Observation {
        Observation { resources: Some(resources), ..after(ENDED, None) }
    }

    fn provisioned(copy_regions: &[&str]) -> Ledger {
        Ledger {
            begun: ["amazon-ebs.x".to_owned()].into(),
            provisioned: ["amazon-ebs.x".to_owned()].into(),
            copy_regions: copy_regions.iter().map(|region| (*region).to_owned()).collect(),
            ..Ledger::default()
        }
    }

    fn begun_failure(actions: &[Action]) -> &Failure {
        let [Action::BeginCleanUp(failure), Action::StopExecution] = actions else { panic!("{actions:?}") };
        failure
    }

    #[test]
    fn a_queued_build_waits_for_a_slot_and_gets_a_lost_execution_again() {
        assert!(decided(&queued(), &Observation::nothing(), DURING).is_empty());
        let absent = Observation { execution: Some(ExecutionState::Absent), ..Observation::nothing() };
        assert_eq!(decided(&queued(), &absent, DURING), [Action::StartExecution]);
        let since = time("2026-03-25T14:39:00Z");
        let running = Observation { execution: Some(ExecutionState::Running { since }), ..absent };
        assert!(decided(&queued(), &running, DURING).is_empty());
        assert!(
            begun_failure(&decided(&queued(), &running, "2026-03-25T14:45:00Z")).message.contains("in time")
        );
        let ended = Observation { execution: Some(ExecutionState::Ended), ..running };
        assert_eq!(begun_failure(&decided(&queued(), &ended, DURING)).stage, Stage::PrepareBuild);
    }

    #[test]
    fn a_running_build_is_left_alone_until_its_time_is_over() {
        assert!(decided(&building(), &runs(), "2026-03-25T15:00:05Z").is_empty());
        let late = decided(&building(), &runs(), "2026-03-25T15:00:51Z");
        assert_eq!(begun_failure(&late).message, "Packer build timed out after 1800 seconds");
    }

    #[test]
    fn a_build_whose_execution_ended_fails_unless_packer_turns_out_to_have_ended_well() {
        let seen = Observation { execution: Some(ExecutionState::Ended), ..runs() };
        assert_eq!(begun_failure(&decided(&building(), &seen, DURING)).kind, FailureKind::Lost);
        // Step Functions may not show yet what has just been started.
        let seen = Observation { execution: Some(ExecutionState::Absent), ..runs() };
        assert!(decided(&building(), &seen, "2026-03-25T14:31:00Z").is_empty());
    }

    #[test]
    fn a_runner_that_nobody_noted_is_noted() {
        let mut record = queued();
        record.start(time("2026-03-25T14:30:05Z")).unwrap();
        record.runner_starting(time("2026-03-25T14:30:06Z")).unwrap();
        assert_eq!(decided(&record, &Observation::nothing(), DURING), [Action::LookAtRunners]);
        assert_eq!(decided(&record, &runs(), DURING), [Action::NoteRunner("runner:1".into())]);
        let none = Observation { runners: Some(BTreeMap::new()), ..runs() };
        assert!(decided(&record, &none, "2026-03-25T14:31:00Z").is_empty(), "it may still come");
        assert_eq!(begun_failure(&decided(&record, &none, DURING)).stage, Stage::StartRunner);
    }

    #[test]
    fn a_runner_that_ended_silently_fails_the_build_after_a_grace() {
        let seen = after(RunnerState::Ended { at: time(DURING), reported: false }, None);
        assert!(decided(&building(), &seen, "2026-03-25T14:40:05Z").is_empty());
        let lost = decided(&building(), &seen, "2026-03-25T14:40:11Z");
        assert_eq!(begun_failure(&lost).kind, FailureKind::Lost);
    }

    #[test]
    fn a_reported_image_that_ec2_does_not_show_is_waited_for_and_then_fails_the_build() {
        let ended = RunnerState::Ended { at: time(DURING), reported: true };
        let seen = after(ended, Some(Outcome::Succeeded(made(AMI))));
        let not_ready = Observation { images_not_ready: true, ..seen };
        assert_eq!(decided(&building(), &not_ready, "2026-03-25T14:44:50Z"), [Action::Wait]);
        let given_up = decided(&building(), &not_ready, "2026-03-25T14:45:10Z");
        assert_eq!(begun_failure(&given_up).stage, Stage::FinishBuild);
        assert_eq!(begun_failure(&given_up).kind, FailureKind::Lost, "it is looked at once more");
    }

    #[test]
    fn a_result_that_was_stored_and_not_reported_counts() {
        let ended = RunnerState::Ended { at: time(DURING), reported: false };
        let well = after(ended, Some(Outcome::Succeeded(made(AMI))));
        assert!(decided(&building(), &well, "2026-03-25T14:40:50Z").is_empty(), "the state machine has time");
        let finish = [Action::Finish(made(AMI)), Action::StopExecution];
        assert_eq!(decided(&building(), &well, "2026-03-25T14:41:10Z"), finish);
        let alone = Observation { execution: Some(ExecutionState::Ended), ..well };
        assert_eq!(decided(&building(), &alone, DURING), finish, "nobody else will");

        let broken = Failure::of(Stage::RunPacker, "exit status 7");
        let ill = after(ended, Some(Outcome::Failed(broken.clone())));
        assert_eq!(begun_failure(&decided(&building(), &ill, "2026-03-25T14:41:00Z")), &broken);
    }

    #[test]
    fn the_runner_goes_before_anything_is_decided_deleted_or_called_clean() {
        for record in [lost(), failing()] {
            let seen = Observation { resources: Some(vec![]), ..after(RunnerState::Running, None) };
            let stop = [Action::StopRunner("runner:1".into()), Action::Wait];
            assert_eq!(decided(&record, &seen, DURING), stop);
        }
    }

    #[test]
    fn a_whole_image_of_a_runner_that_died_is_taken_over() {
        let seen = |ledger, resources| Observation { ledger, ..left_behind(resources) };
        let whole = vec![whole_image(AMI, "us-east-1")];
        let taken = decided(&lost(), &seen(provisioned(&[]), whole.clone()), DURING);
        assert_eq!(taken, [Action::Finish(made(AMI)), Action::Wait]);

        let doomed = [Action::Doom(None)];
        let unknown = Ledger::default();
        assert_eq!(decided(&lost(), &seen(unknown, whole.clone()), DURING), doomed, "provisioning");
        let mut two = provisioned(&[]);
        two.begun.insert("amazon-ebs.y".into());
        assert_eq!(decided(&lost(), &seen(two, whole.clone()), DURING), doomed, "another build");
        let mut pending = whole.clone();
        pending[0].available = false;
        assert_eq!(decided(&lost(), &seen(provisioned(&[]), pending), DURING), doomed, "pending");
        assert_eq!(decided(&lost(), &seen(provisioned(&[]), vec![]), DURING), doomed, "no image");
        assert_eq!(decided(&lost(), &seen(provisioned(&["eu-west-1"]), whole), DURING), doomed, "a copy");
        assert!(
            decided(&failing(), &seen(provisioned(&[]), vec![whole_image(AMI, "us-east-1")]), DURING)
                .contains(&Action::Delete(whole_image(AMI, "us-east-1"))),
            "what is known to have failed"
        );
    }

    #[test]
    fn an_image_and_its_copies_are_taken_over_together() {
        let copy = "ami-0123456789abcdef0";
        let resources = vec![whole_image(AMI, "us-east-1"), whole_image(copy, "eu-west-1")];
        let seen = Observation { ledger: provisioned(&["eu-west-1"]), ..left_behind(resources) };
        let [Action::Finish(artifacts), Action::Wait] = &decided(&lost(), &seen, DURING)[..] else {
            panic!("not taken over")
        };
        assert_eq!(
            artifacts.iter().map(|artifact| artifact.image_id.as_str()).collect::<Vec<_>>(),
            [copy, AMI]
        );
        assert_eq!(copy_regions(&lost(), &seen), ["eu-west-1".parse().unwrap()].into());
    }

    #[test]
    fn an_image_that_never_gets_ready_is_not_waited_for_for_ever_and_never_given_up_unseen() {
        let seen = after(ENDED, Some(Outcome::Succeeded(made(AMI))));
        let not_ready = Observation { images_not_ready: true, ..seen.clone() };
        let late = "2026-03-25T14:46:00Z";
        assert_eq!(decided(&lost(), &seen, DURING), [Action::Finish(made(AMI)), Action::Wait]);
        assert_eq!(decided(&lost(), &not_ready, DURING), [Action::Wait]);
        assert_eq!(decided(&lost(), &seen, late), [Action::Finish(made(AMI)), Action::Wait]);
        assert_eq!(decided(&lost(), &not_ready, late), [Action::Doom(None)]);
    }

    #[test]
    fn a_build_ends_failed_only_after_a_look_that_found_nothing() {
        assert_eq!(decided(&failing(), &runner(ENDED), DURING), [Action::LookForOutcome]);
        assert_eq!(decided(&failing(), &after(ENDED, None), DURING), [Action::LookForResources]);
        assert_eq!(decided(&failing(), &left_behind(vec![]), DURING), [Action::RecordFailed(Left::Nothing)]);
    }

    #[test]
    fn a_build_that_never_had_a_runner_leaves_nothing() {
        let mut record = queued();
        record.begin_clean_up(Failure::cancelled(Stage::PrepareBuild), time(DURING)).unwrap();
        assert_eq!(
            decided(&record, &Observation::nothing(), DURING),
            [Action::RecordFailed(Left::NeverAnything)]
        );
    }

    #[test]
    fn what_another_thing_holds_waits_for_it() {
        let instance = ours(ResourceKind::Instance, "i-1");
        let volume = ours(ResourceKind::Volume, "vol-1");
        let key = ours(ResourceKind::KeyPair, "k");
        let image = ours(ResourceKind::Image, "ami-1");
        let snapshot = ours(ResourceKind::Snapshot, "snap-1");
        let profile = ours(ResourceKind::InstanceProfile, "packer-1");
        let role = ours(ResourceKind::Role, "packer-1");
        let all = [&instance, &volume, &key, &image, &snapshot, &profile, &role].map(Clone::clone).to_vec();
        assert_eq!(
            decided(&failing(), &left_behind(all), DURING),
            [Action::Delete(instance), Action::Delete(key), Action::Delete(image), Action::Wait]
        );
        let rest = [&volume, &snapshot, &profile, &role].map(Clone::clone).to_vec();
        assert_eq!(
            decided(&failing(), &left_behind(rest), DURING),
            [Action::Delete(volume), Action::Delete(snapshot), Action::Delete(profile), Action::Wait]
        );
    }

    #[test]
    fn an_instance_that_shuts_down_is_waited_for_and_one_that_is_gone_only_vouches() {
        let mut instance = ours(ResourceKind::Instance, "i-1");
        instance.going = true;
        let seen = left_behind(vec![instance.clone(), ours(ResourceKind::SecurityGroup, "sg-1")]);
        assert_eq!(decided(&failing(), &seen, DURING), [Action::Wait]);

        (instance.going, instance.gone) = (false, true);
        let mut image = Resource::bare(ResourceKind::Image, "us-east-1".parse().unwrap(), "ami-1");
        image.parents.insert("i-1".into());
        let seen = left_behind(vec![instance, image.clone()]);
        assert_eq!(decided(&failing(), &seen, DURING), [Action::Delete(image), Action::Wait]);
    }

    #[test]
    fn a_build_that_cannot_be_cleaned_says_so_in_the_end_and_keeps_being_tried_ever_more_rarely() {
        let instance = ours(ResourceKind::Instance, "i-1");
        let seen = Observation { execution: None, ..left_behind(vec![instance.clone()]) };
        let late = "2026-03-25T15:30:00Z";
        assert_eq!(
            decided(&failing(), &seen, late),
            [Action::Delete(instance.clone()), Action::RecordFailed(Left::Something), Action::Wait]
        );
        let mut failed = failing();
        failed.fail(Left::Something, time(late)).unwrap();
        assert_eq!(decided(&failed, &seen, late), [Action::Delete(instance.clone()), Action::Wait]);
        let next_day = "2026-03-26T15:30:00Z";
        let tried = [Action::Delete(instance), Action::NoteTried, Action::Wait];
        assert_eq!(decided(&failed, &seen, next_day), tried);
        failed.tried_at = Some(time(next_day));
        assert!(decided(&failed, &seen, "2026-03-26T16:20:00Z").is_empty());
        assert_eq!(decided(&failed, &seen, "2026-03-26T16:31:00Z").len(), 3);
    }

    #[test]
    fn a_build_is_called_clean_by_a_second_look_a_while_after_the_first() {
        let mut failed = failing();
        failed.fail(Left::Nothing, time(DURING)).unwrap();
        let nothing = left_behind(vec![]);
        assert!(decided(&failed, &nothing, "2026-03-25T14:40:30Z").is_empty());
        assert_eq!(
            decided(&failed, &Observation::nothing(), "2026-03-25T14:41:00Z"),
            [Action::LookAtRunners]
        );
        assert_eq!(
            decided(&failed, &nothing, "2026-03-25T14:41:00Z"),
            [Action::StopExecution, Action::RecordClean]
        );

        let late = ours(ResourceKind::KeyPair, "k");
        let found = decided(&failed, &left_behind(vec![late.clone()]), "2026-03-25T14:41:00Z");
        let again = [Action::StopExecution, Action::NoteQuiet(false), Action::Delete(late), Action::Wait];
        assert_eq!(found, again, "then it is not quiet yet");
        failed.quiet_since = None;
        let alone = Observation { execution: None, ..nothing };
        assert_eq!(decided(&failed, &alone, "2026-03-25T14:42:00Z"), [Action::NoteQuiet(true)]);
        failed.clean = true;
        assert!(decided(&failed, &Observation::nothing(), "2026-03-25T15:40:00Z").is_empty());
    }

    #[test]
    fn a_build_is_not_called_clean_just_after_a_runner_that_turned_up_late_has_ended() {
        let mut failed = failing();
        failed.fail(Left::Nothing, time(DURING)).unwrap();
        let ended = RunnerState::Ended { at: time("2026-03-25T14:40:55Z"), reported: false };
        let nothing = Observation { resources: Some(vec![]), execution: None, ..after(ended, None) };
        assert!(decided(&failed, &nothing, "2026-03-25T14:41:05Z").is_empty());
        assert_eq!(decided(&failed, &nothing, "2026-03-25T14:42:05Z"), [Action::RecordClean]);
    }

    #[test]
    fn a_succeeded_build_keeps_its_images_and_snapshots_and_nothing_else() {
        let mut record = building();
        let kept: BTreeSet<String> = ["snap-kept".to_owned()].into();
        record.succeed(made(AMI), kept, time(DURING)).unwrap();
        let stray = ours(ResourceKind::Snapshot, "snap-stray");
        let image = whole_image(AMI, "us-east-1");
        // The snapshot may be shown before its image is.
        for found in [
            vec![image, ours(ResourceKind::Snapshot, "snap-kept"), stray.clone()],
            vec![ours(ResourceKind::Snapshot, "snap-kept"), stray.clone()],
        ] {
            let seen = Observation { execution: None, ..left_behind(found) };
            let expected = [Action::NoteQuiet(false), Action::Delete(stray.clone()), Action::Wait];
            // A snapshot waits for every image of the build's that must go, and this one stays.
            assert_eq!(decided(&record, &seen, "2026-03-25T14:41:00Z"), expected);
        }
    }

    #[test]
    fn a_copy_that_somebody_made_of_a_finished_image_is_theirs_tags_and_all() {
        let mut record = building();
        record.succeed(made(AMI), BTreeSet::new(), time(DURING)).unwrap();
        let mut copy = whole_image("ami-0123456789abcdef0", "us-east-1");
        copy.copied_from = Some(AMI.into());
        assert!(leftovers(&record, &[copy], "prod", &Ledger::default()).is_empty());
    }

    #[test]
    fn a_runner_has_time_to_end_by_itself_after_its_build_succeeded() {
        let mut record = building();
        record.succeed(made(AMI), BTreeSet::new(), time(DURING)).unwrap();
        let seen = Observation { execution: None, ..runs() };
        assert!(decided(&record, &seen, "2026-03-25T14:40:30Z").is_empty());
        assert_eq!(
            decided(&record, &seen, "2026-03-25T14:41:30Z"),
            [Action::NoteQuiet(false), Action::StopRunner("runner:1".into()), Action::Wait]
        );
    }
}
