//! Images and snapshots: what CreateImage keeps, and who still needs it.
//!
//! Corrects what moto lacks, each said where it is done.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use http::{Response, StatusCode};
use xmltree::XMLNode;

use crate::{
    answer::{self, items, items_mut, set_text, text_at},
    instance::Instance,
    moto::{Caller, MotoError},
    query::Query,
    registry::{Image, Key, Layers},
    service::{Handled, Service},
};

/// moto's one account.
const ACCOUNT: &str = "123456789012";
/// Says that nothing was provisioned in an image.
const NOT_PROVISIONED: (&str, &str) = ("ciab:provisioned", "false");

impl Service {
    pub(crate) async fn create_image(self: &Arc<Self>, caller: &Caller, mut query: Query) -> Handled {
        let name = query.get("Name").unwrap_or_default().to_owned();
        // moto takes a name any number of times.
        if let Some(taken) = self.image_named(caller, &name).await? {
            return Ok(answer::error(
                StatusCode::BAD_REQUEST,
                "InvalidAMIName.Duplicate",
                &format!("AMI name {name} is already in use by AMI {taken}"),
            ));
        }
        // moto fails with an error of its own on tags for snapshots.
        let snapshot_tags = query.take_tags("snapshot");
        let response = self.moto.send_query(caller, &query).await?;
        let Some(image) = image_id_in(&response) else { return Ok(response) };
        let instance = query.get("InstanceId").and_then(|id| self.instance(&Key::new(&caller.region, id)));
        let layers = match instance.filter(|instance| instance.hosted) {
            Some(instance) => match self.keep_layer(&instance, query.is_true("NoReboot")).await {
                Ok(layers) => Some(layers),
                Err(error) => {
                    tracing::error!(image, %error, "what the instance wrote could not be kept");
                    self.withdraw_image(caller, &image).await?;
                    return Ok(answer::error(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "InternalError",
                        &format!("The instance's files could not be kept: {error}"),
                    ));
                }
            },
            None => None,
        };
        let is_provisioned = layers.is_some();
        let source = self.image_of_instance(caller, query.get("InstanceId").unwrap_or_default()).await?;
        let snapshots = self.record_image(caller, &image, layers, source).await?;
        self.create_tags(caller, &snapshots, &snapshot_tags).await?;
        if !is_provisioned {
            let (key, value) = NOT_PROVISIONED;
            self.create_tags(caller, &[image], &[(key.to_owned(), value.to_owned())]).await?;
        }
        Ok(response)
    }

    /// Makes what the instance wrote a layer, stopping and starting it around that unless `no_reboot`.
    async fn keep_layer(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        no_reboot: bool,
    ) -> std::io::Result<Layers> {
        let _life = instance.life.lock().await;
        let layer = self.registry().new_layer();
        let below = instance.layers();
        let was_alive = instance.is_alive();
        if was_alive && no_reboot {
            instance.copy_to(layer).await?;
        } else {
            if was_alive {
                instance.shut_down().await;
            }
            let frozen = instance.freeze(layer).await;
            if was_alive {
                self.boot(instance).await;
            }
            frozen?;
        }
        self.registry().add_layer(layer);
        Ok([layer].into_iter().chain(below).collect())
    }

    /// The image that has a name already.
    async fn image_named(&self, caller: &Caller, name: &str) -> Result<Option<String>, MotoError> {
        let question = Query::new("DescribeImages")
            .with("Owner.1", "self")
            .with("Filter.1.Name", "name")
            .with("Filter.1.Value.1", name);
        let root = self.moto.call(caller, &question).await?;
        // The filter takes `*` and `?` for wildcards, which no name has to have.
        let mut images = items(&root, "imagesSet").into_iter();
        let same = images.find(|image| text_at(image, &["name"]).as_deref() == Some(name));
        Ok(same.and_then(|image| text_at(image, &["imageId"])))
    }

    async fn image_of_instance(&self, caller: &Caller, id: &str) -> Result<Option<Key>, MotoError> {
        let question = Query::new("DescribeInstances").with("InstanceId.1", id);
        let root = self.moto.call(caller, &question).await?;
        let mut instances = items(&root, "reservationSet")
            .into_iter()
            .flat_map(|reservation| items(reservation, "instancesSet"));
        let image = instances.next().and_then(|instance| text_at(instance, &["imageId"]));
        Ok(image.map(|image| Key::new(&caller.region, &image)))
    }

    /// Remembers where an image comes from and what it and its snapshots stand on; gives the snapshots.
    async fn record_image(
        &self,
        caller: &Caller,
        image: &str,
        layers: Option<Layers>,
        source: Option<Key>,
    ) -> Result<Vec<String>, MotoError> {
        let root = self.moto.call(caller, &Query::new("DescribeImages").with("ImageId.1", image)).await?;
        let snapshots: Vec<String> = items(&root, "imagesSet")
            .into_iter()
            .flat_map(|image| items(image, "blockDeviceMapping"))
            .filter_map(|mapping| text_at(mapping, &["ebs", "snapshotId"]))
            .collect();
        let mut registry = self.registry();
        for snapshot in &snapshots {
            let key = Key::new(&caller.region, snapshot);
            registry.snapshots.insert(key, layers.clone().unwrap_or_default());
        }
        let record = Image { layers, snapshots: snapshots.clone(), source };
        registry.images.insert(Key::new(&caller.region, image), record);
        Ok(snapshots)
    }

