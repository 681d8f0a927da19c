//! The life of a build: the one place that decides what happens next.
//!
//! The steps of the state machine and the poller observe, call [`decide`], and carry out what it says. It is a pure
//! function, so that each decision can be tested, and made again after a crash with the same result. Must never act.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::build::{BuildRecord, BuildStatus, Failure, Stage};
use crate::ledger::Ledger;
use crate::ports::{ExecutionState, RunnerState};
use crate::resource::{self, Owner, Resource, ResourceKind};

/// How long a queued build may wait for its execution before somebody else starts it.
pub const DISPATCH_AFTER: SignedDuration = SignedDuration::from_secs(20);
/// How long Packer has to clean up after itself once the time is over, before the rest is torn down around it.
pub const STOP_GRACE: SignedDuration = SignedDuration::from_secs(45);
/// How long the state machine has to react after a runner ended that made no report.
pub const SILENT_RUNNER_GRACE: SignedDuration = SignedDuration::from_secs(10);
/// How long the state machine has to finish a build whose runner has reported.
pub const FINISH_GRACE: SignedDuration = SignedDuration::from_secs(300);
/// How long preparing a build and starting its runner may take.
pub const START_GRACE: SignedDuration = SignedDuration::from_secs(300);
/// How long a failed build may be cleaned up before it is told as failed although something is left.
pub const CLEAN_UP_PATIENCE: SignedDuration = SignedDuration::from_secs(900);

/// What was seen of a build in AWS.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Its execution; none where nobody looked.
    pub execution: Option<ExecutionState>,
    /// Its runner; none where nobody looked.
    pub runner: Option<RunnerState>,
    /// What EC2 holds that may be its own; none where nobody looked.
    pub resources: Option<Vec<Resource>>,
    /// What the runner noted.
    pub ledger: Ledger,
}

impl Observation {
    /// Nobody has looked at anything.
    pub fn nothing() -> Self {
        Self { execution: None, runner: None, resources: None, ledger: Ledger::default() }
    }
}

/// What to do next. Every action may be done twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start its execution.
    Dispatch,
    /// Record that it fails, and why.
    BeginCleanUp(Failure),
    /// Stop its runner.
    StopRunner(String),
    /// Look at its execution and its runner.
    LookAtRunner,
    /// Look for what it left in EC2.
    LookForLeftovers,
    /// Delete this, which is proven to be its own.
    Delete(Resource),
    /// Come back later: something takes its time.
    Wait,
    /// Record that it failed; `clean` where nothing is left.
    RecordFailed {
        /// Whether nothing is left.
        clean: bool,
    },
    /// Record that nothing is left of a build that has ended.
    RecordClean,
}

/// What happens next with a build. Empty: nothing, for good or for now.
pub fn decide(record: &BuildRecord, seen: &Observation, stack: &str, now: Timestamp) -> Vec<Action> {
    match record.status {
        BuildStatus::Queued => queued(record, seen, now),
        BuildStatus::Building if record.failure.is_some() => clean_up(record, seen, stack, now),
        BuildStatus::Building => building(record, seen, now),
        BuildStatus::Succeeded | BuildStatus::Failed if record.clean => Vec::new(),
        BuildStatus::Succeeded | BuildStatus::Failed => clean_up(record, seen, stack, now),
    }
}

fn queued(record: &BuildRecord, seen: &Observation, now: Timestamp) -> Vec<Action> {
    let waited = now.duration_since(record.created_at);
    match seen.execution {
        Some(ExecutionState::Ended) => vec![Action::BeginCleanUp(Failure::of(
            Stage::PrepareBuild,
            "the build's execution ended before the build began",
        ))],
        Some(ExecutionState::Running) if waited > START_GRACE => {
            vec![Action::BeginCleanUp(Failure::of(Stage::PrepareBuild, "the build was not taken up in time"))]
        }
        Some(ExecutionState::Absent) => vec![Action::Dispatch],
        Some(ExecutionState::Running) => Vec::new(),
        None if waited > DISPATCH_AFTER => vec![Action::LookAtRunner],
        None => Vec::new(),
    }
}

