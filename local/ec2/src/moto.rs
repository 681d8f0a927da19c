//! The way to moto, which keeps the API's state.
//!
//! Sends a request on as it came, or a call of our own. Never retries: a client that wants that does it itself.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use xmltree::Element;

use crate::{answer, query::Query};

/// Where moto is.
#[derive(Debug, Clone)]
pub(crate) struct Moto {
    client: reqwest::Client,
    address: reqwest::Url,
}

/// What a call of our own came to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MotoError {
    #[error("moto can't be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("moto refused the call: {code}: {message}")]
    Refused { status: StatusCode, code: String, message: String },
    #[error("moto's answer is no XML: status {0}")]
    NoXml(StatusCode),
}

/// Whose request this is: the region, and the signature that moto reads region and account from.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) region: String,
    authorization: HeaderValue,
}

impl Caller {
    /// Whoever made a request.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let region = crate::query::region_of(headers);
        let authorization =
            headers.get(header::AUTHORIZATION).cloned().unwrap_or_else(|| Self::signature_for(&region));
        Self { region, authorization }
    }

    /// Somebody in a region, for questions of our own.
    pub(crate) fn in_region(region: &str) -> Self {
        Self { region: region.to_owned(), authorization: Self::signature_for(region) }
    }

    /// moto checks no signature but takes the region from it.
    fn signature_for(region: &str) -> HeaderValue {
        let scope = format!("ciab-local/20260101/{region}/ec2/aws4_request");
        HeaderValue::from_str(&format!(
            "AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
        ))
        .unwrap_or(HeaderValue::from_static(""))
    }
}

impl Moto {
    pub(crate) fn new(address: reqwest::Url) -> Result<Self, reqwest::Error> {
        // reqwest wants a TLS provider even for a client that only speaks plain HTTP to this machine. An error means
        // that the program has chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        Ok(Self { client, address })
    }

    /// Sends a request on unchanged.
    pub(crate) async fn forward(&self, request: Request<Bytes>) -> Result<Response<Bytes>, MotoError> {
        let (parts, body) = request.into_parts();
        self.send(parts.method, parts.uri.path_and_query().map(|p| p.as_str()), parts.headers, body).await
    }

    /// Sends a changed form on, under the caller's name.
    pub(crate) async fn send_query(
        &self,
        caller: &Caller,
        query: &Query,
    ) -> Result<Response<Bytes>, MotoError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
        );
        headers.insert(header::AUTHORIZATION, caller.authorization.clone());
        self.send(http::Method::POST, None, headers, Bytes::from(query.encode())).await
    }

    /// A call of our own, whose refusal is an error.
    pub(crate) async fn call(&self, caller: &Caller, query: &Query) -> Result<Element, MotoError> {
        let response = self.send_query(caller, query).await?;
        let root = answer::parse(response.body()).ok_or(MotoError::NoXml(response.status()))?;
        if response.status().is_success() {
            return Ok(root);
        }
        let text = |name| answer::text_at(&root, &["Errors", "Error", name]).unwrap_or_default();
        Err(MotoError::Refused { status: response.status(), code: text("Code"), message: text("Message") })
    }

    async fn send(
        &self,
        method: http::Method,
        path: Option<&str>,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, MotoError> {
        let mut address = self.address.clone();
        if let Some(path) = path {
            let (path, query) =
                path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
            address.set_path(path);
            address.set_query(query);
        }
        // These belong to the connection, not to the message.
        for name in [header::HOST, header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let sent = self.client.request(method, address).headers(headers).body(body).send().await;
        let received = sent.map_err(MotoError::Unreachable)?;
        let (status, mut received_headers) = (received.status(), received.headers().clone());
        let body = received.bytes().await.map_err(MotoError::Unreachable)?;
        for name in [header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING, header::DATE] {
            received_headers.remove(name);
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = received_headers;
        Ok(response)
    }
}

impl MotoError {
    /// The error as EC2 would give it to the client.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        match self {
            Self::Refused { status, code, message } => answer::error(status, &code, &message),
            Self::Unreachable(error) => {
                tracing::error!(%error, "moto can't be reached");
                answer::error(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Unavailable",
                    "The EC2 API's state is not available.",
                )
            }
            Self::NoXml(status) => answer::error(
                StatusCode::NOT_IMPLEMENTED,
                "UnsupportedOperation",
                &format!("The EC2 stand-in can't do this (it answered {status})."),
            ),
        }
    }
}
