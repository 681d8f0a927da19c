//! One HTTP request at a time, to hosts that were checked, within the time of one fetch.
//!
//! Every hop goes through the [`Dialler`]. Must never follow a redirect unseen, use a proxy, or repeat a query string,
//! an address or a credential in an error.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ciab_core::ports::FetchError;
use ciab_core::template_hosts::host_and_port;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderName, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use std::sync::Arc;
use ureq::tls::{TlsConfig, TlsProvider};
use ureq::unversioned::transport::{Connector as _, RustlsConnector};
use ureq::{Agent, BodyReader};
use url::Url;

use crate::credential::Credential;
use crate::dial::Dialler;
use crate::limits::Limits;
use crate::roots::Roots;
use crate::transport::Found;

/// Sends the requests of one fetch.
pub(crate) struct Client {
    pub(crate) dialler: Dialler,
    pub(crate) roots: Roots,
    pub(crate) credential: Option<Credential>,
    pub(crate) limits: Limits,
    /// When the whole fetch must be over.
    pub(crate) deadline: Instant,
}

/// What a server answered, the body still to be read.
pub(crate) struct Answer {
    /// Who answered: another than was asked where redirects were followed.
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyReader<'static>,
}

impl Client {
    /// A GET that follows redirects, each of which is checked like the first address.
    ///
    /// # Errors
    ///
    /// Where a host is refused or unavailable, or its answer is neither success nor 304.
    pub(crate) fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Answer, FetchError> {
        let mut url = url.clone();
        for _ in 0..=self.limits.redirects {
            let answer = self.send(&Method::GET, &url, headers, None)?;
            match answer.status.as_u16() {
                301 | 302 | 303 | 307 | 308 => url = redirected(&answer)?,
                _ => return self.accepted(answer),
            }
        }
        Err(FetchError::Refused(format!(
            "`{}` redirects more than {} times",
            host_and_port(&url),
            self.limits.redirects
        )))
    }

    /// A POST. A redirect is refused.
    ///
    /// # Errors
    ///
    /// As for [`Client::get`].
    pub(crate) fn post(&self, url: &Url, headers: &HeaderMap, body: &[u8]) -> Result<Answer, FetchError> {
        self.accepted(self.send(&Method::POST, url, headers, Some(body))?)
    }

    fn accepted(&self, answer: Answer) -> Result<Answer, FetchError> {
        let host = host_and_port(&answer.url);
        let refused = |why: &str| Err(FetchError::Refused(format!("`{host}` {why}")));
        match answer.status.as_u16() {
            200 | 304 => {}
            401 | 403 if self.credential.is_some() => {
                return refused(
                    "does not allow it with the token that is configured for the source's host (401 or 403)",
                );
            }
            401 | 403 => {
                return refused(
                    "does not allow it without a token (401 or 403); the operator can configure one for the host",
                );
            }
            404 | 410 => return refused("has no such file: it answered 404 or 410"),
            408 | 425 | 429 | 500..=599 => {
                return Err(FetchError::Unavailable(format!("`{host}` answered {}", answer.status.as_u16())));
            }
            other => return refused(&format!("answered {other}, which is no template")),
        }
        let encoded = answer.headers.get_all(CONTENT_ENCODING).iter().any(|value| value != "identity");
        if encoded { refused("sent an encoded body, which was not asked for") } else { Ok(answer) }
    }

    fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> Result<Answer, FetchError> {
        let host = host_and_port(url);
        let route = self.dialler.route(url, self.left(&host)?.min(self.limits.step_time))?;
        let mut request = Request::builder().method(method).uri(url.as_str());
        if let Some(all) = request.headers_mut() {
            all.insert(
                USER_AGENT,
                HeaderValue::from_static(concat!("ciab-images/", env!("CARGO_PKG_VERSION"))),
            );
            all.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            all.extend(headers.clone());
            if let Some(value) = self.credential.as_ref().and_then(|credential| credential.for_url(url)) {
                all.insert(AUTHORIZATION, value);
            }
        }
        let agent = self.agent(Found(route), self.left(&host)?);
        let unreadable = |_| FetchError::Refused(format!("the address at `{host}` can't be asked for"));
        let answered = match body {
            Some(body) => agent.run(request.body(body).map_err(unreadable)?),
            None => agent.run(request.body(()).map_err(unreadable)?),
        };
        let (parts, body) = answered.map_err(|error| failure(&host, &error))?.into_parts();
        Ok(Answer {
            url: url.clone(),
            status: parts.status,
            headers: parts.headers,
            body: body.into_reader(),
        })
    }

