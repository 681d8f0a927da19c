//! What the domain asks of the world: one trait per outside system, in domain types.
//!
//! Must never name an SDK, a wire format or a credential. Adapters live in `shared/aws`; tests bring fakes of these
//! traits. Every method may be called twice with the same arguments: adapters make the second call harmless.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;
use ciab_template::{Bundle, TemplateSource};
use jiff::Timestamp;

use crate::build::{BuildRecord, BuildStatus, RunnerKind};
use crate::event::BuildEvent;
use crate::ids::{BuildId, ImageId, Region, RequestId};
use crate::image::ImageRecord;
use crate::key::{KeyId, KeyRecord, NewKey};
use crate::ledger::Ledger;
use crate::resource::{ByKind, Resource};
use crate::upload_template::{Announced, PresignedPost};

/// An outside system did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// It asked us to slow down, or did not answer; the same call may work later.
    #[error("{service} is not available for {operation}")]
    Unavailable {
        /// The outside system, in its own name (`ec2`, `dynamodb`).
        service: &'static str,
        /// What was asked of it (`DescribeImages`).
        operation: &'static str,
        /// The adapter's own error, for the log only.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It refused: asking again will not help.
    #[error("{service} refused {operation}: {code}")]
    Refused {
        /// The outside system, in its own name.
        service: &'static str,
        /// What was asked of it.
        operation: &'static str,
        /// The system's own error code, such as `UnauthorizedOperation`.
        code: String,
        /// The adapter's own error, for the log only.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered with something that the domain cannot read.
    #[error("{service} answered {operation} with something unreadable: {what}")]
    Unreadable {
        /// The outside system, in its own name.
        service: &'static str,
        /// What was asked of it.
        operation: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
}

impl PortError {
    /// The same error once more, for another build that the same call was made for. Where it comes from stays with the first.
    pub fn echo(&self) -> Self {
        match self {
            Self::Unavailable { service, operation, .. } => {
                Self::Unavailable { service, operation, source: "told with another build".into() }
            }
            Self::Refused { service, operation, code, .. } => {
                let source = "told with another build".into();
                Self::Refused { service, operation, code: code.clone(), source }
            }
            Self::Unreadable { service, operation, what } => {
                Self::Unreadable { service, operation, what: what.clone() }
            }
        }
    }
}

/// The code of [`PortError::Refused`] for a `next` that no listing gave.
pub const INVALID_NEXT_TOKEN: &str = "InvalidNextToken";

/// The time of day. The only source of it.
pub trait Clock: Send + Sync {
    /// Now, UTC.
    fn now(&self) -> Timestamp;
}

/// How many events are published at once, at most.
pub const EVENTS_AT_ONCE: usize = 10;

/// Where others hear of builds.
#[async_trait]
pub trait Events: Send + Sync {
    /// Publishes events, [`EVENTS_AT_ONCE`] at most, in their order; how many of them, from the first one on, were taken. What
    /// comes after one that was not may have been taken too: it is published again, under the same event id.
    async fn publish(&self, events: &[BuildEvent]) -> Result<usize, PortError>;
}

/// The only source of randomness.
pub trait Identifiers: Send + Sync {
    /// A build id that was never given before.
    fn new_build_id(&self) -> BuildId;
    /// A name for the holder of a lease that was never given before.
    fn new_holder(&self) -> String;
}

/// A client's `Idempotency-Key` with the digest of the request it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The header's value, as given.
    pub key: String,
    /// SHA-256 of the canonical request, hex.
    pub request_digest: String,
}

/// How a submission ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Submission {
    /// The record was written.
    Accepted,
    /// The same key and request were seen before: this is the build they gave.
    Repeated(Box<BuildRecord>),
    /// The key was seen before with another request.
    KeyReused,
}

/// How a conditional write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// The record now is what was given (also when an earlier, unanswered try had written it).
    Done,
    /// Somebody else wrote first: read again and decide again.
    Conflict,
}

/// How it went to take a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// It was free, and is the build's now.
    Taken,
    /// The build has one already: by another process, or by a call of ours whose answer was lost.
    Held,
    /// All are taken.
    Full,
}

/// A right that one process at a time has, until it gives it back or its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease<'a> {
    /// What it is for.
    pub name: &'static str,
    /// Who wants it: no two processes by the same name.
    pub holder: &'a str,
    /// Now.
    pub now: Timestamp,
    /// When its time is over.
    pub until: Timestamp,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What it holds, in the listing's order.
    pub items: Vec<T>,
    /// Where the next page starts; none at the end. Opaque.
    pub next: Option<String>,
}

