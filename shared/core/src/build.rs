//! A build's record and the moves it may make.
//!
//! Status goes forward only and a final one never changes: every move is a method here, and refuses what is not allowed.
//! Must never know how a record is stored or who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{BuildId, ImageId, Provider, Region, RequestId};
use crate::resource::Leftovers;
use crate::task_token::TaskTokenDigest;

/// How many task tokens a build may have. A token comes with each try of `RunPacker`, which `infra/build-image.asl.json` limits to six.
const MOST_TASK_TOKENS: usize = 8;

/// The four statuses that callers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildStatus {
    /// Accepted; nothing has been started.
    Queued,
    /// Somebody works on it, or cleans up after it.
    Building,
    /// Its AMI is available. Final.
    Succeeded,
    /// It made no image. Final.
    Failed,
}

impl BuildStatus {
    /// The names of all, for messages.
    pub const NAMES: &str = "queued, building, succeeded, failed";

    /// The status with this name.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Queued, Self::Building, Self::Succeeded, Self::Failed];
        all.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether it never changes again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Building => "building",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for BuildStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where within its status a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits to be taken up.
    Queued,
    /// The template is resolved, checked and tagged.
    Preparing,
    /// A runner is being started.
    Starting,
    /// Packer runs.
    RunningPacker,
    /// It has gone wrong; what it left is being removed.
    CleaningUp,
    /// Ended well.
    Succeeded,
    /// Ended without an image.
    Failed,
    /// Ended because its time was over.
    TimedOut,
    /// Ended because somebody cancelled it.
    Cancelled,
}

/// What runs Packer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunnerKind {
    /// An AWS CodeBuild build.
    Codebuild,
    /// An EC2 instance that lives as long as the build.
    Ec2,
}

impl RunnerKind {
    /// The names of all, for messages.
    pub const NAMES: &str = "codebuild, ec2";

    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Codebuild, Self::Ec2].into_iter().find(|kind| kind.as_str() == name)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Codebuild => "codebuild",
            Self::Ec2 => "ec2",
        }
    }
}

/// What started a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Somebody asked for it by itself. Its images are theirs: nothing but their word deletes them.
    #[default]
    Request,
    /// A rebuild, which deletes its own images once enough newer ones are there.
    Rebuild,
}

/// Who asked for a build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asker {
    /// The id of the key that it was asked for with; none for the service itself.
    pub key_id: Option<String>,
    /// The id of the request; of a scheduled run, that of its invocation.
    pub request_id: Option<RequestId>,
}

/// The step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Resolving, checking and tagging the template.
    PrepareBuild,
    /// Starting a runner.
    StartRunner,
    /// Packer, or the runner that drives it.
    RunPacker,
    /// Checking and recording the image.
    FinishBuild,
}

/// What kind of end a failure is: it decides what is told and whether a finished AMI may still be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Something went wrong, and said so.
    #[default]
    Failed,
    /// Nobody said how it went: the runner is gone, or gives no sign of life, or a step after it broke.
    Lost,
    /// The time was over.
    TimedOut,
    /// Somebody cancelled it.
    Cancelled,
}

impl FailureKind {
    /// Whether Packer may have ended well all the same, so that it has to be found out before anything is decided.
    pub fn may_have_ended_well(self) -> bool {
        matches!(self, Self::Lost | Self::TimedOut)
    }
}

/// Why a build failed, for people to act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub stage: Stage,
    /// What within that step, such as a provisioner; none where the step is one thing.
    pub step: Option<String>,
    /// One sentence.
    pub message: String,
    /// The log's last lines before it, oldest first.
    pub last_log_lines: Vec<String>,
    /// What kind of end it is.
    #[serde(default)]
    pub kind: FailureKind,
}

impl Failure {
    /// The failure of a build whose time was over.
    pub fn timed_out(timeout_secs: u32) -> Self {
        Self {
            stage: Stage::RunPacker,
            step: None,
            message: format!("Packer build timed out after {timeout_secs} seconds"),
            last_log_lines: Vec::new(),
            kind: FailureKind::TimedOut,
        }
    }

    /// The failure of a build that somebody cancelled.
    pub fn cancelled(stage: Stage) -> Self {
        Self { kind: FailureKind::Cancelled, ..Self::of(stage, "cancelled") }
    }

    /// The failure of a build of which nobody said how it went.
    pub fn lost(stage: Stage, message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Lost, ..Self::of(stage, message) }
    }

    /// A failure that is told in one sentence.
    pub fn of(stage: Stage, message: impl Into<String>) -> Self {
        Self {
            stage,
            step: None,
            message: message.into(),
            last_log_lines: Vec::new(),
            kind: FailureKind::Failed,
        }
    }
}

