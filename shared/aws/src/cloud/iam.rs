//! IAM's roles and instance profiles, by name.
//!
//! Must never list what the account has: only what something names is asked for. What is not there is left out, and counts as
//! deleted.

use std::error::Error;

use aws_config::SdkConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::config::http::HttpResponse;
use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_iam::types::{InstanceProfile, Role};
use ciab_core::ports::{Deletion, PortError};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::wanted::Ids;
use crate::failure::{Call, answered};

/// How many names are asked for at once.
const NAMES_AT_ONCE: usize = 4;
const GONE: &[&str] = &["NoSuchEntity"];
const IN_USE: &[&str] = &["DeleteConflict"];

const fn call(operation: &'static str) -> Call {
    Call { service: "iam", operation }
}

/// IAM of the account: one for all regions.
#[derive(Debug)]
pub(super) struct Iam {
    client: Client,
}

impl Iam {
    pub(super) fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(config) }
    }

    pub(super) async fn instance_profiles(&self, names: &Ids) -> Result<Vec<InstanceProfile>, PortError> {
        let asked: Vec<_> = names.iter().map(|name| self.instance_profile(name.clone())).collect();
        let found: Vec<_> = stream::iter(asked).buffered(NAMES_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Roles, each with the names of the instance profiles that hold it.
    pub(super) async fn roles(&self, names: &Ids) -> Result<Vec<(Role, Ids)>, PortError> {
        let asked: Vec<_> = names.iter().map(|name| self.role(name.clone())).collect();
        let found: Vec<_> = stream::iter(asked).buffered(NAMES_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn instance_profile(&self, name: String) -> Result<Option<InstanceProfile>, PortError> {
        let answer = self.client.get_instance_profile().instance_profile_name(name).send().await;
        Ok(there("GetInstanceProfile", answer)?.and_then(|answer| answer.instance_profile))
    }

    async fn role(&self, name: String) -> Result<Option<(Role, Ids)>, PortError> {
        let answer = self.client.get_role().role_name(&name).send().await;
        let Some(role) = there("GetRole", answer)?.and_then(|answer| answer.role) else { return Ok(None) };
        let holders = self.client.list_instance_profiles_for_role().role_name(name).into_paginator().items();
        let holders = holders.send().collect::<Result<Vec<_>, _>>().await;
        let holders = there("ListInstanceProfilesForRole", holders)?.unwrap_or_default();
        Ok(Some((role, holders.into_iter().map(|profile| profile.instance_profile_name).collect())))
    }

    /// Takes the role out of the profile first: IAM deletes no profile that holds one.
    pub(super) async fn delete_instance_profile(&self, name: &str) -> Result<Deletion, PortError> {
        let Some(profile) = self.instance_profile(name.to_owned()).await? else { return Ok(Deletion::Gone) };
        for role in profile.roles() {
            let removal = self.client.remove_role_from_instance_profile().instance_profile_name(name);
            there("RemoveRoleFromInstanceProfile", removal.role_name(role.role_name()).send().await)?;
        }
        let deleted = self.client.delete_instance_profile().instance_profile_name(name).send().await;
        deletion("DeleteInstanceProfile", deleted)
    }

    /// Takes the policies from the role first: IAM deletes no role that has one.
    pub(super) async fn delete_role(&self, name: &str) -> Result<Deletion, PortError> {
        let inline = self.client.list_role_policies().role_name(name).into_paginator().items().send();
        let inline = there("ListRolePolicies", inline.collect::<Result<Vec<_>, _>>().await)?;
        for policy in inline.unwrap_or_default() {
            let removal = self.client.delete_role_policy().role_name(name).policy_name(policy);
            there("DeleteRolePolicy", removal.send().await)?;
        }
        let attached = self.client.list_attached_role_policies().role_name(name).into_paginator().items();
        let attached = attached.send().collect::<Result<Vec<_>, _>>().await;
        for policy in there("ListAttachedRolePolicies", attached)?.unwrap_or_default() {
            let removal = self.client.detach_role_policy().role_name(name).set_policy_arn(policy.policy_arn);
            there("DetachRolePolicy", removal.send().await)?;
        }
        deletion("DeleteRole", self.client.delete_role().role_name(name).send().await)
    }
}

/// The answer, or none where IAM says that there is no such thing.
fn there<T, E>(
    operation: &'static str,
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> Result<Option<T>, PortError>
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if answered(&error, GONE) => Ok(None),
        Err(error) => Err(call(operation).failed(error)),
    }
}

fn deletion<T, E>(
    operation: &'static str,
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> Result<Deletion, PortError>
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match answer {
        Err(error) if answered(&error, IN_USE) => Ok(Deletion::InUse),
        answer => there(operation, answer).map(|_| Deletion::Gone),
    }
}
