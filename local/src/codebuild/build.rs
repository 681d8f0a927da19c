//! What is known of one build, and its description as BatchGetBuilds gives it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use super::Surroundings;
use crate::template::RunnerProjectSpec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Succeeded,
    Failed,
    Stopped,
    TimedOut,
    /// The build could not be run at all, which is no fault of its own.
    Fault,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Stopped => "STOPPED",
            Self::TimedOut => "TIMED_OUT",
            Self::Fault => "FAULT",
        }
    }
}

struct PhaseRecord {
    name: &'static str,
    start: Timestamp,
    end: Option<(Timestamp, Status, String)>,
}

struct Progress {
    status: Status,
    phases: Vec<PhaseRecord>,
    end: Option<Timestamp>,
}

pub(super) struct Build {
    id: String,
    arn: String,
    number: u64,
    pub(super) project: RunnerProjectSpec,
    start: Timestamp,
    pub(super) time_limit: Duration,
    pub(super) log: PathBuf,
    /// Over the project's.
    pub(super) variables: Vec<(String, String)>,
    progress: Mutex<Progress>,
    stop_requested: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

impl Build {
    pub(super) fn new(
        project: RunnerProjectSpec,
        number: u64,
        minutes: u64,
        variables: Vec<(String, String)>,
        surroundings: &Surroundings,
    ) -> Arc<Self> {
        let unique = uuid::Uuid::new_v4();
        let id = format!("{}:{unique}", project.name);
        let arn = format!("arn:aws:codebuild:{}:{}:build/{id}", surroundings.region, crate::ACCOUNT);
        let start = Timestamp::now();
        let submitted =
            PhaseRecord { name: "SUBMITTED", start, end: Some((start, Status::Succeeded, String::new())) };
        Arc::new(Self {
            arn,
            number,
            project,
            start,
            time_limit: Duration::from_secs(minutes * 60),
            variables,
            log: surroundings.logs.join(format!("{unique}.log")),
            progress: Mutex::new(Progress { status: Status::InProgress, phases: vec![submitted], end: None }),
            stop_requested: watch::Sender::new(false),
            ended: watch::Sender::new(false),
            id,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn arn(&self) -> &str {
        &self.arn
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn project(&self) -> &str {
        &self.project.name
    }

    pub(super) fn start(&self) -> Timestamp {
        self.start
    }

    /// The part of the id that is unique: the log stream's name.
    pub(super) fn unique(&self) -> &str {
        self.id.rsplit(':').next().unwrap_or_default()
    }

    pub(super) fn begin_phase(&self, name: &'static str) {
        self.lock().phases.push(PhaseRecord { name, start: Timestamp::now(), end: None });
    }

    pub(super) fn end_phase(&self, status: Status, message: String) {
        if let Some(phase) = self.lock().phases.last_mut() {
            phase.end = Some((Timestamp::now(), status, message));
        }
    }

    pub(super) fn finish(&self, status: Status) {
        let now = Timestamp::now();
        let mut progress = self.lock();
        progress.status = status;
        progress.end = Some(now);
        progress.phases.push(PhaseRecord { name: "COMPLETED", start: now, end: None });
        drop(progress);
        self.ended.send_replace(true);
    }

    /// Ends the build without a signal that its script could catch, and returns once nothing of it runs.
    pub(super) async fn stop(&self) {
        self.stop_requested.send_replace(true);
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    pub(super) async fn stop_requested(&self) {
        let mut requested = self.stop_requested.subscribe();
        let _ = requested.wait_for(|requested| *requested).await;
    }

    /// A `Build` of the API; times are seconds since 1970.
    pub(super) fn describe(&self) -> Json {
        let progress = self.lock();
        let phases: Vec<Json> = progress.phases.iter().map(describe_phase).collect();
        let current = progress.phases.last().map_or("SUBMITTED", |phase| phase.name);
        let of_project = self.project.environment.iter();
        let own = self.variables.iter().map(|(name, value)| (name, value));
        let variables: Vec<Json> = of_project
            .chain(own)
            .map(|(name, value)| json!({"name": name, "value": value, "type": "PLAINTEXT"}))
            .collect();
        let location = format!("{}/{}", self.project.source_bucket, self.project.source_key);
        let mut build = json!({
            "id": self.id,
            "arn": self.arn,
            "buildNumber": self.number,
            "startTime": seconds(self.start),
            "currentPhase": current,
            "buildStatus": progress.status.name(),
            "buildComplete": progress.status != Status::InProgress,
            "projectName": self.project.name,
            "phases": phases,
            "environment": {
                "type": "LINUX_CONTAINER",
                "computeType": "BUILD_GENERAL1_SMALL",
                "image": "ciab-local",
                "environmentVariables": variables,
            },
            "source": {"type": "S3", "location": location},
            "logs": {
                "groupName": format!("/aws/codebuild/{}", self.project.name),
                "streamName": self.unique(),
            },
            "timeoutInMinutes": self.time_limit.as_secs() / 60,
            "initiator": "ciab-local",
        });
        if let Some(end) = progress.end {
            build["endTime"] = json!(seconds(end));
        }
        build
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe_phase(phase: &PhaseRecord) -> Json {
    let mut document = json!({"phaseType": phase.name, "startTime": seconds(phase.start)});
    if let Some((end, status, message)) = &phase.end {
        document["endTime"] = json!(seconds(*end));
        document["phaseStatus"] = json!(status.name());
        document["durationInSeconds"] = json!(end.duration_since(phase.start).as_secs());
        if !message.is_empty() {
            document["contexts"] = json!([{"statusCode": "COMMAND_EXECUTION_ERROR", "message": message}]);
        }
    }
    document
}

fn seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}