    /// Whether the time of the fetch is over.
    pub(crate) fn is_over(&self) -> bool {
        self.deadline <= Instant::now()
    }

    fn left(&self, host: &str) -> Result<Duration, FetchError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(too_slow(host)) } else { Ok(left) }
    }

    /// For one request: nothing is kept from one to the next, neither connections nor anything else.
    fn agent(&self, found: Found, left: Duration) -> Agent {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(self.roots.for_tls())
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let step = Some(self.limits.step_time);
        let config = Agent::config_builder()
            .tls_config(tls)
            // By itself ureq asks the environment for one.
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(left))
            .timeout_connect(step)
            .timeout_send_request(step)
            .timeout_send_body(step)
            .timeout_recv_response(step)
            .max_response_header_size(32 << 10)
            .build();
        Agent::with_parts(config, found.clone().chain(RustlsConnector::default()), found)
    }
}

impl Answer {
    /// A header's value where it is text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body.
    ///
    /// # Errors
    ///
    /// Where it has more bytes than are allowed, or does not come.
    pub(crate) fn bytes(mut self, allowed: u64) -> Result<Vec<u8>, FetchError> {
        let host = host_and_port(&self.url);
        let mut bytes = Vec::new();
        // What the server says of the length is not believed: one byte too many is read to know.
        (&mut self.body)
            .take(allowed.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| broken(&host, &error))?;
        if bytes.len() as u64 > allowed { Err(too_large(&host, allowed)) } else { Ok(bytes) }
    }
}

fn redirected(answer: &Answer) -> Result<Url, FetchError> {
    let nowhere = || FetchError::Refused(format!("`{}` redirects to nowhere", host_and_port(&answer.url)));
    let mut url = answer.header(LOCATION).and_then(|to| answer.url.join(to).ok()).ok_or_else(nowhere)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::Refused(format!(
            "`{}` redirects to an address with a user name or password, which is not followed",
            host_and_port(&answer.url)
        )));
    }
    url.set_fragment(None);
    Ok(url)
}

/// That a body is larger than allowed.
pub(crate) fn too_large(host: &str, allowed: u64) -> FetchError {
    FetchError::Refused(format!("`{host}` sends more than the {allowed} bytes that are allowed"))
}

/// That the time is over.
pub(crate) fn too_slow(host: &str) -> FetchError {
    FetchError::Unavailable(format!("`{host}` did not finish in time"))
}

/// That a body broke off.
pub(crate) fn broken(host: &str, error: &io::Error) -> FetchError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(ureq::Error::Timeout(_)) => too_slow(host),
        _ => FetchError::Unavailable(format!("`{host}` broke off its answer")),
    }
}

fn failure(host: &str, error: &ureq::Error) -> FetchError {
    let certificate = match error {
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        ureq::Error::Rustls(error) => Some(error),
        _ => None,
    };
    match (certificate, error) {
        (Some(rustls::Error::InvalidCertificate(reason)), _) => {
            FetchError::Refused(format!("the certificate of `{host}` is not accepted: {}", reason_of(reason)))
        }
        (Some(_), _) => FetchError::Unavailable(format!("no TLS connection to `{host}` came about")),
        (None, ureq::Error::Timeout(_)) => too_slow(host),
        (None, ureq::Error::LargeResponseHeader(..)) => {
            FetchError::Refused(format!("the head of the answer of `{host}` is too large"))
        }
        (None, ureq::Error::Protocol(_) | ureq::Error::Http(_)) => {
            FetchError::Unavailable(format!("`{host}` did not answer with HTTP"))
        }
        (None, _) => FetchError::Unavailable(format!("no connection to `{host}` came about")),
    }
}

/// Not the library's own words: they list the names that the certificate is for, which is nobody's business here.
fn reason_of(reason: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Reason;
    match reason {
        Reason::Expired | Reason::ExpiredContext { .. } => "it has expired",
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => "it is not valid yet",
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => "it is for another host",
        Reason::UnknownIssuer | Reason::BadSignature => "its issuer is not trusted",
        Reason::Revoked => "it was revoked",
        _ => "it is not valid",
    }
}