/// An AMI that Packer made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Artifact {
    /// The region that it lives in.
    pub region: Region,
    /// Its id.
    pub image_id: ImageId,
}

/// The template as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateReference {
    /// `builtin://name` or `inline`.
    pub source: String,
    /// `sha256:…` of the bundle as its author wrote it; known once it is prepared.
    pub digest: Option<String>,
}

/// Everything that is known of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its id.
    pub build_id: BuildId,
    /// How often the record was written; guards against two writers.
    pub revision: u64,
    /// What started it.
    #[serde(default)]
    pub origin: Origin,
    /// The agent.
    pub provider: Provider,
    /// The region that the image is built in.
    pub region: Region,
    /// The build instance's type.
    pub instance_type: String,
    /// The build instance's subnet; none for the default VPC's.
    pub subnet_id: Option<String>,
    /// What runs Packer.
    pub runner: RunnerKind,
    /// The template.
    pub template: TemplateReference,
    /// The caller's tags for the AMI.
    pub tags: BTreeMap<String, String>,
    /// The id of the key that it was requested with.
    #[serde(default)]
    pub requested_by: Option<String>,
    /// The id of the request that first asked for it: what the log lines about it name. None for a build from before it was noted.
    #[serde(default)]
    pub request_id: Option<RequestId>,
    /// How long it may take, from its start, in seconds.
    pub timeout_secs: u32,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it was taken up.
    pub started_at: Option<Timestamp>,
    /// When it must have ended.
    pub deadline: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Its status.
    pub status: BuildStatus,
    /// Where within the status.
    pub phase: Phase,
    /// The AMI in the region asked for.
    pub image_id: Option<ImageId>,
    /// Every AMI that Packer made for it, the one above among them: they are kept.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// The snapshots behind them: they are kept too.
    #[serde(default)]
    pub kept_snapshots: BTreeSet<String>,
    /// When a runner was first asked for: from then on there may be one, whatever is known of it.
    #[serde(default)]
    pub runner_requested_at: Option<Timestamp>,
    /// The runner's id, once it was started.
    pub runner_id: Option<String>,
    /// What its runner may know: a step that was repeated has another token than the runner that an earlier try has started. Told to
    /// nobody.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub task_tokens: BTreeSet<TaskTokenDigest>,
    /// Since when it fails.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
    /// Why it fails or failed.
    pub failure: Option<Failure>,
    /// Whether it is settled that it ends without an image. Only from then on its AMIs may be deleted, and it cannot succeed.
    #[serde(default)]
    pub doomed: bool,
    /// What was found and removed. What was found also proves: an instance that is gone no longer vouches for its group.
    #[serde(default)]
    pub leftovers: Leftovers,
    /// Since when nothing of it was seen any more. EC2 shows what it has just made a moment late, so one look is no proof.
    #[serde(default)]
    pub quiet_since: Option<Timestamp>,
    /// When it was last tried in vain to remove what is left, once that has lasted for long.
    #[serde(default)]
    pub tried_at: Option<Timestamp>,
    /// Whether a second look, a while after its end, found nothing of it left. The record stays active until then.
    #[serde(default)]
    pub clean: bool,
}

/// What a build that ends without an image leaves, as far as anybody has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It never made anything: no runner was ever asked for.
    NeverAnything,
    /// The last look found nothing. Another one has to confirm it.
    Nothing,
    /// Something that could not be removed yet.
    Something,
}

/// A move that the record's status does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a build that is {from} cannot {attempted}")]
pub struct NotAllowed {
    /// The status it has.
    pub from: BuildStatus,
    /// What was attempted.
    pub attempted: &'static str,
}

impl BuildRecord {
    /// Takes a queued build up: its time begins. Taking it up twice changes nothing.
    ///
    /// # Errors
    /// A build that has ended, or fails already, cannot be taken up.
    pub fn start(&mut self, now: Timestamp) -> Result<(), NotAllowed> {
        self.guard("be started")?;
        if self.status == BuildStatus::Queued {
            self.status = BuildStatus::Building;
            self.phase = Phase::Preparing;
            self.started_at = Some(now);
            self.deadline = Some(now + SignedDuration::from_secs(i64::from(self.timeout_secs)));
        }
        Ok(())
    }

    /// Says that a runner is about to be started.
    ///
    /// # Errors
    /// As [`BuildRecord::start`]; a queued build has no runner either.
    pub fn runner_starting(&mut self, now: Timestamp) -> Result<(), NotAllowed> {
        self.guard("start a runner")?;
        if self.status == BuildStatus::Queued {
            return Err(NotAllowed { from: self.status, attempted: "start a runner" });
        }
        if self.phase == Phase::Preparing {
            self.phase = Phase::Starting;
        }
        self.runner_requested_at.get_or_insert(now);
        Ok(())
    }

