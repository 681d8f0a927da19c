//! The HTTP API on one machine: routes, authorizer and events as API Gateway has them, all read from the template.
//!
//! Must never decide what a function should: it answers by itself only where API Gateway would.

mod authorizer;
mod event;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;

use crate::lambda_host::{Invoked, LambdaHost};
use crate::template::StackTemplate;
use authorizer::{Authorizer, Verdict};
use event::Surroundings;
use routes::RouteTable;

pub(crate) use routes::decoded;

/// API Gateway's limit for a request's body.
const MOST_BODY_BYTES: usize = 10 << 20;

struct Gateway {
    routes: RouteTable,
    authorizer: Option<Authorizer>,
    host: Arc<LambdaHost>,
    region: String,
}

/// The whole HTTP API of the template.
pub(crate) fn router(template: &StackTemplate, host: Arc<LambdaHost>, region: &str) -> Router {
    let gateway = Gateway {
        routes: RouteTable::new(&template.functions),
        authorizer: template.authorizer.clone().map(Authorizer::new),
        host,
        region: region.to_owned(),
    };
    Router::new().fallback(handle).with_state(Arc::new(gateway))
}

async fn handle(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response<Body> {
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut response = gateway.answer(client, request, &request_id).await;
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("apigw-requestid", value);
    }
    response.map(Body::from)
}

impl Gateway {
    async fn answer(&self, client: SocketAddr, request: Request, request_id: &str) -> Response<Bytes> {
        let (parts, body) = request.into_parts();
        let Some(matched) = self.routes.find(parts.method.as_str(), parts.uri.path()) else {
            return event::error(StatusCode::NOT_FOUND, "not_found", "there is no such route");
        };
        let host =
            parts.headers.get("host").and_then(|value| value.to_str().ok()).unwrap_or("localhost").to_owned();
        let source_ip = client.ip().to_string();
        let surroundings = Surroundings {
            request_id,
            source_ip: &source_ip,
            domain: host.split(':').next().unwrap_or_default(),
            time: jiff::Timestamp::now(),
        };
        let mut context = None;
        if let Some(authorizer) = self.authorizer.as_ref().filter(|_| !matched.route.open) {
            match authorizer.check(&self.host, &parts, &matched, &surroundings, &self.region).await {
                Verdict::Allowed(given) => context = given,
                Verdict::NotIdentified => {
                    let message = "the request carries no key; send `Authorization: Bearer <key>`";
                    return event::error(StatusCode::UNAUTHORIZED, "unauthorized", message);
                }
                Verdict::Denied => {
                    return event::error(
                        StatusCode::FORBIDDEN,
                        "forbidden",
                        "the key does not allow this request",
                    );
                }
                Verdict::Failed => {
                    return event::error(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "internal_error",
                        "internal error",
                    );
                }
            }
        }
        let body = match axum::body::to_bytes(body, MOST_BODY_BYTES).await {
            Ok(body) => body,
            Err(_) => {
                let message = "the body is larger than 10 MB, the most that is accepted";
                return event::error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message);
            }
        };
        let event = event::request_event(&parts, &body, &matched, &surroundings, context.as_ref());
        let invoked = self.host.invoke(&matched.route.function, Bytes::from(event.to_string())).await;
        from_function(&invoked, &matched.route.function, request_id)
    }
}

fn from_function(invoked: &Invoked, function: &str, request_id: &str) -> Response<Bytes> {
    let payload = || String::from_utf8_lossy(&invoked.payload).into_owned();
    if invoked.failed {
        tracing::warn!(function, request_id, "failed: {}", payload());
        if invoked.timed_out() {
            return event::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the service did not answer in time",
            );
        }
        return event::error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal error");
    }
    event::response(&invoked.payload).unwrap_or_else(|| {
        tracing::warn!(function, request_id, "its answer is no HTTP response: {}", payload());
        event::error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal error")
    })
}
