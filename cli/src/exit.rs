//! How a run ends: the exit codes of the contract, and what a failure says on stderr.
//!
//! Every failure of the program passes through here once; nothing else picks an exit code.

use std::error::Error as _;
use std::path::PathBuf;

use thiserror::Error;
use uuid::Uuid;

use crate::client;
use crate::output;

/// The documented exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// The build failed, or the template would.
    BuildFailed = 1,
    WrongUsage = 2,
    NotFound = 3,
    NotAllowed = 4,
    ServiceFailed = 5,
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a run did not do what it was asked.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("build {build_id} failed: {error}")]
    BuildFailed { build_id: Uuid, error: String },
    #[error("build {build_id} was cancelled")]
    BuildCancelled { build_id: Uuid },
    /// What was asked for is only possible while the build goes on.
    #[error("{source}")]
    HasEnded { build_id: Uuid, source: client::Error },
    #[error("the service would refuse {}:\n{}", path.display(), reasons.join("\n"))]
    TemplateRefused { path: PathBuf, reasons: Vec<String> },
    #[error(transparent)]
    Template(#[from] crate::local_template::Error),
    #[error("{message}")]
    Usage { message: String, hints: Vec<String> },
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error(transparent)]
    Request(#[from] crate::build_request::Error),
    #[error(transparent)]
    Service(#[from] client::Error),
    /// The service was asked about a build it had accepted, and could not say how the build ended.
    #[error("lost track of build {build_id}, which may still be running: {source}")]
    LostTrack { build_id: Uuid, source: client::Error },
    #[error(
        "build {build_id} has not ended after {waited_secs} seconds; its last known status is {last_status}"
    )]
    TooLong { build_id: Uuid, waited_secs: u64, last_status: String },
    #[error("can't write the result")]
    Output { source: std::io::Error },
    #[error("can't start")]
    Runtime { source: std::io::Error },
    #[error("interrupted")]
    Interrupted { hints: Vec<String> },
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hints: vec![hint.into()] }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::BuildFailed { .. } | Self::BuildCancelled { .. } | Self::TemplateRefused { .. } => {
                Exit::BuildFailed
            }
            Self::Template(error) => template_exit(error),
            // A result that can't be written is no verdict about the build or the service: only where it was sent to.
            Self::Usage { .. } | Self::Config(_) | Self::Request(_) | Self::Output { .. } => Exit::WrongUsage,
            Self::Service(error)
            | Self::LostTrack { source: error, .. }
            | Self::HasEnded { source: error, .. } => service_exit(error),
            Self::TooLong { .. } | Self::Runtime { .. } => Exit::ServiceFailed,
            Self::Interrupted { .. } => Exit::Interrupted,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::HasEnded { build_id, .. } => {
                vec![format!("`ciab image status {build_id}` shows how it ended")]
            }
            Self::BuildFailed { build_id, .. } | Self::BuildCancelled { build_id } => {
                vec![format!("`ciab image logs {build_id}` shows the whole log")]
            }
            Self::Usage { hints, .. } | Self::Interrupted { hints } => hints.clone(),
            Self::TemplateRefused { .. } | Self::Config(_) | Self::Output { .. } | Self::Runtime { .. } => {
                Vec::new()
            }
            Self::Template(error) => error.hint().into_iter().collect(),
            Self::Request(error) => error.hint().into_iter().collect(),
            Self::Service(error) => error.hint().into_iter().collect(),
            Self::LostTrack { build_id, source } => {
                source.hint().into_iter().chain(to_follow(*build_id)).collect()
            }
            Self::TooLong { build_id, .. } => to_follow(*build_id).to_vec(),
        }
    }
}

/// How to come back to a build that goes on without this program.
pub(crate) fn to_follow(build_id: Uuid) -> [String; 2] {
    [
        format!("`ciab image status {build_id} --watch` waits for its end"),
        format!("`ciab image logs {build_id} --follow` shows its log"),
    ]
}

/// How to end a build that goes on without this program.
pub(crate) fn to_cancel(build_id: Uuid) -> String {
    format!("`ciab image cancel {build_id}` cancels it")
}

/// What is on the disk and would be refused is a verdict; what is not there, or can't be read, a slip.
fn template_exit(error: &crate::local_template::Error) -> Exit {
    use crate::local_template::Error;
    match error {
        Error::Missing { .. } | Error::Read { .. } | Error::Walk { .. } | Error::Pack { .. } => {
            Exit::WrongUsage
        }
        Error::Link { .. }
        | Error::Kind { .. }
        | Error::Name { .. }
        | Error::TooMany { .. }
        | Error::TooLarge { .. }
        | Error::PackedTooLarge { .. }
        | Error::Empty { .. }
        | Error::Download { .. }
        | Error::Bundle { .. } => Exit::BuildFailed,
    }
}

fn service_exit(error: &client::Error) -> Exit {
    match error {
        client::Error::Refused { status, .. } => match status {
            401 | 403 => Exit::NotAllowed,
            404 => Exit::NotFound,
            429 => Exit::ServiceFailed,
            400..=499 => Exit::WrongUsage,
            _ => Exit::ServiceFailed,
        },
        client::Error::BadKey => Exit::WrongUsage,
        client::Error::Forbidden { .. } => Exit::NotAllowed,
        client::Error::Setup { .. }
        | client::Error::Unreachable { .. }
        | client::Error::Lost { .. }
        | client::Error::Foreign { .. }
        | client::Error::UnknownBuild { .. }
        | client::Error::OtherTemplate { .. }
        | client::Error::Upload(_)
        | client::Error::Redirected { .. } => Exit::ServiceFailed,
    }
}

/// Prints the failure with its cause and hints to stderr and gives the exit code.
pub(crate) fn report(failure: &Failure) -> std::process::ExitCode {
    let mut message = failure.to_string();
    if let Some(cause) = root_cause(failure)
        && !message.ends_with(&cause)
    {
        message = format!("{message}: {cause}");
    }
    let notices = output::Notices::new();
    match failure {
        Failure::Interrupted { .. } => notices.note(&message),
        _ => notices.error(&message),
    }
    for hint in failure.hints() {
        notices.hint(&hint);
    }
    failure.exit().into()
}

/// The innermost source: libraries between wrap it in words of their own that tell the user nothing.
fn root_cause(failure: &Failure) -> Option<String> {
    let mut cause = failure.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> Failure {
        Failure::Service(client::Error::Refused {
            status,
            code: "code".to_owned(),
            message: "message".to_owned(),
            retry_after: None,
            request_id: None,
        })
    }

    #[test]
    fn each_answer_of_the_service_has_its_exit_code() {
        for (status, exit) in [
            (400, Exit::WrongUsage),
            (401, Exit::NotAllowed),
            (403, Exit::NotAllowed),
            (404, Exit::NotFound),
            (409, Exit::WrongUsage),
            (413, Exit::WrongUsage),
            (429, Exit::ServiceFailed),
            (500, Exit::ServiceFailed),
            (503, Exit::ServiceFailed),
        ] {
            assert_eq!(refused(status).exit(), exit, "{status}");
        }
    }

    #[test]
    fn a_build_that_was_lost_sight_of_is_not_called_failed() {
        let failure =
            Failure::TooLong { build_id: Uuid::nil(), waited_secs: 60, last_status: "building".to_owned() };
        assert_eq!(failure.exit(), Exit::ServiceFailed);
    }
}