fn building(record: &BuildRecord, seen: &Observation, now: Timestamp) -> Vec<Action> {
    if record.deadline.is_some_and(|deadline| now > deadline + STOP_GRACE) {
        return vec![Action::BeginCleanUp(Failure::timed_out(record.timeout_secs))];
    }
    if record.runner_id.is_none() {
        let began = record.started_at.unwrap_or(record.created_at);
        return if now.duration_since(began) > START_GRACE {
            vec![Action::BeginCleanUp(Failure::of(
                Stage::StartRunner,
                "the build's runner was not started in time",
            ))]
        } else {
            Vec::new()
        };
    }
    match seen.runner {
        None => vec![Action::LookAtRunner],
        Some(RunnerState::Running) => Vec::new(),
        Some(RunnerState::Absent) => vec![Action::BeginCleanUp(runner_lost())],
        Some(RunnerState::Ended { at, reported: false }) if now.duration_since(at) > SILENT_RUNNER_GRACE => {
            vec![Action::BeginCleanUp(runner_lost())]
        }
        Some(RunnerState::Ended { at, reported: true }) if now.duration_since(at) > FINISH_GRACE => {
            vec![Action::BeginCleanUp(Failure::of(
                Stage::FinishBuild,
                "the build's result was not recorded in time",
            ))]
        }
        Some(RunnerState::Ended { .. }) => Vec::new(),
    }
}

fn runner_lost() -> Failure {
    Failure::of(Stage::RunPacker, "the build's runner ended without a report")
}

fn clean_up(record: &BuildRecord, seen: &Observation, stack: &str, now: Timestamp) -> Vec<Action> {
    // While the runner lives it could make more; so it goes first, and nothing is called clean before it is gone.
    if let Some(runner_id) = &record.runner_id {
        match seen.runner {
            None => return vec![Action::LookAtRunner],
            Some(RunnerState::Running) => return vec![Action::StopRunner(runner_id.clone()), Action::Wait],
            Some(RunnerState::Ended { .. } | RunnerState::Absent) => {}
        }
    }
    let Some(found) = &seen.resources else {
        return vec![Action::LookForLeftovers];
    };
    let left = leftovers(record, found, stack, &seen.ledger);
    if left.is_empty() {
        return vec![if record.status.is_final() {
            Action::RecordClean
        } else {
            Action::RecordFailed { clean: true }
        }];
    }
    let mut actions: Vec<Action> = deletable(&left).into_iter().cloned().map(Action::Delete).collect();
    if !record.status.is_final() && patience_is_over(record, now) {
        actions.push(Action::RecordFailed { clean: false });
    }
    actions.push(Action::Wait);
    actions
}

fn patience_is_over(record: &BuildRecord, now: Timestamp) -> bool {
    let due = record.deadline.unwrap_or(record.created_at) + STOP_GRACE;
    now > due + CLEAN_UP_PATIENCE
}

/// What of `found` is the build's own and must go: everything but the image it succeeded with.
pub fn leftovers(record: &BuildRecord, found: &[Resource], stack: &str, ledger: &Ledger) -> Vec<Resource> {
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    if record.status == BuildStatus::Succeeded
        && let Some(image_id) = &record.image_id
    {
        kept.insert(image_id.as_str());
        for resource in found.iter().filter(|resource| resource.id == image_id.as_str()) {
            kept.extend(resource.snapshots.iter().map(String::as_str));
        }
    }
    let owner = Owner {
        stack,
        build_id: record.build_id,
        began: record.created_at,
        ledger,
        proven: &record.remaining,
    };
    resource::owned(found, &owner)
        .into_iter()
        .map(|(resource, _)| resource)
        .filter(|resource| !kept.contains(resource.id.as_str()))
        .collect()
}

