//! `start-runner`: starts what runs Packer and hands it the task token.
//!
//! One build launches one runner: a repeated event finds the runner in the record, or, where the record was not written,
//! gets the same runner from CodeBuild by the build's id.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::BuildId;
use crate::ports::{Records, RunnerOrder, Runners};
use crate::step::{StepError, update};

/// What it needs.
pub struct Deps {
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
/// Those that every step has.
pub async fn run(deps: &Deps, input: Input) -> Result<Output, StepError> {
    // The intent first: from here on there may be a runner, whatever happens to the answer.
    let record = update(&*deps.records, input.build_id, crate::build::BuildRecord::runner_starting).await?;
    if let Some(runner_id) = record.runner_id {
        return Ok(Output { runner_id });
    }
    let order = RunnerOrder {
        build_id: record.build_id,
        kind: record.runner,
        task_token: input.task_token,
        deadline: record.deadline.unwrap_or(record.created_at),
        timeout_secs: record.timeout_secs,
        region: record.region.clone(),
    };
    let runner_id = deps.runners.start(&order).await?;
    let noted =
        update(&*deps.records, input.build_id, |record| record.runner_started(runner_id.clone())).await;
    if let Err(error) = noted {
        // The build ended in the meantime, or the record cannot be written: a runner that nobody knows must not go on.
        deps.runners.stop(&runner_id).await?;
        return Err(error);
    }
    Ok(Output { runner_id })
}
