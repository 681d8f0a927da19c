//! `list-images`: GET /api/v1/images and GET /api/v1/images/{image_id}. Reads the records alone; must never ask EC2.

use std::sync::Arc;

use serde::Serialize;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::ids::{ImageId, shown};
use crate::image::ImageRecord;
use crate::ports::{ImageFilter, Records};

/// What it needs.
pub struct Deps {
    /// Image records.
    pub records: Arc<dyn Records>,
}

#[derive(Debug, Serialize)]
struct Listing {
    images: Vec<ImageRecord>,
    next_token: Option<String>,
}

/// Answers both routes.
///
/// # Errors
/// Those of the contract.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    match request.path_parameters.get("image_id") {
        Some(id) => one(deps, request, id).await,
        None => several(deps, request).await,
    }
}

async fn one(deps: &Deps, request: &HttpRequest, id: &str) -> Result<HttpResponse, ApiError> {
    request.only_query(&[])?;
    let id: ImageId = id.parse()?;
    match deps.records.image(&id).await? {
        Some(image) => HttpResponse::json(200, &image),
        None => Err(ApiError::ImageNotFound(id.to_string())),
    }
}

async fn several(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&["region", "provider", "limit", "next_token"])?;
    let filter = ImageFilter {
        region: request.query.get("region").map(|text| text.parse()).transpose()?,
        provider: request.query.get("provider").map(|text| text.parse()).transpose()?,
    };
    let limit = match request.query.get("limit") {
        None => 50,
        Some(text) => text.parse().ok().filter(|limit| (1..=100).contains(limit)).ok_or_else(|| {
            ApiError::InvalidRequest(format!(
                "`limit` is `{}`: a number from 1 to 100 is expected",
                shown(text)
            ))
        })?,
    };
    let page =
        deps.records.images(&filter, limit, request.query.get("next_token").map(String::as_str)).await?;
    HttpResponse::json(200, &Listing { images: page.items, next_token: page.next })
}
