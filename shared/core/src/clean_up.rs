//! `clean-up`: the step after any failure. Records why, and brings the build to its end: stops the runner, finds out whether
//! Packer had ended well all the same, tears down what is left, records the proof.
//!
//! Done again by the state machine until it has ended; must never call a build failed before, unless patience is over.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::build::{BuildRecord, BuildStatus, Failure, FailureKind, Stage};
use crate::ids::BuildId;
use crate::reconcile::{Deps, bring_on_one};
use crate::step::{StepError, for_build, update};

/// What the state machine hands over.
#[derive(Debug, Clone, Deserialize)]
pub struct Input {
    /// The build.
    pub build_id: BuildId,
    /// What went wrong, as the state machine caught it.
    pub error: Caught,
}

/// An error as Step Functions hands it to a `Catch`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Caught {
    /// Its name.
    #[serde(default)]
    pub error: String,
    /// What is said about it; a JSON document where a function or the runner said it.
    #[serde(default)]
    pub cause: String,
}

/// What the state machine goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// How the build has ended: a runner that died without a word may have done its work.
    pub status: BuildStatus,
}

/// Does the step.
///
/// # Errors
/// `LeftoversRemain` while something is left; otherwise those that every step has.
pub async fn run(deps: &Deps, input: Input) -> Result<Output, StepError> {
    for_build(input.build_id, clean_up(deps, input)).await
}

async fn clean_up(deps: &Deps, input: Input) -> Result<Output, StepError> {
    let now = deps.clock.now();
    let record = update(&*deps.records, input.build_id, |record| {
        if record.status.is_final() {
            return Ok(());
        }
        record.begin_clean_up(failure(record, &input.error, now), now)
    })
    .await?;
    // By its name alone: the cause may hold what a template printed, and is in the record.
    tracing::info!(caught = input.error.error, phase = ?record.phase, "the build is cleaned up");
    let record = if record.status.is_final() { record } else { bring_on_one(deps, record).await? };
    Ok(Output { status: record.status })
}

/// A failure that the runner reports, as the cause of its error.
#[derive(Debug, Deserialize)]
struct RunnerCause {
    #[serde(default)]
    step: Option<String>,
    message: String,
    #[serde(default)]
    last_log_lines: Vec<String>,
}

/// A function's error, as Lambda reports it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionCause {
    error_message: String,
}

/// Why the build fails, in words for people, from what the state machine caught.
pub fn failure(record: &BuildRecord, caught: &Caught, now: Timestamp) -> Failure {
    let stage = record.stage();
    let told = |stage| match serde_json::from_str::<FunctionCause>(&caught.cause) {
        Ok(cause) => Failure::of(stage, cause.error_message),
        Err(_) => internal(stage),
    };
    match caught.error.as_str() {
        "BuildTimedOut" => {
            Failure { last_log_lines: runner_lines(caught), ..Failure::timed_out(record.timeout_secs) }
        }
        // Some interpreters tell a lost heartbeat by this name too: before the deadline it can be nothing else.
        "States.Timeout" if record.deadline.is_none_or(|deadline| now >= deadline) => {
            Failure::timed_out(record.timeout_secs)
        }
        "States.Timeout" | "States.HeartbeatTimeout" => {
            Failure::lost(Stage::RunPacker, "the build's runner gave no sign of life any more")
        }
        "PackerFailed" | "TemplateInvalid" | "RunnerFailed" => {
            match serde_json::from_str::<RunnerCause>(&caught.cause) {
                Ok(cause) => Failure {
                    stage: Stage::RunPacker,
                    step: cause.step,
                    message: cause.message,
                    last_log_lines: cause.last_log_lines,
                    kind: FailureKind::Failed,
                },
                Err(_) => internal(Stage::RunPacker),
            }
        }
        "TemplateRejected" | "TemplateUnavailable" => told(Stage::PrepareBuild),
        "ImageNotReady" | "ImageRejected" => told(Stage::FinishBuild),
        // Ours, and not the template's: where a runner was asked for, it may have done its work.
        _ if record.may_have_runner() => Failure { kind: FailureKind::Lost, ..internal(stage) },
        _ => internal(stage),
    }
}

fn runner_lines(caught: &Caught) -> Vec<String> {
    serde_json::from_str::<RunnerCause>(&caught.cause).map(|cause| cause.last_log_lines).unwrap_or_default()
}

/// What happened is nothing that the caller can act on, and not for the caller to see: it is in the functions' log.
fn internal(stage: Stage) -> Failure {
    let step = match stage {
        Stage::PrepareBuild => "prepared",
        Stage::StartRunner => "started",
        Stage::RunPacker => "run",
        Stage::FinishBuild => "finished",
    };
    Failure::of(stage, format!("the build could not be {step} because of an internal error"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tests::{building, time};

    fn failed(error: &str, cause: &str, at: &str) -> Failure {
        failure(&building(), &Caught { error: error.into(), cause: cause.into() }, time(at))
    }

    const DURING: &str = "2026-03-25T14:40:00Z";
    const AFTER: &str = "2026-03-25T15:00:10Z";

    #[test]
    fn what_packer_said_is_told() {
        let cause = r#"{"stage": "run-packer", "step": "shell", "message": "Script exited with non-zero exit status: 7",
                        "last_log_lines": ["a", "b"]}"#;
        let failure = failed("PackerFailed", cause, DURING);
        assert_eq!(failure.message, "Script exited with non-zero exit status: 7");
        assert_eq!(failure.step.as_deref(), Some("shell"));
        assert_eq!(failure.last_log_lines, ["a", "b"]);
    }

    #[test]
    fn a_time_out_is_told_with_the_builds_own_time() {
        for name in ["BuildTimedOut", "States.Timeout"] {
            let failure = failed(name, "{}", AFTER);
            assert_eq!(failure.message, "Packer build timed out after 1800 seconds");
            assert_eq!(failure.kind, FailureKind::TimedOut);
        }
    }

    #[test]
    fn a_lost_heartbeat_is_no_time_out() {
        for name in ["States.HeartbeatTimeout", "States.Timeout"] {
            let failure = failed(name, "", DURING);
            assert_eq!(failure.kind, FailureKind::Lost);
            assert!(failure.message.contains("sign of life"), "{failure:?}");
        }
    }

    #[test]
    fn internals_are_not_told() {
        let cause = r#"{"errorType": "ServiceRefused", "errorMessage": "arn:aws:secret"}"#;
        for name in ["ServiceRefused", "Runtime.ExitError", "Lambda.Unknown"] {
            let failure = failed(name, cause, DURING);
            assert!(!failure.message.contains("arn:"), "{}", failure.message);
        }
    }

    #[test]
    fn a_rejected_template_is_told_to_its_author() {
        let cause = r#"{"errorType": "TemplateRejected", "errorMessage": "no Amazon source"}"#;
        let failure = failed("TemplateRejected", cause, DURING);
        assert_eq!((failure.stage, failure.message.as_str()), (Stage::PrepareBuild, "no Amazon source"));
    }
}
