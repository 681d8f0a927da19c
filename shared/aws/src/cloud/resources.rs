//! From EC2's descriptions to the domain's resources. Pure.
//!
//! A parent is noted only where EC2 itself says so: a description that a person wrote proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    Image, ImageState, Instance, InstanceStateName, KeyPairInfo, SecurityGroup, Snapshot, Tag, Volume,
    VolumeState,
};
use ciab_core::ports::CloudImage;
use ciab_core::resource::{Resource, ResourceKind};
use jiff::Timestamp;

use crate::time::timestamp;

fn tags(tags: &[Tag]) -> BTreeMap<String, String> {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned())))
        .collect()
}

fn bare(kind: ResourceKind, id: &str, tagged: &[Tag]) -> Resource {
    Resource {
        kind,
        id: id.to_owned(),
        going: false,
        tags: tags(tagged),
        name: String::new(),
        description: String::new(),
        created_at: None,
        parents: BTreeSet::new(),
        snapshots: BTreeSet::new(),
    }
}

pub(super) fn instance(instance: &Instance) -> Option<Resource> {
    let state = instance.state().and_then(|state| state.name());
    Some(Resource {
        going: state == Some(&InstanceStateName::ShuttingDown),
        created_at: instance.launch_time().and_then(timestamp),
        ..bare(ResourceKind::Instance, instance.instance_id()?, instance.tags())
    })
}

pub(super) fn volume(volume: &Volume) -> Option<Resource> {
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
        ..bare(ResourceKind::Volume, volume.volume_id()?, volume.tags())
    })
}

/// `users` are the instances that use the group.
pub(super) fn security_group(group: &SecurityGroup, users: BTreeSet<String>) -> Option<Resource> {
    Some(Resource {
        name: group.group_name().unwrap_or_default().to_owned(),
        description: group.description().unwrap_or_default().to_owned(),
        parents: users,
        ..bare(ResourceKind::SecurityGroup, group.group_id()?, group.tags())
    })
}

pub(super) fn key_pair(pair: &KeyPairInfo) -> Option<Resource> {
    Some(Resource {
        created_at: pair.create_time().and_then(timestamp),
        ..bare(ResourceKind::KeyPair, pair.key_name()?, pair.tags())
    })
}

pub(super) fn image(image: &Image) -> Option<Resource> {
    if image.state() == Some(&ImageState::Deregistered) {
        return None;
    }
    Some(Resource {
        name: image.name().unwrap_or_default().to_owned(),
        description: image.description().unwrap_or_default().to_owned(),
        created_at: image.creation_date().and_then(|date| date.parse::<Timestamp>().ok()),
        parents: image.source_instance_id().map(str::to_owned).into_iter().collect(),
        snapshots: image_snapshots(image).collect(),
        ..bare(ResourceKind::Image, image.image_id()?, image.tags())
    })
}

pub(super) fn snapshot(snapshot: &Snapshot) -> Option<Resource> {
    let description = snapshot.description().unwrap_or_default();
    Some(Resource {
        description: description.to_owned(),
        created_at: snapshot.start_time().and_then(timestamp),
        parents: snapshot_parents(description),
        ..bare(ResourceKind::Snapshot, snapshot.snapshot_id()?, snapshot.tags())
    })
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

fn image_snapshots(image: &Image) -> impl Iterator<Item = String> + '_ {
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
    description
        .strip_prefix("Copied for DestinationAmi ")
        .and_then(|rest| rest.split(' ').next())
        .and_then(made_for)
        .into_iter()
        .collect()
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
