//! From EC2's and IAM's descriptions to the domain's resources. Pure.
//!
//! A parent is noted only where the service itself says so: a description that a person wrote proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    Image, ImageState, Instance, InstanceStateName, KeyPairInfo, LaunchTemplate, SecurityGroup, Snapshot,
    Tag, Volume, VolumeState,
};
use aws_sdk_iam::types::{InstanceProfile, Role};
use ciab_core::ids::Region;
use ciab_core::ports::CloudImage;
use ciab_core::resource::{Resource, ResourceKind};
use jiff::Timestamp;

use crate::time::timestamp;

fn tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

fn bare(kind: ResourceKind, region: &Region, id: &str, tagged: &[Tag]) -> Resource {
    Resource { tags: tags(tagged), ..Resource::bare(kind, region.clone(), id) }
}

pub(super) fn is_terminated(instance: &Instance) -> bool {
    state_of(instance) == Some(&InstanceStateName::Terminated)
}

fn state_of(instance: &Instance) -> Option<&InstanceStateName> {
    instance.state().and_then(|state| state.name())
}

pub(super) fn instance(region: &Region, instance: &Instance) -> Option<Resource> {
    Some(Resource {
        going: state_of(instance) == Some(&InstanceStateName::ShuttingDown),
        gone: is_terminated(instance),
        created_at: instance.launch_time().and_then(timestamp),
        ..bare(ResourceKind::Instance, region, instance.instance_id()?, instance.tags())
    })
}

pub(super) fn volume(region: &Region, volume: &Volume) -> Option<Resource> {
    if volume.state() == Some(&VolumeState::Deleted) {
        return None;
    }
    Some(Resource {
        going: volume.state() == Some(&VolumeState::Deleting),
        created_at: volume.create_time().and_then(timestamp),
        parents: volume
            .attachments()
            .iter()
            .filter_map(|attachment| attachment.instance_id().map(str::to_owned))
            .collect(),
        ..bare(ResourceKind::Volume, region, volume.volume_id()?, volume.tags())
    })
}

/// `users` are the instances that use the group.
pub(super) fn security_group(
    region: &Region,
    group: &SecurityGroup,
    users: BTreeSet<String>,
) -> Option<Resource> {
    Some(Resource {
        name: group.group_name().unwrap_or_default().to_owned(),
        description: group.description().unwrap_or_default().to_owned(),
        parents: users,
        ..bare(ResourceKind::SecurityGroup, region, group.group_id()?, group.tags())
    })
}

pub(super) fn key_pair(region: &Region, pair: &KeyPairInfo) -> Option<Resource> {
    Some(Resource {
        created_at: pair.create_time().and_then(timestamp),
        ..bare(ResourceKind::KeyPair, region, pair.key_name()?, pair.tags())
    })
}

pub(super) fn image(region: &Region, image: &Image) -> Option<Resource> {
    if image.state() == Some(&ImageState::Deregistered) {
        return None;
    }
    Some(Resource {
        name: image.name().unwrap_or_default().to_owned(),
        description: image.description().unwrap_or_default().to_owned(),
        created_at: image.creation_date().and_then(|date| date.parse::<Timestamp>().ok()),
        parents: image.source_instance_id().map(str::to_owned).into_iter().collect(),
        snapshots: image_snapshots(image).collect(),
        copied_from: copied_from(image).map(str::to_owned),
        available: image.state() == Some(&ImageState::Available),
        ..bare(ResourceKind::Image, region, image.image_id()?, image.tags())
    })
}

pub(super) fn snapshot(region: &Region, snapshot: &Snapshot) -> Option<Resource> {
    let description = snapshot.description().unwrap_or_default();
    Some(Resource {
        description: description.to_owned(),
        created_at: snapshot.start_time().and_then(timestamp),
        parents: snapshot_parents(description),
        copied_from: copy(description).map(|(_, original)| original.to_owned()),
        ..bare(ResourceKind::Snapshot, region, snapshot.snapshot_id()?, snapshot.tags())
    })
}

pub(super) fn launch_template(region: &Region, template: &LaunchTemplate) -> Option<Resource> {
    Some(Resource {
        name: template.launch_template_name().unwrap_or_default().to_owned(),
        created_at: template.create_time().and_then(timestamp),
        ..bare(ResourceKind::LaunchTemplate, region, template.launch_template_id()?, template.tags())
    })
}

