//! The search for everything that may belong to one of many builds.
//!
//! Must never decide what does: look-alikes come along, and the domain leaves them alone. Must never ask for each build:
//! the number of calls grows by pages and by hundreds of names.

use std::collections::BTreeMap;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Image, Instance, Snapshot};
use ciab_core::ids::{ImageId, Region};
use ciab_core::ports::PortError;
use ciab_core::resource::Resource;
use futures::try_join;

use super::describe::{self, Question, alive, by, filter};
use super::iam::Iam;
use super::resources;
use super::wanted::{Ids, Wanted};

/// What the names of Packer's launch templates begin with.
const PACKER_LAUNCH_TEMPLATES: &str = "packer-fleet-launch-template-*";

/// In rounds, each side by side: the instances that are tagged, noted or proven; what else is, or comes from those; what comes
/// from that again.
pub(super) async fn find(
    client: &Client,
    iam: &Iam,
    region: &Region,
    wanted: &Wanted,
) -> Result<Vec<Resource>, PortError> {
    let questions = [wanted.tagged(), by("instance-id", &wanted.instances)].concat();
    let instances = describe::instances(client, questions).await?;
    let standing: Vec<&Instance> =
        instances.iter().filter(|instance| !resources::is_terminated(instance)).collect();
    let attached = by("attachment.instance-id", &ids(standing.iter().copied(), Instance::instance_id));
    let used: Ids = standing.iter().copied().flat_map(groups_of).chain(wanted.group_ids.clone()).collect();
    // An AMI or snapshot outlives the instance that it was made from.
    let origins: Ids = ids(&instances, Instance::instance_id).union(&wanted.instances).cloned().collect();

    let volumes = [wanted.tagged(), by("volume-id", &wanted.volumes), attached].concat();
    let groups = [wanted.tagged(), by("group-id", &used), by("group-name", &wanted.group_names)].concat();
    let key_pairs = [wanted.tagged(), by("key-name", &wanted.key_pairs)].concat();
    let (volumes, (groups, group_users), key_pairs, (images, snapshots), launch_templates, of_iam) = try_join!(
        describe::volumes(client, volumes),
        async {
            let groups = describe::groups(client, groups).await?;
            let users = by("instance.group-id", &ids(&groups, |group| group.group_id()));
            Ok((groups, describe::instances(client, of_the_living(users)).await?))
        },
        describe::key_pairs(client, key_pairs),
        images_and_snapshots(client, wanted, origins),
        launch_templates(client, region, wanted),
        of_iam(client, iam, region, wanted),
    )?;

    let users_of = |group: &str| {
        let users = group_users.iter().filter(|instance| groups_of(instance).any(|id| id == group));
        ids(users, Instance::instance_id)
    };
    let mut found: Vec<Resource> =
        instances.iter().filter_map(|instance| resources::instance(region, instance)).collect();
    found.extend(volumes.iter().filter_map(|volume| resources::volume(region, volume)));
    found.extend(groups.iter().filter_map(|group| {
        resources::security_group(region, group, users_of(group.group_id().unwrap_or_default()))
    }));
    found.extend(key_pairs.iter().filter_map(|pair| resources::key_pair(region, pair)));
    found.extend(images.iter().filter_map(|image| resources::image(region, image)));
    found.extend(snapshots.iter().filter_map(|snapshot| resources::snapshot(region, snapshot)));
    found.extend(launch_templates);
    found.extend(of_iam);
    Ok(each_once(found))
}

/// AMIs and snapshots alone: what Packer copies to other regions.
pub(super) async fn find_copies(
    client: &Client,
    region: &Region,
    wanted: &Wanted,
) -> Result<Vec<Resource>, PortError> {
    let (images, snapshots) = images_and_snapshots(client, wanted, Ids::new()).await?;
    let mut found: Vec<Resource> =
        images.iter().filter_map(|image| resources::image(region, image)).collect();
    found.extend(snapshots.iter().filter_map(|snapshot| resources::snapshot(region, snapshot)));
    Ok(each_once(found))
}

/// Every instance of a stack that is not terminated.
pub(super) async fn instances(
    client: &Client,
    region: &Region,
    stack: &str,
) -> Result<Vec<Resource>, PortError> {
    let of_stack = filter(&format!("tag:{}", ciab_core::resource::tag::STACK), [stack]);
    let instances = describe::instances(client, vec![vec![of_stack, alive()]]).await?;
    Ok(instances.iter().filter_map(|instance| resources::instance(region, instance)).collect())
}

/// Everything that carries the stack's tag, and the snapshots behind its AMIs: of those Packer tags some late or never.
pub(super) async fn of_stack(
    client: &Client,
    region: &Region,
    stack: &str,
) -> Result<Vec<Resource>, PortError> {
    let tagged = || filter(&format!("tag:{}", ciab_core::resource::tag::STACK), [stack]);
    let (instances, volumes, groups, key_pairs, launch_templates, images, snapshots) = try_join!(
        describe::instances(client, vec![vec![tagged(), alive()]]),
        describe::volumes(client, vec![vec![tagged()]]),
        describe::groups(client, vec![vec![tagged()]]),
        describe::key_pairs(client, vec![vec![tagged()]]),
        describe::launch_templates(client, vec![vec![tagged()]]),
        describe::images(client, vec![vec![tagged()]]),
        describe::snapshots(client, vec![vec![tagged()]]),
    )?;
    let behind: Ids = images.iter().flat_map(resources::image_snapshots).collect();
    let behind = describe::snapshots(client, by("snapshot-id", &behind)).await?;

    let mut found: Vec<Resource> =
        instances.iter().filter_map(|instance| resources::instance(region, instance)).collect();
    found.extend(volumes.iter().filter_map(|volume| resources::volume(region, volume)));
    found.extend(groups.iter().filter_map(|group| resources::security_group(region, group, Ids::new())));
    found.extend(key_pairs.iter().filter_map(|pair| resources::key_pair(region, pair)));
    found.extend(launch_templates.iter().filter_map(|it| resources::launch_template(region, it)));
    found.extend(images.iter().filter_map(|image| resources::image(region, image)));
    let snapshots = snapshots.iter().chain(&behind);
    found.extend(snapshots.filter_map(|snapshot| resources::snapshot(region, snapshot)));
    Ok(each_once(found))
}

