//! `delete-image`: DELETE /api/v1/images/{image_id}. Deregisters the AMI, deletes its snapshots, forgets the record.
//!
//! The record goes last, so that a deletion that was cut short is finished by asking again. Must never touch an AMI that
//! this stack did not build.

use std::sync::Arc;

use serde::Serialize;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::ids::{ImageId, shown};
use crate::ports::{Cloud, Records};
use crate::resource::tag;

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
    let in_ec2 = deps.cloud.images(&image.region, std::slice::from_ref(&id)).await?.into_iter().next();
    let build_id = image.build_id.to_string();
    if let Some(ami) = &in_ec2
        && (ami.tags.get(tag::STACK) != Some(&deps.stack) || ami.tags.get(tag::BUILD_ID) != Some(&build_id))
    {
        return Err(not_found());
    }
    let snapshots = image.snapshots.clone();
    if dry_run {
        let images = in_ec2.into_iter().map(|ami| ami.id).collect();
        let would_delete = Would { images, snapshots };
        return HttpResponse::json(200, &WouldDelete { image_id: id, would_delete });
    }
    deps.cloud.deregister(&image.region, &id).await?;
    for snapshot in &snapshots {
        deps.cloud.delete_snapshot(&image.region, snapshot).await?;
    }
    deps.records.remove_image(&image).await?;
    Ok(HttpResponse::empty(204))
}
