//! `check-health`: GET /health, GET /ready, and every route that nothing else answers.
//!
//! Must never need a key, and so must never tell anything about the stack but whether it works.

use std::sync::Arc;

use serde_json::json;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::ids::shown;
use crate::ports::{ObjectStore, Records, Workflows};
use crate::routes;

/// What it needs.
pub struct Deps {
    /// The table.
    pub records: Arc<dyn Records>,
    /// The bucket.
    pub objects: Arc<dyn ObjectStore>,
    /// The state machine.
    pub workflows: Arc<dyn Workflows>,
}

/// Answers the routes.
///
/// # Errors
/// `not_found` and `method_not_allowed` for every other route; `unavailable` where something does not answer.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/health") => HttpResponse::json(200, &json!({"status": "ok"})),
        ("GET", "/ready") => {
            deps.records.ready().await?;
            deps.objects.ready().await?;
            deps.workflows.ready().await?;
            HttpResponse::json(200, &json!({"status": "ready"}))
        }
        (method, path) => {
            let allowed = routes::methods_of(path);
            if allowed.is_empty() {
                Err(ApiError::NotFound(shown(path)))
            } else {
                Err(ApiError::MethodNotAllowed { method: shown(method), allowed: allowed.join(", ") })
            }
        }
    }
}
