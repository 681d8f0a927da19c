//! The operator's token for a host, as a header for exactly one origin.
//!
//! Must never reach another scheme, host or port than the source's own, an error, or a log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciab_core::ports::{FetchError, Secret};
use ciab_core::template_hosts::host_and_port;
use http::HeaderValue;
use url::{Origin, Url};

/// What is said to one origin, and to no other.
pub(crate) struct Credential {
    origin: Origin,
    value: HeaderValue,
}

/// How a token without a user's name is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `Bearer`, as web servers take it.
    Bearer,
    /// `Basic`, with the user's name that the git hosts document for tokens.
    Git,
}

impl Credential {
    /// The credential for the host that a source names.
    ///
    /// # Errors
    ///
    /// Where it can't stand in a header.
    pub(crate) fn new(source: &Url, secret: &Secret, scheme: Scheme) -> Result<Self, FetchError> {
        // Editors and command lines end a secret with a newline that is no part of it.
        let secret = secret.expose().trim();
        let text = match (secret.contains(':'), scheme) {
            (true, _) => format!("Basic {}", STANDARD.encode(secret)),
            (false, Scheme::Git) => format!("Basic {}", STANDARD.encode(format!("x-access-token:{secret}"))),
            (false, Scheme::Bearer) => format!("Bearer {secret}"),
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| {
            FetchError::Refused(format!(
                "the token that is configured for `{}` holds characters that can't be sent",
                host_and_port(source)
            ))
        })?;
        value.set_sensitive(true);
        Ok(Self { origin: source.origin(), value })
    }

    /// What to say there; nothing to everybody else.
    pub(crate) fn for_url(&self, url: &Url) -> Option<HeaderValue> {
        (url.origin() == self.origin).then(|| self.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(secret: &str, scheme: Scheme, to: &str) -> Option<String> {
        let source = Url::parse("https://git.example/a").unwrap();
        let credential = Credential::new(&source, &Secret::new(secret), scheme).unwrap();
        let value = credential.for_url(&Url::parse(to).unwrap())?;
        assert!(value.is_sensitive() && !format!("{value:?}").contains("Basic"));
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_token_is_given_in_the_form_that_its_kind_of_server_takes() {
        let to = "https://git.example:443/other?x";
        assert_eq!(said("abc\n", Scheme::Bearer, to).as_deref(), Some("Bearer abc"));
        assert_eq!(said("user:pass", Scheme::Bearer, to).as_deref(), Some("Basic dXNlcjpwYXNz"));
        assert_eq!(said("abc", Scheme::Git, to).as_deref(), Some("Basic eC1hY2Nlc3MtdG9rZW46YWJj"));
        assert_eq!(said("user:pass", Scheme::Git, to).as_deref(), Some("Basic dXNlcjpwYXNz"));
    }

    #[test]
    fn nothing_is_said_to_another_scheme_host_or_port() {
        for to in [
            "http://git.example/a",
            "https://git.example:8443/a",
            "https://git.example./a",
            "https://www.git.example/a",
            "https://git.example.evil/a",
            "https://git.example@evil/a",
        ] {
            assert_eq!(said("abc", Scheme::Bearer, to), None, "{to}");
        }
    }

    #[test]
    fn a_token_that_can_not_be_sent_is_refused_without_being_shown() {
        let source = Url::parse("https://git.example/a").unwrap();
        let error = Credential::new(&source, &Secret::new("s3\ncret"), Scheme::Bearer).err().unwrap();
        assert!(error.to_string().contains("git.example") && !error.to_string().contains("cret"), "{error}");
    }
}