    /// Notes which task token its runner is about to be given. Once there is a runner there is nothing to note: it has one.
    ///
    /// # Errors
    /// There are more tokens than there are tries.
    pub fn runner_holds(&mut self, token: TaskTokenDigest) -> Result<(), NotAllowed> {
        if self.runner_id.is_some() || self.task_tokens.contains(&token) {
            return Ok(());
        }
        if self.task_tokens.len() >= MOST_TASK_TOKENS {
            return Err(NotAllowed { from: self.status, attempted: "start a runner once more" });
        }
        self.task_tokens.insert(token);
        Ok(())
    }

    /// Whether a runner of its may hold this token. Takes the same time whichever it is like.
    pub fn has_task_token(&self, token: &TaskTokenDigest) -> bool {
        self.task_tokens.iter().fold(false, |known, one| known | one.is(token))
    }

    /// Notes the runner.
    ///
    /// # Errors
    /// As [`BuildRecord::runner_starting`].
    pub fn runner_started(&mut self, runner_id: String, now: Timestamp) -> Result<(), NotAllowed> {
        self.runner_starting(now)?;
        self.phase = Phase::RunningPacker;
        self.runner_id.get_or_insert(runner_id);
        Ok(())
    }

    /// Ends it well, with the AMI in the region asked for among all that were made, and the snapshots behind them. Ending it so twice with the same image
    /// changes nothing.
    ///
    /// # Errors
    /// A build that was not started, has failed or is doomed cannot succeed; nor can one without an AMI in its region.
    pub fn succeed(
        &mut self,
        artifacts: Vec<Artifact>,
        snapshots: BTreeSet<String>,
        now: Timestamp,
    ) -> Result<(), NotAllowed> {
        let image_id = self.image_among(&artifacts).cloned();
        if self.status == BuildStatus::Succeeded && self.image_id == image_id {
            return Ok(());
        }
        if self.status != BuildStatus::Building || self.doomed || image_id.is_none() {
            return Err(NotAllowed { from: self.status, attempted: "succeed" });
        }
        self.status = BuildStatus::Succeeded;
        self.phase = Phase::Succeeded;
        self.image_id = image_id;
        self.artifacts = artifacts;
        self.kept_snapshots = snapshots;
        // The runner that reported has a while to end by itself. That of a build that is taken over was stopped, and what it
        // left may go at once.
        self.quiet_since = self.failure.is_none().then_some(now);
        self.failure = None;
        self.failing_since = None;
        self.completed_at = Some(now);
        Ok(())
    }

