//! Runners on EC2: an instance from the stack's launch template that lives as long as its build.
//!
//! Must never start an instance that does not carry the stack's tags: by them it is found, and by them alone it may go.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceStateName, LaunchTemplateSpecification, ResourceType, Tag, TagSpecification,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciab_core::build::RunnerKind;
use ciab_core::ids::BuildId;
use ciab_core::life::STOP_GRACE;
use ciab_core::ports::{PortError, RunnerOrder, RunnerState, Runners};
use ciab_core::resource::tag;
use futures::future::try_join_all;
use jiff::Timestamp;

use super::user_data::user_data;
use crate::failure::{Call, answered};

const SERVICE: &str = "ec2";
/// How many values a filter of DescribeInstances takes.
const VALUES_PER_FILTER: usize = 200;

const fn call(operation: &'static str) -> Call {
    Call { service: SERVICE, operation }
}

/// What a runner on EC2 is started from.
#[derive(Debug, Clone)]
pub struct Ec2RunnerSettings {
    /// The launch template's name.
    pub launch_template: String,
    /// The stack's name.
    pub stack: String,
    /// The stack's bucket, where the runner's program is.
    pub bucket: String,
    /// The program's SHA-256 in hexadecimal digits; without it, it is not checked.
    pub runner_sha256: Option<String>,
    /// The runner's log filter.
    pub log_filter: String,
    /// What else the runner is told, by the names of its variables.
    pub variables: Vec<(&'static str, String)>,
}

/// Instances of one launch template, in the stack's own region.
#[derive(Debug, Clone)]
pub struct Ec2Runners {
    client: Client,
    region: String,
    settings: Ec2RunnerSettings,
}

impl Ec2Runners {
    /// Runners that are started from these settings.
    pub fn new(config: &SdkConfig, settings: Ec2RunnerSettings) -> Self {
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        Self { client: Client::new(config), region, settings }
    }

    /// All instances that a filter with these values finds, terminated ones too, as long as EC2 shows them.
    async fn instances(&self, filter: &str, values: Vec<String>) -> Result<Vec<Instance>, PortError> {
        let answers = try_join_all(values.chunks(VALUES_PER_FILTER).map(async |values| {
            let by_value = Filter::builder().name(filter).set_values(Some(values.to_vec())).build();
            let of_stack = Filter::builder().name(format!("tag:{}", tag::STACK)).values(&self.settings.stack);
            let mut pages = self
                .client
                .describe_instances()
                .filters(by_value)
                .filters(of_stack.build())
                .into_paginator()
                .send();
            let mut found = Vec::new();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| call("DescribeInstances").failed(error))?;
                let reservations = page.reservations.unwrap_or_default();
                found.extend(reservations.into_iter().flat_map(|found| found.instances.unwrap_or_default()));
            }
            Ok::<_, PortError>(found)
        }))
        .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// The same tags on all that the launch makes.
    fn tags(&self, order: &RunnerOrder) -> Vec<TagSpecification> {
        let end = order.deadline + STOP_GRACE;
        let tags = [
            (tag::MANAGED, "true".to_owned()),
            (tag::STACK, self.settings.stack.clone()),
            (tag::RUNNER_OF, order.build_id.to_string()),
            (tag::EXPIRES_AT, Timestamp::from_second(end.as_second()).unwrap_or(end).to_string()),
        ];
        let tags: Vec<Tag> =
            tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        [ResourceType::Instance, ResourceType::Volume]
            .into_iter()
            .map(|kind| TagSpecification::builder().resource_type(kind).set_tags(Some(tags.clone())).build())
            .collect()
    }

    async fn of_build(&self, build: BuildId) -> Result<Option<String>, PortError> {
        let runners = self.of_builds(RunnerKind::Ec2, &BTreeSet::from([build])).await?;
        Ok(runners.into_values().flatten().next())
    }
}

#[async_trait]
impl Runners for Ec2Runners {
    async fn start(&self, order: &RunnerOrder) -> Result<String, PortError> {
        let call = call("RunInstances");
        let script = user_data(order, &self.region, &self.settings)
            .map_err(|error| call.refused("RequestNotBuilt", error))?;
        let launch_template = LaunchTemplateSpecification::builder()
            .launch_template_name(&self.settings.launch_template)
            // CloudFormation makes a new version where it changes one, and leaves the default at the first.
            .version("$Latest")
            .build();
        let started = self
            .client
            .run_instances()
            .client_token(order.build_id.to_string())
            .launch_template(launch_template)
            .min_count(1)
            .max_count(1)
            .user_data(STANDARD.encode(script))
            .set_tag_specifications(Some(self.tags(order)))
            .send()
            .await;
        match started {
            Ok(started) => started
                .instances
                .and_then(|instances| instances.into_iter().next())
                .and_then(|instance| instance.instance_id)
                .ok_or_else(|| call.unreadable("the instance has no id")),
            // Asked before with other settings, which a deployment has changed since: the runner is there.
            Err(error) if answered(&error, &["IdempotentParameterMismatch"]) => {
                self.of_build(order.build_id).await?.ok_or_else(|| call.failed(error))
            }
            Err(error) => Err(call.failed(error)),
        }
    }