/// What a listing of images is narrowed to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Only images of this region.
    pub region: Option<Region>,
    /// Only images with this agent.
    pub provider: Option<crate::ids::Provider>,
}

/// What a listing of builds is narrowed to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildFilter {
    /// Only builds of this status.
    pub status: Option<BuildStatus>,
    /// Only builds with this agent.
    pub provider: Option<crate::ids::Provider>,
}

/// Build and image records. Each method's cost is in design.md's table.
#[async_trait]
pub trait Records: Send + Sync {
    /// Writes a new `queued` record, and the key with it, in one transaction.
    async fn submit(
        &self,
        record: &BuildRecord,
        key: Option<&IdempotencyKey>,
    ) -> Result<Submission, PortError>;

    /// The record of a build.
    async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, PortError>;

    /// Replaces a record whose stored revision is `record.revision`; the stored one becomes `revision + 1`.
    async fn replace(&self, record: &BuildRecord) -> Result<Write, PortError>;

    /// As [`Records::replace`], and writes the images that the build made, all or nothing.
    async fn replace_with_images(
        &self,
        record: &BuildRecord,
        images: &[ImageRecord],
    ) -> Result<Write, PortError>;

    /// Takes a slot for a build that has none where fewer than `slots` are taken.
    async fn take_slot(&self, id: BuildId, slots: u32) -> Result<Slot, PortError>;

    /// Gives a build's slot back. One that has none counts as given back.
    async fn release_slot(&self, id: BuildId) -> Result<(), PortError>;

    /// The builds that have a slot, as of now and not a moment ago.
    async fn slots_taken(&self) -> Result<BTreeSet<BuildId>, PortError>;

    /// Takes a lease, or prolongs one's own. False where somebody else has it and its time is not over.
    async fn take_lease(&self, lease: &Lease<'_>) -> Result<bool, PortError>;

    /// Gives a lease back that one still has.
    async fn release_lease(&self, name: &str, holder: &str) -> Result<(), PortError>;

    /// Builds that still need somebody's attention, oldest first.
    async fn active_builds(&self, next: Option<&str>) -> Result<Page<BuildRecord>, PortError>;

    /// Builds, newest first, as of a moment ago. `limit` is 1 to 100.
    async fn builds(
        &self,
        filter: &BuildFilter,
        limit: u32,
        next: Option<&str>,
    ) -> Result<Page<BuildRecord>, PortError>;

    /// The record of an image.
    async fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, PortError>;

    /// Images, newest first. `limit` is 1 to 100.
    async fn images(
        &self,
        filter: &ImageFilter,
        limit: u32,
        next: Option<&str>,
    ) -> Result<Page<ImageRecord>, PortError>;

    /// Removes an image's record and its places in every listing.
    async fn remove_image(&self, image: &ImageRecord) -> Result<(), PortError>;

    /// Whether the table answers.
    async fn ready(&self) -> Result<(), PortError>;
}

/// Makes keys that nobody can guess.
pub trait KeyMaker: Send + Sync {
    /// A key that was never given before, with 256 random bits.
    fn new_key(&self, now: Timestamp) -> Result<NewKey, PortError>;
}

/// What is kept of API keys.
#[async_trait]
pub trait Keys: Send + Sync {
    /// Writes what is kept of a new key. An id that another key has is refused.
    async fn add_key(&self, key: &KeyRecord) -> Result<(), PortError>;
    /// What is kept of a key, expired or not.
    async fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, PortError>;
    /// Keys, newest first, those among them that have expired and were not removed yet. `limit` is 1 to 100.
    async fn keys(&self, limit: u32, next: Option<&str>) -> Result<Page<KeyRecord>, PortError>;
    /// Removes what is kept of a key; whether there was anything.
    async fn remove_key(&self, id: &KeyId) -> Result<bool, PortError>;
}

/// The stack's bucket.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// The object's bytes, or none where there is no such object.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError>;
    /// Writes an object, replacing what was there.
    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), PortError>;
    /// Keys below a prefix, in ascending order, all of them.
    async fn list(&self, prefix: &str) -> Result<Vec<String>, PortError>;
    /// Whether the bucket answers.
    async fn ready(&self) -> Result<(), PortError>;
}

/// A value that must appear in no log, record, error or command line.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// This is a secret from now on.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Credentials that end by themselves.
#[derive(Debug, Clone)]
pub struct TemporaryCredentials {
    /// The access key's id, which is no secret.
    pub access_key_id: String,
    /// The access key itself.
    pub secret_access_key: Secret,
    /// What the key is worth nothing without.
    pub session_token: Secret,
    /// From then on they are worth nothing.
    pub expires_at: Timestamp,
}