/// Those that can be deleted now: EC2 refuses a group or volume while its instance lives, and a snapshot while its AMI
/// is registered.
fn deletable(left: &[Resource]) -> Vec<&Resource> {
    let has = |kind| left.iter().any(|resource| resource.kind == kind);
    let instances = has(ResourceKind::Instance);
    let images = has(ResourceKind::Image);
    left.iter()
        .filter(|resource| !resource.going)
        .filter(|resource| match resource.kind {
            ResourceKind::Instance | ResourceKind::KeyPair | ResourceKind::Image => true,
            ResourceKind::Volume | ResourceKind::SecurityGroup => !instances,
            ResourceKind::Snapshot => !images,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::build::tests::{building, queued, time};
    use crate::resource::tag;

    fn seen_runner(runner: RunnerState) -> Observation {
        Observation { runner: Some(runner), ..Observation::nothing() }
    }

    fn failing() -> BuildRecord {
        let mut record = building();
        record.begin_clean_up(runner_lost()).unwrap();
        record
    }

    fn ours(kind: ResourceKind, id: &str) -> Resource {
        Resource {
            kind,
            id: id.into(),
            going: false,
            tags: BTreeMap::from([
                (tag::STACK.to_owned(), "prod".to_owned()),
                (tag::BUILD_ID.to_owned(), building().build_id.to_string()),
            ]),
            name: String::new(),
            description: String::new(),
            created_at: None,
            parents: BTreeSet::new(),
            snapshots: BTreeSet::new(),
        }
    }

    const ENDED: RunnerState = RunnerState::Ended { at: Timestamp::UNIX_EPOCH, reported: false };

    fn left(resources: Vec<Resource>) -> Observation {
        Observation { resources: Some(resources), ..seen_runner(ENDED) }
    }

    #[test]
    fn a_fresh_queued_build_is_left_to_its_execution() {
        assert!(decide(&queued(), &Observation::nothing(), "prod", time("2026-03-25T14:30:01Z")).is_empty());
    }

    #[test]
    fn a_queued_build_without_execution_is_dispatched_again() {
        let later = time("2026-03-25T14:31:00Z");
        assert_eq!(decide(&queued(), &Observation::nothing(), "prod", later), [Action::LookAtRunner]);
        let absent = Observation { execution: Some(ExecutionState::Absent), ..Observation::nothing() };
        assert_eq!(decide(&queued(), &absent, "prod", later), [Action::Dispatch]);
    }

    #[test]
    fn a_running_build_is_left_alone_until_its_time_is_over() {
        let seen = seen_runner(RunnerState::Running);
        assert!(decide(&building(), &seen, "prod", time("2026-03-25T15:00:05Z")).is_empty());
        let late = decide(&building(), &seen, "prod", time("2026-03-25T15:00:51Z"));
        let [Action::BeginCleanUp(failure)] = late.as_slice() else { panic!("{late:?}") };
        assert_eq!(failure.message, "Packer build timed out after 1800 seconds");
    }

    #[test]
    fn a_runner_that_ended_silently_fails_the_build_after_a_grace() {
        let at = time("2026-03-25T14:40:00Z");
        let seen = seen_runner(RunnerState::Ended { at, reported: false });
        assert!(decide(&building(), &seen, "prod", time("2026-03-25T14:40:05Z")).is_empty());
        assert_eq!(
            decide(&building(), &seen, "prod", time("2026-03-25T14:40:11Z")),
            [Action::BeginCleanUp(runner_lost())]
        );
    }

    #[test]
    fn a_runner_that_reported_leaves_the_state_machine_time_to_finish() {
        let at = time("2026-03-25T14:40:00Z");
        let seen = seen_runner(RunnerState::Ended { at, reported: true });
        assert!(decide(&building(), &seen, "prod", time("2026-03-25T14:44:00Z")).is_empty());
        assert_eq!(decide(&building(), &seen, "prod", time("2026-03-25T14:46:00Z")).len(), 1);
    }

    #[test]
    fn the_runner_goes_before_anything_is_deleted_or_called_clean() {
        let seen = Observation { resources: Some(vec![]), ..seen_runner(RunnerState::Running) };
        let now = time("2026-03-25T14:40:00Z");
        assert_eq!(
            decide(&failing(), &seen, "prod", now),
            [Action::StopRunner("runner:1".into()), Action::Wait]
        );
    }

    #[test]
    fn a_build_ends_failed_only_after_a_look_that_found_nothing() {
        let now = time("2026-03-25T14:40:00Z");
        assert_eq!(decide(&failing(), &seen_runner(ENDED), "prod", now), [Action::LookForLeftovers]);
        assert_eq!(decide(&failing(), &left(vec![]), "prod", now), [Action::RecordFailed { clean: true }]);
    }

    #[test]
    fn what_another_thing_holds_waits_for_it() {
        let now = time("2026-03-25T14:40:00Z");
        let instance = ours(ResourceKind::Instance, "i-1");
        let volume = ours(ResourceKind::Volume, "vol-1");
        let key = ours(ResourceKind::KeyPair, "k");
        let image = ours(ResourceKind::Image, "ami-1");
        let snapshot = ours(ResourceKind::Snapshot, "snap-1");
        let all = vec![instance.clone(), volume.clone(), key.clone(), image.clone(), snapshot.clone()];
        assert_eq!(
            decide(&failing(), &left(all), "prod", now),
            [Action::Delete(instance), Action::Delete(key), Action::Delete(image), Action::Wait]
        );
        assert_eq!(
            decide(&failing(), &left(vec![volume.clone(), snapshot.clone()]), "prod", now),
            [Action::Delete(volume), Action::Delete(snapshot), Action::Wait]
        );
    }

    #[test]
    fn an_instance_that_shuts_down_is_waited_for() {
        let mut instance = ours(ResourceKind::Instance, "i-1");
        instance.going = true;
        let seen = left(vec![instance, ours(ResourceKind::SecurityGroup, "sg-1")]);
        assert_eq!(decide(&failing(), &seen, "prod", time("2026-03-25T14:40:00Z")), [Action::Wait]);
    }

    #[test]
    fn a_build_that_cannot_be_cleaned_says_so_in_the_end_and_keeps_being_tried() {
        let instance = ours(ResourceKind::Instance, "i-1");
        let late = time("2026-03-25T15:30:00Z");
        let actions = decide(&failing(), &left(vec![instance.clone()]), "prod", late);
        assert_eq!(
            actions,
            [Action::Delete(instance.clone()), Action::RecordFailed { clean: false }, Action::Wait]
        );
        let mut failed = failing();
        failed.fail(false, late).unwrap();
        assert_eq!(
            decide(&failed, &left(vec![instance.clone()]), "prod", late),
            [Action::Delete(instance), Action::Wait]
        );
        assert_eq!(decide(&failed, &left(vec![]), "prod", late), [Action::RecordClean]);
        failed.clean = true;
        assert!(decide(&failed, &Observation::nothing(), "prod", late).is_empty());
    }

    #[test]
    fn a_succeeded_build_keeps_its_image_and_snapshots_and_nothing_else() {
        let mut record = building();
        record.succeed("ami-0abcdef1234567890".parse().unwrap(), record.created_at).unwrap();
        let mut image = ours(ResourceKind::Image, "ami-0abcdef1234567890");
        image.snapshots.insert("snap-kept".into());
        let stray = ours(ResourceKind::Snapshot, "snap-stray");
        let seen = left(vec![image, ours(ResourceKind::Snapshot, "snap-kept"), stray.clone()]);
        assert_eq!(decide(&record, &seen, "prod", record.created_at), [Action::Delete(stray), Action::Wait]);
    }
}
