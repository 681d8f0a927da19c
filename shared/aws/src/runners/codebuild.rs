//! Runners on CodeBuild: builds of the stack's project.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_codebuild::Client;
use aws_sdk_codebuild::types::{
    Build, EnvironmentVariable, EnvironmentVariableType, SortOrderType, StatusType,
};
use ciab_core::build::RunnerKind;
use ciab_core::ids::BuildId;
use ciab_core::ports::{PortError, RunnerOrder, RunnerState, Runners};
use futures::future::try_join_all;
use jiff::Timestamp;

use crate::failure::{Call, answered};
use crate::time::timestamp;

const SERVICE: &str = "codebuild";
/// How many ids BatchGetBuilds takes.
const IDS_PER_CALL: usize = 100;
/// How many of the project's builds are looked through for a runner that was never noted, in pages of a hundred: such a
/// runner was started within the last minutes, and the newest come first.
const PAGES_OF_BUILDS: usize = 10;
/// The variable that tells a runner its build.
const BUILD_ID: &str = "CIAB_BUILD_ID";
/// The variable that tells a runner what its log lines name beside the build.
const REQUEST_ID: &str = "CIAB_REQUEST_ID";
/// What CodeBuild takes as a time-out, in minutes.
const TIMEOUT_MINUTES: (i32, i32) = (5, 2160);
/// Minutes beyond the build's own time-out, in which the runner cleans up and reports. CodeBuild's limit is only for a
/// runner that hangs.
const MINUTES_TO_REPORT: u32 = 2;

const fn call(operation: &'static str) -> Call {
    Call { service: SERVICE, operation }
}

/// One CodeBuild project.
#[derive(Debug, Clone)]
pub struct CodeBuildRunners {
    client: Client,
    project: String,
}

impl CodeBuildRunners {
    /// The project with this name.
    pub fn new(config: &SdkConfig, project: impl Into<String>) -> Self {
        Self { client: Client::new(config), project: project.into() }
    }

    /// CodeBuild's builds by id; those that do not exist are left out.
    async fn described(&self, ids: &[String]) -> Result<Vec<Build>, PortError> {
        let answers = try_join_all(ids.chunks(IDS_PER_CALL).map(async |chunk| {
            self.client
                .batch_get_builds()
                .set_ids(Some(chunk.to_vec()))
                .send()
                .await
                .map_err(|error| call("BatchGetBuilds").failed(error))
        }))
        .await?;
        Ok(answers.into_iter().flat_map(|answer| answer.builds.unwrap_or_default()).collect())
    }
}

#[async_trait]
impl Runners for CodeBuildRunners {
    async fn start(&self, order: &RunnerOrder) -> Result<String, PortError> {
        let call = call("StartBuild");
        let started = self
            .client
            .start_build()
            .project_name(&self.project)
            .idempotency_token(order.build_id.to_string())
            .timeout_in_minutes_override(timeout_minutes(order.timeout_secs))
            .set_environment_variables_override(Some(environment(order, call)?))
            .send()
            .await
            .map_err(|error| call.failed(error))?;
        started.build_value.and_then(|build| build.id).ok_or_else(|| call.unreadable("the build has no id"))
    }

    async fn of_builds(
        &self,
        kind: RunnerKind,
        builds: &BTreeSet<BuildId>,
    ) -> Result<BTreeMap<BuildId, BTreeSet<String>>, PortError> {
        let mut found: BTreeMap<BuildId, BTreeSet<String>> = BTreeMap::new();
        if kind != RunnerKind::Codebuild || builds.is_empty() {
            return Ok(found);
        }
        let mut next = None;
        for _ in 0..PAGES_OF_BUILDS {
            let page = self
                .client
                .list_builds_for_project()
                .project_name(&self.project)
                .sort_order(SortOrderType::Descending)
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| call("ListBuildsForProject").failed(error))?;
            for runner in self.described(page.ids()).await? {
                if let (Some(build), Some(id)) = (build_of(&runner), &runner.id)
                    && builds.contains(&build)
                {
                    found.entry(build).or_default().insert(id.clone());
                }
            }
            next = page.next_token;
            if next.is_none() {
                break;
            }
        }
        Ok(found)
    }

    async fn states(&self, ids: &BTreeSet<String>) -> Result<BTreeMap<String, RunnerState>, PortError> {
        let all: Vec<String> = ids.iter().cloned().collect();
        let builds = self.described(&all).await?;
        let mut states: BTreeMap<String, RunnerState> =
            ids.iter().map(|id| (id.clone(), RunnerState::Absent)).collect();
        for build in builds {
            let state = state(&build);
            if let Some(id) = build.id {
                states.insert(id, state);
            }
        }
        Ok(states)
    }

    async fn stop(&self, id: &str) -> Result<(), PortError> {
        match self.client.stop_build().id(id).send().await {
            Ok(_) => Ok(()),
            Err(error) if answered(&error, &["ResourceNotFoundException"]) => Ok(()),
            Err(error) => Err(call("StopBuild").failed(error)),
        }
    }
}

