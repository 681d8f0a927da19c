//! The search for everything in a region that may belong to a build.
//!
//! Must never decide what does: look-alikes come along, and the domain leaves them alone. A ledger was written where a
//! template could write as well, so that only what has an id's or a name's form is asked for, and no wildcard.

use std::collections::BTreeSet;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Filter, Image, Instance};
use ciab_core::ports::{PortError, Trace};
use ciab_core::resource::{Resource, ResourceKind, key_pair_name, tag};
use futures::try_join;

use super::{describe, resources};

type Ids = BTreeSet<String>;

/// In three rounds, each side by side: what is tagged, noted or known; what comes from that; what comes from that again.
pub(super) async fn find(client: &Client, trace: &Trace<'_>) -> Result<Vec<Resource>, PortError> {
    let wanted = Wanted::of(trace);
    let tagged = || tag_filters(trace);
    let (mut instances, noted_instances) = try_join!(
        describe::instances(client, tagged()),
        describe::instances_by(client, "instance-id", wanted.instances.clone()),
    )?;
    instances.extend(noted_instances);
    let alive: Ids = ids(&instances, Instance::instance_id);
    // An AMI or snapshot outlives the instance that it was made from.
    let origins: Ids = alive.union(&wanted.instances).cloned().collect();

    let (volumes, groups, key_pairs, images) = try_join!(
        async {
            let (tagged, noted, attached) = try_join!(
                describe::volumes(client, tagged()),
                describe::volumes_by(client, "volume-id", wanted.volumes),
                describe::volumes_by(client, "attachment.instance-id", alive.clone()),
            )?;
            Ok([tagged, noted, attached].concat())
        },
        async {
            let used: Ids = instances.iter().flat_map(groups_of).collect();
            let (tagged, noted, named) = try_join!(
                describe::groups(client, tagged()),
                describe::groups_by(client, "group-id", used.union(&wanted.group_ids).cloned().collect()),
                describe::groups_by(client, "group-name", wanted.group_names),
            )?;
            Ok([tagged, noted, named].concat())
        },
        async {
            let (tagged, noted) = try_join!(
                describe::key_pairs(client, tagged()),
                describe::key_pairs_by(client, "key-name", wanted.key_pairs),
            )?;
            Ok([tagged, noted].concat())
        },
        async {
            let (tagged, noted, made) = try_join!(
                describe::images(client, tagged()),
                describe::images_by(client, "image-id", wanted.images.clone()),
                describe::images_by(client, "source-instance-id", origins.clone()),
            )?;
            Ok::<_, PortError>([tagged, noted, made].concat())
        },
    )?;

    let behind: Ids = images.iter().filter_map(resources::image).flat_map(|image| image.snapshots).collect();
    let named: Ids = ids(&images, Image::image_id)
        .into_iter()
        .chain(wanted.images)
        .chain(origins)
        .map(|id| format!("*{id}*"))
        .collect();
    let group_ids = ids(&groups, |group| group.group_id());
    let (snapshots, group_users) = try_join!(
        async {
            let (tagged, noted, described) = try_join!(
                describe::snapshots(client, tagged()),
                describe::snapshots_by(
                    client,
                    "snapshot-id",
                    behind.union(&wanted.snapshots).cloned().collect()
                ),
                describe::snapshots_by(client, "description", named),
            )?;
            Ok([tagged, noted, described].concat())
        },
        describe::instances_by(client, "instance.group-id", group_ids),
    )?;

    let users_of = |group: &str| -> Ids {
        let users = group_users.iter().filter(|instance| groups_of(instance).any(|id| id == group));
        users.filter_map(|instance| instance.instance_id()).map(str::to_owned).collect()
    };
    let mut found: Vec<Resource> = instances.iter().filter_map(resources::instance).collect();
    found.extend(volumes.iter().filter_map(resources::volume));
    found.extend(groups.iter().filter_map(|group| {
        resources::security_group(group, users_of(group.group_id().unwrap_or_default()))
    }));
    found.extend(key_pairs.iter().filter_map(resources::key_pair));
    found.extend(images.iter().filter_map(resources::image));
    found.extend(snapshots.iter().filter_map(resources::snapshot));
    Ok(each_once(found))
}

