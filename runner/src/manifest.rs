//! The build's manifest: how it ended, with what it was made and what it made.
//!
//! Decides about the build where the report is lost (`ciab_core::life`), so it is stored before the report goes out, and
//! tried for as long as anybody may still act on it. Must never hold a secret.

use std::time::Duration;

use ciab_core::build::Artifact;
use ciab_core::ids::BuildId;
use ciab_core::manifest::Manifest;
use ciab_core::ports::ObjectStore;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::BuildFailure;

/// How long one try may take.
const LONGEST_CALL: Duration = Duration::from_secs(20);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// `builds/<id>/manifest.json`: the domain's manifest, and what only people read.
#[derive(Debug, Serialize)]
pub struct Document {
    /// The build.
    pub build_id: BuildId,
    /// What decides.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// What Packer called its version.
    pub packer_version: Option<String>,
    /// How long each part took.
    pub seconds: Seconds,
}

/// How long each part took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Seconds {
    /// Fetching and unpacking the bundle.
    pub fetch: Option<f64>,
    /// `packer init`.
    pub init: Option<f64>,
    /// `packer validate`.
    pub validate: Option<f64>,
    /// `packer build`.
    pub build: Option<f64>,
}

/// The domain's manifest of a build with this result. `named` are AMIs that Packer named although it failed.
pub fn manifest_of(result: &Result<Vec<Artifact>, BuildFailure>, named: Vec<Artifact>) -> Manifest {
    match result {
        Ok(artifacts) => {
            Manifest { outcome: Manifest::SUCCEEDED.to_owned(), artifacts: artifacts.clone(), failure: None }
        }
        Err(failure) => Manifest {
            outcome: failure.name.as_str().to_owned(),
            artifacts: named,
            failure: Some(failure.failure.clone()),
        },
    }
}

/// Stores the manifest, again and again until `until`; tells whether it is stored.
pub async fn store(objects: &dyn ObjectStore, document: &Document, until: Instant) -> bool {
    let body = match serde_json::to_vec(document) {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "the manifest has no JSON form");
            return false;
        }
    };
    let key = Manifest::key(document.build_id);
    let mut pause = Duration::from_millis(200);
    loop {
        match timeout(LONGEST_CALL, objects.put(&key, body.clone())).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => {
                tracing::warn!(%key, error = &error as &dyn std::error::Error, "the manifest was not stored");
            }
            Err(_) => tracing::warn!(%key, "the manifest was not stored in time"),
        }
        if Instant::now() + pause > until {
            return false;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
