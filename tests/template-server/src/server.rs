//! An HTTP server on loopback, with TLS or without, which may answer as badly as it likes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What was asked.
pub struct Request {
    pub method: String,
    /// With the query.
    pub target: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Writes an answer by hand.
type Writing = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// What is answered.
pub enum Answer {
    /// A whole answer, with the length that it has.
    Plain { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Whatever is written, until it can't be.
    Raw(Writing),
}

pub fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Answer::Plain { status: 200, headers: Vec::new(), body: body.into() }
}

pub fn status(status: u16) -> Answer {
    Answer::Plain { status, headers: Vec::new(), body: b"a = 1".to_vec() }
}

pub fn redirect(to: &str) -> Answer {
    Answer::Plain { status: 302, headers: vec![("Location".into(), to.into())], body: Vec::new() }
}

pub fn raw(write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> Answer {
    Answer::Raw(Box::new(write))
}

impl Answer {
    pub fn with(self, name: &str, value: &str) -> Self {
        match self {
            Self::Plain { status, mut headers, body } => {
                headers.push((name.into(), value.into()));
                Self::Plain { status, headers, body }
            }
            Self::Raw(_) => panic!("what is raw has no headers"),
        }
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Serves over TLS until the test's process ends.
pub fn tls(
    config: Arc<ServerConfig>,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> SocketAddr {
    serve(answer, move |stream| {
        Box::new(StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream))
    })
}

/// Serves without TLS.
pub fn plain(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> SocketAddr {
    serve(answer, |stream| Box::new(stream))
}

fn serve(
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    wrap: impl Fn(TcpStream) -> Box<dyn Stream> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, wrap) = (Arc::new(answer), Arc::new(wrap));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, wrap) = (answer.clone(), wrap.clone());
            thread::spawn(move || {
                // The fetcher hangs up whenever it has seen enough.
                let _ = one(wrap(stream), &*answer);
            });
        }
    });
    address
}

fn one(stream: Box<dyn Stream>, answer: &dyn Fn(&Request) -> Answer) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let request = read(&mut stream)?;
    let mut stream = stream.into_inner();
    match answer(&request) {
        Answer::Raw(write) => write(&mut stream)?,
        Answer::Plain { status, headers, body } => {
            write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len())?;
            for (name, value) in headers {
                write!(stream, "{name}: {value}\r\n")?;
            }
            stream.write_all(b"\r\n")?;
            stream.write_all(&body)?;
        }
    }
    stream.flush()
}

fn read(stream: &mut impl BufRead) -> io::Result<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let first = lines.first().ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut words = first.split(' ').map(ToOwned::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().ok_or(io::ErrorKind::InvalidData)?);
    let header = |line: &String| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_lowercase(), value.to_owned()))
    };
    let headers: BTreeMap<_, _> = lines[1..].iter().filter_map(header).collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Request { method, target, headers, body })
}
