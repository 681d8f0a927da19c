//! A build's record and the moves it may make.
//!
//! Status goes forward only and a final one never changes: every move is a method here, and refuses what is not allowed.
//! Must never know how a record is stored or who asks.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{BuildId, ImageId, Provider, Region};
use crate::resource::{Leftovers, Resource};

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
}

/// What runs Packer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunnerKind {
    /// An AWS CodeBuild build.
    Codebuild,
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
    /// Whether the time was over.
    #[serde(default)]
    pub timed_out: bool,
}

impl Failure {
    /// The failure of a build whose time was over.
    pub fn timed_out(timeout_secs: u32) -> Self {
        Self {
            stage: Stage::RunPacker,
            step: None,
            message: format!("Packer build timed out after {timeout_secs} seconds"),
            last_log_lines: Vec::new(),
            timed_out: true,
        }
    }

    /// A failure that is told in one sentence.
    pub fn of(stage: Stage, message: impl Into<String>) -> Self {
        Self { stage, step: None, message: message.into(), last_log_lines: Vec::new(), timed_out: false }
    }
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
    /// The runner's id, once it was started.
    pub runner_id: Option<String>,
    /// Why it fails or failed.
    pub failure: Option<Failure>,
    /// Where something was found that must go: kept until it is gone.
    #[serde(default)]
    pub remaining: Vec<Resource>,
    /// What was found and removed.
    #[serde(default)]
    pub leftovers: Leftovers,
    /// Whether a look after its end found nothing of it left. The record stays active until then.
    #[serde(default)]
    pub clean: bool,
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
    pub fn runner_starting(&mut self) -> Result<(), NotAllowed> {
        self.guard("start a runner")?;
        if self.status == BuildStatus::Queued {
            return Err(NotAllowed { from: self.status, attempted: "start a runner" });
        }
        if self.phase == Phase::Preparing {
            self.phase = Phase::Starting;
        }
        Ok(())
    }

    /// Notes the runner.
    ///
    /// # Errors
    /// As [`BuildRecord::runner_starting`].
    pub fn runner_started(&mut self, runner_id: String) -> Result<(), NotAllowed> {
        self.runner_starting()?;
        self.phase = Phase::RunningPacker;
        self.runner_id = Some(runner_id);
        Ok(())
    }

    /// Ends it well. Ending it so twice with the same image changes nothing.
    ///
    /// # Errors
    /// A build that was not started, failed, or is being cleaned up, cannot succeed.
    pub fn succeed(&mut self, image_id: ImageId, now: Timestamp) -> Result<(), NotAllowed> {
        if self.status == BuildStatus::Succeeded && self.image_id.as_ref() == Some(&image_id) {
            return Ok(());
        }
        self.guard("succeed")?;
        if self.status != BuildStatus::Building {
            return Err(NotAllowed { from: self.status, attempted: "succeed" });
        }
        self.status = BuildStatus::Succeeded;
        self.phase = Phase::Succeeded;
        self.image_id = Some(image_id);
        self.completed_at = Some(now);
        Ok(())
    }

    /// Says that it fails, and why; the first reason stays. What it left is to be removed before it ends.
    ///
    /// # Errors
    /// A build that has ended cannot fail.
    pub fn begin_clean_up(&mut self, failure: Failure) -> Result<(), NotAllowed> {
        if self.status.is_final() {
            return Err(NotAllowed { from: self.status, attempted: "fail" });
        }
        self.status = BuildStatus::Building;
        self.phase = Phase::CleaningUp;
        self.failure.get_or_insert(failure);
        Ok(())
    }

    /// Ends it without an image. `clean` says whether nothing of it is left.
    ///
    /// # Errors
    /// Only a build that is being cleaned up ends so.
    pub fn fail(&mut self, clean: bool, now: Timestamp) -> Result<(), NotAllowed> {
        let (BuildStatus::Building, Some(failure)) = (self.status, &self.failure) else {
            return Err(NotAllowed { from: self.status, attempted: "end as failed" });
        };
        self.phase = if failure.timed_out { Phase::TimedOut } else { Phase::Failed };
        self.status = BuildStatus::Failed;
        self.completed_at = Some(now);
        self.clean = clean;
        Ok(())
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
            provider: Provider::ClaudeCode,
            region: "us-east-1".parse().unwrap(),
            instance_type: "t3.medium".into(),
            subnet_id: None,
            runner: RunnerKind::Codebuild,
            template: TemplateReference { source: "builtin://default-ec2".into(), digest: None },
            tags: BTreeMap::new(),
            timeout_secs: 1800,
            created_at: time("2026-03-25T14:30:00Z"),
            started_at: None,
            deadline: None,
            completed_at: None,
            status: BuildStatus::Queued,
            phase: Phase::Queued,
            image_id: None,
            runner_id: None,
            failure: None,
            remaining: Vec::new(),
            leftovers: Leftovers::default(),
            clean: false,
        }
    }

    pub(crate) fn building() -> BuildRecord {
        let mut record = queued();
        record.start(time("2026-03-25T14:30:05Z")).unwrap();
        record.runner_started("runner:1".into()).unwrap();
        record
    }

    fn ami() -> ImageId {
        "ami-0abcdef1234567890".parse().unwrap()
    }

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
        succeeded.succeed(ami(), now).unwrap();
        let before = succeeded.clone();
        assert!(succeeded.begin_clean_up(Failure::timed_out(1800)).is_err());
        assert!(succeeded.fail(true, now).is_err());
        assert!(succeeded.start(now).is_err());
        assert!(succeeded.runner_started("runner:2".into()).is_err());
        assert!(succeeded.succeed("ami-12345678".parse().unwrap(), now).is_err());
        succeeded.succeed(ami(), time("2026-03-26T00:00:00Z")).unwrap();
        assert_eq!(succeeded, before);

        let mut failed = building();
        failed.begin_clean_up(Failure::timed_out(1800)).unwrap();
        failed.fail(true, now).unwrap();
        let before = failed.clone();
        assert!(failed.succeed(ami(), now).is_err());
        assert!(failed.begin_clean_up(Failure::of(Stage::RunPacker, "again")).is_err());
        assert_eq!(failed, before);
    }

    #[test]
    fn the_first_reason_stays() {
        let mut record = building();
        record.begin_clean_up(Failure::of(Stage::RunPacker, "first")).unwrap();
        record.begin_clean_up(Failure::of(Stage::RunPacker, "second")).unwrap();
        assert_eq!(record.failure.as_ref().unwrap().message, "first");
        assert!(record.succeed(ami(), record.created_at).is_err(), "what fails cannot succeed any more");
    }

    #[test]
    fn a_build_that_was_never_started_cannot_succeed() {
        assert!(queued().succeed(ami(), time("2026-03-25T15:00:00Z")).is_err());
        assert!(queued().runner_starting().is_err());
    }

    #[test]
    fn it_stays_active_until_nothing_is_left() {
        let mut record = building();
        record.begin_clean_up(Failure::timed_out(1800)).unwrap();
        record.fail(false, record.created_at).unwrap();
        assert!(record.is_active());
        record.clean = true;
        assert!(!record.is_active());
        assert_eq!(record.phase, Phase::TimedOut);
    }
}
