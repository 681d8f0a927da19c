//! EC2: what a build leaves is found, look-alikes are told apart, and what is deleted twice stays deleted.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    AttributeBooleanValue, IamInstanceProfileSpecification, InstanceType, RequestLaunchTemplateData,
    ResourceType, Tag, TagSpecification, VolumeType,
};
use ciab_aws::{Ec2Cloud, RandomIdentifiers};
use ciab_core::ids::{BuildId, ImageId, Region};
use ciab_core::ledger::Ledger;
use ciab_core::ports::{Cloud, Deletion, Identifiers, Trace};
use ciab_core::resource::{ByKind, Owner, Resource, ResourceKind, owned, tag};
use jiff::Timestamp;

use crate::calls::Calls;
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
    server: Server,
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
        let server = Server::ec2();
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
        Self { client, cloud, instance, group, image, snapshots, base_image, server }
    }

    async fn find(&self, ledger: &Ledger, proven: &[Resource]) -> Vec<Resource> {
        let proven = ByKind::of_all(proven);
        let trace = Trace { stack: "prod", build_id: build(), ledger, proven: &proven };
        self.cloud.find(&region(), &[trace]).await.unwrap()
    }

    async fn find_copies(&self, region: &Region, ledger: &Ledger, proven: &[Resource]) -> Vec<Resource> {
        let proven = ByKind::of_all(proven);
        let trace = Trace { stack: "prod", build_id: build(), ledger, proven: &proven };
        self.cloud.find_copies(region, &[trace]).await.unwrap()
    }

    async fn owned(&self, ledger: &Ledger) -> Vec<Resource> {
        ours(&self.find(ledger, &[]).await, ledger, &[])
    }

    async fn copy(&self, region: &Region, image: &str, name: &str) -> String {
        let copied = self.client(region).copy_image().source_image_id(image).source_region("us-east-1");
        copied.name(name).send().await.unwrap().image_id.unwrap()
    }

    fn client(&self, region: &Region) -> Client {
        let region = aws_sdk_ec2::config::Region::new(region.to_string());
        Client::from_conf(aws_sdk_ec2::config::Builder::from(&self.server.config()).region(region).build())
    }
}

/// What the domain makes of it, for a build that did not succeed.
fn ours(found: &[Resource], ledger: &Ledger, proven: &[Resource]) -> Vec<Resource> {
    let proven = &ByKind::of_all(proven);
    let began = Timestamp::UNIX_EPOCH;
    let owner = Owner { stack: "prod", build_id: build(), began, succeeded: false, ledger, proven };
    owned(found, &owner).into_iter().map(|(resource, _)| resource).collect()
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
    let earlier = Resource::bare(ResourceKind::Volume, region(), &volume);
    let gone = Resource { id: "vol-0123456789abcdef0".into(), ..earlier.clone() };
    let found = scene.find(&ledger, &[earlier, gone]).await;
    assert_eq!(ids(&found, ResourceKind::Instance), [scene.instance.clone(), instance].into());
    assert!(ids(&found, ResourceKind::Volume).contains(&volume));
    assert!(!ids(&found, ResourceKind::Volume).contains("vol-0123456789abcdef0"));
    assert!(ids(&found, ResourceKind::KeyPair).contains("packer_foreign"), "the ledger names it");
    assert_eq!(ids(&found, ResourceKind::KeyPair).len(), 3);
}

#[tokio::test]
async fn a_terminated_instance_vouches_for_its_ami_and_is_no_leftover() {
    let scene = Scene::new().await;
    scene.client.terminate_instances().instance_ids(&scene.instance).send().await.unwrap();
    let found = scene.find(&Ledger::default(), &[]).await;
    let instances: Vec<_> = found.iter().filter(|found| found.kind == ResourceKind::Instance).collect();
    assert_eq!(instances.len(), 1);
    assert!(instances[0].gone && !instances[0].going);
    let ours = ours(&found, &Ledger::default(), &[]);
    assert_eq!(ids(&ours, ResourceKind::Image), one(&scene.image));
    assert_eq!(ids(&ours, ResourceKind::Snapshot), scene.snapshots);
}

#[tokio::test]
async fn an_instance_that_its_template_has_protected_is_terminated_all_the_same() {
    let scene = Scene::new().await;
    let on = AttributeBooleanValue::builder().value(true).build();
    let protect = scene.client.modify_instance_attribute().instance_id(&scene.instance);
    protect.disable_api_termination(on).send().await.unwrap();
    let refused = scene.client.terminate_instances().instance_ids(&scene.instance).send().await;
    assert!(refused.is_err(), "it was not protected");
    let instance = Resource::bare(ResourceKind::Instance, region(), &scene.instance);
    let deleted = scene.cloud.delete(&instance).await.unwrap();
    assert!(matches!(deleted, Deletion::Gone | Deletion::Going), "{deleted:?}");
}

