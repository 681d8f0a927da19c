//! The answer to a caller who may not, in the words of the service that was asked.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, StatusCode};
use serde_json::json;

use super::{Incoming, Signature};

/// A refused call.
#[derive(Debug)]
pub(crate) struct Denial {
    service: String,
    /// Why, for the caller.
    pub(crate) reason: String,
}

impl Denial {
    pub(super) fn new(signature: &Signature, incoming: &Incoming, reason: String) -> Self {
        tracing::warn!(key = signature.key, "{} {}: {reason}", incoming.method, incoming.uri.path());
        Self { service: signature.service.clone(), reason }
    }

    /// Of a request that nobody signed.
    pub(super) fn unsigned(incoming: &Incoming) -> Self {
        let reason = "the request is not signed".to_owned();
        tracing::warn!("{} {}: {reason}", incoming.method, incoming.uri.path());
        let is_json =
            incoming.headers.contains_key("x-amz-target") || incoming.uri.path().starts_with("/2015-03-31/");
        Self { service: if is_json { "lambda" } else { "s3" }.to_owned(), reason }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let message = escaped(&self.reason);
        let id = uuid::Uuid::new_v4();
        match self.service.as_str() {
            "s3" => xml(format!(
                "<Error><Code>AccessDenied</Code><Message>{message}</Message><RequestId>{id}</RequestId></Error>"
            )),
            "ec2" => xml(format!(
                "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this operation. \
                 {message}</Message></Error></Errors><RequestID>{id}</RequestID></Response>"
            )),
            "iam" | "sts" | "sns" => xml(format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{message}</Message></Error>\
                 <RequestId>{id}</RequestId></ErrorResponse>"
            )),
            service => {
                // Lambda speaks REST, the others answer every error of a caller's with 400.
                let status =
                    if service == "lambda" { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
                let document = json!({"__type": "AccessDeniedException", "message": self.reason, "Message": self.reason});
                let mut response = Response::new(Body::from(document.to_string()));
                *response.status_mut() = status;
                let kind = axum::http::HeaderValue::from_static("AccessDeniedException");
                response.headers_mut().insert("x-amzn-errortype", kind);
                let json = axum::http::HeaderValue::from_static("application/x-amz-json-1.0");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
        }
    }
}

fn xml(body: String) -> Response<Body> {
    let mut response =
        Response::new(Body::from(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}")));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("text/xml"));
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