    async fn withdraw_image(&self, caller: &Caller, image: &str) -> Result<(), MotoError> {
        let snapshots = self.record_image(caller, image, None, None).await?;
        self.registry().images.remove(&Key::new(&caller.region, image));
        self.moto.call(caller, &Query::new("DeregisterImage").with("ImageId", image)).await?;
        for snapshot in snapshots {
            self.registry().forget_snapshot(&Key::new(&caller.region, &snapshot));
            self.moto.call(caller, &Query::new("DeleteSnapshot").with("SnapshotId", snapshot)).await?;
        }
        self.remove_unused_layers();
        Ok(())
    }

    async fn create_tags(
        &self,
        caller: &Caller,
        resources: &[String],
        tags: &[(String, String)],
    ) -> Result<(), MotoError> {
        if resources.is_empty() || tags.is_empty() {
            return Ok(());
        }
        let mut call = Query::new("CreateTags");
        for (number, resource) in (1..).zip(resources) {
            call.set(format!("ResourceId.{number}"), resource);
        }
        for (number, (key, value)) in (1..).zip(tags) {
            call.set(format!("Tag.{number}.Key"), key);
            call.set(format!("Tag.{number}.Value"), value);
        }
        self.moto.call(caller, &call).await.map(drop)
    }

    /// The copy stands on the same layers, in whatever region. moto drops the tags that come with the call, and never
    /// copies the source's even where it is asked to.
    pub(crate) async fn copy_image(&self, caller: &Caller, mut query: Query) -> Handled {
        let source_region = query.get("SourceRegion").unwrap_or(&caller.region).to_owned();
        let source = query.get("SourceImageId").unwrap_or_default().to_owned();
        let image_tags = query.take_tags("image");
        let snapshot_tags = query.take_tags("snapshot");
        let response = self.moto.send_query(caller, &query).await?;
        let Some(image) = image_id_in(&response) else { return Ok(response) };
        let is_base = crate::base_images::architecture_of(&source)
            == Some(crate::base_images::architecture_of_this_machine())
            && self.cannot_host.is_none();
        let original = Key::new(&source_region, &source);
        let copied = self.registry().images.get(&original).cloned();
        let copied_snapshots = copied.iter().flat_map(|image| image.snapshots.clone()).collect::<Vec<_>>();
        let layers = copied.and_then(|image| image.layers).or_else(|| is_base.then(Layers::new));
        let is_provisioned = layers.is_some();
        let snapshots = self.record_image(caller, &image, layers, Some(original)).await?;
        for (snapshot, from) in snapshots.iter().zip(copied_snapshots) {
            let description = format!(
                "Copied for DestinationAmi {image} from SourceAmi {source} for SourceSnapshot {from}"
            );
            self.registry().copied_snapshots.insert(Key::new(&caller.region, snapshot), description);
        }
        self.create_tags(caller, &snapshots, &snapshot_tags).await?;
        let marking = (!is_provisioned).then(|| (NOT_PROVISIONED.0.to_owned(), NOT_PROVISIONED.1.to_owned()));
        let tags: Vec<_> = image_tags.into_iter().chain(marking).collect();
        self.create_tags(caller, &[image], &tags).await?;
        Ok(response)
    }

    /// moto does not know DeleteAssociatedSnapshots.
    pub(crate) async fn deregister_image(&self, caller: &Caller, query: Query) -> Handled {
        let response = self.moto.send_query(caller, &query).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let key = Key::new(&caller.region, query.get("ImageId").unwrap_or_default());
        let image = self.registry().images.remove(&key);
        let mut answered = response;
        if query.is_true("DeleteAssociatedSnapshots") {
            let snapshots = image.map(|image| image.snapshots).unwrap_or_default();
            answered = self.delete_associated(caller, answered, &snapshots).await?;
        }
        self.remove_unused_layers();
        Ok(answered)
    }

    async fn delete_associated(
        &self,
        caller: &Caller,
        response: Response<Bytes>,
        snapshots: &[String],
    ) -> Handled {
        let Some(mut root) = answer::parse(response.body()) else { return Ok(response) };
        let mut results = xmltree::Element::new("deleteSnapshotResultSet");
        let deletions = snapshots.iter().map(|snapshot| {
            let delete = Query::new("DeleteSnapshot").with("SnapshotId", snapshot);
            async move { (snapshot, self.moto.call(caller, &delete).await) }
        });
        for (snapshot, outcome) in join_all(deletions).await {
            let code = match outcome {
                Ok(_) => "success",
                // Somebody else was faster: gone is gone.
                Err(MotoError::Refused { code, .. }) if code == "InvalidSnapshot.NotFound" => "success",
                Err(error) => {
                    tracing::warn!(snapshot, %error, "a snapshot could not be deleted with its image");
                    "internal-error"
                }
            };
            if code == "success" {
                self.registry().forget_snapshot(&Key::new(&caller.region, snapshot));
            }
            let mut item = xmltree::Element::new("item");
            item.children.push(XMLNode::Element(answer::element("snapshotId", snapshot)));
            item.children.push(XMLNode::Element(answer::element("returnCode", code)));
            results.children.push(XMLNode::Element(item));
        }
        root.children.push(XMLNode::Element(results));
        Ok(answer::xml(response.status(), answer::write(&root)))
    }

