//! Plain HTTP to the stack on this machine. It must never leave it: anything but a loopback address is refused.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ureq::Agent;
use ureq::http::Uri;

/// A client that hands every status to the caller and gives up after a while.
pub fn agent() -> Agent {
    patient_agent(Duration::from_secs(60))
}

/// The same with a patience of its own.
pub fn patient_agent(patience: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(patience))
        .proxy(None)
        .build()
        .into()
}

/// Fails unless the URL names this machine.
pub fn require_loopback(url: &str) -> Result<()> {
    let uri: Uri = url.parse().with_context(|| format!("read the URL {url}"))?;
    let host = uri.host().with_context(|| format!("{url} names no host"))?;
    if host == "localhost" || is_loopback(host) {
        return Ok(());
    }
    bail!("{url} is not on this machine");
}

/// Whether the text is an address of this machine's loopback.
pub fn is_loopback(address: &str) -> bool {
    address.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to() {
        for allowed in ["http://127.0.0.1:9090", "http://127.3.2.1/x", "http://localhost:1", "http://[::1]:9"]
        {
            require_loopback(allowed).unwrap();
        }
        for refused in ["http://10.0.0.1", "http://example.com:80/", "http://54.214.1.2/"] {
            require_loopback(refused).unwrap_err();
        }
    }
}
