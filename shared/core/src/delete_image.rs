//! `delete-image`: DELETE /api/v1/images/{image_id}. Deregisters the AMI and every other one of its build, in all regions,
//! deletes their snapshots, forgets the records.
//!
//! The record of the image that was named goes last, so that a deletion that was cut short is finished by asking again. Must
//! never touch an AMI that this stack did not build.

use std::sync::Arc;

use serde::Serialize;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::ids::{ImageId, shown};
use crate::image::ImageRecord;
use crate::ports::{Cloud, PortError, Records};
use crate::resource::is_tagged;

/// What it needs.
pub struct Deps {
    /// The stack's name: it is on every image of ours.
    pub stack: String,
    /// Image records.
    pub records: Arc<dyn Records>,
    /// EC2.
    pub cloud: Arc<dyn Cloud>,
}

#[derive(Debug, Serialize)]
struct WouldDelete {
    image_id: ImageId,
    would_delete: Would,
}

#[derive(Debug, Serialize)]
struct Would {
    images: Vec<ImageId>,
    snapshots: Vec<String>,
}

/// Answers the route.
///
/// # Errors
/// Those of the contract.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&["dry_run"])?;
    let id: ImageId = request.path_parameter("image_id").parse()?;
    let dry_run = match request.query.get("dry_run").map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(ApiError::InvalidRequest(format!(
                "`dry_run` is `{}`: true or false is expected",
                shown(other)
            )));
        }
    };
    let not_found = || ApiError::ImageNotFound(id.to_string());
    let image = deps.records.image(&id).await?.ok_or_else(not_found)?;
    request.stay_within_limits("image", image.provider, &image.region)?;
    let all = of_one_build(deps, image).await?.ok_or_else(not_found)?;
    for (other, _) in &all {
        // It would go too.
        request.stay_within_limits("image's copy", other.provider, &other.region)?;
    }
    if dry_run {
        let images = all.iter().filter(|(_, state)| *state == InEc2::There);
        let images = images.map(|(image, _)| image.image_id.clone()).collect();
        let snapshots = all.iter().flat_map(|(image, _)| image.snapshots.iter().cloned()).collect();
        let would_delete = Would { images, snapshots };
        return HttpResponse::json(200, &WouldDelete { image_id: id, would_delete });
    }
    delete(deps, &all).await?;
    Ok(HttpResponse::empty(204))
}

/// This image and every other one of its build that is proven to be ours, this one last; none where this one is not.
///
/// # Errors
/// What the records or EC2 answer.
pub(crate) async fn of_one_build(
    deps: &Deps,
    image: ImageRecord,
) -> Result<Option<Vec<(ImageRecord, InEc2)>>, PortError> {
    let Some(named) = state(deps, &image).await? else { return Ok(None) };
    let mut all = Vec::new();
    for other in others(deps, &image).await? {
        match state(deps, &other).await? {
            Some(state) => all.push((other, state)),
            // Somebody has taken our tags off it: it is theirs now.
            None => {
                tracing::warn!(image_id = %other.image_id, "left alone: it carries other tags than its build's")
            }
        }
    }
    all.push((image, named));
    Ok(Some(all))
}

/// Deletes what [`of_one_build`] gave. What is gone already is no obstacle: what was cut short is finished by doing it again.
///
/// # Errors
/// What the records or EC2 answer.
pub(crate) async fn delete(deps: &Deps, all: &[(ImageRecord, InEc2)]) -> Result<(), PortError> {
    for (image, _) in all {
        deps.cloud.deregister(&image.region, &image.image_id).await?;
        for snapshot in &image.snapshots {
            deps.cloud.delete_snapshot(&image.region, snapshot).await?;
        }
        deps.records.remove_image(image).await?;
    }
    Ok(())
}

/// Whether EC2 still has an image that is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InEc2 {
    There,
    Gone,
}

/// Whether EC2 still has it; none where what EC2 has is not this build's.
async fn state(deps: &Deps, image: &ImageRecord) -> Result<Option<InEc2>, PortError> {
    let found = deps.cloud.images(&image.region, std::slice::from_ref(&image.image_id)).await?;
    let Some(ami) = found.into_iter().next() else { return Ok(Some(InEc2::Gone)) };
    Ok(is_tagged(&ami.tags, &deps.stack, image.build_id).then_some(InEc2::There))
}

/// The other images that its build made: copies in other regions, and those of other sources.
async fn others(deps: &Deps, image: &ImageRecord) -> Result<Vec<ImageRecord>, PortError> {
    let mut others = Vec::new();
    let build = deps.records.build(image.build_id).await?;
    for artifact in build.iter().flat_map(|build| &build.artifacts) {
        if artifact.image_id != image.image_id {
            others.extend(deps.records.image(&artifact.image_id).await?);
        }
    }
    Ok(others)
}
