//! `start-runner`: starts what runs Packer and hands it the task token.
//!
//! One build launches one runner: a repeated event finds the runner in the record, or, where the record was not written,
//! among the runners by the build's id, which is the order's idempotency token as well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::build::BuildRecord;
use crate::ids::BuildId;
use crate::ports::{Clock, Records, RunnerOrder, Runners};
use crate::step::{StepError, for_build, update};
use crate::task_token::TaskTokenDigest;

/// What it needs.
pub struct Deps {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Build records.
    pub records: Arc<dyn Records>,
    /// Where Packer runs.
    pub runners: Arc<dyn Runners>,
}

/// What the state machine hands over.
#[derive(Clone, Deserialize)]
pub struct Input {
    /// The build.
    pub build_id: BuildId,
    /// What the runner answers with. A secret: whoever has it can end the task.
    pub task_token: String,
}

/// What the state machine is answered; the runner's report is what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// The runner's id.
    pub runner_id: String,
}

/// Does the step.
///
/// # Errors
/// `RunnerUncertain` once a runner was asked for: the state machine must not try that again, since a new try has a new task token,
/// and a runner that was started all the same holds the old one. Otherwise those that every step has.
pub async fn run(deps: &Deps, input: Input) -> Result<Output, StepError> {
    for_build(input.build_id, start_runner(deps, input)).await
}

async fn start_runner(deps: &Deps, input: Input) -> Result<Output, StepError> {
    // The intent first: from here on there may be a runner, whatever happens to the answer.
    let now = deps.clock.now();
    // What the runner will be known by, too: it asks for its build's credentials as soon as it runs.
    let asked_before = AtomicBool::new(false);
    let token = TaskTokenDigest::of(&input.task_token);
    let record = update(&*deps.records, input.build_id, |record| {
        asked_before.store(record.runner_requested_at.is_some(), Ordering::Relaxed);
        record.runner_starting(now)?;
        record.runner_holds(token.clone())
    })
    .await?;
    if let Some(runner_id) = record.runner_id {
        return Ok(Output { runner_id });
    }
    let found = if asked_before.into_inner() { started_before(deps, &record).await? } else { None };
    let runner_id = match found {
        Some(runner_id) => runner_id,
        None => {
            let started = deps.runners.start(&order(&record, input.task_token)).await;
            started.map_err(|error| StepError::RunnerUncertain(Box::new(error.into())))?
        }
    };
    let noted =
        update(&*deps.records, input.build_id, |record| record.runner_started(runner_id.clone(), now)).await;
    if let Err(error) = noted {
        // The build ended in the meantime, or the record cannot be written: a runner that nobody knows must not go on.
        let stopped = deps.runners.stop(&runner_id).await.map_err(StepError::from);
        return Err(StepError::RunnerUncertain(Box::new(stopped.err().unwrap_or(error))));
    }
    tracing::info!(runner_id, "the build's runner was started");
    Ok(Output { runner_id })
}

/// The runner that an earlier, unfinished try of this step has started. The services' own idempotency would not do: CodeBuild
/// forgets a token after five minutes.
async fn started_before(deps: &Deps, record: &BuildRecord) -> Result<Option<String>, StepError> {
    let builds = BTreeSet::from([record.build_id]);
    let runners = deps.runners.of_builds(record.runner, &builds).await?;
    Ok(runners.into_values().flatten().next())
}

fn order(record: &BuildRecord, task_token: String) -> RunnerOrder {
    RunnerOrder {
        build_id: record.build_id,
        request_id: record.request_id.clone(),
        kind: record.runner,
        task_token,
        deadline: record.deadline.unwrap_or(record.created_at),
        timeout_secs: record.timeout_secs,
        region: record.region.clone(),
    }
}
