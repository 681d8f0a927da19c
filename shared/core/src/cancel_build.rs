//! `cancel-build`: POST /api/v1/images/builds/{build_id}/cancel. Records that somebody wants no more of a build, and begins to
//! tear it down; the poller goes on with that.
//!
//! Must never take back an image: a build that has ended cannot be cancelled any more.

use tracing::Instrument as _;
use tracing::field::display;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::build::Failure;
use crate::get_build::BuildView;
use crate::ids::BuildId;
use crate::reconcile::{Deps, bring_on_one};
use crate::spans;
use crate::step::{StepError, update};

/// Answers the route.
///
/// # Errors
/// Those of the contract.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&[])?;
    let id: BuildId = request.path_parameter("build_id").parse()?;
    cancel(deps, request, id).instrument(spans::of_build_id(id)).await
}

async fn cancel(deps: &Deps, request: &HttpRequest, id: BuildId) -> Result<HttpResponse, ApiError> {
    // Agent and region of a build never change, so that it is enough to look before.
    if request.limits().is_some()
        && let Some(record) = deps.records.build(id).await?
    {
        request.stay_within_limits("build", record.provider, &record.region)?;
    }
    let now = deps.clock.now();
    let cancelled =
        update(&*deps.records, id, |record| record.begin_clean_up(Failure::cancelled(record.stage()), now));
    let record = match cancelled.await {
        Ok(record) => record,
        Err(StepError::BuildMissing(id)) => return Err(ApiError::BuildNotFound(id.to_string())),
        Err(StepError::BuildEnded(refused)) => {
            return Err(ApiError::BuildEnded { build_id: id.to_string(), status: refused.from.as_str() });
        }
        Err(StepError::Port(error)) => return Err(error.into()),
        Err(error) => return Err(ApiError::Unavailable(Box::new(error))),
    };
    let (by, key_id) = (request.request_id.as_ref().map(display), request.requested_by());
    tracing::info!(by_request_id = by, key_id, "the build is cancelled");
    // From here on it is cancelled, whatever fails: the poller brings it to its end.
    let begun = async {
        deps.workflows.stop(id).await?;
        bring_on_one(deps, record.clone()).await
    };
    let record = match begun.await {
        Ok(record) => record,
        Err(StepError::LeftoversRemain(_)) => deps.records.build(id).await?.unwrap_or(record),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the cancelled build is left to the poller");
            record
        }
    };
    HttpResponse::json(202, &BuildView::from(&record))
}
