//! The fetcher against hostile names, servers and repositories.
//!
//! Names are resolved and addresses dialled by a network of the test's own, which writes down what it was asked for:
//! that, and not only what the fetcher answers, is what the tests judge. Whatever address is dialled, the connection goes
//! to a server on loopback.
#![expect(clippy::unwrap_used, reason = "a test fails where something unexpected is missing")]

mod addresses;
mod git;
mod https;
mod network;
mod timing;

use std::sync::Arc;

use ciab_core::ports::{FetchError, Fetched, Secret, TemplateFetcher as _};
use ciab_core::template_hosts::TemplateHosts;
use ciab_fetch::{Limits, Roots, WebFetcher};
use ciab_template::{Bundle, TemplateSource};

use network::Network;
use template_server::authority::Authority;
use template_server::server;

/// A public address, as far as the fetcher can tell.
pub(crate) const PUBLIC: &str = "93.184.216.34";

/// A fetcher with its network.
pub(crate) struct World {
    pub(crate) network: Arc<Network>,
    pub(crate) authority: Authority,
    pub(crate) hosts: TemplateHosts,
    pub(crate) limits: Limits,
}

impl World {
    /// One in which no name exists and nobody answers.
    pub(crate) fn new() -> Self {
        let limits = Limits::default();
        let (network, authority) = (Arc::new(Network::default()), Authority::create());
        Self { network, authority, hosts: TemplateHosts::default(), limits }
    }

    /// With `public.example` at a public address, where this answers.
    pub(crate) fn with_server(
        answer: impl Fn(&server::Request) -> server::Answer + Send + Sync + 'static,
    ) -> Self {
        let world = Self::new();
        world.network.name("public.example", &[&[PUBLIC]]);
        let names = ["public.example", "other.example", "127.0.0.1"];
        let server = server::tls(world.authority.server(&names), answer);
        world.network.serve(server);
        world
    }

    pub(crate) fn trusting(mut self, patterns: &[&str]) -> Self {
        self.hosts.trusted = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        self
    }

    pub(crate) async fn fetch_with(
        &self,
        source: &str,
        known: Option<&str>,
        token: Option<&str>,
    ) -> Result<Fetched, FetchError> {
        let source: TemplateSource =
            source.parse().map_err(|error| FetchError::Refused(format!("{error}")))?;
        let roots = Roots::of([self.authority.root_der()]);
        let fetcher = WebFetcher::new(self.hosts.clone(), roots)
            .with_limits(self.limits)
            .with_network(self.network.clone(), self.network.clone());
        let token = token.map(Secret::new);
        let fetched = fetcher.fetch(&source, known, token.as_ref()).await;
        if let Err(error) = &fetched {
            // Holds for every error of every test here.
            let message = format!("{error} {error:?}");
            for hidden in ["s3cret", PUBLIC, "czNjcmV0"] {
                assert!(!message.contains(hidden) || source.to_string().contains(hidden), "{message}");
            }
        }
        fetched
    }

    pub(crate) async fn fetch(&self, source: &str) -> Result<Fetched, FetchError> {
        self.fetch_with(source, None, None).await
    }

    pub(crate) async fn bundle(&self, source: &str) -> Bundle {
        match self.fetch(source).await {
            Ok(Fetched::Bundle { bundle, .. }) => bundle,
            other => panic!("{source}: {other:?}"),
        }
    }

    /// Why it was refused.
    pub(crate) async fn refused(&self, source: &str) -> String {
        refused(self.fetch(source).await)
    }

    /// Why it was not available.
    pub(crate) async fn unavailable(&self, source: &str) -> String {
        match self.fetch(source).await {
            Err(FetchError::Unavailable(message)) => message,
            other => panic!("{source}: {other:?}"),
        }
    }
}

pub(crate) fn refused(fetched: Result<Fetched, FetchError>) -> String {
    match fetched {
        Err(FetchError::Refused(message)) => message,
        other => panic!("{other:?}"),
    }
}
