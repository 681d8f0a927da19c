//! From a URL to a connection: whether the operator allows the host, which addresses it has, whether each may be dialled.
//!
//! A name is asked for once in a fetch, and what it answered is pinned: a second answer can't lead elsewhere. Must never
//! connect to an address that was not checked, nor name one that was refused.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ciab_core::ports::FetchError;
use ciab_core::template_hosts::{TemplateHosts, host_and_port};
use url::{Host as UrlHost, Url};

use crate::address::Host;
use crate::network::{Connector, NameError, Resolver};

/// More addresses than any host has that means well.
const ADDRESSES: usize = 64;

/// Finds the way to hosts, for one fetch.
pub(crate) struct Dialler {
    hosts: TemplateHosts,
    resolver: Arc<dyn Resolver>,
    connector: Arc<dyn Connector>,
    answers: Mutex<BTreeMap<String, Vec<IpAddr>>>,
}

/// The way to a host: addresses that were checked, and nothing else.
#[derive(Clone)]
pub(crate) struct Route {
    addresses: Vec<SocketAddr>,
    connector: Arc<dyn Connector>,
}

impl Dialler {
    pub(crate) fn new(
        hosts: TemplateHosts,
        resolver: Arc<dyn Resolver>,
        connector: Arc<dyn Connector>,
    ) -> Self {
        Self { hosts, resolver, connector, answers: Mutex::default() }
    }

    /// Whether the operator allows the host at all.
    ///
    /// # Errors
    ///
    /// Where not.
    pub(crate) fn check(&self, url: &Url) -> Result<(), FetchError> {
        self.hosts.check(url).map_err(|refused| FetchError::Refused(refused.to_string()))
    }

    /// The way to a URL's host.
    ///
    /// # Errors
    ///
    /// Where the operator doesn't allow the host, or it has no address, or one that may not be dialled.
    pub(crate) fn route(&self, url: &Url, within: Duration) -> Result<Route, FetchError> {
        self.check(url)?;
        let host = if self.hosts.trusts(url) { Host::Trusted } else { Host::Any };
        let port = url.port_or_known_default().ok_or_else(|| refused(url, "has no port"))?;
        let addresses = match url.host() {
            Some(UrlHost::Ipv4(address)) => vec![address.into()],
            Some(UrlHost::Ipv6(address)) => vec![address.into()],
            Some(UrlHost::Domain(name)) => self.resolve(url, name, within)?,
            None => return Err(refused(url, "is no host")),
        };
        // One address that is not public makes the others doubtful too: whoever wrote the record chooses which is dialled.
        if !addresses.iter().all(|address| host.may_be_at(*address)) {
            return Err(refused(
                url,
                "has an address that is not public: templates are fetched from public addresses, and from hosts that \
                 the operator trusts",
            ));
        }
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        Ok(Route { addresses, connector: self.connector.clone() })
    }

    fn resolve(&self, url: &Url, name: &str, within: Duration) -> Result<Vec<IpAddr>, FetchError> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answers.get(name) {
            return Ok(answer.clone());
        }
        let unavailable = || {
            FetchError::Unavailable(format!(
                "the name `{}` could not be resolved just now",
                host_and_port(url)
            ))
        };
        let addresses = self.resolver.resolve(name, within).map_err(|error| match error {
            NameError::Unknown => refused(url, "does not exist"),
            NameError::Unavailable => unavailable(),
        })?;
        if addresses.is_empty() {
            return Err(refused(url, "has no address"));
        }
        if addresses.len() > ADDRESSES {
            return Err(refused(url, "has too many addresses"));
        }
        answers.insert(name.to_owned(), addresses.clone());
        Ok(addresses)
    }
}

impl Route {
    /// One of the addresses: for libraries that want to see one.
    pub(crate) fn first(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// A connection to the first address that answers.
    pub(crate) fn connect(&self, within: Duration) -> io::Result<TcpStream> {
        let deadline = Instant::now() + within;
        let mut failure = io::Error::from(io::ErrorKind::TimedOut);
        for (tried, address) in self.addresses.iter().enumerate() {
            // Each gets its share of the time that is left, so that one that is silent leaves some to the others.
            let others = u32::try_from(self.addresses.len() - tried).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / others;
            if share.is_zero() {
                break;
            }
            match self.connector.connect(*address, share) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn refused(url: &Url, why: &str) -> FetchError {
    FetchError::Refused(format!("the host `{}` {why}", host_and_port(url)))
}
