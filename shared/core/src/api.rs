//! HTTP as the domain sees it: a request that was routed, an answer, and the errors of the contract.
//!
//! Must never let the text of an inner error reach the caller: [`ApiError::Internal`] and its like carry their cause for
//! the log alone.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use crate::build::Asker;
use crate::ids::{InvalidName, Provider, Region, RequestId};
use crate::key::{Caller, Limits};
use crate::ports::{INVALID_NEXT_TOKEN, PortError};

/// A request that was routed to a function.
#[derive(Debug, Clone, Default)]
pub struct HttpRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path as it was asked for.
    pub path: String,
    /// The route's `{…}` parts.
    pub path_parameters: BTreeMap<String, String>,
    /// The query's parameters.
    pub query: BTreeMap<String, String>,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body's bytes.
    pub body: Vec<u8>,
    /// Whose key it came with; none where the route is open, or the service asks itself.
    pub caller: Option<Caller>,
    /// The id that the gateway gave it: it is in the access log and in the answer's `apigw-requestid`.
    pub request_id: Option<RequestId>,
}

impl HttpRequest {
    /// The part of the path with this name; empty where the route has none.
    pub fn path_parameter(&self, name: &str) -> &str {
        self.path_parameters.get(name).map_or("", String::as_str)
    }

    /// The id of the key that it came with.
    pub fn requested_by(&self) -> Option<String> {
        self.caller.as_ref().map(|caller| caller.key_id.clone())
    }

    /// Who asks.
    pub fn asker(&self) -> Asker {
        Asker { key_id: self.requested_by(), request_id: self.request_id.clone() }
    }

    /// What the caller is limited to, if to anything.
    pub fn limits(&self) -> Option<&Limits> {
        self.caller.as_ref().map(|caller| &caller.limits).filter(|limits| limits.is_limited())
    }

    /// Refuses what lies outside of the caller's limits: `what` (a build, an image) with this agent in this region.
    ///
    /// # Errors
    /// `forbidden`, naming what the key is limited to.
    pub fn stay_within_limits(
        &self,
        what: &str,
        provider: Provider,
        region: &Region,
    ) -> Result<(), ApiError> {
        match self.limits() {
            Some(limits) if !limits.allow(provider, region) => Err(ApiError::Forbidden(format!(
                "the key is limited to {limits}: this {what} has the provider {provider} and the region {region}"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether a listing shows the caller what has this agent and region.
    pub fn sees(&self, provider: Provider, region: &Region) -> bool {
        self.limits().is_none_or(|limits| limits.allow(provider, region))
    }

    /// How many items a listing's page may hold.
    ///
    /// # Errors
    /// `invalid_request` where `limit` is no number from 1 to 100.
    pub fn limit(&self) -> Result<u32, ApiError> {
        let Some(text) = self.query.get("limit") else { return Ok(50) };
        text.parse().ok().filter(|limit| (1..=100).contains(limit)).ok_or_else(|| {
            ApiError::InvalidRequest(format!(
                "`limit` is `{}`: a number from 1 to 100 is expected",
                crate::ids::shown(text)
            ))
        })
    }

    /// The page of a listing that is asked for: how much it may hold, by `limit`, and where it starts, by `next_token`.
    ///
    /// # Errors
    /// `invalid_request` for a limit that cannot be.
    pub fn page(&self) -> Result<(u32, Option<&str>), ApiError> {
        Ok((self.limit()?, self.query.get("next_token").map(String::as_str)))
    }

    /// Refuses query parameters that the route does not take.
    ///
    /// # Errors
    /// `invalid_request`, naming what was given and what is allowed.
    pub fn only_query(&self, allowed: &[&str]) -> Result<(), ApiError> {
        match self.query.keys().find(|name| !allowed.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) if allowed.is_empty() => Err(ApiError::InvalidRequest(format!(
                "unknown query parameter `{}`: this route takes none",
                crate::ids::shown(name)
            ))),
            Some(name) => Err(ApiError::InvalidRequest(format!(
                "unknown query parameter `{}`: allowed are {}",
                crate::ids::shown(name),
                allowed.join(", ")
            ))),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// Headers beside the content type.
    pub headers: BTreeMap<String, String>,
    /// The body; none for 204.
    pub body: Option<serde_json::Value>,
}

impl HttpResponse {
    /// An answer with a JSON document.
    ///
    /// # Errors
    /// `internal_error` where the document has no JSON form.
    pub fn json(status: u16, document: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_value(document).map_err(|error| ApiError::Internal(Box::new(error)))?;
        Ok(Self { status, headers: BTreeMap::new(), body: Some(body) })
    }

    /// An answer without a document.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: BTreeMap::new(), body: None }
    }
}

/// The cause of an error that is ours to look into.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The errors of the contract. What they say is meant for the caller.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request is not one that this route takes.
    #[error("{0}")]
    InvalidRequest(String),
    /// The request asks for what this stack does not allow, or a template cannot take.
    #[error("{0}")]
    ConfigValidation(String),
    /// The key may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// No such build.
    #[error("there is no build `{0}`")]
    BuildNotFound(String),
    /// No such image of ours.
    #[error("this service has no image `{0}`")]
    ImageNotFound(String),
    /// No such key.
    #[error("there is no key `{0}`")]
    KeyNotFound(String),
    /// No such template.
    #[error("{0}")]
    TemplateSourceNotFound(String),
    /// No such route.
    #[error("there is nothing at {0}")]
    NotFound(String),
    /// The path is known, the method is not.
    #[error("{method} is not allowed here: allowed are {allowed}")]
    MethodNotAllowed {
        /// The method that was used.
        method: String,
        /// Those that could be.
        allowed: String,
    },
    /// The body is too large.
    #[error("{0}")]
    PayloadTooLarge(String),
    /// The body is not JSON by its content type.
    #[error("the content type `{0}` is not supported: send application/json")]
    UnsupportedMediaType(String),
    /// The idempotency key was used with another request.
    #[error(
        "the Idempotency-Key was used before with another request: use a new key, or send the same request again"
    )]
    IdempotencyConflict,
    /// The build has ended: there is nothing to cancel.
    #[error("the build `{build_id}` has ended as {status}: it cannot be cancelled any more")]
    BuildEnded {
        /// The build.
        build_id: String,
        /// How it ended.
        status: &'static str,
    },
    /// EC2 refused.
    #[error("EC2 refused the request ({code}): {advice}")]
    Ec2 {
        /// EC2's error code.
        code: String,
        /// What to do.
        advice: &'static str,
        /// For the log.
        #[source]
        source: Cause,
    },
    /// Something that we stand on does not answer.
    #[error("the service is not available at the moment: try again in a few seconds")]
    Unavailable(#[source] Cause),
    /// Our mistake.
    #[error("an internal error: it was logged with this request's id")]
    Internal(#[source] Cause),
}

impl ApiError {
    /// The error's name on the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::ConfigValidation(_) => "config_validation_error",
            Self::Forbidden(_) => "forbidden",
            Self::BuildNotFound(_) => "build_not_found",
            Self::ImageNotFound(_) => "image_not_found",
            Self::KeyNotFound(_) => "key_not_found",
            Self::TemplateSourceNotFound(_) => "template_source_not_found",
            Self::NotFound(_) => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::PayloadTooLarge(_) => "payload_too_large",
            Self::UnsupportedMediaType(_) => "unsupported_media_type",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::BuildEnded { .. } => "build_ended",
            Self::Ec2 { .. } => "ec2_error",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "internal_error",
        }
    }

    /// The status code that goes with it.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidRequest(_) | Self::ConfigValidation(_) => 400,
            Self::Forbidden(_) => 403,
            Self::BuildNotFound(_)
            | Self::ImageNotFound(_)
            | Self::KeyNotFound(_)
            | Self::TemplateSourceNotFound(_)
            | Self::NotFound(_) => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::IdempotencyConflict | Self::BuildEnded { .. } => 409,
            Self::PayloadTooLarge(_) => 413,
            Self::UnsupportedMediaType(_) => 415,
            Self::Internal(_) => 500,
            Self::Ec2 { .. } => 502,
            Self::Unavailable(_) => 503,
        }
    }

