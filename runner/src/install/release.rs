//! A release of Packer or of its Amazon plugin: what its archive is called, and where it is.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// The system that the runner is built for, as releases name it.
const SYSTEM: &str = "linux_amd64";
/// The version of the protocol between Packer and its plugins: part of a plugin's file name.
const PLUGIN_PROTOCOL: &str = "x5.0";

/// What is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Packer itself.
    Packer,
    /// Its Amazon plugin.
    AmazonPlugin,
}

impl Product {
    /// The stack's parameter that holds the archive's checksum.
    pub fn checksum_parameter(self) -> &'static str {
        match self {
            Self::Packer => "PackerSha256",
            Self::AmazonPlugin => "PackerPluginSha256",
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Packer => "Packer",
            Self::AmazonPlugin => "The Amazon plugin",
        })
    }
}

/// One version, and where its archive is.
#[derive(Debug, Clone)]
pub struct Release {
    /// Of what.
    pub product: Product,
    /// Such as `1.11.2`.
    pub version: String,
    /// The archive's SHA-256 in hexadecimal digits of lower case; without it, nothing is downloaded.
    pub sha256: Option<String>,
    /// Where archives are.
    pub mirror: Mirror,
}

impl Release {
    /// The program in the archive.
    pub fn program(&self) -> String {
        match self.product {
            Product::Packer => "packer".to_owned(),
            Product::AmazonPlugin => {
                format!("packer-plugin-amazon_v{}_{PLUGIN_PROTOCOL}_{SYSTEM}", self.version)
            }
        }
    }

    /// The archive's name.
    pub fn file(&self) -> String {
        match self.product {
            Product::Packer => format!("packer_{}_{SYSTEM}.zip", self.version),
            Product::AmazonPlugin => format!("{}.zip", self.program()),
        }
    }

    /// Where it is below the mirror's address.
    pub fn path(&self) -> String {
        match self.product {
            Product::Packer => format!("{}/{}", self.version, self.file()),
            // As GitHub names releases.
            Product::AmazonPlugin => format!("v{}/{}", self.version, self.file()),
        }
    }

    /// Where it is kept in the bucket.
    pub fn key(&self) -> String {
        let folder = match self.product {
            Product::Packer => "packer",
            Product::AmazonPlugin => "packer-plugin-amazon",
        };
        format!("tools/{folder}/{}/{}", self.version, self.file())
    }
}

/// The address that releases are below. It is the operator's choice, so it may be an address of a private network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(Url);

impl Mirror {
    /// The file's whole address.
    pub fn url(&self, path: &str) -> Option<Url> {
        format!("{}/{path}", self.0.as_str().trim_end_matches('/')).parse().ok()
    }

    /// Whose address it is, for messages.
    pub fn host(&self) -> String {
        ciab_core::template_hosts::host_and_port(&self.0)
    }
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "an address that begins with https://".to_owned();
        let url: Url = text.parse().map_err(|_| expected())?;
        let on_this_machine = matches!(url.host(), Some(Host::Ipv4(address)) if address.is_loopback());
        let is_safe = url.scheme() == "https" || url.scheme() == "http" && on_this_machine;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if is_safe && is_plain && url.has_host() { Ok(Self(url)) } else { Err(expected()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(product: Product, version: &str, mirror: &str) -> Release {
        Release { product, version: version.to_owned(), sha256: None, mirror: mirror.parse().unwrap() }
    }

    #[test]
    fn archives_are_where_hashicorp_puts_them() {
        let packer = release(Product::Packer, "1.11.2", "https://releases.hashicorp.com/packer/");
        assert_eq!(
            packer.mirror.url(&packer.path()).unwrap().as_str(),
            "https://releases.hashicorp.com/packer/1.11.2/packer_1.11.2_linux_amd64.zip"
        );
        assert_eq!(packer.key(), "tools/packer/1.11.2/packer_1.11.2_linux_amd64.zip");
        let base = "https://github.com/hashicorp/packer-plugin-amazon/releases/download";
        let plugin = release(Product::AmazonPlugin, "1.3.9", base);
        assert_eq!(
            plugin.mirror.url(&plugin.path()).unwrap().as_str(),
            format!("{base}/v1.3.9/packer-plugin-amazon_v1.3.9_x5.0_linux_amd64.zip")
        );
    }

    #[test]
    fn a_mirror_is_asked_over_tls_but_for_one_on_this_machine() {
        for good in ["https://mirror.example:8443/packer", "http://127.0.0.1:1234/"] {
            assert!(good.parse::<Mirror>().is_ok(), "{good}");
        }
        for bad in [
            "http://mirror.example/packer",
            "http://10.0.0.1/",
            "http://localhost/",
            "https://user:word@mirror.example",
            "https://mirror.example?x=1",
            "ftp://127.0.0.1/",
            "mirror",
            "",
        ] {
            assert!(bad.parse::<Mirror>().is_err(), "{bad}");
        }
    }
}
