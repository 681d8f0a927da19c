//! EC2: what a build leaves is found, look-alikes are told apart, and what is deleted twice stays deleted.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{InstanceType, ResourceType, Tag, TagSpecification, VolumeType};
use ciab_aws::Ec2Cloud;
use ciab_core::ids::{BuildId, ImageId, Region};
use ciab_core::ledger::Ledger;
use ciab_core::ports::{Cloud, Deletion, Trace};
use ciab_core::resource::{Owner, Resource, ResourceKind, owned, tag};
use jiff::Timestamp;

use crate::servers::Server;

const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";

fn build() -> BuildId {
    BUILD.parse().unwrap()
}

fn region() -> Region {
    "us-east-1".parse().unwrap()
}

/// An EC2 of one region in which Packer was killed in the middle of a build.
struct Scene {
    client: Client,
    cloud: Ec2Cloud,
    instance: String,
    group: String,
    image: String,
    snapshots: BTreeSet<String>,
    base_image: String,
    _server: Server,
}

fn owner(kind: ResourceType, stack: &str) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(kind)
        .tags(Tag::builder().key(tag::STACK).value(stack).build())
        .tags(Tag::builder().key(tag::BUILD_ID).value(BUILD).build())
        .build()
}

impl Scene {
    async fn new() -> Self {
        let server = Server::moto();
        let config = server.config();
        let client = Client::new(&config);
        let base = client.describe_images().owners("amazon").send().await.unwrap();
        let base_image = base.images()[0].image_id().unwrap().to_owned();
        let group = client
            .create_security_group()
            .group_name("packer_1")
            .description("Temporary group for Packer")
            .send()
            .await
            .unwrap()
            .group_id
            .unwrap();
        client.create_key_pair().key_name(format!("ciab-{BUILD}")).send().await.unwrap();
        client.create_key_pair().key_name(format!("ciab-{BUILD}-2")).send().await.unwrap();
        client.create_key_pair().key_name("packer_foreign").send().await.unwrap();
        let instance = run(&client, &base_image, Some(&group), Some("prod")).await;
        let image = client
            .create_image()
            .instance_id(&instance)
            .name("half-made")
            .send()
            .await
            .unwrap()
            .image_id
            .unwrap();
        let described = client.describe_images().image_ids(&image).send().await.unwrap();
        let snapshots = described.images()[0]
            .block_device_mappings()
            .iter()
            .filter_map(|device| device.ebs()?.snapshot_id().map(str::to_owned))
            .collect();
        let cloud = Ec2Cloud::new(&config);
        Self { client, cloud, instance, group, image, snapshots, base_image, _server: server }
    }

    async fn find(&self, ledger: &Ledger, known: &[Resource]) -> Vec<Resource> {
        let trace = Trace { stack: "prod", build_id: build(), ledger, known };
        self.cloud.find(&region(), &trace).await.unwrap()
    }

    async fn owned(&self, ledger: &Ledger) -> Vec<Resource> {
        let found = self.find(ledger, &[]).await;
        let began = Timestamp::UNIX_EPOCH;
        let owner = Owner { stack: "prod", build_id: build(), began, ledger, proven: &[] };
        owned(&found, &owner).into_iter().map(|(resource, _)| resource).collect()
    }
}

async fn run(client: &Client, image: &str, group: Option<&str>, stack: Option<&str>) -> String {
    let ran = client
        .run_instances()
        .image_id(image)
        .instance_type(InstanceType::T3Micro)
        .min_count(1)
        .max_count(1)
        .set_security_group_ids(group.map(|group| vec![group.to_owned()]))
        .set_tag_specifications(stack.map(|stack| vec![owner(ResourceType::Instance, stack)]))
        .send()
        .await
        .unwrap();
    ran.instances()[0].instance_id().unwrap().to_owned()
}

fn ids(found: &[Resource], kind: ResourceKind) -> BTreeSet<String> {
    found.iter().filter(|resource| resource.kind == kind).map(|resource| resource.id.clone()).collect()
}

