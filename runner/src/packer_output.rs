//! Reads what Packer prints with `-machine-readable`: one line in, one typed event out.
//!
//! The format is `timestamp,target,type,data…` with commas in data as `%!(PACKER_COMMA)`, a newline as `\n` and a carriage
//! return as `\r` (<https://developer.hashicorp.com/packer/docs/commands#machine-readable-output>).
//!
//! Must never fail or panic: what it cannot read is an event too. Must never judge what an event means for the build.

use ciab_core::build::Artifact;

/// One line of Packer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What Packer shows to people.
    Ui(Ui),
    /// What a build made, by the id that its builder gives it. Post-processors repeat it under other indices.
    ArtifactId {
        /// The build, such as `amazon-ebs.ubuntu`.
        build: String,
        /// The AMIs in it; empty where it is no AMI.
        images: Vec<Artifact>,
    },
    /// Why a build failed.
    BuildError {
        /// The build.
        build: String,
        /// Packer's own words.
        message: String,
    },
    /// How many builds failed.
    ErrorCount(u64),
    /// Packer's version, without a leading `v`.
    Version(String),
    /// A line of the format that says nothing we act on.
    Other,
    /// A line that is not of the format.
    Unstructured(String),
}

/// What Packer shows to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ui {
    /// How loudly.
    pub kind: UiKind,
    /// The build that it speaks of, where it names one.
    pub build: Option<String>,
    /// The type of the post-processor that speaks, where it is one.
    pub post_processor: Option<String>,
    /// The whole text, as Packer shows it; may have several lines.
    pub text: String,
}

impl Ui {
    /// The text's first line without Packer's `==> name:` in front.
    pub fn said(&self) -> &str {
        let line = self.text.trim_start_matches('\n').lines().next().unwrap_or_default();
        split_build(line).map_or(line.trim(), |(_, _, said)| said)
    }

    /// The build that has ended with this line, and whether well. Packer itself says so, and puts no name in front.
    pub fn ended(&self) -> Option<(&str, bool)> {
        let (name, how) = self.text.strip_prefix("Build '")?.split_once("' ")?;
        match self.kind {
            UiKind::Say if how.starts_with("finished after ") => Some((name, true)),
            UiKind::Error if how.starts_with("errored after ") || how.starts_with("errored: ") => {
                Some((name, false))
            }
            UiKind::Say | UiKind::Message | UiKind::Error => None,
        }
    }

    /// The whole text with `==> name:` taken off each line.
    pub fn text_without_build(&self) -> String {
        let lines: Vec<&str> =
            self.text.lines().map(|line| split_build(line).map_or(line, |(_, _, said)| said)).collect();
        lines.join("\n")
    }
}

/// The three loudnesses of Packer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UiKind {
    /// A step of its own.
    Say,
    /// Details of a step, and what provisioners print.
    Message,
    /// Errors, and what provisioners print to stderr.
    Error,
}

/// Reads one line, given without its line end.
pub fn decode(line: &str) -> Event {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut fields = line.splitn(4, ',');
    let (Some(timestamp), Some(target), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
        return Event::Unstructured(line.to_owned());
    };
    if timestamp.is_empty() || !timestamp.bytes().all(|b| b.is_ascii_digit()) {
        return Event::Unstructured(line.to_owned());
    }
    let data: Vec<&str> = fields.next().map(|rest| rest.split(',').collect()).unwrap_or_default();
    match (kind, data.as_slice()) {
        // Text is one field; should a Packer ever forget to escape a comma in it, the rest still belongs to it.
        ("ui", [kind, text @ ..]) => {
            let kind = match *kind {
                "say" => UiKind::Say,
                "message" => UiKind::Message,
                "error" => UiKind::Error,
                _ => return Event::Other,
            };
            let text = unescape(&text.join(","));
            let (build, post_processor) = speaker(&text);
            Event::Ui(Ui { kind, build, post_processor, text })
        }
        ("artifact", [_, "id", id @ ..]) => {
            Event::ArtifactId { build: target.to_owned(), images: images(&unescape(&id.join(","))) }
        }
        ("error", message) if !message.is_empty() => {
            Event::BuildError { build: target.to_owned(), message: unescape(&message.join(",")) }
        }
        ("error-count", [count]) => count.parse().map_or(Event::Other, Event::ErrorCount),
        ("version", [version]) => Event::Version(version.trim_start_matches('v').to_owned()),
        _ => Event::Other,
    }
}

/// Turns the escapes of the format back. A backslash is not escaped by Packer, so `\n` that a program printed literally
/// is lost: nothing can tell the two apart.
fn unescape(data: &str) -> String {
    data.replace("%!(PACKER_COMMA)", ",").replace("\\n", "\n").replace("\\r", "\r")
}

/// The AMIs of an artifact id: `us-east-1:ami-1,us-west-2:ami-2`.
fn images(id: &str) -> Vec<Artifact> {
    id.split(',')
        .filter_map(|part| {
            let (region, image_id) = part.trim().split_once(':')?;
            Some(Artifact { region: region.parse().ok()?, image_id: image_id.parse().ok()? })
        })
        .collect()
}

