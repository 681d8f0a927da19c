//! The one AWS endpoint of functions, runner and Packer (`AWS_ENDPOINT_URL`): has every request judged by the permissions of whoever
//! signed it, then hands Lambda, EC2 and CodeBuild to their stand-ins and everything else to moto, untouched.
//!
//! Must never know what a request means beyond which service it is for.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use axum::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;
use ciab_local_ec2::Ec2;
use serde_json::json;
use tokio::sync::watch;

use crate::codebuild::CodeBuild;
use crate::gateway::decoded;
use crate::lambda_host::{self, Invoked, LambdaHost};
use crate::permissions::{Allowed, Incoming, Permissions, Signature};

/// Lambda's own limit for a payload is 6 MB, EC2's and CodeBuild's requests are far smaller.
const MOST_READ_BYTES: usize = 16 << 20;

/// What the edge hands requests to.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) host: Arc<LambdaHost>,
    pub(crate) codebuild: Arc<CodeBuild>,
    pub(crate) permissions: Arc<Permissions>,
    /// Known once moto listens; requests wait for it.
    pub(crate) ec2: watch::Receiver<Option<Ec2>>,
    /// Known once moto listens; requests wait for it.
    pub(crate) moto: watch::Receiver<Option<SocketAddr>>,
    pub(crate) client: reqwest::Client,
    /// Held by the one write to DynamoDB, or reading of its stream, that is under way.
    pub(crate) dynamodb_writes: Arc<tokio::sync::Mutex<()>>,
    /// Counts what was written to DynamoDB, for whoever reads its stream.
    pub(crate) written: Arc<watch::Sender<u64>>,
}

pub(crate) fn router(edge: Edge) -> Router {
    lambda_host::routes(Arc::clone(&edge.host)).merge(Router::new().fallback(handle).with_state(edge))
}

async fn handle(State(edge): State<Edge>, request: Request) -> Response<Body> {
    let (incoming, request) = match edge.looked_at(request).await {
        Ok(both) => both,
        Err(refusal) => return refusal,
    };
    let signature = Signature::of(&incoming);
    let ec2 = match &signature {
        // Tags and launch templates are asked for there.
        Some(signature) if signature.service == "ec2" => known(edge.ec2.clone()).await,
        _ => None,
    };
    let allowed = match edge.permissions.judge(&incoming, ec2.as_ref()).await {
        Ok(allowed) => allowed,
        Err(denial) => return denial.into_response(),
    };
    if Permissions::is_assume_role(&incoming, signature.as_ref()) {
        return edge.permissions.assume(&incoming);
    }
    let permissions = Arc::clone(&edge.permissions);
    let response = edge.hand_over(request).await;
    let is_s3 = signature.is_some_and(|signature| signature.service == "s3");
    match allowed {
        Allowed::Role(session) if is_s3 && response.status() == StatusCode::NOT_FOUND => {
            match permissions.may_tell_absence(&session, &incoming) {
                Ok(()) => response,
                Err(denial) => denial.into_response(),
            }
        }
        _ => response,
    }
}

impl Edge {
    async fn hand_over(self, request: Request) -> Response<Body> {
        let edge = self;
        if let Some(function) = invoked_function(request.uri().path()) {
            return edge.invoke(&function, request).await;
        }
        let target = header(request.headers(), "x-amz-target");
        if let Some(action) = target.strip_prefix("CodeBuild_20161006.") {
            let action = action.to_owned();
            return match read(request).await {
                Ok(request) => edge.codebuild.handle(&action, request.body()).await.map(Body::from),
                Err(refusal) => refusal,
            };
        }
        if credential_service(request.headers()) == Some("ec2") {
            let Some(ec2) = known(edge.ec2).await else {
                return status_only(StatusCode::SERVICE_UNAVAILABLE);
            };
            return match read(request).await {
                Ok(request) => ec2.handle(request).await.map(Body::from),
                Err(refusal) => refusal,
            };
        }
        let is_write = target.strip_prefix("DynamoDB_20120810.").is_some_and(writes);
        if is_write {
            return edge.one_by_one(request, Touch::Writes).await;
        }
        // The stream holds what a transaction has written even where that is undone a moment later.
        if target == "DynamoDBStreams_20120810.GetRecords" {
            return edge.one_by_one(request, Touch::Reads).await;
        }
        edge.pass_on(request).await
    }

    /// The request twice: as it is judged, and as it is handed over.
    async fn looked_at(&self, request: Request) -> Result<(Incoming, Request), Response<Body>> {
        let (parts, body) = request.into_parts();
        let mut incoming = Incoming {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            body: Bytes::new(),
        };
        if !Permissions::needs_body(&incoming.method, Signature::of(&incoming).as_ref()) {
            return Ok((incoming, Request::from_parts(parts, body)));
        }
        let (parts, body) = read(Request::from_parts(parts, body)).await?.into_parts();
        incoming.body = body.clone();
        Ok((incoming, Request::from_parts(parts, Body::from(body))))
    }
}

/// What a call that must not run beside a write does to the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    Reads,
    Writes,
}

/// Whether an operation of DynamoDB writes.
fn writes(operation: &str) -> bool {
    ["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems", "BatchWriteItem"].contains(&operation)
}

