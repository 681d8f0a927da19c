//! Keeps secrets out of everything that leaves the runner in words: the log and the failure's report.
//!
//! Packer 1.6.6 masks sensitive variables in what it shows to people, but not with `-machine-readable`; so nothing here
//! relies on Packer's own masking. Must never be asked to print what it masks: `Debug` shows a count.

use std::fmt;

/// What stands where a secret stood. Packer's own word.
pub const MASK: &str = "<sensitive>";

/// Secrets to mask, longest first, so that a secret within another does not leave the rest of it readable.
#[derive(Clone, Default)]
pub struct Redaction {
    secrets: Vec<String>,
}

impl Redaction {
    /// Masks these values, and each line of those that have several: output comes line by line.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut all: Vec<String> = Vec::new();
        for secret in secrets {
            all.extend(secret.lines().map(str::trim).filter(|line| worth_masking(line)).map(str::to_owned));
            if worth_masking(secret.trim()) {
                all.push(secret.trim().to_owned());
            }
        }
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Self { secrets: all }
    }

    /// As this one, with more secrets.
    pub fn and(self, more: impl IntoIterator<Item = String>) -> Self {
        Self::new(self.secrets.into_iter().chain(more))
    }

    /// The text without the secrets.
    pub fn apply(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for secret in &self.secrets {
            if masked.contains(secret.as_str()) {
                masked = masked.replace(secret.as_str(), MASK);
            }
        }
        masked
    }
}

/// A brace alone on a line of a secret document is no secret, and masking it would spoil the whole log.
fn worth_masking(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redaction({} secrets)", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_wherever_it_stands() {
        let redaction = Redaction::new(["hunter2".to_owned()]);
        assert_eq!(redaction.apply("a hunter2 b=hunter2"), "a <sensitive> b=<sensitive>");
    }

    #[test]
    fn a_secret_within_a_longer_one_leaves_nothing_of_the_longer_readable() {
        let redaction = Redaction::new(["key".to_owned(), "key-and-more".to_owned()]);
        assert_eq!(redaction.apply("key-and-more key"), "<sensitive> <sensitive>");
    }

    #[test]
    fn each_line_of_a_secret_document_is_masked() {
        let redaction = Redaction::new(["{\n  \"password\": \"x1\"\n}\n".to_owned()]);
        assert_eq!(redaction.apply("  \"password\": \"x1\""), "  <sensitive>");
        assert_eq!(redaction.apply("{"), "{");
    }

    #[test]
    fn nothing_is_masked_where_nothing_is_secret() {
        assert_eq!(Redaction::new([String::new()]).apply("hello"), "hello");
    }

    #[test]
    fn showing_it_for_debugging_shows_no_secret() {
        assert!(!format!("{:?}", Redaction::new(["hunter2".to_owned()])).contains("hunter2"));
    }
}