    /// The answer that tells it.
    pub fn response(&self) -> HttpResponse {
        let mut headers = BTreeMap::new();
        match self {
            Self::Unavailable(_) => {
                headers.insert("retry-after".to_owned(), "5".to_owned());
            }
            Self::MethodNotAllowed { allowed, .. } => {
                headers.insert("allow".to_owned(), allowed.clone());
            }
            Self::InvalidRequest(_)
            | Self::ConfigValidation(_)
            | Self::Forbidden(_)
            | Self::BuildNotFound(_)
            | Self::ImageNotFound(_)
            | Self::KeyNotFound(_)
            | Self::TemplateSourceNotFound(_)
            | Self::NotFound(_)
            | Self::PayloadTooLarge(_)
            | Self::UnsupportedMediaType(_)
            | Self::IdempotencyConflict
            | Self::BuildEnded { .. }
            | Self::Ec2 { .. }
            | Self::Internal(_) => {}
        }
        let body = json!({"error": {"code": self.code(), "message": self.to_string()}});
        HttpResponse { status: self.status(), headers, body: Some(body) }
    }
}

impl From<PortError> for ApiError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unavailable { .. } => Self::Unavailable(Box::new(error)),
            PortError::Refused { service: "ec2", ref code, .. } => Self::Ec2 {
                code: code.clone(),
                advice: "check that the stack's role may do this",
                source: Box::new(error),
            },
            PortError::Refused { code, .. } if code == INVALID_NEXT_TOKEN => Self::InvalidRequest(
                "`next_token` is not one that this service gave: leave it out to start from the beginning"
                    .into(),
            ),
            PortError::Refused { .. } | PortError::Unreadable { .. } => Self::Internal(Box::new(error)),
        }
    }
}

impl From<InvalidName> for ApiError {
    fn from(error: InvalidName) -> Self {
        Self::InvalidRequest(error.to_string())
    }
}
