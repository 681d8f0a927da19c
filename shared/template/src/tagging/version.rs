//! Versions of Packer, and what they know.

use std::fmt;
use std::str::FromStr;

/// The version of Packer that will read the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackerVersion {
    /// 1 of 1.6.6.
    pub major: u32,
    /// 6 of 1.6.6.
    pub minor: u32,
    /// The last 6 of 1.6.6.
    pub patch: u32,
}

impl PackerVersion {
    /// Whether it knows plugins, `packer init` and data sources: from 1.7 on.
    #[must_use]
    pub fn has_plugins(self) -> bool {
        (self.major, self.minor) >= (1, 7)
    }
}

impl FromStr for PackerVersion {
    type Err = String;

    /// Reads `1.6.6`, `v1.11.2` or `1.12.0-dev`; the error is what is wrong with it, in one sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is no version of Packer; give it as `1.11.2`");
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(|part| part.parse::<u32>().map_err(|_| invalid()));
        let mut next = || parts.next().unwrap_or_else(|| Err(invalid()));
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_some() { Err(invalid()) } else { Ok(version) }
    }
}

impl fmt::Display for PackerVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
