//! `finish-build`: checks the AMIs that Packer made and records them.
//!
//! A build says `succeeded` only here, and only of AMIs that EC2 calls `available`, one of them in the region asked for, all
//! with this build's tags. What Packer left beside them is looked for by the poller once the runner has had its time to end.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::build::{Artifact, BuildRecord, BuildStatus};
use crate::ids::{BuildId, ImageId, Region};
use crate::image::{ImageRecord, ImageStatus};
use crate::ports::{CloudImage, Write};
use crate::reconcile::Deps;
use crate::resource::{is_tagged, tag};
use crate::spans;
use crate::step::{StepError, for_build};

/// The tag of an image that was made by a local stack that could not host instances.
const PROVISIONED: &str = "ciab:provisioned";
/// AMIs of one build: more than a table can write in one transaction, listings and all, cannot be recorded.
const IMAGES: usize = 19;

/// What the state machine hands over: the runner's report.
#[derive(Debug, Clone, Deserialize)]
pub struct Input {
    /// The build.
    pub build_id: BuildId,
    /// What Packer says it made.
    pub artifacts: Vec<Artifact>,
}

/// What the execution ends with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// The image.
    pub image_id: ImageId,
}

/// Does the step.
///
/// # Errors
/// `ImageNotReady` while EC2 calls an AMI `pending` or shows no owner's tags on it; `ImageRejected` for one that is not this
/// build's; otherwise those that every step has.
pub async fn run(deps: &Deps, input: Input) -> Result<Output, StepError> {
    for_build(input.build_id, finish_build(deps, input)).await
}

async fn finish_build(deps: &Deps, input: Input) -> Result<Output, StepError> {
    let id = input.build_id;
    let mut record = deps.records.build(id).await?.ok_or(StepError::BuildMissing(id))?;
    spans::name_request(&record);
    let image_id = wanted(&record, &input.artifacts)?.clone();
    if record.status == BuildStatus::Succeeded && record.image_id.as_ref() == Some(&image_id) {
        return Ok(Output { image_id });
    }
    take_over(deps, &mut record, &input.artifacts).await?;
    deps.dispatcher().pass_on(&[&record]).await;
    Ok(Output { image_id })
}

/// Checks that these AMIs are there and this build's, and records that it succeeded with them: in the table first, then in
/// `record`.
///
/// # Errors
/// As [`run`]; `record` is then unchanged.
pub async fn take_over(
    deps: &Deps,
    record: &mut BuildRecord,
    artifacts: &[Artifact],
) -> Result<(), StepError> {
    let artifacts: BTreeSet<Artifact> = artifacts.iter().cloned().collect();
    let artifacts: Vec<Artifact> = artifacts.into_iter().collect();
    wanted(record, &artifacts)?;
    if artifacts.len() > IMAGES {
        return Err(StepError::ImageRejected(format!(
            "Packer made {} AMIs: at most {IMAGES} can be recorded for one build",
            artifacts.len()
        )));
    }
    let mut in_ec2: BTreeMap<&Region, Vec<ImageId>> = BTreeMap::new();
    for artifact in &artifacts {
        in_ec2.entry(&artifact.region).or_default().push(artifact.image_id.clone());
    }
    let mut images: Vec<(Region, CloudImage)> = Vec::new();
    for (region, ids) in in_ec2 {
        let mut found = deps.cloud.images(region, &ids).await?;
        for id in &ids {
            let at = found.iter().position(|image| image.id == *id);
            let image = verified(&deps.stack, record, id, at.map(|at| found.swap_remove(at)))?;
            images.push((region.clone(), image));
        }
    }
    let mut succeeded = record.clone();
    let snapshots = images.iter().flat_map(|(_, image)| image.snapshots.iter().cloned()).collect();
    succeeded.succeed(artifacts.clone(), snapshots, deps.clock.now())?;
    let images: Vec<ImageRecord> =
        images.into_iter().map(|(region, image)| image_record(&succeeded, region, image)).collect();
    match deps.records.replace_with_images(&succeeded, &images).await? {
        Write::Done => {
            succeeded.revision += 1;
            *record = succeeded;
            tracing::info!(
                image_id = record.image_id.as_ref().map(tracing::field::display),
                "the build succeeded"
            );
            Ok(())
        }
        Write::Conflict => Err(StepError::RecordContended),
    }
}

fn wanted<'a>(record: &BuildRecord, artifacts: &'a [Artifact]) -> Result<&'a ImageId, StepError> {
    record.image_among(artifacts).ok_or_else(|| {
        StepError::ImageRejected(format!(
            "Packer made no AMI in {}, the region that was asked for",
            record.region
        ))
    })
}

fn verified(
    stack: &str,
    record: &BuildRecord,
    id: &ImageId,
    image: Option<CloudImage>,
) -> Result<CloudImage, StepError> {
    // EC2 may not know yet what it has just made: what is not there is not ready.
    let not_ready = |what: &str| Err(StepError::ImageNotReady(format!("the AMI {id} {what} yet")));
    let Some(image) = image else { return not_ready("is not available") };
    if image.pending {
        return not_ready("is not available");
    }
    if !image.available {
        return Err(StepError::ImageRejected(format!("the AMI {id} is not available in EC2")));
    }
    // Packer tags an AMI last, and EC2 may show that late.
    if !image.tags.contains_key(tag::STACK) && !image.tags.contains_key(tag::BUILD_ID) {
        return not_ready("does not carry this build's tags");
    }
    if !is_tagged(&image.tags, stack, record.build_id) {
        return Err(StepError::ImageRejected(format!("the AMI {id} does not carry this build's tags")));
    }
    Ok(image)
}

fn image_record(record: &BuildRecord, region: Region, image: CloudImage) -> ImageRecord {
    ImageRecord {
        image_id: image.id,
        provider: record.provider,
        region,
        status: ImageStatus::Available,
        created_at: record.completed_at.unwrap_or(record.created_at),
        build_id: record.build_id,
        origin: record.origin,
        name: image.name,
        template_digest: record.template.digest.clone(),
        snapshots: image.snapshots,
        provisioned: image.tags.get(PROVISIONED).map(String::as_str) != Some("false"),
    }
}
