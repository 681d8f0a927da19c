//! git's smart HTTP over this crate's own client, which checks every address.
//!
//! gitoxide writes and reads git's protocol; it gets no other connection than this one. Must never let git's own
//! credentials, configuration or proxies in: there are none here.

use std::any::Any;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ciab_core::ports::FetchError;
use ciab_core::template_hosts::host_and_port;
use gix_error::ErrorExt as _;
use gix_transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use ureq::BodyReader;
use url::Url;

use crate::client::{Answer, Client, broken, too_large};

/// Bytes of a request: it names one object, and says what we are able to read.
const REQUEST: usize = 64 << 10;

/// What the parts of one fetch have in common.
#[derive(Clone)]
pub(super) struct Exchange {
    client: Arc<Client>,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Bytes that may still come, over all answers.
    left: u64,
    /// The first thing that went wrong: gitoxide's own errors keep only its text.
    failure: Option<FetchError>,
}

impl Exchange {
    pub(super) fn new(client: Arc<Client>) -> Self {
        let state = State { left: client.limits.git_bytes, failure: None };
        Self { client, state: Arc::new(Mutex::new(state)) }
    }

    /// Why a request failed, where it was for a reason of ours and not of git's.
    pub(super) fn failure(&self) -> Option<FetchError> {
        self.state().failure.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: FetchError) -> io::Error {
        let shown = io::Error::other(error.to_string());
        self.state().failure.get_or_insert(error);
        shown
    }

    fn incoming(&self, answer: Answer) -> (Head, Limited) {
        let kind = answer.header(CONTENT_TYPE).unwrap_or_default();
        let head = Cursor::new(format!("content-type: {kind}\n").into_bytes());
        (head, Limited { exchange: self.clone(), host: host_and_port(&answer.url), body: answer.body })
    }
}

type Head = Cursor<Vec<u8>>;

/// A server, by the address of a repository.
pub(super) struct SmartHttp {
    exchange: Exchange,
    /// The repository's address, after redirects.
    base: String,
    redirected: bool,
}

impl SmartHttp {
    pub(super) fn new(exchange: Exchange, repository: &Url) -> Self {
        Self { exchange, base: repository.as_str().trim_end_matches('/').to_owned(), redirected: false }
    }

    /// What is below the repository's address, whichever way gitoxide spells that.
    fn url(&self, url: &str, base: &str) -> io::Result<(Url, String)> {
        let tail = url.strip_prefix(base).unwrap_or_default().trim_start_matches('/').to_owned();
        let url = Url::parse(&format!("{}/{tail}", self.base)).map_err(io::Error::other)?;
        Ok((url, tail))
    }
}

impl Http for SmartHttp {
    type Headers = Late<Head>;
    type ResponseBody = Late<BufReader<Limited>>;
    type PostBody = Outgoing;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix_error::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        let (url, tail) = self.url(url, base_url).map_err(|error| error.raise())?;
        let answer = self.exchange.client.get(&url, &header_map(headers));
        let answer = answer.map_err(|error| self.exchange.failed(error).raise())?;
        if answer.url != url {
            // Only where the same is found below another address is that the repository's new one.
            let elsewhere = || {
                self.exchange.failed(FetchError::Refused(format!(
                    "`{}` redirects to something that is not a git repository",
                    host_and_port(&url)
                )))
            };
            let base =
                answer.url.as_str().strip_suffix(&tail).ok_or_else(elsewhere).map_err(|e| e.raise())?;
            self.base = base.trim_end_matches('/').to_owned();
            self.redirected = true;
        }
        let (head, body) = self.exchange.incoming(answer);
        Ok(GetResponse { headers: Late::Here(head), body: Late::Here(BufReader::new(body)) })
    }

    fn post(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _: PostBodyDataKind,
    ) -> gix_error::Result<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        let (url, _) = self.url(url, base_url).map_err(|error| error.raise())?;
        let request =
            Request { url, headers: header_map(headers), body: Vec::new(), head: None, answer: None };
        let sending = Sending { exchange: self.exchange.clone(), request: Arc::new(Mutex::new(request)) };
        Ok(PostResponse {
            post_body: Outgoing(sending.clone()),
            headers: Late::ToCome(sending.clone()),
            body: Late::ToCome(sending),
        })
    }

    fn configure(&mut self, _: &dyn Any) -> gix_error::Result<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.then(|| self.base.clone())
    }
}

fn header_map(lines: impl IntoIterator<Item = impl AsRef<str>>) -> HeaderMap {
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    };
    lines.into_iter().filter_map(|line| pair(line.as_ref())).collect()
}

/// A POST: written first, sent when its answer is first read.
#[derive(Clone)]
pub(super) struct Sending {
    exchange: Exchange,
    request: Arc<Mutex<Request>>,
}

pub(super) struct Request {
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
    head: Option<Head>,
    answer: Option<BufReader<Limited>>,
}

impl Sending {
    fn request(&self) -> MutexGuard<'_, Request> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of it, once sent. The first to ask sends it.
    fn sent<T>(&self, take: impl Fn(&mut Request) -> Option<T>) -> io::Result<T> {
        let mut request = self.request();
        if let Some(part) = take(&mut request) {
            return Ok(part);
        }
        let answer = self.exchange.client.post(&request.url, &request.headers, &request.body);
        let (head, body) = self.exchange.incoming(answer.map_err(|error| self.exchange.failed(error))?);
        request.head = Some(head);
        request.answer = Some(BufReader::new(body));
        take(&mut request).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Where a request's body is written to.
pub(super) struct Outgoing(Sending);

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut request = self.0.request();
        if request.body.len() + bytes.len() > REQUEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        request.body.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A part of an answer, there already or to come.
pub(super) enum Late<T> {
    ToCome(Sending),
    Here(T),
}

/// A part that a [`Request`] has once it was sent.
pub(super) trait Part: BufRead + Sized {
    fn take(request: &mut Request) -> Option<Self>;
}

impl Part for Head {
    fn take(request: &mut Request) -> Option<Self> {
        request.head.take()
    }
}

impl Part for BufReader<Limited> {
    fn take(request: &mut Request) -> Option<Self> {
        request.answer.take()
    }
}

impl<T: Part> Late<T> {
    fn here(&mut self) -> io::Result<&mut T> {
        if let Self::ToCome(sending) = self {
            *self = Self::Here(sending.sent(<T as Part>::take)?);
        }
        match self {
            Self::Here(part) => Ok(part),
            Self::ToCome(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<T: Part> Read for Late<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.here()?.read(buffer)
    }
}

impl<T: Part> BufRead for Late<T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.here()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Self::Here(part) = self {
            part.consume(amount);
        }
    }
}

/// A body that ends in an error where all bodies together have more bytes than are allowed.
pub(super) struct Limited {
    exchange: Exchange,
    host: String,
    body: BodyReader<'static>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read =
            self.body.read(buffer).map_err(|error| self.exchange.failed(broken(&self.host, &error)))?;
        let left = self.exchange.state().left.checked_sub(read as u64);
        match left {
            Some(left) => {
                self.exchange.state().left = left;
                Ok(read)
            }
            None => Err(self.exchange.failed(too_large(&self.host, self.exchange.client.limits.git_bytes))),
        }
    }
}
