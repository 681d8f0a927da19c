//! `list-images`: GET /api/v1/images and GET /api/v1/images/{image_id}. Reads the records alone; must never ask EC2.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::ids::ImageId;
use crate::image::ImageRecord;
use crate::key::Limits;
use crate::ports::{ImageFilter, Records};

/// Pages that are read for one answer at most.
const PAGES: usize = 20;

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
        Some(image) => {
            request.stay_within_limits("image", image.provider, &image.region)?;
            HttpResponse::json(200, &image)
        }
        None => Err(ApiError::ImageNotFound(id.to_string())),
    }
}

async fn several(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&["region", "provider", "limit", "next_token"])?;
    let filter = ImageFilter {
        region: request.query.get("region").map(|text| text.parse()).transpose()?,
        provider: request.query.get("provider").map(|text| text.parse()).transpose()?,
    };
    let filter = within_limits(filter, request.limits())?;
    let limit = request.limit()?;
    let mut listing = Listing { images: Vec::new(), next_token: request.query.get("next_token").cloned() };
    // A page of which the caller may see nothing would look like the end.
    for _ in 0..PAGES {
        let page = deps.records.images(&filter, limit, listing.next_token.as_deref()).await?;
        listing.next_token = page.next;
        listing
            .images
            .extend(page.items.into_iter().filter(|image| request.sees(image.provider, &image.region)));
        if !listing.images.is_empty() || listing.next_token.is_none() {
            break;
        }
    }
    HttpResponse::json(200, &listing)
}

/// The filter, narrowed by limits that leave one agent or region: then nothing else is read. What else lies outside of them is
/// left out of the pages.
fn within_limits(filter: ImageFilter, limits: Option<&Limits>) -> Result<ImageFilter, ApiError> {
    let Some(limits) = limits else { return Ok(filter) };
    let outside = |name: &str, given: &str| {
        ApiError::Forbidden(format!("the key is limited to {limits}: `{name}` is `{given}`"))
    };
    if let Some(region) = filter.region.as_ref().filter(|region| !limits.allow_region(region)) {
        return Err(outside("region", region.as_str()));
    }
    if let Some(provider) = filter.provider.filter(|provider| !limits.allow_provider(*provider)) {
        return Err(outside("provider", provider.as_str()));
    }
    Ok(ImageFilter {
        region: filter.region.or_else(|| only(limits.regions.as_ref())),
        provider: filter.provider.or_else(|| only(limits.providers.as_ref())),
    })
}

fn only<T: Clone + Ord>(allowed: Option<&BTreeSet<T>>) -> Option<T> {
    allowed.filter(|allowed| allowed.len() == 1).and_then(|allowed| allowed.first().cloned())
}
