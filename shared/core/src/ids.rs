//! Names of things: build, image, region, agent. Parsed once at the edge, trusted afterwards.
//!
//! Must never hold a value that was not checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A build's id: a UUID, in hyphenated lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(Uuid);

impl BuildId {
    /// The build id with this UUID.
    pub fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for BuildId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // Only the hyphenated form: one build must not have several names.
        if text.len() != 36 {
            return Err(InvalidName { what: "build id", given: shown(text), allowed: "a UUID" });
        }
        Uuid::parse_str(text).map(Self).map_err(|_| InvalidName {
            what: "build id",
            given: shown(text),
            allowed: "a UUID",
        })
    }
}

/// A name that does not have the form it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a valid {what}: {allowed} is expected")]
pub struct InvalidName {
    /// What kind of name.
    pub what: &'static str,
    /// What was given, cut to a length that can be shown.
    pub given: String,
    /// What is allowed.
    pub allowed: &'static str,
}

/// What a caller gave, cut to 100 characters and without control characters, fit for a message.
pub fn shown(text: &str) -> String {
    let mut out: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
    if text.chars().count() > 100 {
        out.push('…');
    }
    out
}

/// The id of a request: what API Gateway gave it, or, for work that nobody asked the API for, the invocation's. 1 to 128 printable
/// ASCII characters without spaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

impl RequestId {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RequestId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName {
                what: "request id",
                given: shown(text),
                allowed: "1 to 128 printable ASCII characters without spaces",
            })
        }
    }
}

impl TryFrom<String> for RequestId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

/// An AMI's id: `ami-` and 8 or 17 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let valid = text.strip_prefix("ami-").is_some_and(|digits| {
            matches!(digits.len(), 8 | 17)
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName {
                what: "image id",
                given: shown(text),
                allowed: "an AMI id such as ami-0abcdef1234567890",
            })
        }
    }
}

impl TryFrom<String> for ImageId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

/// An AWS region's name, such as `eu-west-1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(String);

impl Region {
    /// The region's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Region {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let parts: Vec<&str> = text.split('-').collect();
        let valid = parts.len() >= 3
            && text.len() <= 32
            && parts[..parts.len() - 1]
                .iter()
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase()))
            && parts[parts.len() - 1].len() == 1
            && parts[parts.len() - 1].bytes().all(|b| b.is_ascii_digit());
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName { what: "region", given: shown(text), allowed: "a name such as us-east-1" })
        }
    }
}

impl TryFrom<String> for Region {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.0
    }
}

/// The coding agent that an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Anthropic's Claude Code.
    ClaudeCode,
    /// OpenAI's Codex CLI.
    Codex,
    /// Google's Gemini CLI.
    Gemini,
    /// Cursor's agent CLI.
    Cursor,
}

impl Provider {
    /// All of them, in the order that messages name them.
    pub const ALL: [Self; 4] = [Self::ClaudeCode, Self::Codex, Self::Gemini, Self::Cursor];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Cursor => "cursor",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == text).ok_or(InvalidName {
            what: "provider",
            given: shown(text),
            allowed: "one of claude-code, codex, gemini, cursor",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_has_one_spelling() {
        let text = "550e8400-e29b-41d4-a716-446655440000";
        assert_eq!(text.parse::<BuildId>().unwrap().to_string(), text);
        assert!("550e8400e29b41d4a716446655440000".parse::<BuildId>().is_err());
        assert!("{550e8400-e29b-41d4-a716-446655440000}".parse::<BuildId>().is_err());
        assert!("../../etc/passwd".parse::<BuildId>().is_err());
    }

    #[test]
    fn a_request_id_is_one_printable_word() {
        for good in ["JKJaXmPLvHcESHA=", "6d1d8a1e-7d1f-4a9e-a1c1-8f5d5c1f0a11", "r"] {
            assert_eq!(good.parse::<RequestId>().unwrap().to_string(), good);
        }
        for bad in ["", "two words", "two\nlines", "é", &"r".repeat(129)] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn regions_are_names_and_not_hosts() {
        for good in ["us-east-1", "eu-west-1", "us-gov-west-1", "ap-southeast-3"] {
            assert!(good.parse::<Region>().is_ok(), "{good}");
        }
        for bad in ["", "us-east", "us_east-1", "evil.example/us-east-1", "US-EAST-1", "-us-1", "us--1"] {
            assert!(bad.parse::<Region>().is_err(), "{bad}");
        }
    }

    #[test]
    fn image_ids_have_eight_or_seventeen_digits() {
        assert!("ami-0abcdef1234567890".parse::<ImageId>().is_ok());
        assert!("ami-12345678".parse::<ImageId>().is_ok());
        for bad in ["ami-", "ami-0ABCDEF1234567890", "i-0abcdef1234567890", "ami-123456789"] {
            assert!(bad.parse::<ImageId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_provider_is_told_the_known_ones() {
        let message = "emacs".parse::<Provider>().unwrap_err().to_string();
        assert!(message.contains("`emacs`") && message.contains("gemini"), "{message}");
    }

    #[test]
    fn what_is_shown_of_input_is_short_and_printable() {
        assert_eq!(shown("a\u{1b}[31mb\n"), "a[31mb");
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 101);
    }
}