/// What a runner is given for the one build that it runs.
#[derive(Debug, Clone)]
pub struct BuildCredentials {
    /// For the build's own files in the bucket.
    pub files: TemporaryCredentials,
    /// For Packer, and so for whatever a template runs.
    pub packer: TemporaryCredentials,
}

/// A role that is taken on as one build.
#[async_trait]
pub trait BuildIdentity: Send + Sync {
    /// Credentials of the role that carry the build's id.
    async fn credentials(&self, build: BuildId) -> Result<TemporaryCredentials, PortError>;
}

/// Who gives a runner its build's credentials.
#[async_trait]
pub trait CredentialsIssuer: Send + Sync {
    /// New credentials, for whoever knows the build's task token.
    async fn issue(&self, build: BuildId, task_token: &str) -> Result<BuildCredentials, PortError>;
}

/// Credentials that somebody keeps and renews before they end.
#[async_trait]
pub trait RenewedCredentials: Send + Sync {
    /// Those of now.
    async fn current(&self) -> Result<TemporaryCredentials, PortError>;
}

/// Lets somebody without any right of their own write one object of the bucket.
#[async_trait]
pub trait Uploads: Send + Sync {
    /// A form that writes what was announced and nothing else.
    async fn presigned_post(&self, announced: &Announced<'_>) -> Result<PresignedPost, PortError>;
}

/// Where operators keep secrets.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret that `name` refers to; none where there is no such secret.
    async fn secret(&self, name: &str) -> Result<Option<Secret>, PortError>;
}

/// What came of fetching a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// It still is what `known` stands for.
    Unchanged,
    /// It is this.
    Bundle {
        /// The template's files.
        bundle: Bundle,
        /// What to ask with next time, whether it has changed: an entity tag, a commit.
        validator: Option<String>,
    },
}

/// Why a template was not fetched. The messages are for whoever named the source: nothing internal, nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Asking again will not help.
    #[error("{0}")]
    Refused(String),
    /// The server did not answer, or not well; the same call may work later.
    #[error("{0}")]
    Unavailable(String),
}

/// Fetches templates from other people's servers.
#[async_trait]
pub trait TemplateFetcher: Send + Sync {
    /// Fetches it, unless it still is what `known` (an earlier validator) stands for. The credential goes to the host that
    /// the source names and to no other.
    async fn fetch(
        &self,
        source: &TemplateSource,
        known: Option<&str>,
        credential: Option<&Secret>,
    ) -> Result<Fetched, FetchError>;
}

/// How the execution of a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionState {
    /// There is none.
    Absent,
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It has ended, well or not.
    Ended,
}

/// The state machine.
#[async_trait]
pub trait Workflows: Send + Sync {
    /// Starts the execution that is named by the build id. One that exists already counts as started.
    async fn start(&self, id: BuildId) -> Result<(), PortError>;
    /// The executions that run, by their builds, with the times of their starts. May be a moment behind.
    async fn running(&self) -> Result<BTreeMap<BuildId, Timestamp>, PortError>;
    /// How the build's execution stands. May be a moment behind.
    async fn state(&self, id: BuildId) -> Result<ExecutionState, PortError>;
    /// Stops the build's execution if it runs.
    async fn stop(&self, id: BuildId) -> Result<(), PortError>;
    /// Whether the state machine answers.
    async fn ready(&self) -> Result<(), PortError>;
}

/// Whether a task token still has a task waiting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// The state machine waits for it.
    Open,
    /// It has timed out, was answered, or its execution has ended.
    Gone,
}

/// The runner's line to the state machine.
#[async_trait]
pub trait TaskTokens: Send + Sync {
    /// Says that the work goes on.
    async fn heartbeat(&self, token: &str) -> Result<TaskState, PortError>;
    /// Reports success with an output document.
    async fn succeed(&self, token: &str, output: &serde_json::Value) -> Result<TaskState, PortError>;
    /// Reports failure with an error's name and its cause (at most 32,768 characters).
    async fn fail(&self, token: &str, error: &str, cause: &str) -> Result<TaskState, PortError>;
}

/// What a runner is told when it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerOrder {
    /// The build that it runs.
    pub build_id: BuildId,
    /// The request that asked for it, for the runner's log lines.
    pub request_id: Option<RequestId>,
    /// Which kind of runner.
    pub kind: RunnerKind,
    /// The task token that it answers with.
    pub task_token: String,
    /// When the build must have ended.
    pub deadline: Timestamp,
    /// The build's time-out, for messages.
    pub timeout_secs: u32,
    /// The region that the image is built in.
    pub region: Region,
}

