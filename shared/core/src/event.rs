//! What the outside world is told when a build changes: events, and how long an ended one took.
//!
//! Both are worked out from the record before and after a write, and from nothing else, so that they are the same however
//! often they are. Must never tell anything that a template, a variable or a log may have put into the record: no message, no
//! tag, no template's address.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::build::{Artifact, BuildRecord, BuildStatus, FailureKind, Origin, Phase, RunnerKind, Stage};
use crate::ids::{BuildId, ImageId, Provider, Region};

/// The version of [`BuildEvent`]'s form. It changes where a field goes or means something else, and not where one is added.
/// `infra/events.schema.json` describes it.
pub const SCHEMA: u32 = 1;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Status or phase are others than before.
    StateChange,
    /// Of a build that has ended: whether something of it is left is known otherwise than before.
    CleanUpChange,
}

impl EventKind {
    /// What EventBridge calls the detail type. Rules name it.
    pub fn detail_type(self) -> &'static str {
        match self {
            Self::StateChange => "Build State Change",
            Self::CleanUpChange => "Build Clean-Up Change",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::StateChange => "state",
            Self::CleanUpChange => "clean-up",
        }
    }
}

/// One event, as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildEvent {
    /// What it is about.
    #[serde(skip)]
    pub kind: EventKind,
    /// When it happened, as far as the table tells.
    #[serde(skip)]
    pub at: Timestamp,
    schema: u32,
    /// The same whenever this event is told again, and of no other event.
    event_id: String,
    stack: String,
    build_id: BuildId,
    /// Grows with every change of the build: what orders its events.
    revision: u64,
    provider: Provider,
    region: Region,
    runner: RunnerKind,
    origin: Origin,
    /// The id of the key that it was requested with, which is no secret.
    requested_by: Option<String>,
    /// Of the template as its author wrote it; known once the build is prepared.
    template_digest: Option<String>,
    status: BuildStatus,
    phase: Phase,
    previous_status: Option<BuildStatus>,
    previous_phase: Option<Phase>,
    image_id: Option<ImageId>,
    images: Vec<Artifact>,
    failure: Option<ToldFailure>,
    clean: bool,
    /// How many things were found of it and could not be removed yet.
    leftovers: usize,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    deadline: Option<Timestamp>,
    completed_at: Option<Timestamp>,
}

impl BuildEvent {
    /// The build.
    pub fn build_id(&self) -> BuildId {
        self.build_id
    }

    /// The same whenever this event is told again, and of no other event.
    pub fn event_id(&self) -> &str {
        &self.event_id
    }
}

/// Of a failure what is told to everybody; the message may hold what a template printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct ToldFailure {
    stage: Stage,
    kind: FailureKind,
}

/// A record that was written: before, which is none for a new build, and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Before.
    pub old: Option<BuildRecord>,
    /// After.
    pub new: BuildRecord,
    /// When the table wrote it.
    pub at: Timestamp,
}

impl Change {
    /// What is told of it, in order; nothing of a write that changes neither state nor what is left.
    pub fn events(&self, stack: &str) -> Vec<BuildEvent> {
        let state = |record: &BuildRecord| (record.status, record.phase);
        let mut events = Vec::new();
        if self.old.as_ref().map(state) != Some(state(&self.new)) {
            events.push(self.event(EventKind::StateChange, stack));
        }
        let before = self.old.as_ref().map_or(Standing::default(), Standing::of);
        if Standing::of(&self.new) != before {
            events.push(self.event(EventKind::CleanUpChange, stack));
        }
        events
    }

    fn event(&self, kind: EventKind, stack: &str) -> BuildEvent {
        let new = &self.new;
        // While nobody knows how it went, nothing is said: it may turn out well.
        let failure = new.failure.as_ref().filter(|_| new.doomed);
        BuildEvent {
            kind,
            at: self.at,
            schema: SCHEMA,
            event_id: format!("{}/{}/{}", new.build_id, new.revision, kind.as_str()),
            stack: stack.to_owned(),
            build_id: new.build_id,
            revision: new.revision,
            provider: new.provider,
            region: new.region.clone(),
            runner: new.runner,
            origin: new.origin,
            requested_by: new.requested_by.clone(),
            template_digest: new.template.digest.clone(),
            status: new.status,
            phase: new.phase,
            previous_status: self.old.as_ref().map(|old| old.status),
            previous_phase: self.old.as_ref().map(|old| old.phase),
            image_id: new.image_id.clone(),
            images: new.artifacts.clone(),
            failure: failure.map(|failure| ToldFailure { stage: failure.stage, kind: failure.kind }),
            clean: new.clean,
            leftovers: left(new),
            created_at: new.created_at,
            started_at: new.started_at,
            deadline: new.deadline,
            completed_at: new.completed_at,
        }
    }

