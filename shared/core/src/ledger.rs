//! What Packer named while it ran, as the runner noted it in `builds/<id>/ledger.json`.
//!
//! Says where to look and how far Packer came, never what may be deleted: a template runs on the runner and could have
//! written anything here, so every deletion needs a proof of its own (see `resource.rs`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Names and ids by kind, each at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Instance ids (`i-…`).
    pub instances: BTreeSet<String>,
    /// Volume ids (`vol-…`).
    pub volumes: BTreeSet<String>,
    /// Names (`packer_…`) or ids (`sg-…`) of security groups.
    pub security_groups: BTreeSet<String>,
    /// Names of key pairs.
    pub key_pairs: BTreeSet<String>,
    /// AMI ids.
    pub images: BTreeSet<String>,
    /// Snapshot ids.
    pub snapshots: BTreeSet<String>,
    /// Ids (`lt-…`) of the launch templates that spot instances are started with.
    pub launch_templates: BTreeSet<String>,
    /// Names (`packer-…`) of temporary IAM instance profiles.
    pub instance_profiles: BTreeSet<String>,
    /// Names (`packer-…`) of temporary IAM roles.
    pub roles: BTreeSet<String>,
    /// Regions that Packer said it copies its AMI to.
    pub copy_regions: BTreeSet<String>,
    /// Packer's names (`amazon-ebs.x`) of the builds that it began.
    pub begun: BTreeSet<String>,
    /// Those of them whose provisioners have all ended well: Packer makes an AMI only then.
    pub provisioned: BTreeSet<String>,
}

impl Ledger {
    /// Where a build's ledger stands in the bucket.
    pub fn key(build_id: crate::ids::BuildId) -> String {
        format!("builds/{build_id}/ledger.json")
    }

    /// Whether Packer began exactly one build, and that one is known to have been provisioned to its end. Of several, what the
    /// others came to would not be known.
    pub fn provisioned_to_the_end(&self) -> bool {
        self.begun.len() == 1 && self.begun == self.provisioned
    }
}
