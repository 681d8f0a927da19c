//! EC2 in every region, and IAM, as far as builds need them.
//!
//! Must never judge what is ours: it finds, tells, and deletes what it is told to delete.

mod describe;
mod find;
mod iam;
mod resources;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{AttributeBooleanValue, InstanceStateName};
use ciab_core::ids::{ImageId, Region};
use ciab_core::ports::{Cloud, CloudImage, Deletion, PortError, Trace};
use ciab_core::resource::{Resource, ResourceKind};

use crate::failure::{Call, answered};
use iam::Iam;
use wanted::Wanted;

const SERVICE: &str = "ec2";

const fn call(operation: &'static str) -> Call {
    Call { service: SERVICE, operation }
}

/// EC2's ways of saying that something does not exist, or does not any more.
const GONE: [&str; 10] = [
    "InvalidAMIID.NotFound",
    "InvalidAMIID.Unavailable",
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidInstanceID.NotFound",
    "InvalidKeyPair.NotFound",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateName.NotFoundException",
    "InvalidSnapshot.NotFound",
    "InvalidVolume.NotFound",
];

/// EC2's ways of saying that something else still holds it.
const IN_USE: [&str; 5] =
    ["DependencyViolation", "InvalidGroup.InUse", "InvalidSnapshot.InUse", "VolumeInUse", "IncorrectState"];

/// EC2's way of saying that an instance is protected from termination.
const PROTECTED: [&str; 1] = ["OperationNotPermitted"];

/// EC2 in any region, with one client for each, and IAM.
#[derive(Debug)]
pub struct Ec2Cloud {
    config: SdkConfig,
    iam: Iam,
    clients: Mutex<HashMap<Region, Client>>,
}

impl Ec2Cloud {
    /// EC2 and IAM, asked with this configuration's credentials; its region does not matter.
    pub fn new(config: &SdkConfig) -> Self {
        Self { config: config.clone(), iam: Iam::new(config), clients: Mutex::default() }
    }

    fn client(&self, region: &Region) -> Client {
        // A panic elsewhere leaves the map as good as it was.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let region = aws_config::Region::new(region.to_string());
            Client::from_conf(aws_sdk_ec2::config::Builder::from(&self.config).region(region).build())
        };
        clients.entry(region.clone()).or_insert_with(make).clone()
    }
}

/// What an answer to a deletion says.
fn deletion<T, E>(
    operation: &'static str,
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> Result<Deletion, PortError>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match answer {
        Ok(_) => Ok(Deletion::Gone),
        Err(error) if answered(&error, &GONE) => Ok(Deletion::Gone),
        Err(error) if answered(&error, &IN_USE) => Ok(Deletion::InUse),
        Err(error) => Err(call(operation).failed(error)),
    }
}

/// Also an instance whose template has protected it from termination: it is a build's, and builds end.
async fn terminate(client: &Client, id: &str) -> Result<Deletion, PortError> {
    let operation = "TerminateInstances";
    let terminate = || client.terminate_instances().instance_ids(id).send();
    let mut answer = terminate().await;
    if answer.as_ref().is_err_and(|error| answered(error, &PROTECTED)) {
        let off = AttributeBooleanValue::builder().value(false).build();
        let unprotected =
            client.modify_instance_attribute().instance_id(id).disable_api_termination(off).send().await;
        unprotected.map_err(|error| call("ModifyInstanceAttribute").failed(error))?;
        answer = terminate().await;
    }
    match answer {
        Ok(answer) => {
            let states = answer.terminating_instances.unwrap_or_default();
            let terminated = states.iter().all(|change| {
                change.current_state().and_then(|state| state.name()) == Some(&InstanceStateName::Terminated)
            });
            Ok(if terminated { Deletion::Gone } else { Deletion::Going })
        }
        Err(error) => deletion::<(), _>(operation, Err(error)),
    }
}