#[tokio::test]
async fn an_ami_that_outlived_every_trace_of_its_instance_is_found_by_the_ledger() {
    let scene = Scene::new().await;
    let untagged = run(&scene.client, &scene.base_image, None, None).await;
    let made = scene.client.create_image().instance_id(&untagged).name("late").send().await.unwrap();
    let image = made.image_id.unwrap();
    scene.client.terminate_instances().instance_ids(&untagged).send().await.unwrap();
    assert!(!ids(&scene.find(&Ledger::default(), &[]).await, ResourceKind::Image).contains(&image));
    let ledger = Ledger { instances: one(&untagged), ..Ledger::default() };
    let found = scene.find(&ledger, &[]).await;
    assert!(ids(&found, ResourceKind::Image).contains(&image));
    let proven = [Resource::bare(ResourceKind::Instance, region(), &untagged)];
    assert!(ids(&ours(&found, &ledger, &proven), ResourceKind::Image).contains(&image));
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
    assert_eq!(cloud.delete(snapshot).await.unwrap(), Deletion::InUse, "its AMI is registered");
    for kind in [
        ResourceKind::Instance,
        ResourceKind::Image,
        ResourceKind::KeyPair,
        ResourceKind::Volume,
        ResourceKind::SecurityGroup,
        ResourceKind::Snapshot,
    ] {
        for resource in found.iter().filter(|resource| resource.kind == kind) {
            let first = cloud.delete(resource).await.unwrap();
            assert!(matches!(first, Deletion::Gone | Deletion::Going), "{resource:?}: {first:?}");
            if kind != ResourceKind::Instance {
                assert_eq!(cloud.delete(resource).await.unwrap(), Deletion::Gone, "{resource:?}");
            }
        }
    }
    let left = scene.find(&Ledger::default(), &found).await;
    assert!(left.iter().all(|resource| resource.gone), "{left:?}");
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

fn of_kind(found: &[Resource], kind: ResourceKind) -> &Resource {
    let mut of_kind = found.iter().filter(|resource| resource.kind == kind);
    let (Some(first), None) = (of_kind.next(), of_kind.next()) else { panic!("not one {kind:?}: {found:?}") };
    first
}

#[tokio::test]
async fn copies_in_another_region_are_found_by_what_they_were_copied_from() {
    let scene = Scene::new().await;
    let elsewhere: Region = "eu-west-1".parse().unwrap();
    let copy = scene.copy(&elsewhere, &scene.image, "copy").await;
    let look_alike = scene.copy(&elsewhere, &scene.base_image, "look-alike").await;
    assert!(scene.find_copies(&elsewhere, &Ledger::default(), &[]).await.is_empty(), "nothing names it");

    let ledger = Ledger { images: one(&scene.image), ..Ledger::default() };
    let found = scene.find_copies(&elsewhere, &ledger, &[]).await;
    let image = of_kind(&found, ResourceKind::Image);
    assert_eq!((image.id.as_str(), &image.region), (copy.as_str(), &elsewhere));
    assert_eq!(image.copied_from.as_deref(), Some(scene.image.as_str()));
    assert!(image.available && image.parents.is_empty());
    let snapshot = of_kind(&found, ResourceKind::Snapshot).clone();
    assert_eq!(snapshot.copied_from.as_deref(), Some(scene.image.as_str()));
    assert_eq!(snapshot.parents, one(&copy));
    assert!(ours(&found, &ledger, &[]).is_empty(), "a ledger alone proves nothing");

    let original = [Resource::bare(ResourceKind::Image, region(), &scene.image)];
    let found = scene.find_copies(&elsewhere, &Ledger::default(), &original).await;
    let ours_there = ours(&found, &Ledger::default(), &original);
    assert_eq!(ids(&ours_there, ResourceKind::Image), one(&copy));
    assert_eq!(ids(&ours_there, ResourceKind::Snapshot), one(&snapshot.id));
    for kind in [ResourceKind::Image, ResourceKind::Snapshot] {
        assert_eq!(scene.cloud.delete(of_kind(&ours_there, kind)).await.unwrap(), Deletion::Gone);
    }
    let left = scene.client(&elsewhere).describe_images().owners("self").send().await.unwrap();
    assert_eq!(left.images().iter().map(|image| image.image_id().unwrap()).collect::<Vec<_>>(), [look_alike]);
}

#[tokio::test]
async fn a_snapshot_of_a_copy_is_found_by_its_description_once_its_ami_is_gone() {
    let scene = Scene::new().await;
    let elsewhere: Region = "eu-west-1".parse().unwrap();
    let copy = scene.copy(&elsewhere, &scene.image, "copy").await;
    scene.client(&elsewhere).deregister_image().image_id(&copy).send().await.unwrap();
    let proven = [Resource::bare(ResourceKind::Image, elsewhere.clone(), &copy)];
    let found = scene.find_copies(&elsewhere, &Ledger::default(), &proven).await;
    assert_eq!(of_kind(&found, ResourceKind::Snapshot).parents, one(&copy));
    assert_eq!(ours(&found, &Ledger::default(), &proven).len(), 1);
}

#[tokio::test]
async fn a_tagged_copy_needs_no_ledger() {
    let scene = Scene::new().await;
    let elsewhere: Region = "eu-west-1".parse().unwrap();
    let copy = scene.copy(&elsewhere, &scene.image, "copy").await;
    let tags = [(tag::STACK, "prod"), (tag::BUILD_ID, BUILD)];
    let tags = tags.map(|(key, value)| Tag::builder().key(key).value(value).build());
    let tagging = scene.client(&elsewhere).create_tags().resources(&copy).set_tags(Some(tags.to_vec()));
    tagging.send().await.unwrap();
    let found = scene.find_copies(&elsewhere, &Ledger::default(), &[]).await;
    assert_eq!(ids(&ours(&found, &Ledger::default(), &[]), ResourceKind::Image), one(&copy));
    assert!(
        scene
            .find_copies(&elsewhere, &Ledger::default(), &[])
            .await
            .iter()
            .all(|found| { found.region == elsewhere })
    );
}

#[tokio::test]
async fn an_encrypted_copy_in_the_same_region_is_found_and_an_image_made_from_ours_is_no_copy() {
    let scene = Scene::new().await;
    let copy = scene.copy(&region(), &scene.image, "encrypted").await;
    let launched = run(&scene.client, &scene.image, None, None).await;
    let made = scene.client.create_image().instance_id(&launched).name("descendant").send().await.unwrap();
    let found = scene.find(&Ledger::default(), &[]).await;
    let image = |id: &str| found.iter().find(|resource| resource.id == id).unwrap();
    assert_eq!(image(&copy).copied_from.as_deref(), Some(scene.image.as_str()));
    assert_eq!(image(&scene.image).copied_from, None, "EC2 tells of it what its instance was launched from");
    assert_eq!(image(made.image_id().unwrap()).copied_from, None);
    let ours = ours(&found, &Ledger::default(), &[]);
    assert_eq!(ids(&ours, ResourceKind::Image), [scene.image.clone(), copy].into());
}

#[tokio::test]
async fn packers_launch_template_is_found_by_its_id_and_deleted() {
    let scene = Scene::new().await;
    let make = async |name: &str, tags: Option<TagSpecification>| {
        let data = RequestLaunchTemplateData::builder().instance_type(InstanceType::T3Micro).build();
        let make =
            scene.client.create_launch_template().launch_template_name(name).launch_template_data(data);
        let made = make.set_tag_specifications(tags.map(|tags| vec![tags])).send().await.unwrap();
        made.launch_template.unwrap().launch_template_id.unwrap()
    };
    let packers = make("packer-fleet-launch-template-1", None).await;
    let foreign = make("packer-fleet-launch-template-2", None).await;
    let tagged = make("ours", Some(owner(ResourceType::LaunchTemplate, "prod"))).await;
    let web = make("web", Some(owner(ResourceType::LaunchTemplate, "staging"))).await;
    assert_eq!(
        ids(&scene.find(&Ledger::default(), &[]).await, ResourceKind::LaunchTemplate),
        one(&tagged),
        "nothing names the other"
    );

    let named = [packers.clone(), web.clone(), "lt-0123456789abcdef0".into()];
    let ledger = Ledger { launch_templates: named.into(), ..Ledger::default() };
    let found = scene.find(&ledger, &[]).await;
    assert_eq!(ids(&found, ResourceKind::LaunchTemplate), [packers.clone(), tagged.clone()].into());
    let ours = ours(&found, &ledger, &[]);
    assert_eq!(ids(&ours, ResourceKind::LaunchTemplate), [packers.clone(), tagged].into());
    let template = ours.iter().find(|resource| resource.id == packers).unwrap();
    assert_eq!(template.name, "packer-fleet-launch-template-1");
    assert!(template.created_at.is_some());
    for resource in ours.iter().filter(|resource| resource.kind == ResourceKind::LaunchTemplate) {
        for _ in 0..2 {
            assert_eq!(scene.cloud.delete(resource).await.unwrap(), Deletion::Gone);
        }
    }
    let left = scene.client.describe_launch_templates().send().await.unwrap();
    let left: BTreeSet<_> =
        left.launch_templates().iter().map(|left| left.launch_template_id().unwrap().to_owned()).collect();
    assert_eq!(left, [foreign, web].into());
}

const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
const POLICY: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#;

/// A role with an inline and an attached policy, and a profile of the same name that holds it.
async fn role_and_profile(iam: &aws_sdk_iam::Client, name: &str) {
    iam.create_role().role_name(name).assume_role_policy_document(TRUST).send().await.unwrap();
    iam.put_role_policy().role_name(name).policy_name("inline").policy_document(POLICY).send().await.unwrap();
    let policy = iam.create_policy().policy_name(format!("{name}-attached")).policy_document(POLICY);
    let arn = policy.send().await.unwrap().policy.unwrap().arn.unwrap();
    iam.attach_role_policy().role_name(name).policy_arn(arn).send().await.unwrap();
    iam.create_instance_profile().instance_profile_name(name).send().await.unwrap();
    let add = iam.add_role_to_instance_profile().instance_profile_name(name).role_name(name);
    add.send().await.unwrap();
}

async fn roles_and_profiles(iam: &aws_sdk_iam::Client) -> (usize, usize) {
    let roles = iam.list_roles().send().await.unwrap().roles;
    (roles.len(), iam.list_instance_profiles().send().await.unwrap().instance_profiles.len())
}

#[tokio::test]
async fn packers_temporary_role_and_profile_are_found_by_name_and_deleted_with_their_policies() {
    let scene = Scene::new().await;
    let iam = aws_sdk_iam::Client::new(&scene.server.config());
    for name in ["packer-1", "packer-2", "admin"] {
        role_and_profile(&iam, name).await;
    }
    let named: BTreeSet<String> = ["packer-1", "packer-0", "admin"].map(str::to_owned).into();
    let ledger = Ledger { roles: named.clone(), instance_profiles: named, ..Ledger::default() };
    let found = scene.find(&ledger, &[]).await;
    assert!(ids(&scene.find(&Ledger::default(), &[]).await, ResourceKind::Role).is_empty());
    assert_eq!(ids(&found, ResourceKind::Role), one("packer-1"));
    assert_eq!(ids(&found, ResourceKind::InstanceProfile), one("packer-1"));
    for kind in [ResourceKind::Role, ResourceKind::InstanceProfile] {
        let resource = of_kind(&found, kind);
        assert!(resource.created_at.is_some() && resource.parents.is_empty(), "{resource:?}");
        assert_eq!(resource.name, "packer-1");
    }
    let ours = ours(&found, &ledger, &[]);
    assert_eq!(roles_and_profiles(&iam).await, (3, 3));
    for kind in [ResourceKind::InstanceProfile, ResourceKind::Role] {
        for _ in 0..2 {
            assert_eq!(scene.cloud.delete(of_kind(&ours, kind)).await.unwrap(), Deletion::Gone, "{kind:?}");
        }
    }
    assert_eq!(roles_and_profiles(&iam).await, (2, 2));
}

#[tokio::test]
async fn a_profile_that_a_foreign_instance_uses_and_a_role_in_a_foreign_profile_stay() {
    let scene = Scene::new().await;
    let iam = aws_sdk_iam::Client::new(&scene.server.config());
    role_and_profile(&iam, "packer-1").await;
    role_and_profile(&iam, "packer-2").await;
    iam.create_instance_profile().instance_profile_name("web").send().await.unwrap();
    let add = iam.add_role_to_instance_profile().instance_profile_name("web").role_name("packer-2");
    add.send().await.unwrap();
    let foreign = scene
        .client
        .run_instances()
        .image_id(&scene.base_image)
        .instance_type(InstanceType::T3Micro)
        .min_count(1)
        .max_count(1)
        .iam_instance_profile(IamInstanceProfileSpecification::builder().name("packer-1").build())
        .send()
        .await
        .unwrap();
    let foreign = foreign.instances()[0].instance_id().unwrap();

    let named: BTreeSet<String> = ["packer-1".to_owned(), "packer-2".to_owned()].into();
    let ledger = Ledger { roles: named.clone(), instance_profiles: named, ..Ledger::default() };
    let found = scene.find(&ledger, &[]).await;
    let parents = |kind, id: &str| {
        found.iter().find(|found| found.kind == kind && found.id == id).unwrap().parents.clone()
    };
    assert_eq!(parents(ResourceKind::InstanceProfile, "packer-1"), one(foreign));
    assert_eq!(parents(ResourceKind::Role, "packer-2"), one("web"));
    let ours = ours(&found, &ledger, &[]);
    assert_eq!(ids(&ours, ResourceKind::InstanceProfile), one("packer-2"));
    assert_eq!(ids(&ours, ResourceKind::Role), one("packer-1"));
    let role = of_kind(&ours, ResourceKind::Role);
    assert_eq!(scene.cloud.delete(role).await.unwrap(), Deletion::InUse, "its profile is there");
}

#[tokio::test]
async fn the_instances_of_a_stack_are_listed_with_one_call_in_each_state_but_terminated() {
    let scene = Scene::new().await;
    let stopped = run(&scene.client, &scene.base_image, None, Some("prod")).await;
    scene.client.stop_instances().instance_ids(&stopped).send().await.unwrap();
    let terminated = run(&scene.client, &scene.base_image, None, Some("prod")).await;
    scene.client.terminate_instances().instance_ids(&terminated).send().await.unwrap();
    run(&scene.client, &scene.base_image, None, Some("staging")).await;
    run(&scene.client, &scene.base_image, None, None).await;
    let calls = Calls::default();
    let cloud = Ec2Cloud::new(&calls.of(&scene.server.config()));
    let found = cloud.instances(&region(), "prod").await.unwrap();
    assert_eq!(ids(&found, ResourceKind::Instance), [scene.instance.clone(), stopped].into());
    assert!(found.iter().all(|instance| instance.tags[tag::BUILD_ID] == BUILD && !instance.gone));
    assert_eq!(calls.take(), [("DescribeInstances".to_owned(), 1)].into());
    assert!(cloud.instances(&region(), "other").await.unwrap().is_empty());
}

#[tokio::test]
async fn who_uses_an_image_is_told_of_instances_in_every_state_but_terminated_and_of_launch_templates() {
    let scene = Scene::new().await;
    let image: ImageId = scene.image.parse().unwrap();
    let other: ImageId = scene.base_image.parse().unwrap();
    let users = async |images: &[ImageId]| scene.cloud.users_of(&region(), images).await.unwrap();
    assert!(users(std::slice::from_ref(&image)).await.is_empty());
    assert!(users(&[]).await.is_empty(), "nothing is asked for no images");

    let running = run(&scene.client, &scene.image, None, None).await;
    let stopped = run(&scene.client, &scene.image, None, None).await;
    scene.client.stop_instances().instance_ids(&stopped).send().await.unwrap();
    let terminated = run(&scene.client, &scene.image, None, None).await;
    scene.client.terminate_instances().instance_ids(&terminated).send().await.unwrap();
    let data = |image: &str| RequestLaunchTemplateData::builder().image_id(image).build();
    let make = async |name: &str, image: &str| {
        let make = scene.client.create_launch_template().launch_template_name(name);
        let made = make.launch_template_data(data(image)).send().await.unwrap();
        made.launch_template.unwrap().launch_template_id.unwrap()
    };
    let template = make("default", &scene.image).await;
    // Its newest version names another image, its default one still ours.
    let newer = scene.client.create_launch_template_version().launch_template_id(&template);
    newer.launch_template_data(data(&scene.base_image)).send().await.unwrap();
    let foreign = make("foreign", &scene.base_image).await;

    let found = users(&[image.clone(), other.clone()]).await;
    assert_eq!(found[&image], [running, stopped, template.clone()].into());
    assert_eq!(found[&other], [scene.instance.clone(), template, foreign].into());
    assert!(!users(std::slice::from_ref(&image)).await.contains_key(&other), "only what was asked for");
}

#[tokio::test]
async fn all_that_carries_a_stacks_tag_is_listed_with_the_snapshots_behind_its_images() {
    let scene = Scene::new().await;
    let tag_of = |stack: &str| Tag::builder().key(tag::STACK).value(stack).build();
    let tag = async |id: &str, stack: &str| {
        scene.client.create_tags().resources(id).tags(tag_of(stack)).send().await.unwrap();
    };
    // The image is tagged and its snapshot is not, as between two calls of Packer's.
    tag(&scene.image, "prod").await;
    tag(&scene.group, "prod").await;
    let volume = |stack: &str| {
        let tags = owner(ResourceType::Volume, stack);
        let volume = scene.client.create_volume().availability_zone("us-east-1a").size(1);
        volume.volume_type(VolumeType::Gp3).tag_specifications(tags).send()
    };
    let ours = volume("prod").await.unwrap().volume_id.unwrap();
    volume("staging").await.unwrap();
    let pair = scene.client.create_key_pair().key_name("tagged");
    pair.tag_specifications(owner(ResourceType::KeyPair, "prod")).send().await.unwrap();
    let data = RequestLaunchTemplateData::builder().instance_type(InstanceType::T3Micro).build();
    let template =
        scene.client.create_launch_template().launch_template_name("tagged").launch_template_data(data);
    let template = template.tag_specifications(owner(ResourceType::LaunchTemplate, "prod"));
    let template = template.send().await.unwrap().launch_template.unwrap().launch_template_id.unwrap();
    let terminated = run(&scene.client, &scene.base_image, None, Some("prod")).await;
    scene.client.terminate_instances().instance_ids(&terminated).send().await.unwrap();
    run(&scene.client, &scene.base_image, None, Some("staging")).await;

    let found = scene.cloud.of_stack(&region(), "prod").await.unwrap();
    for (kind, expected) in [
        (ResourceKind::Instance, one(&scene.instance)),
        (ResourceKind::Volume, one(&ours)),
        (ResourceKind::SecurityGroup, one(&scene.group)),
        (ResourceKind::KeyPair, one("tagged")),
        (ResourceKind::LaunchTemplate, one(&template)),
        (ResourceKind::Image, one(&scene.image)),
        (ResourceKind::Snapshot, scene.snapshots.clone()),
    ] {
        assert_eq!(ids(&found, kind), expected, "{kind:?}");
    }
    assert!(scene.cloud.of_stack(&region(), "other").await.unwrap().is_empty());
    assert!(scene.cloud.of_stack(&"eu-west-1".parse().unwrap(), "prod").await.unwrap().is_empty());
}

/// A build's ledger with one of everything that Packer names; the IAM roles aside, which are asked for by name.
fn full_ledger(number: usize) -> Ledger {
    let id = |prefix: &str| BTreeSet::from([format!("{prefix}{number:017x}")]);
    Ledger {
        instances: id("i-"),
        volumes: id("vol-"),
        security_groups: [format!("packer_{number}"), format!("sg-{number:017x}")].into(),
        key_pairs: id("packer_"),
        images: id("ami-"),
        snapshots: id("snap-"),
        launch_templates: id("lt-"),
        ..Ledger::default()
    }
}

#[tokio::test]
async fn a_look_for_many_builds_costs_calls_by_their_hundreds() {
    let scene = Scene::new().await;
    let calls = Calls::default();
    let cloud = Ec2Cloud::new(&calls.of(&scene.server.config()));
    let proven = ByKind::default();
    let mut builds: Vec<(BuildId, Ledger)> =
        (1..1_000).map(|number| (RandomIdentifiers.new_build_id(), full_ledger(number))).collect();
    builds.insert(0, (build(), full_ledger(0)));
    for (number, at_home, elsewhere) in [(1, 24, 7), (100, 24, 7), (1_000, 105, 35)] {
        let traces: Vec<Trace<'_>> = builds[..number]
            .iter()
            .map(|(build_id, ledger)| Trace { stack: "prod", build_id: *build_id, ledger, proven: &proven })
            .collect();
        let found = cloud.find(&region(), &traces).await.unwrap();
        assert_eq!(ids(&found, ResourceKind::Image), one(&scene.image));
        let made = calls.take();
        assert!(made.values().sum::<usize>() <= at_home, "{number} builds: {made:?}");
        assert!(made.len() == 7, "nothing but EC2's seven descriptions: {made:?}");
        cloud.find_copies(&"eu-west-1".parse().unwrap(), &traces).await.unwrap();
        let made = calls.take();
        assert!(made.values().sum::<usize>() <= elsewhere, "{number} builds: {made:?}");
    }
    assert!(cloud.find(&region(), &[]).await.unwrap().is_empty());
    assert!(calls.take().is_empty(), "nothing is asked for no build");
}