    pub(crate) async fn delete_snapshot(&self, caller: &Caller, query: &Query) -> Handled {
        let response = self.moto.send_query(caller, query).await?;
        if response.status().is_success() {
            let key = Key::new(&caller.region, query.get("SnapshotId").unwrap_or_default());
            self.registry().forget_snapshot(&key);
            self.remove_unused_layers();
        }
        Ok(response)
    }

    /// moto calls the root device of an image made by CreateImage or CopyImage `standard` (no such type exists), leaves
    /// out its hypervisor, keeps its volume after termination, does not tell what an image comes from, and answers with
    /// nothing where EC2 says that a deregistered image can't be found.
    pub(crate) async fn describe_images(&self, caller: &Caller, mut query: Query) -> Handled {
        let root_device_types = query.take_filter("root-device-type");
        let sources = query.take_filter("source-image-id");
        let response = self.moto.send_query(caller, &query).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let Some(mut root) = answer::parse(response.body()) else { return Ok(response) };
        for image in items_mut(&mut root, "imagesSet") {
            if text_at(image, &["rootDeviceType"]).as_deref() == Some("standard") {
                set_text(image, "rootDeviceType", "ebs");
                set_text(image, "hypervisor", "xen");
                for mapping in items_mut(image, "blockDeviceMapping") {
                    if let Some(ebs) = mapping.get_mut_child("ebs") {
                        set_text(ebs, "deleteOnTermination", "true");
                        set_text(ebs, "volumeType", "gp2");
                    }
                }
            }
        }
        for image in items_mut(&mut root, "imagesSet") {
            let id = text_at(image, &["imageId"]).unwrap_or_default();
            let known = self.registry().images.get(&Key::new(&caller.region, &id)).cloned();
            if let Some(source) = known.and_then(|image| image.source) {
                set_text(image, "sourceImageId", &source.id);
                set_text(image, "sourceImageRegion", &source.region);
            }
        }
        if let Some(wanted) = sources {
            answer::retain_items(&mut root, "imagesSet", |image| {
                text_at(image, &["sourceImageId"]).is_some_and(|source| wanted.contains(&source))
            });
        }
        if let Some(wanted) = root_device_types {
            answer::retain_items(&mut root, "imagesSet", |image| {
                let actual = text_at(image, &["rootDeviceType"]).unwrap_or_default();
                wanted.contains(&actual)
            });
        }
        let named = query.list("ImageId");
        let is_filtered = !query.structures("Filter").is_empty() || !query.list("Owner").is_empty();
        if !named.is_empty() && !is_filtered && items(&root, "imagesSet").is_empty() {
            return Ok(answer::error(
                StatusCode::BAD_REQUEST,
                "InvalidAMIID.NotFound",
                &format!("The image id '[{}]' does not exist", named.join(", ")),
            ));
        }
        Ok(answer::xml(response.status(), answer::write(&root)))
    }

    /// moto shows everyone's snapshots whatever owner is asked for, and says nothing of copies in their descriptions.
    pub(crate) async fn describe_snapshots(&self, caller: &Caller, query: Query) -> Handled {
        let response = self.moto.send_query(caller, &query).await?;
        let owners: Vec<&str> = query
            .list("Owner")
            .into_iter()
            .map(|owner| if owner == "self" { ACCOUNT } else { owner })
            .collect();
        if !response.status().is_success() {
            return Ok(response);
        }
        let Some(mut root) = answer::parse(response.body()) else { return Ok(response) };
        answer::retain_items(&mut root, "snapshotSet", |snapshot| {
            owners.is_empty()
                || text_at(snapshot, &["ownerId"]).is_some_and(|owner| owners.contains(&owner.as_str()))
        });
        for snapshot in items_mut(&mut root, "snapshotSet") {
            let id = text_at(snapshot, &["snapshotId"]).unwrap_or_default();
            let description = self.registry().copied_snapshots.get(&Key::new(&caller.region, &id)).cloned();
            if let Some(description) = description {
                set_text(snapshot, "description", &description);
            }
        }
        Ok(answer::xml(response.status(), answer::write(&root)))
    }
}

fn image_id_in(response: &Response<Bytes>) -> Option<String> {
    if !response.status().is_success() {
        return None;
    }
    text_at(&answer::parse(response.body())?, &["imageId"])
}