#[async_trait]
impl Cloud for Ec2Cloud {
    async fn find(&self, region: &Region, traces: &[Trace<'_>]) -> Result<Vec<Resource>, PortError> {
        if traces.is_empty() {
            return Ok(Vec::new());
        }
        find::find(&self.client(region), &self.iam, region, &Wanted::of(traces)).await
    }

    async fn find_copies(&self, region: &Region, traces: &[Trace<'_>]) -> Result<Vec<Resource>, PortError> {
        if traces.is_empty() {
            return Ok(Vec::new());
        }
        find::find_copies(&self.client(region), region, &Wanted::of(traces)).await
    }

    async fn instances(&self, region: &Region, stack: &str) -> Result<Vec<Resource>, PortError> {
        find::instances(&self.client(region), region, stack).await
    }

    async fn of_stack(&self, region: &Region, stack: &str) -> Result<Vec<Resource>, PortError> {
        find::of_stack(&self.client(region), region, stack).await
    }

    async fn users_of(
        &self,
        region: &Region,
        images: &[ImageId],
    ) -> Result<BTreeMap<ImageId, BTreeSet<String>>, PortError> {
        find::users_of(&self.client(region), images).await
    }

    async fn delete(&self, resource: &Resource) -> Result<Deletion, PortError> {
        let client = self.client(&resource.region);
        let id = resource.id.as_str();
        match resource.kind {
            ResourceKind::Instance => terminate(&client, id).await,
            ResourceKind::Volume => {
                deletion("DeleteVolume", client.delete_volume().volume_id(id).send().await)
            }
            ResourceKind::SecurityGroup => {
                deletion("DeleteSecurityGroup", client.delete_security_group().group_id(id).send().await)
            }
            ResourceKind::KeyPair => {
                deletion("DeleteKeyPair", client.delete_key_pair().key_name(id).send().await)
            }
            ResourceKind::Image => {
                deletion("DeregisterImage", client.deregister_image().image_id(id).send().await)
            }
            ResourceKind::Snapshot => {
                deletion("DeleteSnapshot", client.delete_snapshot().snapshot_id(id).send().await)
            }
            ResourceKind::LaunchTemplate => {
                let deleted = client.delete_launch_template().launch_template_id(id).send().await;
                deletion("DeleteLaunchTemplate", deleted)
            }
            ResourceKind::InstanceProfile => self.iam.delete_instance_profile(id).await,
            ResourceKind::Role => self.iam.delete_role(id).await,
        }
    }

    async fn images(&self, region: &Region, ids: &[ImageId]) -> Result<Vec<CloudImage>, PortError> {
        let ids = ids.iter().map(ToString::to_string).collect();
        let images = describe::images(&self.client(region), describe::by("image-id", &ids)).await?;
        Ok(images.iter().filter_map(resources::cloud_image).collect())
    }

    async fn deregister(&self, region: &Region, id: &ImageId) -> Result<(), PortError> {
        match self.client(region).deregister_image().image_id(id.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error) if answered(&error, &GONE) => Ok(()),
            Err(error) => Err(call("DeregisterImage").failed(error)),
        }
    }

    async fn delete_snapshot(&self, region: &Region, id: &str) -> Result<(), PortError> {
        match self.client(region).delete_snapshot().snapshot_id(id).send().await {
            Ok(_) => Ok(()),
            Err(error) if answered(&error, &GONE) => Ok(()),
            Err(error) => Err(call("DeleteSnapshot").failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::error::ErrorMetadata;
    use aws_sdk_ec2::operation::delete_security_group::DeleteSecurityGroupError;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answer(code: &str) -> Result<Deletion, PortError> {
        let error = DeleteSecurityGroupError::generic(ErrorMetadata::builder().code(code).build());
        let raw = HttpResponse::new(400.try_into().unwrap(), SdkBody::empty());
        deletion("DeleteSecurityGroup", Err::<(), _>(SdkError::service_error(error, raw)))
    }

    #[test]
    fn what_is_gone_and_what_is_held_are_told_from_what_may_not_be_deleted() {
        assert_eq!(answer("InvalidGroup.NotFound").unwrap(), Deletion::Gone);
        assert_eq!(answer("DependencyViolation").unwrap(), Deletion::InUse);
        let refused = answer("UnauthorizedOperation").unwrap_err();
        assert!(matches!(&refused, PortError::Refused { code, .. } if code == "UnauthorizedOperation"));
    }
}