/// `users` are the instances that use the profile.
pub(super) fn instance_profile(
    region: &Region,
    profile: &InstanceProfile,
    users: BTreeSet<String>,
) -> Resource {
    Resource {
        name: profile.instance_profile_name().to_owned(),
        created_at: timestamp(profile.create_date()),
        parents: users,
        tags: iam_tags(profile.tags()),
        ..Resource::bare(ResourceKind::InstanceProfile, region.clone(), profile.instance_profile_name())
    }
}

/// `profiles` are the names of those that hold the role. Packer gives a role and its profile one name: that pair is no
/// foreigner's.
pub(super) fn role(region: &Region, role: &Role, profiles: &BTreeSet<String>) -> Resource {
    Resource {
        name: role.role_name().to_owned(),
        description: role.description().unwrap_or_default().to_owned(),
        created_at: timestamp(role.create_date()),
        parents: profiles.iter().filter(|profile| *profile != role.role_name()).cloned().collect(),
        tags: iam_tags(role.tags()),
        ..Resource::bare(ResourceKind::Role, region.clone(), role.role_name())
    }
}

fn iam_tags(tags: &[aws_sdk_iam::types::Tag]) -> BTreeMap<String, String> {
    tags.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

/// None for an image that is gone, or whose id is none.
pub(super) fn cloud_image(image: &Image) -> Option<CloudImage> {
    if image.state() == Some(&ImageState::Deregistered) {
        return None;
    }
    Some(CloudImage {
        id: image.image_id()?.parse().ok()?,
        available: image.state() == Some(&ImageState::Available),
        pending: matches!(image.state(), Some(ImageState::Pending | ImageState::Transient)),
        name: image.name().unwrap_or_default().to_owned(),
        tags: tags(image.tags()),
        snapshots: image_snapshots(image).collect(),
    })
}

/// EC2 tells of an image made from an instance which AMI that instance was launched from. That is no copy.
fn copied_from(image: &Image) -> Option<&str> {
    let made_from_instance = image.source_instance_id().is_some_and(|id| !id.is_empty());
    image.source_image_id().filter(|id| !made_from_instance && !id.is_empty())
}

pub(super) fn image_snapshots(image: &Image) -> impl Iterator<Item = String> + '_ {
    image
        .block_device_mappings()
        .iter()
        .filter_map(|device| device.ebs())
        .filter_map(|disk| disk.snapshot_id())
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
}

/// The instance and the AMI that EC2 made a snapshot for. A copy belongs to the AMI that it was made for and not to the
/// one that it came from: that a copy of our AMI exists does not make the copy ours.
fn snapshot_parents(description: &str) -> BTreeSet<String> {
    let made_for = |id: &str| id.starts_with("ami-").then(|| id.to_owned());
    if let Some(rest) = description.strip_prefix("Created by CreateImage(")
        && let Some((instance, rest)) = rest.split_once(')')
    {
        let image = rest.strip_prefix(" for ").and_then(|rest| rest.split(' ').next()).and_then(made_for);
        let instance = instance.starts_with("i-").then(|| instance.to_owned());
        return instance.into_iter().chain(image).collect();
    }
    copy(description).map(|(image, _)| image.to_owned()).into_iter().collect()
}

/// The AMI that EC2 copied a snapshot for, and the AMI that it was copied from.
fn copy(description: &str) -> Option<(&str, &str)> {
    let (image, rest) =
        description.strip_prefix("Copied for DestinationAmi ")?.split_once(" from SourceAmi ")?;
    let original = rest.split([' ', '.']).next()?;
    (image.starts_with("ami-") && original.starts_with("ami-")).then_some((image, original))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parents(description: &str) -> Vec<String> {
        snapshot_parents(description).into_iter().collect()
    }

    #[test]
    fn a_snapshot_belongs_to_the_instance_and_image_that_ec2_made_it_for() {
        assert_eq!(parents("Created by CreateImage(i-0abc) for ami-0def"), ["ami-0def", "i-0abc"]);
        assert_eq!(
            parents("Created by CreateImage(i-0abc) for ami-0def from vol-0123"),
            ["ami-0def", "i-0abc"]
        );
    }

    #[test]
    fn a_copy_does_not_belong_to_what_it_was_copied_from() {
        let copied = "Copied for DestinationAmi ami-0new from SourceAmi ami-0ours for SourceSnapshot snap-0";
        assert_eq!(parents(copied), ["ami-0new"]);
    }

    #[test]
    fn what_a_person_wrote_into_a_description_is_no_parent() {
        assert!(parents("nightly backup of i-0abc, see ami-0def").is_empty());
        assert!(parents("Created by CreateImage(").is_empty());
        assert!(parents("Created by CreateImage(nobody) for nothing").is_empty());
    }
}
