//! The runner's line to the state machine: heartbeats while it works, one report at the end.

use std::sync::Arc;
use std::time::Duration;

use ciab_core::build::Artifact;
use ciab_core::ports::{PortError, TaskState, TaskTokens};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::failure::BuildFailure;
use crate::stop::{StopReason, StopSwitch};

/// How often the state machine hears of us, and we of it: a build that was cancelled pays for an instance until then. The
/// call costs nothing (only transitions are billed) and its quota takes thousands of builds. Far more often than
/// `HeartbeatSeconds`, so that some may be lost.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// When to ask again where nobody seems to wait.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long a token may take to become known after its bearer has started: whoever started us may not have returned yet.
const UNKNOWN_AT_FIRST: Duration = Duration::from_secs(60);
/// How long one call may take.
const LONGEST_CALL: Duration = Duration::from_secs(20);
/// How long a report is tried.
const LONGEST_REPORT: Duration = Duration::from_secs(120);

/// How the report went.
#[derive(Debug)]
pub enum Reported {
    /// The state machine has it.
    Yes,
    /// The state machine waits for it no longer.
    NobodyWaits,
    /// It could not be delivered.
    No(Option<PortError>),
}

/// Sends heartbeats until it is dropped; stops the build once it has heard twice that nobody waits for it any more.
pub async fn send_heartbeats(tasks: Arc<dyn TaskTokens>, token: String, switch: StopSwitch) {
    let may_be_unknown_until = Instant::now() + UNKNOWN_AT_FIRST;
    let mut was_known = false;
    let mut gone_before = false;
    loop {
        let mut pause = HEARTBEAT;
        match timeout(LONGEST_CALL, tasks.heartbeat(&token)).await {
            Ok(Ok(TaskState::Open)) => (was_known, gone_before) = (true, false),
            Ok(Ok(TaskState::Gone))
                if gone_before && (was_known || Instant::now() >= may_be_unknown_until) =>
            {
                switch.stop(StopReason::TaskGone);
                return;
            }
            Ok(Ok(TaskState::Gone)) => {
                gone_before = true;
                pause = ASK_AGAIN;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a heartbeat was not delivered");
            }
            Err(_) => tracing::warn!("a heartbeat was not answered in time"),
        }
        sleep(pause).await;
    }
}

/// Reports how the build ended, again and again until it is delivered or it is clear that it cannot be.
pub async fn report(
    tasks: &dyn TaskTokens,
    token: &str,
    result: &Result<Vec<Artifact>, BuildFailure>,
) -> Reported {
    let until = Instant::now() + LONGEST_REPORT;
    let mut pause = Duration::from_millis(200);
    let mut tried_before = false;
    loop {
        let call = async {
            match result {
                Ok(artifacts) => tasks.succeed(token, &json!({ "artifacts": artifacts })).await,
                Err(failure) => tasks.fail(token, failure.name.as_str(), &failure.cause()).await,
            }
        };
        let error = match timeout(LONGEST_CALL, call).await {
            Ok(Ok(TaskState::Open)) => return Reported::Yes,
            // An earlier try may have arrived and only its answer been lost.
            Ok(Ok(TaskState::Gone)) if tried_before => return Reported::Yes,
            Ok(Ok(TaskState::Gone)) => return Reported::NobodyWaits,
            Ok(Err(error @ (PortError::Refused { .. } | PortError::Unreadable { .. }))) => {
                return Reported::No(Some(error));
            }
            Ok(Err(error @ PortError::Unavailable { .. })) => Some(error),
            Err(_) => None,
        };
        if Instant::now() + pause > until {
            return Reported::No(error);
        }
        match &error {
            Some(error) => tracing::warn!(
                error = error as &dyn std::error::Error,
                "the report was not delivered; trying again"
            ),
            None => tracing::warn!("the report was not answered in time; trying again"),
        }
        tried_before = true;
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}