    /// The first of `artifacts` in the region that was asked for.
    pub fn image_among<'a>(&self, artifacts: &'a [Artifact]) -> Option<&'a ImageId> {
        artifacts.iter().find(|artifact| artifact.region == self.region).map(|artifact| &artifact.image_id)
    }

    /// Says that it fails, and why. The first reason stays, unless it was one that left open how the build went. What it
    /// left is to be removed before it ends.
    ///
    /// # Errors
    /// A build that has ended cannot fail.
    pub fn begin_clean_up(&mut self, failure: Failure, now: Timestamp) -> Result<(), NotAllowed> {
        if self.status.is_final() {
            return Err(NotAllowed { from: self.status, attempted: "fail" });
        }
        self.status = BuildStatus::Building;
        self.phase = Phase::CleaningUp;
        self.failing_since.get_or_insert(now);
        if !failure.kind.may_have_ended_well() && !self.doomed {
            self.doomed = true;
            self.failure = Some(failure);
        } else {
            self.failure.get_or_insert(failure);
        }
        Ok(())
    }

    /// Settles that a build that fails ends without an image; `truth` where it turned out why.
    ///
    /// # Errors
    /// Only a build that fails can be doomed.
    pub fn doom(&mut self, truth: Option<Failure>) -> Result<(), NotAllowed> {
        if self.status != BuildStatus::Building || self.failure.is_none() {
            return Err(NotAllowed { from: self.status, attempted: "be settled as failed" });
        }
        if !self.doomed {
            self.doomed = true;
            self.failure = truth.or(self.failure.take());
        }
        Ok(())
    }

    /// Ends it without an image.
    ///
    /// # Errors
    /// Only a doomed build ends so.
    pub fn fail(&mut self, left: Left, now: Timestamp) -> Result<(), NotAllowed> {
        let (BuildStatus::Building, true, Some(failure)) = (self.status, self.doomed, &self.failure) else {
            return Err(NotAllowed { from: self.status, attempted: "end as failed" });
        };
        self.phase = match failure.kind {
            FailureKind::Failed | FailureKind::Lost => Phase::Failed,
            FailureKind::TimedOut => Phase::TimedOut,
            FailureKind::Cancelled => Phase::Cancelled,
        };
        self.status = BuildStatus::Failed;
        self.completed_at = Some(now);
        self.quiet_since = (left == Left::Nothing).then_some(now);
        self.clean = left == Left::NeverAnything;
        Ok(())
    }

    /// Something of it was found after it had ended and was called clean: it is looked after again. Its status stays.
    pub fn reopen(&mut self) {
        if self.status.is_final() {
            self.clean = false;
            self.quiet_since = None;
        }
    }

    /// Notes a runner of its that was found in AWS and that nobody had noted.
    pub fn runner_found(&mut self, runner_id: String) {
        if self.phase == Phase::Starting {
            self.phase = Phase::RunningPacker;
        }
        self.runner_id.get_or_insert(runner_id);
    }

    /// Whether there is, was, or may yet turn out to be a runner.
    pub fn may_have_runner(&self) -> bool {
        self.runner_id.is_some() || self.runner_requested_at.is_some()
    }

    /// The step that it is in, for a failure that names none.
    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Queued | Phase::Preparing => Stage::PrepareBuild,
            Phase::Starting => Stage::StartRunner,
            Phase::RunningPacker
            | Phase::CleaningUp
            | Phase::Succeeded
            | Phase::Failed
            | Phase::TimedOut
            | Phase::Cancelled => Stage::RunPacker,
        }
    }

    /// Whether somebody must still look after it: it has not ended, or something of it is left.
    pub fn is_active(&self) -> bool {
        !(self.status.is_final() && self.clean)
    }

    fn guard(&self, attempted: &'static str) -> Result<(), NotAllowed> {
        if self.status.is_final() || self.failure.is_some() {
            return Err(NotAllowed { from: self.status, attempted });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    pub(crate) fn queued() -> BuildRecord {
        BuildRecord {
            build_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            revision: 0,
            origin: Origin::Request,
            provider: Provider::ClaudeCode,
            region: "us-east-1".parse().unwrap(),
            instance_type: "t3.medium".into(),
            subnet_id: None,
            runner: RunnerKind::Codebuild,
            template: TemplateReference { source: "builtin://default-ec2".into(), digest: None },
            tags: BTreeMap::new(),
            requested_by: None,
            request_id: None,
            timeout_secs: 1800,
            created_at: time("2026-03-25T14:30:00Z"),
            started_at: None,
            deadline: None,
            completed_at: None,
            status: BuildStatus::Queued,
            phase: Phase::Queued,
            image_id: None,
            artifacts: Vec::new(),
            kept_snapshots: BTreeSet::new(),
            runner_requested_at: None,
            runner_id: None,
            task_tokens: BTreeSet::new(),
            failing_since: None,
            failure: None,
            doomed: false,
            leftovers: Leftovers::default(),
            quiet_since: None,
            tried_at: None,
            clean: false,
        }
    }

    pub(crate) fn building() -> BuildRecord {
        let mut record = queued();
        record.start(time("2026-03-25T14:30:05Z")).unwrap();
        record.runner_started("runner:1".into(), time("2026-03-25T14:30:06Z")).unwrap();
        record
    }

    pub(crate) fn made(ami: &str) -> Vec<Artifact> {
        vec![Artifact { region: "us-east-1".parse().unwrap(), image_id: ami.parse().unwrap() }]
    }

    const AMI: &str = "ami-0abcdef1234567890";

    #[test]
    fn time_begins_when_it_is_taken_up() {
        let mut record = queued();
        record.start(time("2026-03-25T15:00:00Z")).unwrap();
        assert_eq!(record.deadline, Some(time("2026-03-25T15:30:00Z")));
        record.start(time("2026-03-25T16:00:00Z")).unwrap();
        assert_eq!(record.deadline, Some(time("2026-03-25T15:30:00Z")), "a repeated step gives no more time");
    }

    #[test]
    fn a_final_status_never_changes() {
        let now = time("2026-03-25T15:00:00Z");
        let mut succeeded = building();
        succeeded.succeed(made(AMI), BTreeSet::new(), now).unwrap();
        let before = succeeded.clone();
        assert!(succeeded.begin_clean_up(Failure::timed_out(1800), time("2026-03-25T15:00:00Z")).is_err());
        assert!(succeeded.fail(Left::Nothing, now).is_err());
        assert!(succeeded.start(now).is_err());
        assert!(succeeded.runner_started("runner:2".into(), now).is_err());
        assert!(succeeded.succeed(made("ami-12345678"), BTreeSet::new(), now).is_err());
        succeeded.succeed(made(AMI), BTreeSet::new(), time("2026-03-26T00:00:00Z")).unwrap();
        assert_eq!(succeeded, before);

        let mut failed = building();
        failed.begin_clean_up(Failure::timed_out(1800), time("2026-03-25T15:00:00Z")).unwrap();
        assert!(failed.fail(Left::Nothing, now).is_err(), "not before it is settled that there is no image");
        failed.doom(None).unwrap();
        failed.fail(Left::Nothing, now).unwrap();
        let before = failed.clone();
        assert!(failed.succeed(made(AMI), BTreeSet::new(), now).is_err());
        assert!(
            failed
                .begin_clean_up(Failure::of(Stage::RunPacker, "again"), time("2026-03-25T15:00:00Z"))
                .is_err()
        );
        assert_eq!(failed, before);
    }

    #[test]
    fn the_first_reason_stays() {
        let mut record = building();
        record.begin_clean_up(Failure::of(Stage::RunPacker, "first"), time("2026-03-25T15:00:00Z")).unwrap();
        record.begin_clean_up(Failure::of(Stage::RunPacker, "second"), time("2026-03-25T15:00:00Z")).unwrap();
        assert_eq!(record.failure.as_ref().unwrap().message, "first");
        assert!(
            record.succeed(made(AMI), BTreeSet::new(), record.created_at).is_err(),
            "what fails cannot succeed any more"
        );
    }

    #[test]
    fn a_build_of_which_nobody_knows_how_it_went_may_still_turn_out_well() {
        let now = time("2026-03-25T15:00:00Z");
        let mut record = building();
        record.begin_clean_up(Failure::lost(Stage::RunPacker, "gone"), now).unwrap();
        let mut doomed = record.clone();
        record.succeed(made(AMI), BTreeSet::new(), now).unwrap();
        assert_eq!((record.status, record.failure), (BuildStatus::Succeeded, None));

        doomed.begin_clean_up(Failure::cancelled(Stage::RunPacker), now).unwrap();
        assert_eq!(doomed.failure.as_ref().unwrap().kind, FailureKind::Cancelled, "what is known wins");
        assert!(doomed.succeed(made(AMI), BTreeSet::new(), now).is_err());
    }

    #[test]
    fn a_build_that_was_never_started_cannot_succeed() {
        assert!(queued().succeed(made(AMI), BTreeSet::new(), time("2026-03-25T15:00:00Z")).is_err());
        assert!(queued().runner_starting(time("2026-03-25T15:00:00Z")).is_err());
    }

    #[test]
    fn a_record_from_before_task_tokens_were_noted_is_read_and_has_none() {
        let written = serde_json::to_value(building()).unwrap();
        assert!(written.get("task_tokens").is_none());
        let read: BuildRecord = serde_json::from_value(written).unwrap();
        assert_eq!(read, building());
        assert!(!read.has_task_token(&TaskTokenDigest::of("token")));
    }

    #[test]
    fn tokens_are_noted_as_digests_until_there_is_a_runner_and_without_growing() {
        let mut record = queued();
        record.start(time("2026-03-25T14:30:05Z")).unwrap();
        for number in 0..MOST_TASK_TOKENS {
            record.runner_holds(TaskTokenDigest::of(&format!("token {number}"))).unwrap();
            record.runner_holds(TaskTokenDigest::of("token 0")).unwrap();
        }
        assert!(record.runner_holds(TaskTokenDigest::of("one more")).is_err());
        assert!(record.has_task_token(&TaskTokenDigest::of("token 1")));
        let written = serde_json::to_string(&record).unwrap();
        assert!(!written.contains("token 1") && !format!("{record:?}").contains("token 1"));
        let before = record.clone();
        record.runner_started("runner:1".into(), time("2026-03-25T14:30:06Z")).unwrap();
        record.runner_holds(TaskTokenDigest::of("late")).unwrap();
        assert_eq!(record.task_tokens, before.task_tokens);
    }

    #[test]
    fn it_stays_active_until_nothing_is_left() {
        let mut record = building();
        record.begin_clean_up(Failure::timed_out(1800), time("2026-03-25T15:00:00Z")).unwrap();
        record.doom(None).unwrap();
        record.fail(Left::Something, record.created_at).unwrap();
        assert!(record.is_active());
        record.clean = true;
        assert!(!record.is_active());
        assert_eq!(record.phase, Phase::TimedOut);
    }
}
