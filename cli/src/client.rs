//! The HTTP API as the commands use it: one method per route, and errors that say what the user can do.
//!
//! The key goes to the configured service only: redirects are never followed. No error holds the key or the address's
//! query.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use crate::config::Settings;
use crate::document::Build;
use crate::local_template::PackedTemplate;
use crate::pace;
use crate::server_url::ServerUrl;
use crate::upload::{self, UploadAnswer};

/// A gateway gives up on a function after 30 seconds; a little longer, so that its answer still arrives.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often one request is tried before its failure is the command's.
const ATTEMPTS: u32 = 4;
/// The header by which API Gateway names a request.
const REQUEST_ID: &str = "apigw-requestid";
/// The longest a command that doesn't wait for a build lets the service put it off.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(20);

#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The service refused or failed, in its own words.
    #[error("{message} ({code})")]
    Refused {
        status: u16,
        code: String,
        message: String,
        retry_after: Option<Duration>,
        /// What the service's logs have the request under.
        request_id: Option<String>,
    },
    /// No connection: the request was not sent.
    #[error("can't reach the service at {server}")]
    Unreachable { server: String, source: reqwest::Error },
    /// The request was sent, perhaps done, and its answer never came whole.
    #[error("the connection to the service at {server} was lost")]
    Lost { server: String, source: reqwest::Error },
    /// Something answered that doesn't speak this API.
    #[error("{server} answered {status}, but not as a CIAB image service does ({what})")]
    Foreign { server: String, status: u16, what: &'static str, retry_after: Option<Duration> },
    /// A gateway turned the key down before the service saw it.
    #[error("{server} answered {status}: the API key is missing, not accepted, or may not do this")]
    Forbidden { server: String, status: u16 },
    #[error("{server} redirects to {location}, and the key is not sent elsewhere unasked")]
    Redirected { server: String, location: String },
    /// A build whose status or id this version can't make sense of: no verdict may be drawn from it.
    #[error("{server} described a build in a way this version of ciab does not know ({what})")]
    UnknownBuild { server: String, what: String },
    /// The service named the template otherwise than by what it holds.
    #[error("{server} keeps the template under another name than that of its bytes, {expected}")]
    OtherTemplate { server: String, expected: String },
    #[error(transparent)]
    Upload(#[from] upload::Error),
    #[error("the API key holds characters that can't be sent")]
    BadKey,
    #[error("can't set up the connection to {server}")]
    Setup { server: String, source: reqwest::Error },
}

impl Error {
    /// Whether the same request may well succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Foreign { status, .. } => *status >= 500 || *status == 429,
            Self::Forbidden { .. }
            | Self::Redirected { .. }
            | Self::UnknownBuild { .. }
            | Self::OtherTemplate { .. }
            // Has been tried again by itself.
            | Self::Upload(_)
            | Self::BadKey
            | Self::Setup { .. } => false,
        }
    }

    /// Whether a wait for a build that the service has accepted goes on: whatever stands between for a while (a gateway's
    /// page, a login's redirect) says nothing about the build.
    pub(crate) fn passes(&self) -> bool {
        self.is_transient() || matches!(self, Self::Foreign { .. } | Self::Redirected { .. })
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the build that was to be changed has ended.
    pub(crate) fn is_build_ended(&self) -> bool {
        matches!(self, Self::Refused { status: 409, code, .. } if code == "build_ended")
    }

    /// How long the service asked to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Foreign { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable { .. } => {
                "is the service running? set --server-url or CIAB_SERVER_URL to where it is"
            }
            Self::Lost { .. } => "the service may have done it all the same; look before you try again",
            Self::Foreign { .. } => "does --server-url or CIAB_SERVER_URL point at the image service?",
            Self::Redirected { .. } => "set --server-url or CIAB_SERVER_URL to that address if you trust it",
            Self::Forbidden { status: 403, .. } => {
                "a key may be wrong, expired or revoked, or lack the scope for this; `ciab key list` tells whoever has the scope admin"
            }
            Self::Forbidden { .. } | Self::Refused { status: 401, .. } => {
                "give the key with CIAB_API_KEY or --api-key"
            }
            Self::Refused { status: 429, .. } => "the service is busy; try again later",
            Self::Refused { status: 500.., request_id: Some(id), .. } => {
                return Some(format!(
                    "whoever runs the service finds more in its logs under the request {id}"
                ));
            }
            Self::Setup { .. } => "are the system's CA certificates installed?",
            Self::UnknownBuild { .. } | Self::OtherTemplate { .. } => "is a newer version of ciab available?",
            Self::Upload(_) => {
                "nothing was built; run it again, and what has arrived already is not sent twice"
            }
            Self::Refused { .. } | Self::BadKey => return None,
        };
        Some(hint.to_owned())
    }
}

