//! `issue-credentials`: gives a build's runner what it is to AWS as this one build: credentials for the build's own files, and those
//! that Packer gets.
//!
//! No condition of IAM ties a job of CodeBuild, or an instance, to a build. What does is the task token: start-runner hands it to one
//! runner and notes its digest in that build's record. Must never give anything to whoever does not know a build's token, nor write a
//! token or a credential to a log or an error.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::Instrument as _;

use crate::build::BuildRecord;
use crate::ids::BuildId;
use crate::ports::{
    BuildCredentials, BuildIdentity, Clock, PortError, Records, Secret, TemporaryCredentials,
};
use crate::spans;
use crate::task_token::TaskTokenDigest;

/// How long after a build's deadline, or after its end where that comes first, its runner may still ask. After the deadline the runner
/// stops Packer (40 s), stores log, ledger and manifest (120 s at most), reports (120 s), and stores the manifest once more where the
/// report was not heard (120 s): this is that, and time to fail and ask again.
pub const MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// What it needs.
pub struct Deps {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Build records.
    pub records: Arc<dyn Records>,
    /// The role that may reach the build's files.
    pub files: Arc<dyn BuildIdentity>,
    /// The role that Packer runs with.
    pub packer: Arc<dyn BuildIdentity>,
}

/// What a runner asks with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The build that it says it runs.
    pub build_id: BuildId,
    /// The task token that it was started with. A secret.
    pub task_token: String,
}

impl Input {
    /// Reads what the function was invoked with.
    ///
    /// # Errors
    /// `InvalidRequest`, which repeats nothing of it: what stands in the wrong place may be a token.
    pub fn read(event: Value) -> Result<Self, IssueError> {
        serde_json::from_value(event).map_err(|_| IssueError::InvalidRequest)
    }
}

/// What a runner is answered. Holds secrets, so it has no `Debug`.
#[derive(Serialize, Deserialize)]
pub struct Output {
    files: Given,
    packer: Given,
}

#[derive(Serialize, Deserialize)]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expires_at: Timestamp,
}

impl From<BuildCredentials> for Output {
    fn from(credentials: BuildCredentials) -> Self {
        let given = |set: TemporaryCredentials| Given {
            access_key_id: set.access_key_id,
            secret_access_key: set.secret_access_key.expose().to_owned(),
            session_token: set.session_token.expose().to_owned(),
            expires_at: set.expires_at,
        };
        Self { files: given(credentials.files), packer: given(credentials.packer) }
    }
}

impl From<Output> for BuildCredentials {
    fn from(output: Output) -> Self {
        let set = |given: Given| TemporaryCredentials {
            access_key_id: given.access_key_id,
            secret_access_key: Secret::new(given.secret_access_key),
            session_token: Secret::new(given.session_token),
            expires_at: given.expires_at,
        };
        Self { files: set(output.files), packer: set(output.packer) }
    }
}

/// Why nothing is given. [`IssueError::name`] is what whoever invoked the function knows it by.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The event is no [`Input`].
    #[error("an object is expected with build_id, a UUID, and task_token, a text, and nothing else")]
    InvalidRequest,
    /// There is no such build, or the token is not its own, or its time is over: which one is told to nobody.
    #[error("the token is not one of a runner that this build has now")]
    Refused,
    /// An outside system did not do what was asked.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl IssueError {
    /// The name of [`IssueError::InvalidRequest`].
    pub const INVALID_REQUEST: &str = "InvalidRequest";
    /// The name of [`IssueError::Refused`].
    pub const REFUSED: &str = "CredentialsRefused";

    /// The error's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::InvalidRequest => Self::INVALID_REQUEST,
            Self::Refused => Self::REFUSED,
            Self::Port(PortError::Unavailable { .. }) => "ServiceUnavailable",
            Self::Port(PortError::Refused { .. } | PortError::Unreadable { .. }) => "ServiceRefused",
        }
    }
}

/// Gives both sets of credentials to a runner of the build that it names.
///
/// # Errors
/// `Refused`, the same whatever of it is wrong; what records and roles answer.
pub async fn run(deps: &Deps, event: Value) -> Result<Output, IssueError> {
    let input = Input::read(event)
        .inspect_err(|error| tracing::warn!(error = error as &dyn std::error::Error, "nothing is issued"))?;
    let build_id = input.build_id;
    let issued = async {
        issue(deps, input).await.inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "nothing is issued");
        })
    };
    issued.instrument(spans::of_build_id(build_id)).await
}

async fn issue(deps: &Deps, input: Input) -> Result<Output, IssueError> {
    let build_id = input.build_id;
    let record = deps.records.build(build_id).await?.ok_or(IssueError::Refused)?;
    spans::name_request(&record);
    let is_known = record.has_task_token(&TaskTokenDigest::of(&input.task_token));
    if !is_known || ends(&record).is_none_or(|end| deps.clock.now() > end) {
        tracing::warn!(is_known, "who asks is no runner of this build, or asks too late");
        return Err(IssueError::Refused);
    }
    let (files, packer) =
        futures::try_join!(deps.files.credentials(build_id), deps.packer.credentials(build_id))?;
    tracing::info!(until = %files.expires_at.min(packer.expires_at), "the build's runner was given credentials");
    Ok(BuildCredentials { files, packer }.into())
}

