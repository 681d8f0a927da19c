//! The port's implementation: puts the parts of one fetch together, off the async threads and within its time.
//!
//! Must never keep anything from one fetch for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ciab_core::ports::{FetchError, Fetched, Secret, TemplateFetcher};
use ciab_core::template_hosts::{TemplateHosts, host_and_port};
use ciab_template::TemplateSource;
use http::HeaderMap;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use url::Url;

use crate::client::{Client, too_slow};
use crate::credential::{Credential, Scheme};
use crate::dial::Dialler;
use crate::limits::Limits;
use crate::network::{Connector, Resolver, SystemResolver, TcpConnector};
use crate::roots::Roots;
use crate::{git, https};

/// Fetches over https and git.
#[derive(Clone)]
pub struct WebFetcher {
    hosts: TemplateHosts,
    roots: Roots,
    limits: Limits,
    resolver: Arc<dyn Resolver>,
    connector: Arc<dyn Connector>,
}

impl WebFetcher {
    /// Fetches from the hosts that the operator allows, over the machine's own network.
    #[must_use]
    pub fn new(hosts: TemplateHosts, roots: Roots) -> Self {
        let (resolver, connector) = (Arc::new(SystemResolver), Arc::new(TcpConnector));
        Self { hosts, roots, limits: Limits::default(), resolver, connector }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same over another network.
    #[must_use]
    pub fn with_network(self, resolver: Arc<dyn Resolver>, connector: Arc<dyn Connector>) -> Self {
        Self { resolver, connector, ..self }
    }

    fn client(&self, credential: Option<Credential>, time: Duration) -> Client {
        Client {
            dialler: Dialler::new(self.hosts.clone(), self.resolver.clone(), self.connector.clone()),
            roots: self.roots.clone(),
            credential,
            limits: self.limits,
            deadline: Instant::now() + time,
        }
    }
}

impl WebFetcher {
    /// What is at a URL, of at most `most_bytes`, within the limits' time for a download.
    ///
    /// # Errors
    /// As for a template: refused where asking again will not help.
    pub async fn download(&self, url: &Url, most_bytes: u64) -> Result<Vec<u8>, FetchError> {
        let client = self.client(None, self.limits.download_time);
        let (url, host) = (url.clone(), host_and_port(url));
        let work = spawn_blocking(move || client.get(&url, &HeaderMap::new())?.bytes(most_bytes));
        match timeout(self.limits.download_time, work).await {
            Err(_) => Err(too_slow(&host)),
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(FetchError::Unavailable(format!("fetching from `{host}` was stopped"))),
        }
    }
}

/// Tells the work that nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl TemplateFetcher for WebFetcher {
    async fn fetch(
        &self,
        source: &TemplateSource,
        known: Option<&str>,
        credential: Option<&Secret>,
    ) -> Result<Fetched, FetchError> {
        let (url, scheme, time) = match source {
            TemplateSource::Url(source) => (&source.url, Scheme::Bearer, self.limits.download_time),
            TemplateSource::Git(source) => (&source.url, Scheme::Git, self.limits.git_time),
            TemplateSource::Builtin { .. }
            | TemplateSource::Inline
            | TemplateSource::S3 { .. }
            | TemplateSource::Stored { .. } => {
                return Err(FetchError::Refused(format!("`{source}` is not fetched from a web server")));
            }
        };
        let credential = credential.map(|secret| Credential::new(url, secret, scheme)).transpose()?;
        let client = self.client(credential, time);
        let host = host_and_port(url);
        let stop = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(stop.clone());
        let (source, known) = (source.clone(), known.map(ToOwned::to_owned));
        let work = spawn_blocking(move || match &source {
            TemplateSource::Git(source) => git::fetch(client, source, known.as_deref(), &stop),
            TemplateSource::Url(source) => https::fetch(&client, &source.url, known.as_deref()),
            _ => Err(FetchError::Refused("only URLs and git repositories are fetched".into())),
        });
        match timeout(time, work).await {
            Err(_) => Err(too_slow(&host)),
            Ok(Ok(result)) => result,
            // A parser that gives up on what a hostile server sent must not take the process along.
            Ok(Err(error)) if error.is_panic() => {
                Err(FetchError::Refused(format!("what `{host}` sent can't be read")))
            }
            Ok(Err(_)) => Err(FetchError::Unavailable(format!("fetching from `{host}` was stopped"))),
        }
    }
}