    /// The numbers of a build that has ended by this change; none of any other change.
    pub fn ended(&self) -> Option<Ended> {
        let was_final = self.old.as_ref().is_some_and(|old| old.status.is_final());
        let completed_at = self.new.completed_at.filter(|_| self.new.status.is_final() && !was_final)?;
        let since = |began: Option<Timestamp>| began.map(|began| completed_at.duration_since(began));
        let outcome = match self.new.phase {
            Phase::Succeeded => Outcome::Succeeded,
            Phase::Cancelled => Outcome::Cancelled,
            _ => Outcome::Failed,
        };
        // A build that succeeds forgets that it was thought to fail, so that what it took to find out counts as its runner's.
        let runner_until = self.new.failing_since.unwrap_or(completed_at);
        Some(Ended {
            provider: self.new.provider,
            outcome,
            queued: self.new.started_at.unwrap_or(completed_at).duration_since(self.new.created_at),
            runner: self.new.runner_requested_at.map(|began| runner_until.duration_since(began)),
            clean_up: since(self.new.failing_since),
            whole: completed_at.duration_since(self.new.created_at),
        })
    }
}

/// Whether something of a build that has ended is left, as far as anybody knows. One that has not ended stands as one that was
/// just seen to leave nothing: it has nothing to tell yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    clean: bool,
    something_left: bool,
}

impl Standing {
    fn of(record: &BuildRecord) -> Self {
        if !record.status.is_final() {
            return Self::default();
        }
        Self { clean: record.clean, something_left: left(record) > 0 }
    }
}

fn left(record: &BuildRecord) -> usize {
    record.leftovers.found.without(&record.leftovers.removed).ids().count()
}

/// How a build ended, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an image.
    Succeeded,
    /// Without one, and nobody wanted that; a time-out too.
    Failed,
    /// Without one, since somebody cancelled it.
    Cancelled,
}

