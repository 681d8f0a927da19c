//! `clean-up`: the step after any failure. Records why, stops the runner, tears down what is left, records the proof.
//!
//! Done again by the state machine until nothing is left; must never call a build failed before, unless its patience is
//! over.

use jiff::Timestamp;
use serde::Deserialize;

use crate::build::{BuildRecord, Failure, Phase, Stage};
use crate::ids::BuildId;
use crate::ports::Write;
use crate::step::{StepError, update};
use crate::tear_down::{Deps, tear_down};

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

/// Does the step.
///
/// # Errors
/// `LeftoversRemain` while something is left; otherwise those that every step has.
pub async fn run(deps: &Deps, input: Input) -> Result<(), StepError> {
    let record = deps.records.build(input.build_id).await?.ok_or(StepError::BuildMissing(input.build_id))?;
    let failure = failure(&record, &input.error, deps.clock.now());
    fail(deps, input.build_id, failure).await
}

/// Records that a build fails, and goes as far with its tear-down as it goes now. What the poller calls too.
///
/// # Errors
/// As [`run`].
pub async fn fail(deps: &Deps, id: BuildId, failure: Failure) -> Result<(), StepError> {
    let mut record = update(&*deps.records, id, |record| {
        if record.status.is_final() { Ok(()) } else { record.begin_clean_up(failure.clone()) }
    })
    .await?;
    go_on(deps, &mut record).await
}

/// Goes on with the tear-down of a build that fails, or that ended with something left.
///
/// # Errors
/// As [`run`].
pub async fn go_on(deps: &Deps, record: &mut BuildRecord) -> Result<(), StepError> {
    let before = record.clone();
    let outcome = tear_down(deps, record).await;
    if *record != before && deps.records.replace(record).await? == Write::Conflict {
        return Err(StepError::RecordContended);
    }
    match outcome? {
        0 => Ok(()),
        left => Err(StepError::LeftoversRemain(left)),
    }
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
    let stage = match record.phase {
        Phase::Queued | Phase::Preparing => Stage::PrepareBuild,
        Phase::Starting => Stage::StartRunner,
        Phase::RunningPacker | Phase::CleaningUp | Phase::Succeeded | Phase::Failed | Phase::TimedOut => {
            Stage::RunPacker
        }
    };
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
            Failure::of(Stage::RunPacker, "the build's runner gave no sign of life any more")
        }
        "PackerFailed" | "TemplateInvalid" | "RunnerFailed" => {
            match serde_json::from_str::<RunnerCause>(&caught.cause) {
                Ok(cause) => Failure {
                    stage: Stage::RunPacker,
                    step: cause.step,
                    message: cause.message,
                    last_log_lines: cause.last_log_lines,
                    timed_out: false,
                },
                Err(_) => internal(Stage::RunPacker),
            }
        }
        "TemplateRejected" => told(Stage::PrepareBuild),
        "ImageNotReady" | "ImageRejected" => told(Stage::FinishBuild),
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
            assert!(failure.timed_out);
        }
    }

    #[test]
    fn a_lost_heartbeat_is_no_time_out() {
        for name in ["States.HeartbeatTimeout", "States.Timeout"] {
            let failure = failed(name, "", DURING);
            assert!(!failure.timed_out && failure.message.contains("sign of life"), "{failure:?}");
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