/// The instances that are not terminated and came from one of these AMIs, and the launch templates whose newest or default
/// version names one.
pub(super) async fn users_of(
    client: &Client,
    images: &[ImageId],
) -> Result<BTreeMap<ImageId, Ids>, PortError> {
    let wanted: Ids = images.iter().map(ToString::to_string).collect();
    let (instances, templates) = try_join!(
        describe::instances(client, of_the_living(by("image-id", &wanted))),
        describe::launch_template_versions(client, by("image-id", &wanted)),
    )?;
    let of_instances = instances.iter().map(|instance| (instance.image_id(), instance.instance_id()));
    let of_templates = templates.iter().map(|version| {
        let image = version.launch_template_data().and_then(|data| data.image_id());
        (image, version.launch_template_id())
    });
    let mut users: BTreeMap<ImageId, Ids> = BTreeMap::new();
    for (image, user) in of_instances.chain(of_templates) {
        // Asked for by a filter, which not everything that speaks for EC2 heeds.
        let image = image.and_then(|id| images.iter().find(|image| image.as_str() == id));
        if let (Some(image), Some(user)) = (image, user) {
            users.entry(image.clone()).or_default().insert(user.to_owned());
        }
    }
    Ok(users)
}

/// The AMIs that are tagged, noted, proven, or made from `origins`, those that were copied from such, and the snapshots behind
/// all of these or made for them.
async fn images_and_snapshots(
    client: &Client,
    wanted: &Wanted,
    origins: Ids,
) -> Result<(Vec<Image>, Vec<Snapshot>), PortError> {
    let questions =
        [wanted.tagged(), by("image-id", &wanted.images), by("source-instance-id", &origins)].concat();
    let mut images = describe::images(client, questions).await?;
    let originals: Ids = ids(&images, Image::image_id).union(&wanted.images).cloned().collect();
    images.extend(describe::images(client, by("source-image-id", &originals)).await?);

    let behind: Ids = images.iter().flat_map(resources::image_snapshots).collect();
    let made_for = ids(&images, Image::image_id).into_iter().chain(originals).chain(origins);
    let questions = [
        wanted.tagged(),
        by("snapshot-id", &behind.union(&wanted.snapshots).cloned().collect()),
        by("description", &made_for.map(|id| format!("*{id}*")).collect()),
    ]
    .concat();
    let snapshots = describe::snapshots(client, questions).await?;
    Ok((images, snapshots))
}

/// Those that are tagged, and of Packer's those that are noted or proven: EC2 has no filter for a template's id, but few of
/// Packer's are alive at a time.
async fn launch_templates(
    client: &Client,
    region: &Region,
    wanted: &Wanted,
) -> Result<Vec<Resource>, PortError> {
    let mut found = describe::launch_templates(client, wanted.tagged()).await?;
    if !wanted.launch_templates.is_empty() {
        let packers = vec![filter("launch-template-name", [PACKER_LAUNCH_TEMPLATES])];
        let packers = describe::launch_templates(client, vec![packers]).await?;
        let is_wanted = |id: Option<&str>| id.is_some_and(|id| wanted.launch_templates.contains(id));
        found.extend(packers.into_iter().filter(|template| is_wanted(template.launch_template_id())));
    }
    Ok(found.iter().filter_map(|template| resources::launch_template(region, template)).collect())
}

/// Instance profiles with the instances that use them, and roles. IAM is asked only where something names one.
async fn of_iam(
    client: &Client,
    iam: &Iam,
    region: &Region,
    wanted: &Wanted,
) -> Result<Vec<Resource>, PortError> {
    let (profiles, roles) =
        try_join!(iam.instance_profiles(&wanted.instance_profiles), iam.roles(&wanted.roles))?;
    let used = by("iam-instance-profile.arn", &ids(&profiles, |profile| Some(profile.arn())));
    let users = describe::instances(client, of_the_living(used)).await?;
    let users_of = |arn: &str| {
        let uses = |instance: &&Instance| {
            instance.iam_instance_profile().and_then(|profile| profile.arn()) == Some(arn)
        };
        ids(users.iter().filter(uses), Instance::instance_id)
    };
    let mut found: Vec<Resource> = profiles
        .iter()
        .map(|profile| resources::instance_profile(region, profile, users_of(profile.arn())))
        .collect();
    found.extend(roles.iter().map(|(role, profiles)| resources::role(region, role, profiles)));
    Ok(found)
}

fn of_the_living(questions: Vec<Question>) -> Vec<Question> {
    questions.into_iter().map(|question| [question, vec![alive()]].concat()).collect()
}

fn each_once(mut found: Vec<Resource>) -> Vec<Resource> {
    found.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    found.dedup_by(|a, b| a.kind == b.kind && a.id == b.id);
    found
}

fn ids<'a, T: 'a>(found: impl IntoIterator<Item = &'a T>, id: impl Fn(&'a T) -> Option<&'a str>) -> Ids {
    found.into_iter().filter_map(id).map(str::to_owned).collect()
}

fn groups_of(instance: &Instance) -> impl Iterator<Item = String> + '_ {
    instance.security_groups().iter().filter_map(|group| group.group_id()).map(str::to_owned)
}