/// Until when a build's runner is given credentials; none before there may be one.
fn ends(record: &BuildRecord) -> Option<Timestamp> {
    let deadline = record.deadline?;
    Some(record.completed_at.map_or(deadline, |ended| ended.min(deadline)) + MARGIN)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use serde_json::json;

    use super::*;
    use crate::build::tests::{building, time};
    use crate::build::{Failure, Left, Stage};
    use crate::ports::{BuildFilter, IdempotencyKey, ImageFilter, Lease, Page, Slot, Submission, Write};

    const TOKEN: &str = "AQC8AAAAKgAAAAMAAAAAAAAAAQ==";
    const OTHER: &str = "AQC8AAAAKgAAAAMAAAAAAAAAAg==";
    /// The deadline of `building` is at 15:00:05.
    const NOW: &str = "2026-03-25T14:40:00Z";

    struct At(Timestamp);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    /// A role that notes for which build it was taken on.
    struct Role(&'static str, Mutex<Vec<BuildId>>);

    #[async_trait]
    impl BuildIdentity for Role {
        async fn credentials(&self, build: BuildId) -> Result<TemporaryCredentials, PortError> {
            self.1.lock().unwrap().push(build);
            Ok(TemporaryCredentials {
                access_key_id: format!("ASIA{}", self.0),
                secret_access_key: Secret::new(format!("secret of {}", self.0)),
                session_token: Secret::new(format!("session of {}", self.0)),
                expires_at: time("2026-03-25T15:40:00Z"),
            })
        }
    }

    /// Builds that are read and nothing else.
    struct Builds(Vec<BuildRecord>);

    #[async_trait]
    impl Records for Builds {
        async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, PortError> {
            Ok(self.0.iter().find(|record| record.build_id == id).cloned())
        }
        async fn submit(&self, _: &BuildRecord, _: Option<&IdempotencyKey>) -> Result<Submission, PortError> {
            unreachable!()
        }
        async fn replace(&self, _: &BuildRecord) -> Result<Write, PortError> {
            unreachable!()
        }
        async fn replace_with_images(
            &self,
            _: &BuildRecord,
            _: &[crate::image::ImageRecord],
        ) -> Result<Write, PortError> {
            unreachable!()
        }
        async fn take_slot(&self, _: BuildId, _: u32) -> Result<Slot, PortError> {
            unreachable!()
        }
        async fn release_slot(&self, _: BuildId) -> Result<(), PortError> {
            unreachable!()
        }
        async fn slots_taken(&self) -> Result<std::collections::BTreeSet<BuildId>, PortError> {
            unreachable!()
        }
        async fn take_lease(&self, _: &Lease<'_>) -> Result<bool, PortError> {
            unreachable!()
        }
        async fn release_lease(&self, _: &str, _: &str) -> Result<(), PortError> {
            unreachable!()
        }
        async fn active_builds(&self, _: Option<&str>) -> Result<Page<BuildRecord>, PortError> {
            unreachable!()
        }
        async fn builds(
            &self,
            _: &BuildFilter,
            _: u32,
            _: Option<&str>,
        ) -> Result<Page<BuildRecord>, PortError> {
            unreachable!()
        }
        async fn image(
            &self,
            _: &crate::ids::ImageId,
        ) -> Result<Option<crate::image::ImageRecord>, PortError> {
            unreachable!()
        }
        async fn images(
            &self,
            _: &ImageFilter,
            _: u32,
            _: Option<&str>,
        ) -> Result<Page<crate::image::ImageRecord>, PortError> {
            unreachable!()
        }
        async fn remove_image(&self, _: &crate::image::ImageRecord) -> Result<(), PortError> {
            unreachable!()
        }
        async fn ready(&self) -> Result<(), PortError> {
            unreachable!()
        }
    }

    struct World {
        files: Arc<Role>,
        packer: Arc<Role>,
        deps: Deps,
    }

    fn world(records: Vec<BuildRecord>, now: &str) -> World {
        let files = Arc::new(Role("FILES", Mutex::default()));
        let packer = Arc::new(Role("PACKER", Mutex::default()));
        let deps = Deps {
            clock: Arc::new(At(time(now))),
            records: Arc::new(Builds(records)),
            files: files.clone(),
            packer: packer.clone(),
        };
        World { files, packer, deps }
    }

    impl World {
        async fn ask(&self, build: &BuildRecord, token: &str) -> Result<Output, IssueError> {
            run(&self.deps, json!({"build_id": build.build_id, "task_token": token})).await
        }

        async fn is_refused(&self, build: &BuildRecord, token: &str) {
            let refused = self.ask(build, token).await.err().unwrap();
            assert!(matches!(refused, IssueError::Refused), "{refused:?}");
            assert!(token.is_empty() || !refused.to_string().contains(token));
            let taken_on = self.files.1.lock().unwrap().len() + self.packer.1.lock().unwrap().len();
            assert_eq!(taken_on, 0, "no role is taken on");
        }
    }

    fn with_token(mut record: BuildRecord, token: &str) -> BuildRecord {
        record.runner_id = None;
        record.runner_holds(TaskTokenDigest::of(token)).unwrap();
        record
    }

    fn another() -> BuildRecord {
        let mut record = building();
        record.build_id = "650e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        with_token(record, OTHER)
    }

    #[tokio::test]
    async fn a_runner_gets_both_roles_as_its_build() {
        let record = with_token(building(), TOKEN);
        let world = world(vec![record.clone(), another()], NOW);
        let given = BuildCredentials::from(world.ask(&record, TOKEN).await.ok().unwrap());
        assert_eq!(given.files.access_key_id, "ASIAFILES");
        assert_eq!(given.packer.access_key_id, "ASIAPACKER");
        assert_eq!(given.packer.session_token.expose(), "session of PACKER");
        for role in [&world.files, &world.packer] {
            assert_eq!(*role.1.lock().unwrap(), [record.build_id]);
        }
    }

    #[tokio::test]
    async fn what_is_given_is_read_again_as_it_was_written() {
        let record = with_token(building(), TOKEN);
        let answer = world(vec![record.clone()], NOW).ask(&record, TOKEN).await.ok().unwrap();
        let wire = serde_json::to_value(&answer).unwrap();
        assert_eq!(wire["files"]["secret_access_key"], "secret of FILES");
        let read = BuildCredentials::from(serde_json::from_value::<Output>(wire).unwrap());
        assert_eq!(read.files.expires_at, time("2026-03-25T15:40:00Z"));
    }

    #[tokio::test]
    async fn no_other_token_is_this_builds() {
        let record = with_token(building(), TOKEN);
        let world = world(vec![record.clone(), another()], NOW);
        for token in [OTHER, "", "AQC8", &TOKEN.to_lowercase()] {
            world.is_refused(&record, token).await;
        }
    }

    #[tokio::test]
    async fn an_unknown_build_and_one_that_never_had_a_runner_are_refused_in_the_same_words() {
        let record = with_token(building(), TOKEN);
        world(vec![another()], NOW).is_refused(&record, TOKEN).await;
        // From before tokens were noted, too.
        world(vec![building()], NOW).is_refused(&building(), TOKEN).await;
        let mut queued = record.clone();
        queued.deadline = None;
        world(vec![queued.clone()], NOW).is_refused(&queued, TOKEN).await;
    }

    #[tokio::test]
    async fn a_repeated_step_has_a_second_token_and_the_first_runner_keeps_its_own() {
        let record = with_token(with_token(building(), TOKEN), OTHER);
        let world = world(vec![record.clone()], NOW);
        assert!(world.ask(&record, TOKEN).await.is_ok());
        assert!(world.ask(&record, OTHER).await.is_ok());
    }

    #[tokio::test]
    async fn past_its_time_a_build_gets_nothing_more() {
        let record = with_token(building(), TOKEN);
        let at = |now: &str| world(vec![record.clone()], now);
        assert!(at("2026-03-25T15:10:05Z").ask(&record, TOKEN).await.is_ok(), "what is left is stored");
        at("2026-03-25T15:10:06Z").is_refused(&record, TOKEN).await;
    }

    #[tokio::test]
    async fn a_build_that_has_ended_early_gets_nothing_more_soon_after() {
        let mut record = with_token(building(), TOKEN);
        record.begin_clean_up(Failure::cancelled(Stage::RunPacker), time(NOW)).unwrap();
        record.fail(Left::Nothing, time(NOW)).unwrap();
        let at = |now: &str| world(vec![record.clone()], now);
        assert!(at("2026-03-25T14:50:00Z").ask(&record, TOKEN).await.is_ok());
        at("2026-03-25T14:50:01Z").is_refused(&record, TOKEN).await;
    }

    #[tokio::test]
    async fn what_is_no_question_is_told_so_and_not_repeated() {
        let world = world(vec![with_token(building(), TOKEN)], NOW);
        let id = building().build_id;
        for event in [
            json!({}),
            json!(TOKEN),
            json!({"build_id": id}),
            json!({"build_id": TOKEN, "task_token": TOKEN}),
            json!({"build_id": id, "task_token": 5}),
            json!({"build_id": id, "task_token": TOKEN, "role": "packer"}),
        ] {
            let error = run(&world.deps, event.clone()).await.err().unwrap();
            assert!(matches!(error, IssueError::InvalidRequest), "{event}: {error:?}");
            assert!(error.to_string().contains("build_id") && !error.to_string().contains(TOKEN));
        }
    }
}