fn each_once(mut found: Vec<Resource>) -> Vec<Resource> {
    found.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    found.dedup_by(|a, b| a.kind == b.kind && a.id == b.id);
    found
}

fn tag_filters(trace: &Trace<'_>) -> Vec<Filter> {
    vec![
        describe::filter(&format!("tag:{}", tag::STACK), [trace.stack]),
        describe::filter(&format!("tag:{}", tag::BUILD_ID), [trace.build_id.to_string()]),
    ]
}

fn ids<T>(found: &[T], id: impl Fn(&T) -> Option<&str>) -> Ids {
    found.iter().filter_map(id).map(str::to_owned).collect()
}

fn groups_of(instance: &Instance) -> impl Iterator<Item = String> + '_ {
    instance.security_groups().iter().filter_map(|group| group.group_id()).map(str::to_owned)
}

/// What the ledger and earlier looks name, by kind, and nothing that has not the form of what it should be.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    instances: Ids,
    volumes: Ids,
    group_ids: Ids,
    group_names: Ids,
    key_pairs: Ids,
    images: Ids,
    snapshots: Ids,
}

impl Wanted {
    fn of(trace: &Trace<'_>) -> Self {
        let named = |noted: &Ids, kind, fits: &dyn Fn(&str) -> bool| -> Ids {
            let known =
                trace.known.iter().filter(|resource| resource.kind == kind).map(|resource| &resource.id);
            let noted = noted.iter().filter(|name| fits(name)).cloned();
            noted.chain(known.filter(|name| fits(name)).cloned()).collect()
        };
        let ledger = trace.ledger;
        let mut key_pairs = named(&ledger.key_pairs, ResourceKind::KeyPair, &is_name);
        // The one wildcard, and ours: a template with several sources has several key pairs.
        key_pairs.insert(format!("{}*", key_pair_name(trace.build_id)));
        Self {
            instances: named(&ledger.instances, ResourceKind::Instance, &|id| is_id("i-", id)),
            volumes: named(&ledger.volumes, ResourceKind::Volume, &|id| is_id("vol-", id)),
            group_ids: named(&ledger.security_groups, ResourceKind::SecurityGroup, &|id| is_id("sg-", id)),
            group_names: ledger
                .security_groups
                .iter()
                .filter(|name| !is_id("sg-", name) && is_name(name))
                .cloned()
                .collect(),
            key_pairs,
            images: named(&ledger.images, ResourceKind::Image, &|id| is_id("ami-", id)),
            snapshots: named(&ledger.snapshots, ResourceKind::Snapshot, &|id| is_id("snap-", id)),
        }
    }
}

fn is_id(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        (1..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// A name that means itself in a filter: `*`, `?` and `\` would mean more.
fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"*?\\".contains(&byte))
}

#[cfg(test)]
mod tests {
    use ciab_core::ledger::Ledger;

    use super::*;

    #[test]
    fn a_ledger_cannot_ask_for_everything() {
        let ledger = Ledger {
            instances: ["*".into(), "i-*".into(), "i-0abc".into(), "vol-0abc".into()].into(),
            security_groups: ["packer_*".into(), "packer_1".into(), "sg-0abc".into()].into(),
            key_pairs: ["?".into(), "packer_2".into(), String::new(), "a\\b".into()].into(),
            ..Ledger::default()
        };
        let build_id = "550e8400-e29b-41d4-a716-446655440000".parse().unwrap();
        let wanted = Wanted::of(&Trace { stack: "prod", build_id, ledger: &ledger, known: &[] });
        assert_eq!(wanted.instances, ["i-0abc".to_owned()].into());
        assert_eq!(wanted.group_names, ["packer_1".to_owned()].into());
        assert_eq!(wanted.group_ids, ["sg-0abc".to_owned()].into());
        assert_eq!(
            wanted.key_pairs,
            ["packer_2".to_owned(), "ciab-550e8400-e29b-41d4-a716-446655440000*".to_owned()].into()
        );
    }
}
