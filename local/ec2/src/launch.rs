//! RunInstances: moto makes the instances, this gives each its files and its body.
//!
//! Corrects what moto lacks: it ignores ClientToken; launches MinCount instead of MaxCount instances; takes any key pair
//! name; keeps a root volume that a block device mapping only resizes; lets the network interface outlive the instance.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Response, StatusCode};
use xmltree::Element;

use crate::{
    answer::{self, items, text_at},
    base_images,
    body::Body,
    instance::{FirstBoot, Instance, Launch},
    moto::Caller,
    query::Query,
    registry::{Key, Layers},
    service::{Handled, Service},
    user_data,
};

/// The root device of every image there is here.
const ROOT_DEVICE: &str = "/dev/sda1";

/// How long an answer waits for an instance's sshd.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// The launches that came with a ClientToken. A second one waits for the first, then gets its instances.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    launches: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Option<TokenLaunch>>>>>,
}

#[derive(Debug)]
struct TokenLaunch {
    parameters: String,
    answer: Bytes,
}

/// What an image has for an instance to boot from.
enum BootSource {
    Layers(Layers),
    OtherArchitecture(&'static str),
    Nothing,
}

impl Service {
    pub(crate) async fn run_instances(self: &Arc<Self>, caller: &Caller, query: Query) -> Handled {
        let Some(token) = query.get("ClientToken").filter(|token| !token.is_empty()) else {
            return self.launch(caller, query).await;
        };
        let slot = {
            let mut launches = self.tokens.launches.lock().unwrap_or_else(PoisonError::into_inner);
            launches.entry(Key::new(&caller.region, token)).or_default().clone()
        };
        let mut slot = slot.lock().await;
        let parameters = query.encode();
        match slot.as_ref() {
            None => {
                let response = self.launch(caller, query).await?;
                if response.status().is_success() {
                    *slot = Some(TokenLaunch { parameters, answer: response.body().clone() });
                }
                Ok(response)
            }
            Some(first) if first.parameters != parameters => Ok(answer::error(
                StatusCode::BAD_REQUEST,
                "IdempotentParameterMismatch",
                "The client token was used before, with other parameters.",
            )),
            Some(first) => Ok(self.launched_before(caller, first).await),
        }
    }

    /// The first launch's answer, with the states of now.
    async fn launched_before(&self, caller: &Caller, first: &TokenLaunch) -> Response<Bytes> {
        let unchanged = || answer::xml(StatusCode::OK, first.answer.clone());
        let Some(mut root) = answer::parse(&first.answer) else { return unchanged() };
        for instance in answer::items_mut(&mut root, "instancesSet") {
            let Some(id) = text_at(instance, &["instanceId"]) else { continue };
            let question = Query::new("DescribeInstances").with("InstanceId.1", id);
            let Ok(described) = self.moto.call(caller, &question).await else { continue };
            let reservations = items(&described, "reservationSet");
            let mut now = reservations.iter().flat_map(|reservation| items(reservation, "instancesSet"));
            let state = now.find_map(|item| item.get_child("instanceState"));
            if let (Some(state), Some(shown)) = (state, instance.get_mut_child("instanceState")) {
                *shown = state.clone();
            }
        }
        answer::xml(StatusCode::OK, answer::write(&root))
    }

    async fn launch(self: &Arc<Self>, caller: &Caller, mut query: Query) -> Handled {
        self.apply_launch_template(caller, &mut query).await?;
        let public_key = match query.get("KeyName") {
            Some(name) => self.public_key(caller, name).await?,
            None => None,
        };
        if let Some(image) = query.get("ImageId")
            && self.cannot_host.is_none()
            && let BootSource::OtherArchitecture(architecture) = self.boot_source(&caller.region, image)
        {
            return Ok(answer::error(
                StatusCode::BAD_REQUEST,
                "Unsupported",
                &format!(
                    "This machine is {}: it can't host instances of an {architecture} image. Ask for an instance type \
                     and an image of its own architecture.",
                    base_images::architecture_of_this_machine()
                ),
            ));
        }
        launch_as_many_as_ec2_would(&mut query);
        delete_root_volume_with_instance(&mut query);
        let response = self.moto.send_query(caller, &query).await?;
        let Some(root) = answer::parse(response.body()).filter(|_| response.status().is_success()) else {
            return Ok(response);
        };
        let made_with = |instance: &Element| Made {
            image: text_at(instance, &["imageId"]).unwrap_or_default(),
            id: text_at(instance, &["instanceId"]).unwrap_or_default(),
            interfaces: items(instance, "networkInterfaceSet")
                .into_iter()
                .filter_map(|interface| text_at(interface, &["networkInterfaceId"]))
                // An interface that the caller brought along is the caller's to delete.
                .filter(|id| !query.encode().contains(id.as_str()))
                .collect(),
        };
        let made: Vec<Made> = items(&root, "instancesSet").into_iter().map(made_with).collect();
        let first_boot = FirstBoot {
            public_key,
            user_data: user_data::script(&query),
            has_profile: user_data::has_profile(&query),
        };
        join_all(made.into_iter().map(|made| self.give_body(caller, made, first_boot.clone()))).await;
        Ok(response)
    }