/// A part of a build's log.
#[derive(Debug, Deserialize)]
pub(crate) struct LogPage {
    /// Each `{at, stream, text}`, as the service sent it.
    pub(crate) lines: Vec<Value>,
    pub(crate) next_offset: u64,
    /// Nothing will be added any more.
    pub(crate) complete: bool,
}

/// Filters of the image list; what is `None` is left out of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageFilter {
    pub(crate) region: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) limit: Option<u32>,
    pub(crate) next_token: Option<String>,
}

/// Filters of the list of builds; what is `None` is left out of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct BuildFilter {
    pub(crate) status: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) limit: Option<u32>,
    pub(crate) next_token: Option<String>,
}

/// What became of an image that was to be deleted.
pub(crate) enum Deletion {
    Done,
    /// An earlier attempt's answer was lost, and now the image is not there.
    GoneAfterLostAnswer,
}

pub(crate) struct Client {
    http: reqwest::Client,
    server: ServerUrl,
}

struct Request {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Value>,
    idempotency_key: Option<String>,
}

impl Request {
    fn new(method: Method, path: &[&str]) -> Self {
        let path = ["api", "v1", "images"].iter().chain(path).map(|segment| (*segment).to_owned()).collect();
        Self { method, path, query: Vec::new(), body: None, idempotency_key: None }
    }

