//! A build's failure as the state machine is told: an error's name and a cause that people can act on.
//!
//! Must never hold a secret: whoever makes one passes text that is masked.

use ciab_core::build::{Failure, Stage};

/// `SendTaskFailure` takes 32,768 characters; this is bytes, with room for what JSON adds.
pub const LARGEST_CAUSE: usize = 30_000;
/// A message is one sentence, even where Packer makes it a page.
const LONGEST_MESSAGE: usize = 4_000;

/// The names that the state machine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureName {
    /// Packer does not accept the template.
    TemplateInvalid,
    /// Packer ran and made no image.
    PackerFailed,
    /// The deadline came.
    BuildTimedOut,
    /// The runner could not do its work, or was told to end.
    RunnerFailed,
}

impl FailureName {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::TemplateInvalid, Self::PackerFailed, Self::BuildTimedOut, Self::RunnerFailed];

    /// The name on the wire: what `ErrorEquals` in the state machine matches.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TemplateInvalid => "TemplateInvalid",
            Self::PackerFailed => "PackerFailed",
            Self::BuildTimedOut => "BuildTimedOut",
            Self::RunnerFailed => "RunnerFailed",
        }
    }
}

/// A failed build.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildFailure {
    /// Its name.
    pub name: FailureName,
    /// Its cause.
    pub failure: Failure,
}

impl BuildFailure {
    /// A failure that is told in one sentence.
    pub fn new(name: FailureName, message: impl Into<String>) -> Self {
        Self { name, failure: Failure::of(Stage::RunPacker, message) }
    }

    /// The failure of a build whose deadline came.
    pub fn timed_out(timeout_secs: u32) -> Self {
        Self { name: FailureName::BuildTimedOut, failure: Failure::timed_out(timeout_secs) }
    }

    /// As this one, with the step and the lines before it.
    pub fn at(mut self, step: Option<String>, last_log_lines: Vec<String>) -> Self {
        self.failure.step = step;
        self.failure.last_log_lines = last_log_lines;
        self
    }

    /// The cause as JSON of at most [`LARGEST_CAUSE`] bytes. The oldest lines go first.
    pub fn cause(&self) -> String {
        let mut failure = self.failure.clone();
        shorten(&mut failure.message, LONGEST_MESSAGE);
        if let Some(step) = &mut failure.step {
            shorten(step, 500);
        }
        loop {
            let cause = serde_json::to_string(&failure).unwrap_or_else(|_| "{}".to_owned());
            if cause.len() <= LARGEST_CAUSE {
                return cause;
            }
            if failure.last_log_lines.is_empty() {
                // Escapes have blown it up.
                let half = failure.message.len() / 2;
                shorten(&mut failure.message, half);
                failure.step = None;
            } else {
                failure.last_log_lines.remove(0);
            }
        }
    }
}

fn shorten(text: &mut String, most_bytes: usize) {
    if text.len() > most_bytes {
        text.truncate(text.floor_char_boundary(most_bytes));
        text.push('…');
    }
}

/// Packer's complaint about a template as one sentence: what, where, and why, without the excerpt of the source.
pub fn template_complaint(text: &str) -> String {
    let mut what = String::new();
    let mut place = None;
    let mut details: Vec<String> = Vec::new();
    for paragraph in text.trim().split("\n\n") {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).filter(|line| !is_excerpt(line)).collect();
        let sentence = lines.join(" ").trim().to_owned();
        if sentence.is_empty() {
            continue;
        }
        if what.is_empty() {
            what = sentence.strip_prefix("Error: ").unwrap_or(&sentence).to_owned();
        } else if place.is_none() && sentence.starts_with("on ") && sentence.contains(" line ") {
            place = Some(sentence.trim_end_matches(':').to_owned());
        } else {
            details.push(sentence);
        }
    }
    let mut message = what;
    if let Some(place) = place {
        message = format!("{} ({place})", message.trim_end_matches(':'));
    }
    if !details.is_empty() {
        message = format!("{}: {}", message.trim_end_matches(':'), details.join(" "));
    }
    message
}

/// `  2: region =`, or the note that there is none.
fn is_excerpt(line: &str) -> bool {
    line == "(source code not available)"
        || line
            .split_once(':')
            .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_the_domains_form() {
        let failure = BuildFailure::new(FailureName::PackerFailed, "it broke")
            .at(Some("Provisioning with shell script: a.sh".into()), vec!["one".into(), "two".into()]);
        let cause: serde_json::Value = serde_json::from_str(&failure.cause()).unwrap();
        assert_eq!(cause["stage"], "run-packer");
        assert_eq!(cause["step"], "Provisioning with shell script: a.sh");
        assert_eq!(cause["message"], "it broke");
        assert_eq!(cause["last_log_lines"], serde_json::json!(["one", "two"]));
        let read: Failure = serde_json::from_str(&failure.cause()).unwrap();
        assert_eq!(read, failure.failure);
    }

    #[test]
    fn a_cause_is_never_too_large_and_keeps_the_last_lines() {
        let lines: Vec<String> = (0..50).map(|n| format!("{n} {}", "\u{1}".repeat(8_000))).collect();
        let cause =
            BuildFailure::new(FailureName::PackerFailed, "\u{1}".repeat(100_000)).at(None, lines).cause();
        assert!(cause.len() <= LARGEST_CAUSE);

        let lines: Vec<String> = (0..50).map(|n| format!("{n} {}", "x".repeat(2_000))).collect();
        let cause = BuildFailure::new(FailureName::PackerFailed, "short").at(None, lines).cause();
        let read: Failure = serde_json::from_str(&cause).unwrap();
        assert!(read.last_log_lines.last().unwrap().starts_with("49 "));
        assert!(read.last_log_lines.len() >= 13, "{}", read.last_log_lines.len());
    }

    #[test]
    fn a_time_out_is_told_in_the_documented_words() {
        assert_eq!(
            BuildFailure::timed_out(1800).failure.message,
            "Packer build timed out after 1800 seconds"
        );
    }

    #[test]
    fn a_syntax_error_becomes_one_sentence() {
        // Packer 1.6.6's own words.
        let text = "Error: Invalid expression\n\n  on a.pkr.hcl line 2, in source \"amazon-ebs\" \"x\":\n   2:  region = \n   3: }\n\nExpected the start of an expression, but found an invalid expression token.\n\n";
        assert_eq!(
            template_complaint(text),
            "Invalid expression (on a.pkr.hcl line 2, in source \"amazon-ebs\" \"x\"): Expected the start of an expression, but found an invalid expression token."
        );
    }

    #[test]
    fn a_list_of_errors_becomes_one_sentence() {
        let text = "Error: 2 error(s) occurred:\n\n* ami_name must be specified\n* An ssh_username must be specified\n\n  on a.pkr.hcl line 2:\n  (source code not available)\n\n";
        assert_eq!(
            template_complaint(text),
            "2 error(s) occurred (on a.pkr.hcl line 2): * ami_name must be specified * An ssh_username must be specified"
        );
    }

    #[test]
    fn a_missing_variable_becomes_one_sentence() {
        let text = "Error: Unset variable \"need\"\n\nA used variable must be set or have a default value; see\nhttps://packer.io/docs for details.\n\n";
        assert_eq!(
            template_complaint(text),
            "Unset variable \"need\": A used variable must be set or have a default value; see https://packer.io/docs for details."
        );
    }
}
