//! `upload-template`: POST /api/v1/images/templates. Says where a template from the caller's own disk goes, and under what
//! name a build then finds it.
//!
//! The name is the digest of the bytes, so that uploading twice is uploading once. Must never take the bytes itself, nor
//! let anything be written but the bytes that were announced.

use std::collections::BTreeMap;
use std::sync::Arc;

use ciab_template::TemplateSource;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::build_image::require_json;
use crate::ids::shown;
use crate::ports::{Clock, ObjectStore, Uploads};
use crate::resolve_template::{UPLOAD_BYTES, upload_key};

/// How long an upload may begin after it was announced.
const UPLOAD_TIME: SignedDuration = SignedDuration::from_mins(15);

/// What it needs.
pub struct Deps {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The bucket.
    pub objects: Arc<dyn ObjectStore>,
    /// Lets callers write one object of it.
    pub uploads: Arc<dyn Uploads>,
}

/// What an upload may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced<'a> {
    /// The object's key.
    pub key: &'a str,
    /// SHA-256 of the bytes, in hexadecimal.
    pub sha256: &'a str,
    /// How many bytes.
    pub size: u64,
    /// Now.
    pub now: Timestamp,
    /// Until when it may begin.
    pub until: Timestamp,
}

/// A form that writes one object, for somebody without any right of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PresignedPost {
    /// Where it is posted to, as `multipart/form-data`.
    pub url: String,
    /// Its fields, which go before the part `file`.
    pub fields: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sha256: String,
    size: u64,
}

#[derive(Debug, Serialize)]
struct Answer {
    template_source: String,
    upload: Option<Upload>,
}

#[derive(Debug, Serialize)]
struct Upload {
    #[serde(flatten)]
    post: PresignedPost,
    expires_at: Timestamp,
}

/// Answers the route.
///
/// # Errors
/// Those of the contract.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&[])?;
    require_json(request)?;
    let asked: Asked = serde_json::from_slice(&request.body).map_err(|error| {
        ApiError::InvalidRequest(format!(
            "the body must be {{\"sha256\": \"<64 hexadecimal digits>\", \"size\": <bytes>}}: {error}"
        ))
    })?;
    let source = format!("template://sha256:{}", asked.sha256);
    let Ok(TemplateSource::Stored { digest }) = source.parse() else {
        return Err(ApiError::InvalidRequest(format!(
            "`sha256` is `{}`: the SHA-256 of the file is expected, as 64 hexadecimal digits in lower case",
            shown(&asked.sha256)
        )));
    };
    if asked.size == 0 || asked.size > UPLOAD_BYTES {
        return Err(ApiError::PayloadTooLarge(format!(
            "`size` is {}: from 1 to {UPLOAD_BYTES} bytes are allowed",
            asked.size
        )));
    }
    let key = upload_key(&digest);
    // A listing, since the object may be large and nobody wants to have it here.
    let upload = if deps.objects.list(&key).await?.contains(&key) {
        None
    } else {
        let now = deps.clock.now();
        let until = now + UPLOAD_TIME;
        let announced = Announced { key: &key, sha256: &asked.sha256, size: asked.size, now, until };
        Some(Upload { post: deps.uploads.presigned_post(&announced).await?, expires_at: until })
    };
    HttpResponse::json(200, &Answer { template_source: source, upload })
}
