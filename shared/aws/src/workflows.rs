//! The state machine in Step Functions. An execution is named by its build, so that a build has at most one.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::types::ExecutionStatus;
use ciab_core::ids::BuildId;
use ciab_core::ports::{ExecutionState, PortError, Workflows};
use jiff::Timestamp;

use crate::failure::{Call, answered};
use crate::time::timestamp;

const SERVICE: &str = "states";
/// The most that ListExecutions gives at once.
const EXECUTIONS_PER_PAGE: i32 = 1_000;

const fn call(operation: &'static str) -> Call {
    Call { service: SERVICE, operation }
}

/// One state machine.
#[derive(Debug, Clone)]
pub struct StepFunctionsWorkflows {
    client: Client,
    state_machine_arn: String,
}

impl StepFunctionsWorkflows {
    /// The state machine with this ARN (`arn:…:stateMachine:<name>`).
    pub fn new(config: &SdkConfig, state_machine_arn: impl Into<String>) -> Self {
        Self { client: Client::new(config), state_machine_arn: state_machine_arn.into() }
    }

    fn execution_arn(&self, id: BuildId) -> String {
        format!("{}:{id}", self.state_machine_arn.replacen(":stateMachine:", ":execution:", 1))
    }
}

#[async_trait]
impl Workflows for StepFunctionsWorkflows {
    async fn start(&self, id: BuildId) -> Result<(), PortError> {
        let started = self
            .client
            .start_execution()
            .state_machine_arn(&self.state_machine_arn)
            .name(id.to_string())
            .input(serde_json::json!({ "build_id": id }).to_string())
            .send()
            .await;
        match started {
            Ok(_) => Ok(()),
            // It runs with another input, or has ended: either way it was started.
            Err(error) if answered(&error, &["ExecutionAlreadyExists"]) => Ok(()),
            Err(error) => Err(call("StartExecution").failed(error)),
        }
    }

    async fn running(&self) -> Result<BTreeMap<BuildId, Timestamp>, PortError> {
        let call = call("ListExecutions");
        let mut pages = self
            .client
            .list_executions()
            .state_machine_arn(&self.state_machine_arn)
            .status_filter(ExecutionStatus::Running)
            .into_paginator()
            .page_size(EXECUTIONS_PER_PAGE)
            .items()
            .send();
        let mut running = BTreeMap::new();
        while let Some(execution) = pages.next().await {
            let execution = execution.map_err(|error| call.failed(error))?;
            // Somebody may start one by hand, under a name that is no build's.
            let Ok(id) = execution.name.parse() else { continue };
            let since = timestamp(&execution.start_date);
            running.insert(id, since.ok_or_else(|| call.unreadable("a start is no time"))?);
        }
        Ok(running)
    }

    async fn state(&self, id: BuildId) -> Result<ExecutionState, PortError> {
        let described = self.client.describe_execution().execution_arn(self.execution_arn(id)).send().await;
        match described {
            Ok(execution) => Ok(match execution.status {
                ExecutionStatus::Running | ExecutionStatus::PendingRedrive => ExecutionState::Running {
                    since: timestamp(&execution.start_date)
                        .ok_or_else(|| call("DescribeExecution").unreadable("the start is no time"))?,
                },
                _ => ExecutionState::Ended,
            }),
            Err(error) if answered(&error, &["ExecutionDoesNotExist"]) => Ok(ExecutionState::Absent),
            Err(error) => Err(call("DescribeExecution").failed(error)),
        }
    }

    async fn stop(&self, id: BuildId) -> Result<(), PortError> {
        match self.client.stop_execution().execution_arn(self.execution_arn(id)).send().await {
            Ok(_) => Ok(()),
            Err(error) if answered(&error, &["ExecutionDoesNotExist"]) => Ok(()),
            Err(error) => Err(call("StopExecution").failed(error)),
        }
    }

    async fn ready(&self) -> Result<(), PortError> {
        self.client
            .describe_state_machine()
            .state_machine_arn(&self.state_machine_arn)
            .send()
            .await
            .map_err(|error| call("DescribeStateMachine").failed(error))?;
        Ok(())
    }
}