fn one(id: &str) -> BTreeSet<String> {
    [id.to_owned()].into()
}

#[tokio::test]
async fn from_one_tagged_instance_all_that_packer_made_is_found() {
    let scene = Scene::new().await;
    let found = scene.find(&Ledger::default(), &[]).await;
    assert_eq!(ids(&found, ResourceKind::Instance), one(&scene.instance));
    assert_eq!(ids(&found, ResourceKind::SecurityGroup), one(&scene.group));
    assert_eq!(
        ids(&found, ResourceKind::KeyPair),
        [format!("ciab-{BUILD}"), format!("ciab-{BUILD}-2")].into()
    );
    assert_eq!(ids(&found, ResourceKind::Image), one(&scene.image));
    assert_eq!(ids(&found, ResourceKind::Snapshot), scene.snapshots);
    assert_eq!(ids(&found, ResourceKind::Volume).len(), 1);

    let of = |kind| found.iter().find(|resource| resource.kind == kind).unwrap();
    assert_eq!(of(ResourceKind::SecurityGroup).parents, one(&scene.instance));
    assert_eq!(of(ResourceKind::SecurityGroup).name, "packer_1");
    assert_eq!(of(ResourceKind::SecurityGroup).description, "Temporary group for Packer");
    assert_eq!(of(ResourceKind::Image).parents, one(&scene.instance));
    assert_eq!(of(ResourceKind::Image).snapshots, scene.snapshots);
    assert_eq!(of(ResourceKind::Volume).parents, one(&scene.instance));
    let snapshot = of(ResourceKind::Snapshot);
    assert_eq!(snapshot.parents, [scene.instance.clone(), scene.image.clone()].into());
    assert_eq!(of(ResourceKind::Instance).tags[tag::BUILD_ID], BUILD);
    for kind in [ResourceKind::Instance, ResourceKind::Volume, ResourceKind::Image, ResourceKind::Snapshot] {
        assert!(of(kind).created_at.is_some(), "{kind:?}");
    }
    assert_eq!(
        scene.owned(&Ledger::default()).await.len(),
        found.len(),
        "the domain knows all of it as ours"
    );
}

#[tokio::test]
async fn what_is_not_tagged_is_found_by_the_ledger_and_by_earlier_looks() {
    let scene = Scene::new().await;
    let volume = scene
        .client
        .create_volume()
        .availability_zone("us-east-1a")
        .size(1)
        .volume_type(VolumeType::Gp3)
        .send()
        .await
        .unwrap()
        .volume_id
        .unwrap();
    let instance = run(&scene.client, &scene.base_image, None, None).await;
    let ledger = Ledger {
        instances: [instance.clone(), "i-0123456789abcdef0".into(), "*".into()].into(),
        security_groups: ["packer_1".into(), "packer_gone".into()].into(),
        key_pairs: ["packer_foreign".into(), "*".into()].into(),
        images: ["ami-0123456789abcdef0".into()].into(),
        ..Ledger::default()
    };
    let earlier = Resource {
        kind: ResourceKind::Volume,
        id: volume.clone(),
        going: false,
        tags: Default::default(),
        name: String::new(),
        description: String::new(),
        created_at: None,
        parents: BTreeSet::new(),
        snapshots: BTreeSet::new(),
    };
    let gone = Resource { id: "vol-0123456789abcdef0".into(), ..earlier.clone() };
    let found = scene.find(&ledger, &[earlier, gone]).await;
    assert_eq!(ids(&found, ResourceKind::Instance), [scene.instance.clone(), instance].into());
    assert!(ids(&found, ResourceKind::Volume).contains(&volume));
    assert!(!ids(&found, ResourceKind::Volume).contains("vol-0123456789abcdef0"));
    assert!(ids(&found, ResourceKind::KeyPair).contains("packer_foreign"), "the ledger names it");
    assert_eq!(ids(&found, ResourceKind::KeyPair).len(), 3);
}