    async fn of_builds(
        &self,
        kind: RunnerKind,
        builds: &BTreeSet<BuildId>,
    ) -> Result<BTreeMap<BuildId, BTreeSet<String>>, PortError> {
        let mut runners: BTreeMap<BuildId, BTreeSet<String>> = BTreeMap::new();
        if kind != RunnerKind::Ec2 {
            return Ok(runners);
        }
        let ids = builds.iter().map(ToString::to_string).collect();
        for instance in self.instances(&format!("tag:{}", tag::RUNNER_OF), ids).await? {
            if let Some(build) = build_of(&instance)
                && let Some(id) = instance.instance_id
            {
                runners.entry(build).or_default().insert(id);
            }
        }
        Ok(runners)
    }

    async fn states(&self, ids: &BTreeSet<String>) -> Result<BTreeMap<String, RunnerState>, PortError> {
        let mut states: BTreeMap<String, RunnerState> =
            ids.iter().map(|id| (id.clone(), RunnerState::Absent)).collect();
        for instance in self.instances("instance-id", ids.iter().cloned().collect()).await? {
            let state = state(&instance);
            if let Some(id) = instance.instance_id {
                states.insert(id, state);
            }
        }
        Ok(states)
    }

    async fn stop(&self, id: &str) -> Result<(), PortError> {
        match self.client.terminate_instances().instance_ids(id).send().await {
            Ok(_) => Ok(()),
            Err(error) if answered(&error, &["InvalidInstanceID.NotFound"]) => Ok(()),
            Err(error) => Err(call("TerminateInstances").failed(error)),
        }
    }
}

/// None for what a build has made, which is no runner whatever else it says of itself.
fn build_of(instance: &Instance) -> Option<BuildId> {
    let value = |key| instance.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value());
    if value(tag::BUILD_ID).is_some() {
        return None;
    }
    value(tag::RUNNER_OF)?.parse().ok()
}

/// An instance that has only stopped is still there, with its disk.
fn state(instance: &Instance) -> RunnerState {
    match instance.state().and_then(|state| state.name()) {
        Some(InstanceStateName::Terminated) => RunnerState::Ended {
            // An instance that switched itself off does not say when. Long ago then: it is shown as shutting down for
            // longer than any grace that is owed to a runner.
            at: instance.state_transition_reason().and_then(ended_at).unwrap_or(Timestamp::UNIX_EPOCH),
            // How its program ended is not told by an instance.
            reported: false,
        },
        _ => RunnerState::Running,
    }
}

/// The time in `User initiated (2026-03-25 14:30:05 GMT)`.
fn ended_at(reason: &str) -> Option<Timestamp> {
    let (_, time) = reason.split_once('(')?;
    let time = time.split_once(')')?.0;
    let time = time.strip_suffix(" GMT").or_else(|| time.strip_suffix(" UTC"))?;
    format!("{time}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::InstanceState;

    use super::*;

    fn instance(name: InstanceStateName, reason: &str) -> Instance {
        let state = InstanceState::builder().name(name).build();
        Instance::builder().state(state).state_transition_reason(reason).build()
    }

    #[test]
    fn only_a_terminated_instance_has_ended() {
        for name in [
            InstanceStateName::Pending,
            InstanceStateName::Running,
            InstanceStateName::Stopping,
            InstanceStateName::Stopped,
            InstanceStateName::ShuttingDown,
        ] {
            assert_eq!(state(&instance(name, "")), RunnerState::Running);
        }
        let at = "2026-03-25T14:30:05Z".parse().unwrap();
        let ended =
            state(&instance(InstanceStateName::Terminated, "User initiated (2026-03-25 14:30:05 GMT)"));
        assert_eq!(ended, RunnerState::Ended { at, reported: false });
        let by_itself = state(&instance(InstanceStateName::Terminated, ""));
        assert_eq!(by_itself, RunnerState::Ended { at: Timestamp::UNIX_EPOCH, reported: false });
    }
}