impl Edge {
    async fn invoke(&self, function: &str, request: Request) -> Response<Body> {
        if !self.host.knows(function) {
            let message = format!("Function not found: {function}");
            return lambda_error(StatusCode::NOT_FOUND, "ResourceNotFoundException", &message);
        }
        let kind = header(request.headers(), "x-amz-invocation-type").to_owned();
        let payload = match read(request).await {
            Ok(request) => request.into_body(),
            Err(refusal) => return refusal,
        };
        if kind == "Event" {
            let (host, function) = (Arc::clone(&self.host), function.to_owned());
            tokio::spawn(async move {
                let invoked = host.invoke(&function, payload).await;
                if invoked.failed {
                    tracing::warn!(function, "failed: {}", String::from_utf8_lossy(&invoked.payload));
                }
            });
            return status_only(StatusCode::ACCEPTED);
        }
        let Invoked { payload, failed } = self.host.invoke(function, payload).await;
        let mut response = Response::builder()
            .header(CONTENT_TYPE, "application/json")
            .header("x-amz-executed-version", "$LATEST")
            .header("x-amzn-requestid", uuid::Uuid::new_v4().to_string());
        if failed {
            response = response.header("x-amz-function-error", "Unhandled");
        }
        response.body(Body::from(payload)).unwrap_or_else(|_| status_only(StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// One write to DynamoDB after another, each of which the event source is told of: moto looks at a condition and writes in two steps, and undoes a transaction that
    /// fails by putting the whole table back to how it was before. In a task of its own, so that a client that hangs up does
    /// not let the next one in too early.
    async fn one_by_one(self, request: Request, touch: Touch) -> Response<Body> {
        let alone = async move {
            let _under_way = self.dynamodb_writes.lock().await;
            let response = self.pass_on(request).await;
            if touch == Touch::Writes {
                self.written.send_modify(|count| *count += 1);
            }
            response
        };
        tokio::spawn(alone).await.unwrap_or_else(|_| status_only(StatusCode::INTERNAL_SERVER_ERROR))
    }

    async fn pass_on(&self, request: Request) -> Response<Body> {
        let Some(address) = known(self.moto.clone()).await else {
            return status_only(StatusCode::SERVICE_UNAVAILABLE);
        };
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = parts.headers;
        let has_length = headers.contains_key("content-length");
        for name in [CONNECTION, TRANSFER_ENCODING, EXPECT] {
            headers.remove(name);
        }
        let mut forwarded =
            self.client.request(parts.method, format!("http://{address}{path}")).headers(headers);
        // A body without a length would be sent in chunks, which moto's server reads as empty for some services.
        forwarded = if has_length {
            forwarded.body(reqwest::Body::wrap_stream(body.into_data_stream()))
        } else {
            match axum::body::to_bytes(body, usize::MAX).await {
                Ok(body) => forwarded.body(body),
                Err(_) => return status_only(StatusCode::BAD_REQUEST),
            }
        };
        match forwarded.send().await {
            Ok(answer) => {
                let (status, mut headers) = (answer.status(), answer.headers().clone());
                for name in [CONNECTION, TRANSFER_ENCODING] {
                    headers.remove(name);
                }
                let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
                (*response.status_mut(), *response.headers_mut()) = (status, headers);
                response
            }
            Err(error) => {
                tracing::warn!("moto did not answer: {error}");
                status_only(StatusCode::BAD_GATEWAY)
            }
        }
    }
}

/// The value once there is one; none if there never will be.
async fn known<T: Clone>(mut value: watch::Receiver<Option<T>>) -> Option<T> {
    value.wait_for(Option::is_some).await.ok()?.clone()
}

/// The function of `/2015-03-31/functions/<name or ARN>/invocations`.
pub(crate) fn invoked_function(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/2015-03-31/functions/")?;
    let name = decoded(rest.strip_suffix("/invocations")?);
    let Some(arn) = name.strip_prefix("arn:") else { return Some(name) };
    // arn:partition:lambda:region:account:function:name[:version]
    arn.split(':').nth(5).map(str::to_owned)
}

/// The service a request is signed for: `Credential=key/date/region/service/aws4_request`.
fn credential_service(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (_, credential) = authorization.split_once("Credential=")?;
    credential.split(',').next()?.split('/').nth(3)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn read(request: Request) -> Result<http::Request<Bytes>, Response<Body>> {
    let (parts, body) = request.into_parts();
    match axum::body::to_bytes(body, MOST_READ_BYTES).await {
        Ok(body) => Ok(http::Request::from_parts(parts, body)),
        Err(_) => Err(lambda_error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestTooLargeException",
            "the request is too large",
        )),
    }
}

fn lambda_error(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({"Type": "User", "Message": message}).to_string()));
    *response.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert("x-amzn-errortype", kind);
    }
    response
}

fn status_only(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_name_and_by_encoded_arn() {
        let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Aciab-local-clean-up";
        let path = |name: &str| format!("/2015-03-31/functions/{name}/invocations");
        assert_eq!(invoked_function(&path(arn)).unwrap(), "ciab-local-clean-up");
        assert_eq!(invoked_function(&path("ciab-local-clean-up")).unwrap(), "ciab-local-clean-up");
        assert_eq!(invoked_function("/bucket/key"), None);
    }

    #[test]
    fn the_service_is_read_from_the_credential_scope() {
        let mut headers = HeaderMap::new();
        let value = "AWS4-HMAC-SHA256 Credential=k/20260325/us-east-1/ec2/aws4_request, SignedHeaders=host";
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers.insert(axum::http::header::HOST, "localhost".parse().unwrap());
        assert_eq!(credential_service(&headers), Some("ec2"));
    }
}