#[tokio::test]
async fn an_ami_that_outlived_its_instance_is_found_by_what_the_ledger_says_of_the_instance() {
    let scene = Scene::new().await;
    scene.client.terminate_instances().instance_ids(&scene.instance).send().await.unwrap();
    assert!(ids(&scene.find(&Ledger::default(), &[]).await, ResourceKind::Image).is_empty());
    let ledger = Ledger { instances: one(&scene.instance), ..Ledger::default() };
    let found = scene.find(&ledger, &[]).await;
    assert!(ids(&found, ResourceKind::Instance).is_empty(), "a terminated instance is no leftover");
    assert_eq!(ids(&found, ResourceKind::Image), one(&scene.image));
    assert_eq!(ids(&found, ResourceKind::Snapshot), scene.snapshots);
}

#[tokio::test]
async fn another_stacks_instance_is_told_apart() {
    let scene = Scene::new().await;
    let foreign = run(&scene.client, &scene.base_image, Some(&scene.group), Some("staging")).await;
    let ledger = Ledger { instances: one(&foreign), ..Ledger::default() };
    let owned = scene.owned(&ledger).await;
    assert_eq!(ids(&owned, ResourceKind::Instance), one(&scene.instance));
    assert!(ids(&owned, ResourceKind::SecurityGroup).is_empty(), "the other instance uses the group as well");
}

#[tokio::test]
async fn all_of_it_is_deleted_in_order_and_deleting_twice_is_gone() {
    let scene = Scene::new().await;
    let found = scene.find(&Ledger::default(), &[]).await;
    let snapshot = found.iter().find(|resource| resource.kind == ResourceKind::Snapshot).unwrap();
    let cloud = &scene.cloud;
    assert_eq!(cloud.delete(&region(), snapshot).await.unwrap(), Deletion::InUse, "its AMI is registered");
    for kind in [
        ResourceKind::Instance,
        ResourceKind::Image,
        ResourceKind::KeyPair,
        ResourceKind::Volume,
        ResourceKind::SecurityGroup,
        ResourceKind::Snapshot,
    ] {
        for resource in found.iter().filter(|resource| resource.kind == kind) {
            let first = cloud.delete(&region(), resource).await.unwrap();
            assert!(matches!(first, Deletion::Gone | Deletion::Going), "{resource:?}: {first:?}");
            if kind != ResourceKind::Instance {
                assert_eq!(cloud.delete(&region(), resource).await.unwrap(), Deletion::Gone, "{resource:?}");
            }
        }
    }
    assert!(scene.find(&Ledger::default(), &found).await.is_empty());
}

#[tokio::test]
async fn images_are_told_by_id_and_those_that_do_not_exist_are_left_out() {
    let scene = Scene::new().await;
    let id: ImageId = scene.image.parse().unwrap();
    let never: ImageId = "ami-0123456789abcdef0".parse().unwrap();
    let images = scene.cloud.images(&region(), &[id.clone(), never.clone()]).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].id, id);
    assert!(images[0].available && !images[0].pending);
    assert_eq!(images[0].name, "half-made");
    assert_eq!(images[0].snapshots.iter().cloned().collect::<BTreeSet<_>>(), scene.snapshots);
    assert!(scene.cloud.images(&region(), &[]).await.unwrap().is_empty(), "no ids are not all ids");
    let elsewhere = "eu-west-1".parse().unwrap();
    assert!(scene.cloud.images(&elsewhere, std::slice::from_ref(&id)).await.unwrap().is_empty());

    for id in [&id, &id, &never] {
        scene.cloud.deregister(&region(), id).await.unwrap();
    }
    assert!(scene.cloud.images(&region(), &[id]).await.unwrap().is_empty());
    for snapshot in scene.snapshots.iter().chain(&scene.snapshots) {
        scene.cloud.delete_snapshot(&region(), snapshot).await.unwrap();
    }
}
