//! `finish-build`: checks the AMI that Packer made, looks for what it left, records the image.
//!
//! A build says `succeeded` only here, and only of an AMI that EC2 calls `available`, in the region asked for, with this
//! build's tags.

use serde::{Deserialize, Serialize};

use crate::build::{BuildRecord, BuildStatus};
use crate::ids::{BuildId, ImageId, Region};
use crate::image::{ImageRecord, ImageStatus};
use crate::ports::{CloudImage, Write};
use crate::resource::tag;
use crate::step::StepError;
use crate::tear_down::{Deps, tear_down};

/// The tag of an image that was made by a local stack that could not host instances.
const PROVISIONED: &str = "ciab:provisioned";

/// An AMI that Packer says it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The region that it lives in.
    pub region: Region,
    /// Its id.
    pub image_id: ImageId,
}

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
/// `ImageNotReady` while EC2 calls the AMI `pending`; `ImageRejected` for one that is not this build's; otherwise those that
/// every step has.
pub async fn run(deps: &Deps, input: Input) -> Result<Output, StepError> {
    let id = input.build_id;
    let mut record = deps.records.build(id).await?.ok_or(StepError::BuildMissing(id))?;
    let artifact = wanted(&record, &input.artifacts)?;
    let image_id = artifact.image_id.clone();
    if record.status == BuildStatus::Succeeded && record.image_id.as_ref() == Some(&image_id) {
        return Ok(Output { image_id });
    }
    let images = deps.cloud.images(&record.region, std::slice::from_ref(&image_id)).await?;
    let image = images.into_iter().next();
    let image = verified(&deps.stack, &record, &image_id, image)?;
    record.succeed(image_id.clone(), deps.clock.now())?;
    let image = image_record(&record, image);

    // A look that fails does not make the image worse: the record stays active, and the poller looks again.
    if let Err(error) = tear_down(deps, &mut record).await {
        tracing::warn!(build_id = %id, error = &error as &dyn std::error::Error, "leftovers not looked for yet");
    }
    match deps.records.replace_with_images(&record, &[image]).await? {
        Write::Done => Ok(Output { image_id }),
        Write::Conflict => Err(StepError::RecordContended),
    }
}

fn wanted<'a>(record: &BuildRecord, artifacts: &'a [Artifact]) -> Result<&'a Artifact, StepError> {
    artifacts.iter().find(|artifact| artifact.region == record.region).ok_or_else(|| {
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
    let Some(image) = image else { return Err(StepError::ImageNotReady(id.to_string())) };
    if image.pending {
        return Err(StepError::ImageNotReady(id.to_string()));
    }
    if !image.available {
        return Err(StepError::ImageRejected(format!("the AMI {id} is not available in EC2")));
    }
    let build_id = record.build_id.to_string();
    let tagged = image.tags.get(tag::STACK).map(String::as_str) == Some(stack)
        && image.tags.get(tag::BUILD_ID) == Some(&build_id);
    if !tagged {
        return Err(StepError::ImageRejected(format!("the AMI {id} does not carry this build's tags")));
    }
    Ok(image)
}

fn image_record(record: &BuildRecord, image: CloudImage) -> ImageRecord {
    ImageRecord {
        image_id: image.id,
        provider: record.provider,
        region: record.region.clone(),
        status: ImageStatus::Available,
        created_at: record.completed_at.unwrap_or(record.created_at),
        build_id: record.build_id,
        name: image.name,
        template_digest: record.template.digest.clone(),
        snapshots: image.snapshots,
        provisioned: image.tags.get(PROVISIONED).map(String::as_str) != Some("false"),
    }
}
