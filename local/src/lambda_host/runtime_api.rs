//! Lambda's Runtime API, as documented in "Using the Lambda runtime API for custom runtimes". Each process has a prefix of
//! its own (`/.rt/<instance>`), so an answer can be told from that of another process of the same function.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;

use super::{Invoked, LambdaHost};

/// Lambda's limit for a synchronous answer is 6 MB; the JSON around it may add something.
const MOST_ANSWER_BYTES: usize = 8 << 20;

/// The routes that function processes call.
pub(crate) fn routes(host: Arc<LambdaHost>) -> Router {
    Router::new()
        .route("/.rt/{instance}/2018-06-01/runtime/invocation/next", get(next))
        .route("/.rt/{instance}/2018-06-01/runtime/invocation/{request}/response", post(response))
        .route("/.rt/{instance}/2018-06-01/runtime/invocation/{request}/error", post(error))
        .route("/.rt/{instance}/2018-06-01/runtime/init/error", post(init_error))
        .layer(DefaultBodyLimit::max(MOST_ANSWER_BYTES))
        .with_state(host)
}

async fn next(State(host): State<Arc<LambdaHost>>, Path(instance): Path<String>) -> Response {
    let Some(instance) = host.instance(&instance).await else { return StatusCode::GONE.into_response() };
    let Some(invocation) = instance.next().await else { return StatusCode::GONE.into_response() };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("lambda-runtime-aws-request-id", invocation.request_id),
        ("lambda-runtime-deadline-ms", invocation.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", instance.function_arn.clone()),
        ("content-type", "application/json".to_owned()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    (headers, invocation.payload).into_response()
}

async fn response(
    State(host): State<Arc<LambdaHost>>,
    Path((instance, request)): Path<(String, String)>,
    payload: Bytes,
) -> StatusCode {
    answer(&host, &instance, &request, Invoked { payload, failed: false }).await
}

async fn error(
    State(host): State<Arc<LambdaHost>>,
    Path((instance, request)): Path<(String, String)>,
    payload: Bytes,
) -> StatusCode {
    answer(&host, &instance, &request, Invoked { payload, failed: true }).await
}

async fn init_error(
    State(host): State<Arc<LambdaHost>>,
    Path(instance): Path<String>,
    payload: Bytes,
) -> StatusCode {
    if let Some(instance) = host.instance(&instance).await {
        instance.init_failed(Invoked { payload, failed: true });
    }
    StatusCode::ACCEPTED
}

async fn answer(host: &LambdaHost, instance: &str, request: &str, invoked: Invoked) -> StatusCode {
    match host.instance(instance).await {
        Some(instance) if instance.answer(request, invoked) => StatusCode::ACCEPTED,
        // What Lambda answers to a request id it does not wait for.
        _ => StatusCode::BAD_REQUEST,
    }
}
