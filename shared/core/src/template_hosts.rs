//! Which hosts templates may be fetched from.
//!
//! Looks at names only: whether the addresses behind a name may be dialled is the fetcher's to check, at every hop. Must
//! never let a host through that the operator did not mean.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// A host as the operator writes it: `git.example.com`, `git.example.com:8443`, `*.example.com` for all below it, or an
/// address such as `10.0.0.7` or `[fd00::7]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case, without `*.`.
    name: String,
    below: bool,
    /// None for the scheme's own.
    port: Option<u16>,
}

/// The operator's rules for hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateHosts {
    /// Where it holds any, templates come from these (and from trusted ones) alone.
    pub allowed: Vec<HostPattern>,
    /// These may be plain http, and may stand at an address that is not public.
    pub trusted: Vec<HostPattern>,
}

/// Why a host is not fetched from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostRefused {
    /// Not https.
    #[error(
        "templates are fetched over https: `{host}` is not among the hosts that the operator trusts with http"
    )]
    Scheme {
        /// The host and its port.
        host: String,
    },
    /// Not on the list.
    #[error("templates are not fetched from `{host}`: allowed are {allowed}")]
    NotAllowed {
        /// The host and its port.
        host: String,
        /// Those on the list.
        allowed: String,
    },
}

impl TemplateHosts {
    /// Whether a template may be fetched from there, as far as the name tells.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, url: &Url) -> Result<(), HostRefused> {
        if self.trusts(url) {
            return Ok(());
        }
        if url.scheme() != "https" {
            return Err(HostRefused::Scheme { host: host_and_port(url) });
        }
        if self.allowed.is_empty() || self.allowed.iter().any(|pattern| pattern.matches(url)) {
            return Ok(());
        }
        let allowed = self.allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Err(HostRefused::NotAllowed { host: host_and_port(url), allowed })
    }

    /// Whether the operator vouches for this host.
    #[must_use]
    pub fn trusts(&self, url: &Url) -> bool {
        self.trusted.iter().any(|pattern| pattern.matches(url))
    }
}

impl HostPattern {
    /// Whether a URL's host is meant. Where no port was written, the scheme's own is.
    #[must_use]
    pub fn matches(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let host = host.trim_end_matches('.');
        let named = if self.below {
            host.strip_suffix(self.name.as_str()).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
        } else {
            host == self.name
        };
        named && url.port() == self.port.filter(|port| Some(*port) != scheme_port(url))
    }
}

/// A URL's host as messages name it, with its port where that is not the scheme's own.
#[must_use]
pub fn host_and_port(url: &Url) -> String {
    format!("{}{}", url.host_str().unwrap_or_default(), port_text(url.port()))
}

fn scheme_port(url: &Url) -> Option<u16> {
    match url.scheme() {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

fn port_text(port: Option<u16>) -> String {
    port.map(|port| format!(":{port}")).unwrap_or_default()
}

impl FromStr for HostPattern {
    type Err = String;

    /// The error is what is expected, in one sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "a host such as git.example.com, git.example.com:8443 or *.example.com is expected, without scheme or path"
                .to_owned()
        };
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // What is a host is the URL standard's to say; it also gives each the one spelling that URLs have.
        let url = Url::parse(&format!("http://{rest}/")).map_err(|_| expected())?;
        let name = url.host_str().unwrap_or_default().to_owned();
        let bare = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
        if !bare || name.is_empty() || url.path() != "/" || (below && !name.contains('.')) {
            return Err(expected());
        }
        // The URL standard hides a scheme's own port, and `:80` was written for a reason.
        let port = rest.rsplit_once(':').and_then(|(_, digits)| digits.parse().ok());
        Ok(Self { name: name.trim_end_matches('.').to_owned(), below, port })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.below { "*." } else { "" };
        write!(formatter, "{below}{}{}", self.name, port_text(self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<HostPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn checked(hosts: &TemplateHosts, url: &str) -> Result<(), String> {
        hosts.check(&Url::parse(url).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_list_every_https_host_is_allowed_and_none_over_http() {
        let hosts = TemplateHosts::default();
        assert_eq!(checked(&hosts, "https://anything.example/x"), Ok(()));
        let message = checked(&hosts, "http://anything.example/x").unwrap_err();
        assert!(message.contains("over https"), "{message}");
    }

    #[test]
    fn with_a_list_only_its_hosts_are_allowed_with_their_ports() {
        let hosts = TemplateHosts {
            allowed: patterns(&["a.example", "*.b.example", "c.example:8443"]),
            trusted: vec![],
        };
        for url in [
            "https://a.example/",
            "https://A.example./",
            "https://a.example:443/",
            "https://x.b.example/",
            "https://x.y.b.example/",
            "https://c.example:8443/",
        ] {
            assert_eq!(checked(&hosts, url), Ok(()), "{url}");
        }
        for url in [
            "https://b.example/",
            "https://xb.example/",
            "https://a.example:8443/",
            "https://c.example/",
            "https://a.example.evil/",
            "https://evila.example/",
        ] {
            let message = checked(&hosts, url).unwrap_err();
            assert!(message.contains("allowed are a.example, *.b.example, c.example:8443"), "{message}");
        }
    }

    #[test]
    fn a_trusted_host_may_use_http_at_its_port_and_no_other_may() {
        let hosts = TemplateHosts {
            allowed: vec![],
            trusted: patterns(&["127.0.0.1:3000", "[fd00::7]", "git.local:80"]),
        };
        for url in [
            "http://127.0.0.1:3000/a",
            "https://127.0.0.1:3000/a",
            "http://[fd00:0::7]/a",
            "http://git.local/a",
        ] {
            assert_eq!(checked(&hosts, url), Ok(()), "{url}");
        }
        for url in ["http://127.0.0.1/a", "http://127.0.0.1:3001/a", "http://localhost:3000/a"] {
            assert!(checked(&hosts, url).is_err(), "{url}");
        }
        assert!(!hosts.trusts(&Url::parse("https://git.local/a").unwrap()), "the port was written");
    }

    #[test]
    fn what_is_no_host_is_refused_with_what_is_expected() {
        for text in [
            "",
            "*.",
            "*",
            "https://a.example",
            "a.example/x",
            "a example",
            "*.com",
            "user@a.example",
            "a.example:x",
        ] {
            let message = text.parse::<HostPattern>().unwrap_err();
            assert!(message.contains("git.example.com"), "{text}: {message}");
        }
    }
}
