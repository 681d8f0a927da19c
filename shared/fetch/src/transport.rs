//! ureq's own ports, on top of a [`Route`].
//!
//! ureq speaks HTTP and TLS; where its bytes go was decided before. Must never resolve a name, and never use an address
//! that ureq brings along.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

use crate::dial::Route;

/// The way that was found, in ureq's terms.
#[derive(Clone)]
pub(crate) struct Found(pub(crate) Route);

impl fmt::Debug for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Found")
    }
}

impl Resolver for Found {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(self.0.first());
        Ok(addresses)
    }
}

impl Connector for Found {
    type Out = Plain;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Plain>, Error> {
        let within = details.timeout.not_zero().map_or(std::time::Duration::MAX, |within| *within);
        let stream =
            self.0.connect(within.min(LONGEST)).map_err(|error| timed(error, details.timeout.reason))?;
        stream.set_nodelay(true)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Plain { stream, buffers }))
    }
}

/// Where ureq was told no time-out; it always is.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(60);

/// A connection as it is, on which ureq puts TLS.
pub(crate) struct Plain {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl fmt::Debug for Plain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Plain")
    }
}

impl Transport for Plain {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let deadline = Instant::now() + left(timeout.for_write())?;
        let mut output = &self.buffers.output()[..amount];
        // Not `write_all`: its time would start anew with every byte that the other side deigns to take.
        while !output.is_empty() {
            let within = deadline.saturating_duration_since(Instant::now());
            if within.is_zero() {
                return Err(Error::Timeout(timeout.reason));
            }
            self.stream.set_write_timeout(Some(within))?;
            match self.stream.write(output) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => output = &output[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed(error, timeout.reason)),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let deadline = Instant::now() + left(timeout.for_read())?;
        loop {
            let within = deadline.saturating_duration_since(Instant::now());
            if within.is_zero() {
                return Err(Error::Timeout(timeout.reason));
            }
            self.stream.set_read_timeout(Some(within))?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed(error, timeout.reason)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Asked before a connection is used again, which none is.
        false
    }
}

fn left(timeout: NextTimeout) -> Result<std::time::Duration, Error> {
    if timeout.after.is_not_happening() {
        return Ok(LONGEST);
    }
    if timeout.after.is_zero() { Err(Error::Timeout(timeout.reason)) } else { Ok(*timeout.after) }
}

fn timed(error: io::Error, reason: Timeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(reason),
        _ => Error::Io(error),
    }
}
