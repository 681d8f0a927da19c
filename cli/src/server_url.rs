//! Where the service is: one checked base address.
//!
//! It refuses what would leak or surprise: credentials inside the address (errors show it) and anything but HTTP.

use std::fmt;

use reqwest::Url;
use thiserror::Error;

pub(crate) const DEFAULT: &str = "http://localhost:9090";

/// An `http` or `https` address without credentials, query or fragment; a path before `/api` (a stage) is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl(Url);

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Error {
    // The address is not repeated in any of these: it may hold a password.
    #[error("the server URL is not a URL ({reason}); it must look like {DEFAULT}")]
    NotUrl { reason: String },
    #[error("the server URL must begin with http:// or https://; it must look like {DEFAULT}")]
    NotHttp,
    #[error("the server URL must not hold a user name or password; give the key with CIAB_API_KEY")]
    Credentials,
    #[error("the server URL must end before any `?` or `#`; it must look like {DEFAULT}")]
    QueryOrFragment,
}

impl ServerUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let url = Url::parse(text.trim()).map_err(|error| Error::NotUrl { reason: error.to_string() })?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(Error::NotHttp);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::QueryOrFragment);
        }
        Ok(Self(url))
    }

    /// The address of an API path whose segments are given; each segment is escaped.
    pub(crate) fn join(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether the service is on this machine, by name or address.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost"
            || host.ends_with(".localhost")
            || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_in_the_path_stays_before_the_api_path() {
        let url = ServerUrl::parse("https://images.example/prod/").unwrap();
        assert_eq!(url.join(&["api", "v1"]).as_str(), "https://images.example/prod/api/v1");
        assert_eq!(url.to_string(), "https://images.example/prod");
    }

    #[test]
    fn a_segment_cannot_climb_out_of_its_place() {
        let url = ServerUrl::parse("http://localhost:9090").unwrap();
        assert_eq!(url.join(&["api", "a/../b"]).as_str(), "http://localhost:9090/api/a%2F..%2Fb");
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = ServerUrl::parse("http://me:hunter2@localhost").unwrap_err();
        assert_eq!(error, Error::Credentials);
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn other_schemes_and_non_addresses_are_refused() {
        assert_eq!(ServerUrl::parse("ftp://localhost").unwrap_err(), Error::NotHttp);
        assert_eq!(ServerUrl::parse("http://localhost/?a=b").unwrap_err(), Error::QueryOrFragment);
        assert!(matches!(ServerUrl::parse("").unwrap_err(), Error::NotUrl { .. }));
    }

    #[test]
    fn loopback_is_known_by_name_and_by_address() {
        for (text, expected) in [
            ("http://localhost:1", true),
            ("http://127.0.0.9", true),
            ("http://[::1]:9090", true),
            ("http://10.0.0.1", false),
            ("https://images.example", false),
        ] {
            assert_eq!(ServerUrl::parse(text).unwrap().is_loopback(), expected, "{text}");
        }
    }
}