/// From the time-out and not from the deadline: the same order gives the same request, whenever it is repeated.
fn timeout_minutes(timeout_secs: u32) -> i32 {
    let minutes = timeout_secs.div_ceil(60).saturating_add(MINUTES_TO_REPORT);
    i32::try_from(minutes).unwrap_or(i32::MAX).clamp(TIMEOUT_MINUTES.0, TIMEOUT_MINUTES.1)
}

fn environment(order: &RunnerOrder, call: Call) -> Result<Vec<EnvironmentVariable>, PortError> {
    [
        (BUILD_ID, order.build_id.to_string()),
        ("CIAB_TASK_TOKEN", order.task_token.clone()),
        ("CIAB_DEADLINE", order.deadline.to_string()),
        ("CIAB_TIMEOUT_SECS", order.timeout_secs.to_string()),
        ("CIAB_REGION", order.region.to_string()),
    ]
    .into_iter()
    .chain(order.request_id.iter().map(|id| (REQUEST_ID, id.to_string())))
    .map(|(name, value)| {
        EnvironmentVariable::builder()
            .name(name)
            .value(value)
            .r#type(EnvironmentVariableType::Plaintext)
            .build()
            .map_err(|error| call.refused("RequestNotBuilt", error))
    })
    .collect()
}

/// The build that a runner was started for, as it was told.
fn build_of(runner: &Build) -> Option<BuildId> {
    let variables = runner.environment.as_ref()?.environment_variables();
    variables.iter().find(|variable| variable.name == BUILD_ID)?.value.parse().ok()
}

fn state(build: &Build) -> RunnerState {
    match build.build_status {
        None | Some(StatusType::InProgress) => RunnerState::Running,
        Some(ref status) => RunnerState::Ended {
            // CodeBuild always tells. Long ago where it does not: no grace is owed to a runner that surely has ended.
            at: build.end_time.as_ref().and_then(timestamp).unwrap_or(Timestamp::UNIX_EPOCH),
            reported: *status == StatusType::Succeeded,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> RunnerOrder {
        RunnerOrder {
            build_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            request_id: "JKJaXmPLvHcESHA=".parse().ok(),
            kind: ciab_core::build::RunnerKind::Codebuild,
            task_token: "token".into(),
            deadline: "2026-03-25T15:00:05Z".parse().unwrap(),
            timeout_secs: 1800,
            region: "us-east-1".parse().unwrap(),
        }
    }

    #[test]
    fn the_runner_is_told_all_that_it_needs_by_its_environment() {
        let variables: BTreeMap<String, String> = environment(&order(), call("StartBuild"))
            .unwrap()
            .into_iter()
            .map(|variable| (variable.name, variable.value))
            .collect();
        let expected = [
            ("CIAB_BUILD_ID", "550e8400-e29b-41d4-a716-446655440000"),
            ("CIAB_DEADLINE", "2026-03-25T15:00:05Z"),
            ("CIAB_REGION", "us-east-1"),
            ("CIAB_REQUEST_ID", "JKJaXmPLvHcESHA="),
            ("CIAB_TASK_TOKEN", "token"),
            ("CIAB_TIMEOUT_SECS", "1800"),
        ];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_runner_is_told_of_no_request_that_nobody_knows() {
        let order = RunnerOrder { request_id: None, ..order() };
        let variables = environment(&order, call("StartBuild")).unwrap();
        assert!(variables.iter().all(|variable| variable.name != REQUEST_ID), "{variables:?}");
    }

    #[test]
    fn codebuilds_time_out_lies_beyond_the_builds_own_and_within_its_limits() {
        assert_eq!(timeout_minutes(1800), 32);
        assert_eq!(timeout_minutes(1801), 33);
        assert_eq!(timeout_minutes(1), 5);
        assert_eq!(timeout_minutes(u32::MAX), 2160);
    }

    #[test]
    fn only_a_runner_that_succeeded_has_reported() {
        let ended = |status: StatusType| {
            let end = aws_sdk_codebuild::primitives::DateTime::from_secs(1_774_450_000);
            state(&Build::builder().id("runner:1").build_status(status).end_time(end).build())
        };
        let at = Timestamp::from_second(1_774_450_000).unwrap();
        assert_eq!(ended(StatusType::Succeeded), RunnerState::Ended { at, reported: true });
        for status in [StatusType::Failed, StatusType::Fault, StatusType::Stopped, StatusType::TimedOut] {
            assert_eq!(ended(status), RunnerState::Ended { at, reported: false });
        }
        assert_eq!(ended(StatusType::InProgress), RunnerState::Running);
    }
}
