//! The runner's line to the state machine.
//!
//! Must never write a token to a log or an error: whoever has it can end the build's task.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::config::http::HttpResponse;
use aws_sdk_sfn::error::{ProvideErrorMetadata, SdkError};
use ciab_core::ports::{PortError, TaskState, TaskTokens};

use crate::failure::{Call, answered};

/// Nobody waits for the token: its task has timed out, its execution has ended, or it never was one.
const NOBODY_WAITS: [&str; 3] = ["TaskTimedOut", "TaskDoesNotExist", "InvalidToken"];

/// Step Functions' task tokens.
#[derive(Debug, Clone)]
pub struct StepFunctionsTaskTokens {
    client: Client,
}

impl StepFunctionsTaskTokens {
    /// Step Functions in the configuration's region.
    pub fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(config) }
    }
}

fn state<T, E>(
    operation: &'static str,
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> Result<TaskState, PortError>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match answer {
        Ok(_) => Ok(TaskState::Open),
        Err(error) if answered(&error, &NOBODY_WAITS) => Ok(TaskState::Gone),
        Err(error) => Err(Call { service: "states", operation }.failed(error)),
    }
}

#[async_trait]
impl TaskTokens for StepFunctionsTaskTokens {
    async fn heartbeat(&self, token: &str) -> Result<TaskState, PortError> {
        state("SendTaskHeartbeat", self.client.send_task_heartbeat().task_token(token).send().await)
    }

    async fn succeed(&self, token: &str, output: &serde_json::Value) -> Result<TaskState, PortError> {
        let request = self.client.send_task_success().task_token(token).output(output.to_string());
        state("SendTaskSuccess", request.send().await)
    }

    async fn fail(&self, token: &str, error: &str, cause: &str) -> Result<TaskState, PortError> {
        let request = self.client.send_task_failure().task_token(token).error(error).cause(cause);
        state("SendTaskFailure", request.send().await)
    }
}