/// How a runner stands. Only `Ended` and `Absent` mean that nothing of it runs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunnerState {
    /// It is being started, or runs.
    Running,
    /// It has ended: with a report made (`reported`), or without one.
    Ended {
        /// When it ended.
        at: Timestamp,
        /// Whether it ended by itself with exit code 0, which it does only after it has reported.
        reported: bool,
    },
    /// There is no such runner, or not yet: services show what they have just started a moment late.
    Absent,
}

/// Where Packer runs. A runner's id says which kind it is of.
#[async_trait]
pub trait Runners: Send + Sync {
    /// Starts a runner, or answers with the one started for this build within the last minutes.
    async fn start(&self, order: &RunnerOrder) -> Result<String, PortError>;
    /// Every runner that was started for these builds, whatever the records know: for a build whose runner was asked for
    /// and whose id was never noted. Those that ended long ago may be missing.
    async fn of_builds(
        &self,
        kind: RunnerKind,
        builds: &BTreeSet<BuildId>,
    ) -> Result<BTreeMap<BuildId, BTreeSet<String>>, PortError>;
    /// How runners stand, by their ids; one call per hundred.
    async fn states(&self, ids: &BTreeSet<String>) -> Result<BTreeMap<String, RunnerState>, PortError>;
    /// Stops a runner. One that has ended, or never was, counts as stopped.
    async fn stop(&self, id: &str) -> Result<(), PortError>;
}

/// How an AMI stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudImage {
    /// Its id.
    pub id: ImageId,
    /// Whether its state is `available`.
    pub available: bool,
    /// Whether it still is being made.
    pub pending: bool,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Snapshots behind it.
    pub snapshots: Vec<String>,
}

/// Where to look for what a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace<'a> {
    /// The stack.
    pub stack: &'a str,
    /// The build.
    pub build_id: BuildId,
    /// What the runner noted that Packer named.
    pub ledger: &'a Ledger,
    /// What earlier looks proved to be the build's, gone or not.
    pub proven: &'a ByKind,
}

/// How a deletion stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Gone, or never was there.
    Gone,
    /// Asked for; EC2 is at it (an instance that shuts down).
    Going,
    /// EC2 says that something else still holds it.
    InUse,
}

/// EC2 and IAM, as far as builds need them.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Everything in the region that may belong to one of these builds, found for all of them together: the number of calls
    /// grows by pages and by hundreds of builds. May return look-alikes: the domain judges what is whose. Instances that are
    /// terminated and still shown come along as `gone`.
    async fn find(&self, region: &Region, traces: &[Trace<'_>]) -> Result<Vec<Resource>, PortError>;
    /// As [`Cloud::find`], for AMIs and snapshots that may be copies: in a region that these builds did not build in.
    async fn find_copies(&self, region: &Region, traces: &[Trace<'_>]) -> Result<Vec<Resource>, PortError>;
    /// Every instance of the stack in the region that is not terminated: build instances and runners, by their tags.
    async fn instances(&self, region: &Region, stack: &str) -> Result<Vec<Resource>, PortError>;
    /// Deletes one resource, in its own region.
    async fn delete(&self, resource: &Resource) -> Result<Deletion, PortError>;
    /// Everything in the region that carries the stack's tag, whatever it was made for, and the snapshots behind its AMIs.
    /// Instances that are terminated are left out.
    async fn of_stack(&self, region: &Region, stack: &str) -> Result<Vec<Resource>, PortError>;
    /// Who uses these AMIs: ids of instances that are not terminated, and of launch templates whose newest or default version
    /// names one. AMIs that nobody uses are left out.
    async fn users_of(
        &self,
        region: &Region,
        images: &[ImageId],
    ) -> Result<BTreeMap<ImageId, BTreeSet<String>>, PortError>;
    /// AMIs by id; those that do not exist are left out.
    async fn images(&self, region: &Region, ids: &[ImageId]) -> Result<Vec<CloudImage>, PortError>;
    /// Deregisters an AMI. One that does not exist counts as deregistered.
    async fn deregister(&self, region: &Region, id: &ImageId) -> Result<(), PortError>;
    /// Deletes a snapshot. One that does not exist counts as deleted.
    async fn delete_snapshot(&self, region: &Region, id: &str) -> Result<(), PortError>;
}