/// A build that has ended, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The agent.
    pub provider: Provider,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it waited to be taken up; all of its time where it never was.
    pub queued: SignedDuration,
    /// From when a runner was asked for to when the build ended or began to fail; none where there never was one.
    pub runner: Option<SignedDuration>,
    /// From when it began to fail to its end; none where it did not.
    pub clean_up: Option<SignedDuration>,
    /// From when it was submitted.
    pub whole: SignedDuration,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;
    use crate::build::tests::{building, made, queued, time};
    use crate::build::{Failure, Left};

    const NOW: &str = "2026-03-25T14:40:00Z";

    fn change(old: Option<&BuildRecord>, new: &BuildRecord) -> Change {
        Change { old: old.cloned(), new: new.clone(), at: time(NOW) }
    }

    fn told(old: Option<&BuildRecord>, new: &BuildRecord) -> Vec<(&'static str, Value)> {
        let events = change(old, new).events("prod");
        events.iter().map(|event| (event.kind.detail_type(), serde_json::to_value(event).unwrap())).collect()
    }

    fn failing(failure: Failure) -> BuildRecord {
        let mut record = building();
        record.begin_clean_up(failure, time(NOW)).unwrap();
        record
    }

    fn failed(left: Left) -> (BuildRecord, BuildRecord) {
        let mut record = failing(Failure::of(Stage::RunPacker, "its secret is hunter2"));
        let before = record.clone();
        record.fail(left, time("2026-03-25T14:42:00Z")).unwrap();
        (before, record)
    }

    #[test]
    fn a_new_build_is_told_with_nothing_before_it() {
        let [(kind, event)] = &told(None, &queued())[..] else { panic!("one event") };
        assert_eq!(*kind, "Build State Change");
        assert_eq!((&event["status"], &event["previous_status"]), (&json!("queued"), &Value::Null));
        assert_eq!(event["event_id"], "550e8400-e29b-41d4-a716-446655440000/0/state");
    }

    #[test]
    fn a_write_that_changes_no_state_is_not_told() {
        let old = building();
        let mut new = old.clone();
        new.revision += 1;
        new.tried_at = Some(time(NOW));
        assert_eq!(told(Some(&old), &new), []);
        assert_eq!(told(Some(&old), &old), []);
    }

    #[test]
    fn a_change_of_phase_alone_is_told() {
        let mut old = queued();
        old.start(time(NOW)).unwrap();
        let mut new = old.clone();
        new.runner_starting(time(NOW)).unwrap();
        let [(_, event)] = &told(Some(&old), &new)[..] else { panic!("one event") };
        assert_eq!((&event["previous_phase"], &event["phase"]), (&json!("preparing"), &json!("starting")));
        assert_eq!((&event["previous_status"], &event["status"]), (&json!("building"), &json!("building")));
    }

    #[test]
    fn a_success_is_told_with_its_images() {
        let old = building();
        let mut new = old.clone();
        new.succeed(made("ami-0abcdef1234567890"), BTreeSet::new(), time(NOW)).unwrap();
        let [(_, event)] = &told(Some(&old), &new)[..] else { panic!("one event") };
        assert_eq!(event["image_id"], "ami-0abcdef1234567890");
        assert_eq!(event["images"], json!([{"region": "us-east-1", "image_id": "ami-0abcdef1234567890"}]));
        assert_eq!(event["failure"], Value::Null);
    }

    #[test]
    fn of_a_failure_its_kind_is_told_and_not_its_words() {
        let (old, new) = failed(Left::Nothing);
        let [(_, event)] = &told(Some(&old), &new)[..] else { panic!("one event") };
        assert_eq!(event["failure"], json!({"stage": "run-packer", "kind": "failed"}));
        assert!(!event.to_string().contains("hunter2"), "{event}");
    }

    #[test]
    fn no_reason_is_told_before_it_is_settled() {
        let old = building();
        let new = failing(Failure::lost(Stage::RunPacker, "gone"));
        let [(_, event)] = &told(Some(&old), &new)[..] else { panic!("one event") };
        assert_eq!((&event["phase"], &event["failure"]), (&json!("cleaning_up"), &Value::Null));
    }

    #[test]
    fn what_is_left_of_an_ended_build_and_that_it_is_gone_are_told_by_themselves() {
        let (mut old, mut new) = failed(Left::Something);
        for record in [&mut old, &mut new] {
            record.leftovers.found.instances.insert("i-1".into());
        }
        let kinds: Vec<_> = told(Some(&old), &new).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["Build State Change", "Build Clean-Up Change"]);

        let (old, mut new) = (new.clone(), new);
        new.leftovers.removed.instances.insert("i-1".into());
        let [(kind, event)] = &told(Some(&old), &new)[..] else { panic!("one event") };
        assert_eq!(*kind, "Build Clean-Up Change");
        assert_eq!((&event["leftovers"], &event["clean"]), (&json!(0), &json!(false)));

        let (old, mut new) = (new.clone(), new);
        new.clean = true;
        let [(_, event)] = &told(Some(&old), &new)[..] else { panic!("one event") };
        assert_eq!(event["clean"], true);
        assert!(event["event_id"].as_str().unwrap().ends_with("/clean-up"), "{event}");

        let (old, mut new) = (new.clone(), new);
        new.reopen();
        assert_eq!(told(Some(&old), &new)[0].1["clean"], false, "something turned up after all");
    }

    #[test]
    fn a_build_that_never_made_anything_is_clean_at_its_end() {
        let (old, new) = failed(Left::NeverAnything);
        let kinds: Vec<_> = told(Some(&old), &new).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["Build State Change", "Build Clean-Up Change"]);
    }

    #[test]
    fn an_event_has_the_same_id_whenever_it_is_told_and_no_two_have_one() {
        let (old, new) = failed(Left::NeverAnything);
        let ids = || -> Vec<String> {
            told(Some(&old), &new).into_iter().map(|(_, event)| event["event_id"].to_string()).collect()
        };
        assert_eq!(ids(), ids());
        assert_eq!(ids().into_iter().collect::<BTreeSet<_>>().len(), 2);
    }

    #[test]
    fn a_build_is_counted_once_at_its_end() {
        let old = building();
        let mut new = old.clone();
        new.succeed(made("ami-0abcdef1234567890"), BTreeSet::new(), time(NOW)).unwrap();
        let expected = Ended {
            provider: Provider::ClaudeCode,
            outcome: Outcome::Succeeded,
            queued: SignedDuration::from_secs(5),
            runner: Some(SignedDuration::from_secs(594)),
            clean_up: None,
            whole: SignedDuration::from_secs(600),
        };
        assert_eq!(change(Some(&old), &new).ended(), Some(expected));
        let (old, mut new) = (new.clone(), new);
        new.clean = true;
        assert_eq!(change(Some(&old), &new).ended(), None);
        assert_eq!(change(None, &queued()).ended(), None);
    }

    #[test]
    fn a_failure_is_counted_with_how_long_it_took_to_clean_up() {
        let (old, new) = failed(Left::Nothing);
        let ended = change(Some(&old), &new).ended().unwrap();
        assert_eq!(ended.outcome, Outcome::Failed);
        assert_eq!(ended.runner, Some(SignedDuration::from_secs(594)));
        assert_eq!(ended.clean_up, Some(SignedDuration::from_secs(120)));
        assert_eq!(ended.whole, SignedDuration::from_secs(720));
    }

    #[test]
    fn a_build_that_is_cancelled_while_it_waits_has_waited_all_of_its_time_and_had_no_runner() {
        let mut old = queued();
        old.begin_clean_up(Failure::cancelled(Stage::PrepareBuild), time(NOW)).unwrap();
        let mut new = old.clone();
        new.fail(Left::NeverAnything, time(NOW)).unwrap();
        let ended = change(Some(&old), &new).ended().unwrap();
        assert_eq!((ended.outcome, ended.runner), (Outcome::Cancelled, None));
        assert_eq!(ended.queued, SignedDuration::from_secs(600));
    }
}
