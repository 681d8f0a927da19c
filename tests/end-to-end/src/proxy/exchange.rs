//! One request and its answer between a client and the stack's edge.
//!
//! A connection carries one exchange: both sides are told so, which makes the answer end where the connection does. That
//! is all of HTTP that is needed here, and must stay so.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};

use super::call::Head;

const MOST_HEADERS: usize = 64;
const LONGEST_HEAD: usize = 64 << 10;
/// Said by this proxy itself, so dropped on the way.
const OWN: [&str; 4] = ["connection", "keep-alive", "expect", "proxy-connection"];

/// A request that was read whole.
pub(super) struct Request {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// Reads one request; none if the client has none.
pub(super) fn read(client: &mut TcpStream) -> Result<Option<Request>> {
    let mut bytes = Vec::new();
    let (head, length_of_head) = loop {
        if let Some(parsed) = parse(&bytes)? {
            break parsed;
        }
        ensure!(bytes.len() < LONGEST_HEAD, "a request's head is longer than {LONGEST_HEAD} bytes");
        if read_some(client, &mut bytes)? == 0 {
            ensure!(bytes.is_empty(), "a request ends in its head");
            return Ok(None);
        }
    };
    // No client of the stack's sends one; silently taking its chunks for nothing would be worse than to fail.
    if let Some(coding) = head.header("transfer-encoding") {
        bail!("the proxy reads no body of transfer encoding {coding}");
    }
    let length: usize =
        head.header("content-length").map_or(Ok(0), str::parse).context("read a content-length")?;
    if head.header("expect").is_some_and(|expected| expected.eq_ignore_ascii_case("100-continue")) {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = bytes.split_off(length_of_head);
    while body.len() < length {
        ensure!(read_some(client, &mut body)? > 0, "a request ends in its body");
    }
    Ok(Some(Request { head, body }))
}

/// Sends the request on and gives the whole answer, byte by byte as it came.
pub(super) fn forward(request: &Request, to: SocketAddr) -> Result<Vec<u8>> {
    let Request { head, body } = request;
    let mut text = format!("{} {} HTTP/1.1\r\n", head.method, head.path);
    for (name, value) in head.headers.iter().filter(|(name, _)| !OWN.contains(&name.as_str())) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("connection: close\r\n\r\n");
    let mut upstream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    upstream.write_all(text.as_bytes())?;
    upstream.write_all(body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).context("read the answer")?;
    Ok(answer)
}

/// Sends the answer and ends the connection. A client that is gone is none of our business.
pub(super) fn answer(client: &mut TcpStream, answer: &[u8]) {
    let _ = client.write_all(answer).and_then(|()| client.shutdown(Shutdown::Write));
}

/// An answer of the proxy's own.
pub(super) fn document(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(length) => {
                into.extend_from_slice(&buffer[..length]);
                return Ok(length);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The head and its length, once it is there whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(bytes).context("read a request")? else {
        return Ok(None);
    };
    let headers = request
        .headers
        .iter()
        .map(|header| (header.name.to_lowercase(), String::from_utf8_lossy(header.value).into_owned()));
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        headers: headers.collect(),
    };
    Ok(Some((head, length)))
}