/// The build and, where it is one, the post-processor that a text begins with.
fn speaker(text: &str) -> (Option<String>, Option<String>) {
    let line = text.trim_start_matches('\n').lines().next().unwrap_or_default();
    match split_build(line) {
        Some((build, post_processor, _)) => (Some(build.to_owned()), post_processor.map(str::to_owned)),
        None => (None, None),
    }
}

/// Splits `==> amazon-ebs.x: text` or `    amazon-ebs.x (shell-local): text`.
fn split_build(line: &str) -> Option<(&str, Option<&str>, &str)> {
    let rest = ["==> ", "--> ", "    "].iter().find_map(|mark| line.strip_prefix(mark))?;
    let (name, said) = rest.split_once(": ").or_else(|| rest.strip_suffix(':').map(|name| (name, "")))?;
    let (name, post_processor) = match name.split_once(" (") {
        Some((name, kind)) => (name, Some(kind.trim_end_matches(')'))),
        None => (name, None),
    };
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some((name, post_processor, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ui(line: &str) -> Ui {
        match decode(line) {
            Event::Ui(ui) => ui,
            other => panic!("not a ui line: {other:?}"),
        }
    }

    fn image(region: &str, id: &str) -> Artifact {
        Artifact { region: region.parse().unwrap(), image_id: id.parse().unwrap() }
    }

    #[test]
    fn a_step_names_its_build() {
        let ui = ui("1795443451,,ui,say,==> amazon-ebs.x: Launching a source AWS instance...");
        assert_eq!(ui.kind, UiKind::Say);
        assert_eq!(ui.build.as_deref(), Some("amazon-ebs.x"));
        assert_eq!(ui.said(), "Launching a source AWS instance...");
    }

    #[test]
    fn a_post_processors_output_belongs_to_its_build() {
        let ui = ui("1795443452,,ui,message,    amazon-ebs.x (shell-local): hello%!(PACKER_COMMA) world");
        assert_eq!(ui.build.as_deref(), Some("amazon-ebs.x"));
        assert_eq!(ui.post_processor.as_deref(), Some("shell-local"));
        assert_eq!(ui.said(), "hello, world");
    }

    #[test]
    fn packers_own_summary_belongs_to_no_build() {
        let ui = ui(r"1,,ui,error,\n==> Some builds didn't complete successfully and had errors:");
        assert_eq!(ui.build, None);
        assert_eq!(ui.text, "\n==> Some builds didn't complete successfully and had errors:");
    }

    #[test]
    fn escapes_are_turned_back() {
        let ui = ui(r"1,,ui,error,a%!(PACKER_COMMA)b\nc\rd");
        assert_eq!(ui.text, "a,b\nc\rd");
    }

    #[test]
    fn an_error_of_several_lines_loses_the_builds_name_on_each() {
        let ui =
            ui("1,,ui,error,==> amazon-ebs.x: Error querying AMI\\n==> amazon-ebs.x: \tstatus code: 400");
        assert_eq!(ui.text_without_build(), "Error querying AMI\n\tstatus code: 400");
    }

    #[test]
    fn an_artifact_tells_its_image_in_every_region() {
        let line = "1,amazon-ebs.x,artifact,0,id,us-east-1:ami-36aade65c918a2930%!(PACKER_COMMA)us-west-2:ami-5784c36a81e39fc70";
        assert_eq!(
            decode(line),
            Event::ArtifactId {
                build: "amazon-ebs.x".into(),
                images: vec![
                    image("us-east-1", "ami-36aade65c918a2930"),
                    image("us-west-2", "ami-5784c36a81e39fc70")
                ],
            }
        );
    }

    #[test]
    fn an_artifact_that_is_no_image_has_none() {
        let event = decode("1,null.n,artifact,0,id,Null");
        assert_eq!(event, Event::ArtifactId { build: "null.n".into(), images: vec![] });
    }

    #[test]
    fn failures_and_versions_are_read() {
        assert_eq!(decode("1,,error-count,2"), Event::ErrorCount(2));
        assert_eq!(decode("1,,version,1.6.6"), Event::Version("1.6.6".into()));
        assert_eq!(
            decode("1,null.n,error,Script exited with non-zero exit status: 3.Allowed exit codes are: [0]"),
            Event::BuildError {
                build: "null.n".into(),
                message: "Script exited with non-zero exit status: 3.Allowed exit codes are: [0]".into()
            }
        );
    }

    #[test]
    fn garbage_is_an_event_like_any_other() {
        let garbage = [
            "",
            ",",
            ",,,",
            "panic: runtime error",
            "1",
            "1,",
            "x,,ui,say,hello",
            "1,,ui",
            "1,,ui,",
            "1,,ui,shout,x",
            "1,,error-count,many",
            "1,,error-count",
            "1,a,artifact,0,id",
            "1,a,artifact",
            "1,a,artifact,0,id,:ami-,ami-1:,,:",
            "1,,ui,say,==> : ",
            "1,,ui,say,\u{0}\u{fffd}",
            "1,,version",
            "1,,error",
        ];
        for line in garbage {
            let event = decode(line);
            if let Event::Ui(ui) = &event {
                ui.said();
                ui.text_without_build();
            }
        }
        assert_eq!(
            decode("panic: runtime error, sorry"),
            Event::Unstructured("panic: runtime error, sorry".into())
        );
    }
}
