//! What every step of a build shares: its errors, by the names that the state machine matches, and the one way in which
//! a record is changed.
//!
//! Must never decide anything about a build: that is `life.rs`.

use tracing::Instrument as _;

use crate::build::{BuildRecord, NotAllowed};
use crate::ids::BuildId;
use crate::ports::{PortError, Records, Write};
use crate::spans;

/// How often a change is tried again because somebody else wrote first.
const CONFLICTS: usize = 5;

/// Why a step did not do its work. [`StepError::name`] is what `infra/build-image.asl.json` matches in `ErrorEquals`.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The template cannot be built; the message is for its author.
    #[error("{0}")]
    TemplateRejected(String),
    /// The template's server did not answer; the message is for whoever named it.
    #[error("{0}")]
    TemplateUnavailable(String),
    /// There is no such build.
    #[error("there is no build {0}")]
    BuildMissing(BuildId),
    /// The build has ended, or fails already: there is nothing left to do for this step.
    #[error("the build goes no further: {0}")]
    BuildEnded(#[from] NotAllowed),
    /// A runner was asked for, and whether there is one is not known: looking for it is clean-up's.
    #[error("it is not certain whether the build has a runner")]
    RunnerUncertain(#[source] Box<StepError>),
    /// The AMI is not available yet, or EC2 does not show its tags yet.
    #[error("{0}")]
    ImageNotReady(String),
    /// What Packer made is not the image that was asked for.
    #[error("{0}")]
    ImageRejected(String),
    /// Something of the build is left and takes its time.
    #[error("{0} things are left of the build: they are tried again")]
    LeftoversRemain(usize),
    /// Two writers kept getting in each other's way.
    #[error("the build's record kept changing under this step")]
    RecordContended,
    /// An outside system did not do what was asked.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl StepError {
    /// Every name that [`StepError::name`] may answer with.
    pub const NAMES: [&str; 11] = [
        "TemplateRejected",
        "TemplateUnavailable",
        "BuildMissing",
        "BuildEnded",
        "RunnerUncertain",
        "ImageNotReady",
        "ImageRejected",
        "LeftoversRemain",
        "RecordContended",
        "ServiceUnavailable",
        "ServiceRefused",
    ];

    /// The error's name in the state machine.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TemplateRejected(_) => "TemplateRejected",
            Self::TemplateUnavailable(_) => "TemplateUnavailable",
            Self::BuildMissing(_) => "BuildMissing",
            Self::BuildEnded(_) => "BuildEnded",
            Self::RunnerUncertain(_) => "RunnerUncertain",
            Self::ImageNotReady(_) => "ImageNotReady",
            Self::ImageRejected(_) => "ImageRejected",
            Self::LeftoversRemain(_) => "LeftoversRemain",
            Self::RecordContended => "RecordContended",
            Self::Port(PortError::Unavailable { .. }) => "ServiceUnavailable",
            Self::Port(PortError::Refused { .. } | PortError::Unreadable { .. }) => "ServiceRefused",
        }
    }
}

/// Does a step for one build: every line that it logs names the build, and from the first look at the record on the request that
/// asked for it. The last line says why it failed, if it did.
///
/// # Errors
/// Those of the step.
pub(crate) async fn for_build<T>(
    id: BuildId,
    step: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    let step = async {
        step.await.inspect_err(|error| {
            tracing::error!(error = error as &dyn std::error::Error, name = error.name(), "the step failed");
        })
    };
    step.instrument(spans::of_build_id(id)).await
}

/// Reads a build's record, changes it and writes it; again from the start where somebody else wrote in between. A change
/// that changes nothing writes nothing. Within the span of that build, whose lines name its request from then on.
///
/// # Errors
/// Those of `change`; `BuildMissing`; what the records answer.
pub async fn update(
    records: &dyn Records,
    id: BuildId,
    change: impl Fn(&mut BuildRecord) -> Result<(), NotAllowed>,
) -> Result<BuildRecord, StepError> {
    for _ in 0..CONFLICTS {
        let before = records.build(id).await?.ok_or(StepError::BuildMissing(id))?;
        spans::name_request(&before);
        let mut record = before.clone();
        change(&mut record)?;
        if record == before {
            return Ok(record);
        }
        match records.replace(&record).await? {
            Write::Done => {
                record.revision += 1;
                return Ok(record);
            }
            Write::Conflict => {}
        }
    }
    Err(StepError::RecordContended)
}
