//! `list-resources`: GET /api/v1/images/resources. Everything in EC2 that carries the stack's tag, in every region that it may
//! build in: what whoever removes the stack looks at, and is billed for.
//!
//! Asks EC2 and not the records: what no record knows of is what matters here. Must never answer with a part of it as if it
//! were all: a region that does not answer fails the request.

use std::sync::Arc;

use futures::future::try_join_all;
use jiff::Timestamp;
use serde::Serialize;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::ids::Region;
use crate::ports::Cloud;
use crate::resource::{Resource, ResourceKind, tag};

/// What it needs.
pub struct Deps {
    /// The stack's name.
    pub stack: String,
    /// The regions that builds may run in.
    pub regions: Vec<Region>,
    /// EC2.
    pub cloud: Arc<dyn Cloud>,
}

#[derive(Debug, Serialize)]
struct Listing {
    resources: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    kind: ResourceKind,
    id: String,
    region: Region,
    /// The build that it carries the tag of; none for what belongs to the stack itself.
    build_id: Option<String>,
    /// Since when it is there, where EC2 tells.
    since: Option<Timestamp>,
    /// Whether EC2 bills for it, or for what it holds.
    billed: bool,
}

/// Answers the route.
///
/// # Errors
/// Those of the contract.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&[])?;
    // What is in EC2 does not tell its agent, and what belongs to no build has none.
    if let Some(limits) = request.limits() {
        return Err(ApiError::Forbidden(format!(
            "the key is limited to {limits}: what the whole stack has in EC2 is told to a key without limits"
        )));
    }
    let of_regions = deps.regions.iter().map(|region| deps.cloud.of_stack(region, &deps.stack));
    let mut found: Vec<Resource> = try_join_all(of_regions).await?.into_iter().flatten().collect();
    found.sort_by(|a, b| (&a.region, a.kind, &a.id).cmp(&(&b.region, b.kind, &b.id)));
    let resources = found.into_iter().map(|resource| Found {
        billed: is_billed(resource.kind),
        build_id: [tag::BUILD_ID, tag::RUNNER_OF].iter().find_map(|key| resource.tags.get(*key).cloned()),
        kind: resource.kind,
        id: resource.id,
        region: resource.region,
        since: resource.created_at,
    });
    HttpResponse::json(200, &Listing { resources: resources.collect() })
}

/// An instance that is stopped is billed for its volumes, and an AMI for its snapshots.
fn is_billed(kind: ResourceKind) -> bool {
    match kind {
        ResourceKind::Instance | ResourceKind::Volume | ResourceKind::Image | ResourceKind::Snapshot => true,
        ResourceKind::SecurityGroup
        | ResourceKind::KeyPair
        | ResourceKind::LaunchTemplate
        | ResourceKind::InstanceProfile
        | ResourceKind::Role => false,
    }
}
