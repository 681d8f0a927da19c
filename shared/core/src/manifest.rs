//! What the runner says at its end, in `builds/<id>/manifest.json`: written before its report to the state machine, so that
//! the build can be brought to its end where that report is lost.
//!
//! Must never be believed about an AMI: EC2 is asked.

use serde::{Deserialize, Serialize};

use crate::build::{Artifact, Failure};
use crate::ids::BuildId;

/// The part of the manifest that decides about a build; the runner writes more for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `succeeded`, or the name of the failure.
    pub outcome: String,
    /// The AMIs that Packer named.
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
    /// Why it failed, where it did.
    #[serde(default)]
    pub failure: Option<Failure>,
}

impl Manifest {
    /// The outcome of a build that Packer ended well.
    pub const SUCCEEDED: &str = "succeeded";

    /// Where a build's manifest stands in the bucket.
    pub fn key(build_id: BuildId) -> String {
        format!("builds/{build_id}/manifest.json")
    }

    /// How Packer ended; none where the manifest does not say.
    pub fn outcome(self) -> Option<Outcome> {
        match self.failure {
            None if self.outcome == Self::SUCCEEDED => Some(Outcome::Succeeded(self.artifacts)),
            None => None,
            Some(failure) => Some(Outcome::Failed(failure)),
        }
    }
}

/// How the runner says that Packer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With these AMIs.
    Succeeded(Vec<Artifact>),
    /// Without.
    Failed(Failure),
}
