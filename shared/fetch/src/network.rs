//! The network as this crate uses it: a resolver of names and a connector to addresses, with the system's own of each.
//!
//! Neither decides anything. Whoever calls a connector has checked the address.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// There is no such name, or it has no address.
    Unknown,
    /// Nobody answered, or not in time.
    Unavailable,
}

/// Turns a host's name into all of its addresses.
pub trait Resolver: Send + Sync {
    /// Every address of the name: all of them are checked, so none may be left out.
    ///
    /// # Errors
    ///
    /// Where there is none, or none could be asked for within the time given.
    fn resolve(&self, name: &str, within: Duration) -> Result<Vec<IpAddr>, NameError>;
}

/// Connects to an address.
pub trait Connector: Send + Sync {
    /// A connection to exactly this address and port.
    ///
    /// # Errors
    ///
    /// Where there is none within the time given.
    fn connect(&self, address: SocketAddr, within: Duration) -> io::Result<TcpStream>;
}

/// Asks the system, as every other program on the machine does.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: &str, within: Duration) -> Result<Vec<IpAddr>, NameError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let name = name.to_owned();
        // `getaddrinfo` knows no time-out of the caller's: the thread ends by the system's own.
        let look_up = move || {
            let _ = answer.send(addresses(&name));
        };
        thread::Builder::new().name("resolve".into()).spawn(look_up).map_err(|_| NameError::Unavailable)?;
        answered.recv_timeout(within).unwrap_or(Err(NameError::Unavailable))
    }
}

fn addresses(name: &str) -> Result<Vec<IpAddr>, NameError> {
    // One kind of socket, or each address comes once for every kind.
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(name), None, Some(hints)).map_err(|error| match error.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => NameError::Unknown,
        _ => NameError::Unavailable,
    })?;
    found.map(|entry| entry.map(|info| info.sockaddr.ip()).map_err(|_| NameError::Unavailable)).collect()
}

/// Connects over TCP, directly: no proxy is asked, whatever the environment says, because a proxy would resolve the name
/// once more and dial what it likes.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&address, within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_the_name_of_this_machine_itself() {
        let found = SystemResolver.resolve("localhost", Duration::from_secs(10)).unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
    }
}
