//! An image that a build made, as the listing shows it.
//!
//! Must never describe an AMI that this service did not build.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::build::Origin;
use crate::ids::{BuildId, ImageId, Provider, Region};

/// Whether an image can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageStatus {
    /// Instances can be started from it.
    Available,
}

/// The record of an image, and its form on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The AMI's id.
    pub image_id: ImageId,
    /// The agent in it.
    pub provider: Provider,
    /// The region that it lives in.
    pub region: Region,
    /// Whether it can be used.
    pub status: ImageStatus,
    /// When its build ended.
    pub created_at: Timestamp,
    /// The build that made it.
    pub build_id: BuildId,
    /// What started that build.
    #[serde(default)]
    pub origin: Origin,
    /// The AMI's name.
    pub name: String,
    /// `sha256:…` of the template as its author wrote it.
    pub template_digest: Option<String>,
    /// Snapshots behind it, deleted with it.
    pub snapshots: Vec<String>,
    /// Whether a provisioner could run: false only from a local stack that could not host instances.
    pub provisioned: bool,
}