    async fn public_key(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<Option<String>, crate::moto::MotoError> {
        let question =
            Query::new("DescribeKeyPairs").with("KeyName.1", name).with("IncludePublicKey", "true");
        let root = self.moto.call(caller, &question).await?;
        Ok(items(&root, "keySet").first().and_then(|pair| text_at(pair, &["publicKey"])))
    }

    fn boot_source(&self, region: &str, image: &str) -> BootSource {
        match base_images::architecture_of(image) {
            Some(architecture) if architecture == base_images::architecture_of_this_machine() => {
                BootSource::Layers(Layers::new())
            }
            Some(architecture) => BootSource::OtherArchitecture(architecture),
            None => {
                let layers =
                    self.registry().images.get(&Key::new(region, image)).and_then(|i| i.layers.clone());
                layers.map_or(BootSource::Nothing, BootSource::Layers)
            }
        }
    }

    async fn give_body(self: &Arc<Self>, caller: &Caller, made: Made, first_boot: FirstBoot) {
        let key = Key::new(&caller.region, &made.id);
        let layers = match self.boot_source(&caller.region, &made.image) {
            BootSource::Layers(layers) if self.cannot_host.is_none() => Some(layers),
            _ => None,
        };
        if layers.is_none() {
            tracing::warn!(
                instance = made.id,
                image = made.image,
                "the instance exists in the API only: nothing to boot"
            );
        }
        let instance = Arc::new(Instance::new(
            Launch {
                address: self.assign_address(&key),
                key: key.clone(),
                caller: caller.clone(),
                interfaces: made.interfaces,
                layers,
                first_boot,
            },
            self.store.clone(),
        ));
        self.registry().instances.insert(key, instance.clone());
        if instance.hosted {
            let _life = instance.life.lock().await;
            self.boot(&instance).await;
            wait_for_sshd(&instance).await;
        }
    }

    /// Boots an instance, with its `life` held, and watches over it. An instance that can't boot is terminated, as EC2
    /// does with `Server.InternalError`.
    pub(crate) async fn boot(self: &Arc<Self>, instance: &Arc<Instance>) {
        match instance.boot().await {
            Ok(body) => {
                if self.is_stopped() {
                    body.kill().await;
                }
                tokio::spawn(watch(self.clone(), instance.clone(), body));
            }
            Err(error) => {
                tracing::error!(instance = instance.key.id, %error, "the instance can't be started");
                let (service, instance) = (self.clone(), instance.clone());
                tokio::spawn(async move { service.terminate_unasked(&instance).await });
            }
        }
    }
}

/// EC2 takes a second or two over a launch. Taking the tenth of one that sshd needs spares clients their second try, which
/// is 5 s away in Packer.
pub(crate) async fn wait_for_sshd(instance: &Instance) {
    if let Some(body) = instance.body() {
        // Ready, ended or late: whichever it is, the answer is the same.
        let _ = tokio::time::timeout(PATIENCE, body.ready()).await;
    }
}

/// An instance that moto has made.
struct Made {
    id: String,
    image: String,
    interfaces: Vec<String>,
}

/// Acts on a body that ends without anyone having asked for it.
async fn watch(service: Arc<Service>, instance: Arc<Instance>, body: Arc<Body>) {
    let started = std::time::Instant::now();
    let became_ready = body.ready().await;
    if became_ready {
        let milliseconds = started.elapsed().as_millis();
        tracing::info!(instance = instance.key.id, address = %instance.address, milliseconds, "the instance's sshd answers");
    }
    body.ended().await;
    if body.is_ending() || service.is_stopped() {
        return;
    }
    if became_ready {
        tracing::info!(instance = instance.key.id, "the instance shut itself down");
        service.shut_down_from_within(&instance).await;
    } else {
        tracing::error!(
            instance = instance.key.id,
            console = instance.console_tail(),
            "the instance did not boot; it is terminated"
        );
        service.terminate_unasked(&instance).await;
    }
}

/// EC2 launches as many instances as it can between MinCount and MaxCount; moto launches MinCount.
fn launch_as_many_as_ec2_would(query: &mut Query) {
    if let Some(most) = query.get("MaxCount").map(str::to_owned) {
        query.set("MinCount", most);
    }
}

/// Unless the caller says otherwise, EC2 deletes a root volume with its instance; moto keeps every volume that a block
/// device mapping mentions.
fn delete_root_volume_with_instance(query: &mut Query) {
    for mapping in query.structures("BlockDeviceMapping") {
        let choice = format!("{mapping}.Ebs.DeleteOnTermination");
        if query.get(&format!("{mapping}.DeviceName")) == Some(ROOT_DEVICE) && query.get(&choice).is_none() {
            query.set(choice, "true");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resized_root_volume_still_goes_with_its_instance() {
        let mut query = Query::parse(
            None,
            b"BlockDeviceMapping.1.DeviceName=/dev/sda1&BlockDeviceMapping.1.Ebs.VolumeSize=20\
              &BlockDeviceMapping.2.DeviceName=/dev/sdb&BlockDeviceMapping.2.Ebs.VolumeSize=20",
        );
        delete_root_volume_with_instance(&mut query);
        assert!(query.is_true("BlockDeviceMapping.1.Ebs.DeleteOnTermination"));
        assert_eq!(query.get("BlockDeviceMapping.2.Ebs.DeleteOnTermination"), None);
    }

    #[test]
    fn a_root_volume_that_the_caller_wants_to_keep_is_kept() {
        let mut query = Query::parse(
            None,
            b"BlockDeviceMapping.1.DeviceName=/dev/sda1&BlockDeviceMapping.1.Ebs.DeleteOnTermination=false",
        );
        delete_root_volume_with_instance(&mut query);
        assert!(!query.is_true("BlockDeviceMapping.1.Ebs.DeleteOnTermination"));
    }
}