    fn query(mut self, name: &'static str, value: Option<String>) -> Self {
        self.query.extend(value.map(|value| (name, value)));
        self
    }
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        // Err means that a provider is installed already, which is just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        if let Some(key) = &settings.api_key {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", key.expose())).map_err(|_| Error::BadKey)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ciab/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT);
        if settings.server_url.is_loopback() {
            // A proxy can't know this machine's loopback, and must not get the key meant for it.
            builder = builder.no_proxy();
        }
        if !settings.server_url.is_https() {
            // Without TLS no roots are needed, and a machine that has none installed can still talk to itself.
            builder = builder.tls_certs_only([]);
        }
        let server = settings.server_url.clone();
        let http = builder.build().map_err(|source| Error::Setup { server: server.to_string(), source })?;
        Ok(Self { http, server })
    }

    pub(crate) fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// Starts a build. The key makes it safe to send this again when an answer is lost.
    pub(crate) async fn start_build(&self, body: Value, idempotency_key: &str) -> Result<Build, Error> {
        let mut request = Request::new(Method::POST, &["build"]);
        request.body = Some(body);
        request.idempotency_key = Some(idempotency_key.to_owned());
        self.read_build(self.document(&request).await?)
    }

    /// Brings a template to the service, unless it has the same bytes already, and gives the source that it goes by.
    pub(crate) async fn bring_template(&self, template: &PackedTemplate) -> Result<String, Error> {
        let mut request = Request::new(Method::POST, &["templates"]);
        request.body = Some(json!({"sha256": template.sha256, "size": template.bytes.len()}));
        let (status, body) = self.attempts(&request).await.0?;
        let answer: UploadAnswer = self.decode(status, &body)?;
        let expected = format!("template://sha256:{}", template.sha256);
        if answer.template_source != expected {
            return Err(Error::OtherTemplate { server: self.server.to_string(), expected });
        }
        if let Some(form) = &answer.upload {
            upload::send(form, template, !self.server.is_https()).await?;
        }
        Ok(expected)
    }

    /// One build; `patient` tries again at once where that may help, which a caller that polls anyway doesn't need.
    pub(crate) async fn build(&self, build_id: Uuid, patient: bool) -> Result<Build, Error> {
        let request = Request::new(Method::GET, &["builds", &build_id.to_string()]);
        let document = if patient {
            self.document(&request).await?
        } else {
            let (status, body) = self.attempt(&request).await?;
            self.decode(status, &body)?
        };
        self.read_this_build(document, build_id)
    }

    /// Asks for the build's end. Also says whether an attempt before the last may have been carried out.
    pub(crate) async fn cancel_build(&self, build_id: Uuid) -> (Result<Build, Error>, bool) {
        let request = Request::new(Method::POST, &["builds", &build_id.to_string(), "cancel"]);
        let (answer, maybe_done_before) = self.attempts(&request).await;
        let build = answer.and_then(|(status, body)| {
            self.decode(status, &body).and_then(|document| self.read_this_build(document, build_id))
        });
        (build, maybe_done_before)
    }

    fn read_this_build(&self, document: Value, build_id: Uuid) -> Result<Build, Error> {
        let build = self.read_build(document)?;
        if build.id != build_id {
            let what = format!("asked for {build_id}, got {}", build.id);
            return Err(Error::UnknownBuild { server: self.server.to_string(), what });
        }
        Ok(build)
    }

    fn read_build(&self, document: Value) -> Result<Build, Error> {
        Build::read(document).map_err(|what| Error::UnknownBuild { server: self.server.to_string(), what })
    }

    /// A part of a build's log, from a line number on. Tried once: its callers poll.
    pub(crate) async fn log(&self, build_id: Uuid, offset: u64) -> Result<LogPage, Error> {
        let request = Request::new(Method::GET, &["builds", &build_id.to_string(), "log"])
            .query("offset", Some(offset.to_string()));
        let (status, body) = self.attempt(&request).await?;
        let page: LogPage = self.decode(status, &body)?;
        let moved = page.next_offset.checked_sub(offset);
        if moved.is_none() || (moved == Some(0) && !page.lines.is_empty()) {
            // Asking on from there would print the same lines for ever.
            return Err(self.foreign(status, "the log's next_offset does not move on"));
        }
        Ok(page)
    }

    pub(crate) async fn images(&self, filter: &ImageFilter) -> Result<Value, Error> {
        let request = Request::new(Method::GET, &[])
            .query("region", filter.region.clone())
            .query("provider", filter.provider.clone())
            .query("limit", filter.limit.map(|limit| limit.to_string()))
            .query("next_token", filter.next_token.clone());
        self.document(&request).await
    }

    /// Has a key made. Also says whether an attempt before the last may have made one that nobody knows.
    pub(crate) async fn create_key(&self, body: Value) -> (Result<Value, Error>, bool) {
        let mut request = Request::new(Method::POST, &["keys"]);
        request.body = Some(body);
        let (answer, maybe_done_before) = self.attempts(&request).await;
        let document = answer.and_then(|(status, body)| {
            let document: Value = self.decode(status, &body)?;
            // Without the key the answer is worth nothing, and without its id nobody could revoke it.
            let has = |field: &str| document.get(field).is_some_and(Value::is_string);
            if has("key") && has("key_id") {
                Ok(document)
            } else {
                Err(self.foreign(status, "it tells no key"))
            }
        });
        (document, maybe_done_before)
    }

    pub(crate) async fn keys(&self, limit: Option<u32>, next_token: Option<String>) -> Result<Value, Error> {
        let request = Request::new(Method::GET, &["keys"])
            .query("limit", limit.map(|limit| limit.to_string()))
            .query("next_token", next_token);
        self.document(&request).await
    }

    pub(crate) async fn revoke_key(&self, key_id: &str) -> Result<Deletion, Error> {
        self.delete(&Request::new(Method::DELETE, &["keys", key_id])).await
    }

    pub(crate) async fn builds(&self, filter: &BuildFilter) -> Result<Value, Error> {
        let request = Request::new(Method::GET, &["builds"])
            .query("status", filter.status.clone())
            .query("provider", filter.provider.clone())
            .query("limit", filter.limit.map(|limit| limit.to_string()))
            .query("next_token", filter.next_token.clone());
        self.document(&request).await
    }

    /// Rebuilds. The key makes it safe to send this again when an answer is lost.
    pub(crate) async fn rebuild(&self, body: Value, idempotency_key: &str) -> Result<Value, Error> {
        let mut request = Request::new(Method::POST, &["rebuilds"]);
        request.body = Some(body);
        request.idempotency_key = Some(idempotency_key.to_owned());
        self.document(&request).await
    }

    /// Everything in EC2 that carries the stack's tag.
    pub(crate) async fn resources(&self) -> Result<Value, Error> {
        self.document(&Request::new(Method::GET, &["resources"])).await
    }

    /// What deleting the image would take away.
    pub(crate) async fn preview_deletion(&self, image_id: &str) -> Result<Value, Error> {
        let request = Request::new(Method::DELETE, &[image_id]).query("dry_run", Some("true".to_owned()));
        self.document(&request).await
    }

    pub(crate) async fn delete_image(&self, image_id: &str) -> Result<Deletion, Error> {
        self.delete(&Request::new(Method::DELETE, &[image_id])).await
    }

    async fn delete(&self, request: &Request) -> Result<Deletion, Error> {
        let (result, maybe_done_before) = self.attempts(request).await;
        match result {
            Ok(_) => Ok(Deletion::Done),
            Err(error) if error.is_not_found() && maybe_done_before => Ok(Deletion::GoneAfterLostAnswer),
            Err(error) => Err(error),
        }
    }

    async fn document(&self, request: &Request) -> Result<Value, Error> {
        let (status, body) = self.attempts(request).await.0?;
        self.decode(status, &body)
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body)
            .map_err(|_| self.foreign(status, "the body is not the document it should be"))
    }

    /// Tries a few times; also says whether an attempt before the last may have been carried out.
    async fn attempts(&self, request: &Request) -> (Result<(StatusCode, Vec<u8>), Error>, bool) {
        let mut maybe_done_before = false;
        let mut attempt = 1;
        loop {
            let error = match self.attempt(request).await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => error,
                result => return (result, maybe_done_before),
            };
            maybe_done_before |= !matches!(error, Error::Unreachable { .. });
            match error.retry_after() {
                Some(asked) if asked > LONGEST_RETRY_AFTER => return (Err(error), maybe_done_before),
                asked => tokio::time::sleep(pace::retry_delay(attempt).max(asked.unwrap_or_default())).await,
            }
            attempt += 1;
        }
    }

    async fn attempt(&self, request: &Request) -> Result<(StatusCode, Vec<u8>), Error> {
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let mut sending =
            self.http.request(request.method.clone(), self.server.join(&path)).query(&request.query);
        if let Some(body) = &request.body {
            sending = sending.json(body);
        }
        if let Some(key) = &request.idempotency_key {
            sending = sending.header("Idempotency-Key", key);
        }
        let response = sending.send().await.map_err(|error| self.broken(error))?;
        let status = response.status();
        let headers = response.headers().clone();
        let body = response.bytes().await.map_err(|error| self.broken(error))?;
        if status.is_success() {
            return Ok((status, body.to_vec()));
        }
        Err(self.refusal(status, &headers, &body))
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
        let server = self.server.to_string();
        if status.is_redirection() {
            let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
            return Error::Redirected { server, location: location.to_owned() };
        }
        let retry_after = retry_after(headers);
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(ErrorBody { error: ErrorDetail { code, message } }) => {
                let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
                Error::Refused { status: status.as_u16(), code, message, retry_after, request_id }
            }
            // API gateways answer these by themselves, in a shape of their own.
            Err(_) if matches!(status.as_u16(), 401 | 403) => {
                Error::Forbidden { server, status: status.as_u16() }
            }
            Err(_) => {
                let what = "its error has no code and message";
                Error::Foreign { server, status: status.as_u16(), what, retry_after }
            }
        }
    }

    fn foreign(&self, status: StatusCode, what: &'static str) -> Error {
        Error::Foreign { server: self.server.to_string(), status: status.as_u16(), what, retry_after: None }
    }

    fn broken(&self, error: reqwest::Error) -> Error {
        let server = self.server.to_string();
        let source = error.without_url();
        if source.is_connect() {
            Error::Unreachable { server, source }
        } else {
            Error::Lost { server, source }
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    code: String,
    message: String,
}

/// The header in seconds; its other form, a date, is as good as none.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds_and_dates_are_ignored() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Wed, 21 Oct 2026 07:28:00 GMT"));
        assert_eq!(retry_after(&headers), None);
    }
}
