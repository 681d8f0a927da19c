//! What Packer named while it ran, as the runner noted it in `builds/<id>/ledger.json`.
//!
//! Says where to look, never what may be deleted: a template runs on the runner and could have written anything here,
//! so every deletion needs a proof of its own (see `resource.rs`).

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
}

impl Ledger {
    /// Where a build's ledger stands in the bucket.
    pub fn key(build_id: crate::ids::BuildId) -> String {
        format!("builds/{build_id}/ledger.json")
    }
}
