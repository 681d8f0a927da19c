//! What a build makes in EC2 and IAM beside its image, and the proof that something is ours to delete.
//!
//! Must never call a thing ours because of its name's look alone: a foreign Packer's `packer_…` key pair stays.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{BuildId, Region};
use crate::ledger::Ledger;

/// Tag keys that say whose a thing is.
pub mod tag {
    /// `true` on everything of ours.
    pub const MANAGED: &str = "ciab:managed";
    /// The stack's name.
    pub const STACK: &str = "ciab:stack";
    /// The build's id.
    pub const BUILD_ID: &str = "ciab:build-id";
    /// The agent.
    pub const PROVIDER: &str = "ciab:provider";
    /// The template's digest.
    pub const TEMPLATE_DIGEST: &str = "ciab:template-digest";
    /// RFC 3339; past it, whatever carries it, other than a finished image, is waste.
    pub const EXPIRES_AT: &str = "ciab:expires-at";
    /// The build's id, on an EC2 instance that is its runner. A key of its own: a runner is no leftover of a build that runs.
    pub const RUNNER_OF: &str = "ciab:runner-of";
}

/// The kinds of things a build may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// An EC2 instance.
    Instance,
    /// An EBS volume.
    Volume,
    /// A security group.
    SecurityGroup,
    /// A key pair, by name.
    KeyPair,
    /// An AMI.
    Image,
    /// An EBS snapshot.
    Snapshot,
    /// An EC2 launch template.
    LaunchTemplate,
    /// An IAM instance profile, by name.
    InstanceProfile,
    /// An IAM role, by name.
    Role,
}

impl ResourceKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Instance,
        Self::Volume,
        Self::SecurityGroup,
        Self::KeyPair,
        Self::Image,
        Self::Snapshot,
        Self::LaunchTemplate,
        Self::InstanceProfile,
        Self::Role,
    ];
}

/// One thing in EC2 or IAM, with all that is needed to judge whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Its kind.
    pub kind: ResourceKind,
    /// The region that it is in; for what IAM holds, the one that it was found from.
    pub region: Region,
    /// Its id; for what has no id that is asked for, its name.
    pub id: String,
    /// Whether EC2 already takes it away (an instance that shuts down).
    #[serde(default)]
    pub going: bool,
    /// Whether nothing is left of it but its name and tags, which EC2 still shows (an instance that is terminated). It costs
    /// nothing and cannot be deleted, but it vouches for what came from it.
    #[serde(default)]
    pub gone: bool,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// A security group's, a launch template's or an AMI's name.
    #[serde(default)]
    pub name: String,
    /// Its description.
    #[serde(default)]
    pub description: String,
    /// When it was made, where EC2 tells.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// What it comes from or belongs to: an AMI's source instance, a snapshot's AMI and instance, the instances that use
    /// a security group or hold a volume.
    #[serde(default)]
    pub parents: BTreeSet<String>,
    /// Snapshots behind an AMI.
    #[serde(default)]
    pub snapshots: BTreeSet<String>,
    /// For an AMI, or a snapshot behind one, that EC2 calls a copy: the AMI that it was copied from.
    #[serde(default)]
    pub copied_from: Option<String>,
    /// Whether an AMI's state is `available`.
    #[serde(default)]
    pub available: bool,
}

impl Resource {
    /// A thing of which only kind, place and id are known.
    pub fn bare(kind: ResourceKind, region: Region, id: impl Into<String>) -> Self {
        Self {
            kind,
            region,
            id: id.into(),
            going: false,
            gone: false,
            tags: BTreeMap::new(),
            name: String::new(),
            description: String::new(),
            created_at: None,
            parents: BTreeSet::new(),
            snapshots: BTreeSet::new(),
            copied_from: None,
            available: false,
        }
    }

    /// Whether it carries the tags of this stack and build.
    pub fn is_tagged(&self, stack: &str, build_id: BuildId) -> bool {
        is_tagged(&self.tags, stack, build_id)
    }
}

/// Whether these are the tags of something of this stack and build.
pub fn is_tagged(tags: &BTreeMap<String, String>, stack: &str, build_id: BuildId) -> bool {
    tags.get(tag::STACK).map(String::as_str) == Some(stack)
        && tags.get(tag::BUILD_ID) == Some(&build_id.to_string())
}

/// Why a thing is a build's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It carries the stack's and the build's tag.
    Tag,
    /// It is a key pair whose name begins with the build's own: the build's id is a UUID.
    Name,
    /// It carries no owner's tag, and comes from something that is, or was at an earlier look, the build's own.
    Parent,
    /// It carries no owner's tag, has the name and description that Packer gives, and stands in the build's ledger.
    Ledger,
    /// EC2 calls it a copy of an AMI of this build, and the build did not succeed: nobody else copies an AMI that never
    /// came to be an image.
    Copy,
}

/// The description that Packer gives its security groups.
const PACKER_GROUP_DESCRIPTION: &str = "Temporary group for Packer";
/// What the names begin with that Packer gives: key pairs and security groups, IAM roles and profiles, launch templates.
const PACKER_NAME: &str = "packer_";
const PACKER_IAM_NAME: &str = "packer-";
const PACKER_LAUNCH_TEMPLATE_NAME: &str = "packer-fleet-launch-template-";

/// The name that a build's key pair is given; where a template has several sources, theirs begin with it.
pub fn key_pair_name(build_id: BuildId) -> String {
    format!("ciab-{build_id}")
}

/// Whose things are looked for, and what is known of them.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The stack.
    pub stack: &'a str,
    /// The build.
    pub build_id: BuildId,
    /// Since when it could make anything.
    pub began: Timestamp,
    /// Whether it has ended well.
    pub succeeded: bool,
    /// What the runner noted.
    pub ledger: &'a Ledger,
    /// What earlier looks proved, by id: an instance that is gone no longer vouches for its security group.
    pub proven: &'a ByKind,
}

/// Those of `found` that are the owner's, each with its proof. Everything else is somebody else's.
pub fn owned(found: &[Resource], owner: &Owner<'_>) -> Vec<(Resource, Proof)> {
    let mut ours: Vec<(Resource, Proof)> = Vec::new();
    let mut known: BTreeSet<&str> = owner.proven.ids().collect();
    let mut seen: BTreeSet<(ResourceKind, &Region, &str)> = BTreeSet::new();
    // Until nothing is added, so that a snapshot finds its AMI, which found its instance, in whatever order they came.
    loop {
        let before = ours.len();
        for resource in found {
            let key = (resource.kind, &resource.region, resource.id.as_str());
            if !seen.contains(&key)
                && let Some(proof) = proof(resource, owner, &known)
            {
                seen.insert(key);
                known.insert(resource.id.as_str());
                ours.push((resource.clone(), proof));
            }
        }
        if ours.len() == before {
            break;
        }
    }
    ours.sort_by(|a, b| (a.0.kind, &a.0.region, &a.0.id).cmp(&(b.0.kind, &b.0.region, &b.0.id)));
    ours
}

fn proof(resource: &Resource, owner: &Owner<'_>, known: &BTreeSet<&str>) -> Option<Proof> {
    match (resource.tags.get(tag::STACK), resource.tags.get(tag::BUILD_ID)) {
        (Some(_), Some(_)) => {
            return resource.is_tagged(owner.stack, owner.build_id).then_some(Proof::Tag);
        }
        // Half an owner is another's mark, or a mistake: either way not a proof.
        (Some(_), None) | (None, Some(_)) => return None,
        (None, None) => {}
    }
    // What is older than the build cannot be the build's, whatever a ledger says.
    // EC2 tells times to the whole second.
    if resource.created_at.is_some_and(|at| at.as_second() < owner.began.as_second()) {
        return None;
    }
    let has_own_parent = resource.parents.iter().any(|parent| known.contains(parent.as_str()));
    let has_foreign_parent = resource.parents.iter().any(|parent| !known.contains(parent.as_str()));
    let was_proven = owner.proven.of(resource.kind).contains(&resource.id);
    let ledger = owner.ledger;
    let in_ledger = |named: &BTreeSet<String>, prefix: &str| {
        let name = if resource.name.is_empty() { &resource.id } else { &resource.name };
        let noted = named.contains(&resource.id) || named.contains(name);
        (name.starts_with(prefix) && noted).then_some(Proof::Ledger)
    };
    match resource.kind {
        ResourceKind::Instance => None,
        ResourceKind::KeyPair if resource.id.starts_with(&key_pair_name(owner.build_id)) => Some(Proof::Name),
        ResourceKind::KeyPair => in_ledger(&ledger.key_pairs, PACKER_NAME),
        ResourceKind::SecurityGroup => {
            let by_packer =
                resource.name.starts_with(PACKER_NAME) && resource.description == PACKER_GROUP_DESCRIPTION;
            if !by_packer || has_foreign_parent {
                return None;
            }
            if has_own_parent || was_proven {
                Some(Proof::Parent)
            } else {
                in_ledger(&ledger.security_groups, PACKER_NAME)
            }
        }
        ResourceKind::Image | ResourceKind::Snapshot | ResourceKind::Volume => {
            let copy_of_ours = || {
                let original = resource.copied_from.as_deref();
                !owner.succeeded && original.is_some_and(|original| known.contains(original))
            };
            if has_own_parent || was_proven {
                Some(Proof::Parent)
            } else {
                copy_of_ours().then_some(Proof::Copy)
            }
        }
        ResourceKind::LaunchTemplate | ResourceKind::InstanceProfile | ResourceKind::Role
            if has_foreign_parent =>
        {
            None
        }
        ResourceKind::LaunchTemplate => in_ledger(&ledger.launch_templates, PACKER_LAUNCH_TEMPLATE_NAME),
        ResourceKind::InstanceProfile => in_ledger(&ledger.instance_profiles, PACKER_IAM_NAME),
        ResourceKind::Role => in_ledger(&ledger.roles, PACKER_IAM_NAME),
    }
}

/// Ids by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ByKind {
    /// Instance ids.
    pub instances: BTreeSet<String>,
    /// Volume ids.
    pub volumes: BTreeSet<String>,
    /// Security group ids.
    pub security_groups: BTreeSet<String>,
    /// Key pair names.
    pub key_pairs: BTreeSet<String>,
    /// AMI ids.
    pub images: BTreeSet<String>,
    /// Snapshot ids.
    pub snapshots: BTreeSet<String>,
    /// Launch template ids.
    pub launch_templates: BTreeSet<String>,
    /// IAM instance profile names.
    pub instance_profiles: BTreeSet<String>,
    /// IAM role names.
    pub roles: BTreeSet<String>,
}

impl ByKind {
    /// Those of a list.
    pub fn of_all(resources: &[Resource]) -> Self {
        let mut by_kind = Self::default();
        for resource in resources {
            by_kind.insert(resource);
        }
        by_kind
    }

    /// Adds one.
    pub fn insert(&mut self, resource: &Resource) {
        let set = match resource.kind {
            ResourceKind::Instance => &mut self.instances,
            ResourceKind::Volume => &mut self.volumes,
            ResourceKind::SecurityGroup => &mut self.security_groups,
            ResourceKind::KeyPair => &mut self.key_pairs,
            ResourceKind::Image => &mut self.images,
            ResourceKind::Snapshot => &mut self.snapshots,
            ResourceKind::LaunchTemplate => &mut self.launch_templates,
            ResourceKind::InstanceProfile => &mut self.instance_profiles,
            ResourceKind::Role => &mut self.roles,
        };
        set.insert(resource.id.clone());
    }

    /// The ids of one kind.
    pub fn of(&self, kind: ResourceKind) -> &BTreeSet<String> {
        match kind {
            ResourceKind::Instance => &self.instances,
            ResourceKind::Volume => &self.volumes,
            ResourceKind::SecurityGroup => &self.security_groups,
            ResourceKind::KeyPair => &self.key_pairs,
            ResourceKind::Image => &self.images,
            ResourceKind::Snapshot => &self.snapshots,
            ResourceKind::LaunchTemplate => &self.launch_templates,
            ResourceKind::InstanceProfile => &self.instance_profiles,
            ResourceKind::Role => &self.roles,
        }
    }

    /// The ids of all kinds.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        ResourceKind::ALL.into_iter().flat_map(|kind| self.of(kind)).map(String::as_str)
    }

    /// Those that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        Self {
            instances: &self.instances - &other.instances,
            volumes: &self.volumes - &other.volumes,
            security_groups: &self.security_groups - &other.security_groups,
            key_pairs: &self.key_pairs - &other.key_pairs,
            images: &self.images - &other.images,
            snapshots: &self.snapshots - &other.snapshots,
            launch_templates: &self.launch_templates - &other.launch_templates,
            instance_profiles: &self.instance_profiles - &other.instance_profiles,
            roles: &self.roles - &other.roles,
        }
    }
}

/// The clean-up proof: what was found after a build and what of that is gone. Equal when all is clean.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leftovers {
    /// Found after the build stopped.
    pub found: ByKind,
    /// Seen to be gone.
    pub removed: ByKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";

    fn thing(kind: ResourceKind, id: &str) -> Resource {
        Resource::bare(kind, "us-east-1".parse().unwrap(), id)
    }

    fn tagged(mut resource: Resource, stack: &str, build: &str) -> Resource {
        resource.tags.insert(tag::STACK.into(), stack.into());
        resource.tags.insert(tag::BUILD_ID.into(), build.into());
        resource
    }

    fn child(mut resource: Resource, parent: &str) -> Resource {
        resource.parents.insert(parent.into());
        resource
    }

    fn packer_group(id: &str) -> Resource {
        let mut group = thing(ResourceKind::SecurityGroup, id);
        group.name = "packer_1".into();
        group.description = PACKER_GROUP_DESCRIPTION.into();
        group
    }

    fn ids(found: &[Resource], ledger: &Ledger) -> Vec<String> {
        ids_after(found, ledger, &[])
    }

    fn ids_after(found: &[Resource], ledger: &Ledger, proven: &[Resource]) -> Vec<String> {
        let began = "2026-03-25T14:30:00Z".parse().unwrap();
        let proven = &ByKind::of_all(proven);
        let owner = Owner {
            stack: "prod",
            build_id: BUILD.parse().unwrap(),
            began,
            succeeded: false,
            ledger,
            proven,
        };
        owned(found, &owner).into_iter().map(|(resource, _)| resource.id).collect()
    }

    #[test]
    fn a_group_stays_proven_when_its_instance_is_gone_unless_somebody_else_uses_it_now() {
        let proven = [child(packer_group("sg-1"), "i-ours")];
        assert_eq!(ids_after(&[packer_group("sg-1")], &Ledger::default(), &proven), ["sg-1"]);
        let taken = [child(packer_group("sg-1"), "i-foreign")];
        assert!(ids_after(&taken, &Ledger::default(), &proven).is_empty());
    }

    #[test]
    fn tags_prove_ownership_only_together_and_only_ours() {
        let found = [
            tagged(thing(ResourceKind::Instance, "i-ours"), "prod", BUILD),
            tagged(thing(ResourceKind::Instance, "i-other-stack"), "staging", BUILD),
            tagged(thing(ResourceKind::Instance, "i-other-build"), "prod", "0"),
            thing(ResourceKind::Instance, "i-untagged"),
        ];
        assert_eq!(ids(&found, &Ledger::default()), ["i-ours"]);
    }

    #[test]
    fn a_foreign_packers_key_pair_and_group_stay() {
        let found = [thing(ResourceKind::KeyPair, "packer_abc"), packer_group("sg-foreign")];
        assert!(ids(&found, &Ledger::default()).is_empty());
    }

    #[test]
    fn our_key_pair_is_known_by_the_build_id_in_its_name() {
        let found = [
            thing(ResourceKind::KeyPair, &format!("ciab-{BUILD}")),
            thing(ResourceKind::KeyPair, "ciab-other"),
        ];
        assert_eq!(ids(&found, &Ledger::default()), [format!("ciab-{BUILD}")]);
    }

    #[test]
    fn a_chain_from_a_tagged_instance_leads_to_its_group_image_and_snapshot() {
        let found = [
            child(thing(ResourceKind::Snapshot, "snap-1"), "ami-1"),
            child(thing(ResourceKind::Image, "ami-1"), "i-ours"),
            child(packer_group("sg-1"), "i-ours"),
            tagged(thing(ResourceKind::Instance, "i-ours"), "prod", BUILD),
        ];
        assert_eq!(ids(&found, &Ledger::default()), ["i-ours", "sg-1", "ami-1", "snap-1"]);
    }

    #[test]
    fn a_group_that_somebody_else_uses_too_stays() {
        let mut group = child(packer_group("sg-1"), "i-ours");
        group.parents.insert("i-foreign".into());
        let found = [group, tagged(thing(ResourceKind::Instance, "i-ours"), "prod", BUILD)];
        let ledger = Ledger { security_groups: ["sg-1".into()].into(), ..Ledger::default() };
        assert_eq!(ids(&found, &ledger), ["i-ours"]);
    }

    #[test]
    fn the_ledger_alone_condemns_no_instance_volume_image_or_own_group() {
        let mut own_group = thing(ResourceKind::SecurityGroup, "sg-web");
        own_group.name = "web".into();
        let found = [
            thing(ResourceKind::Instance, "i-victim"),
            thing(ResourceKind::Volume, "vol-victim"),
            thing(ResourceKind::Image, "ami-victim"),
            thing(ResourceKind::KeyPair, "admin"),
            own_group,
        ];
        let ledger = Ledger {
            instances: ["i-victim".into()].into(),
            volumes: ["vol-victim".into()].into(),
            images: ["ami-victim".into()].into(),
            key_pairs: ["admin".into()].into(),
            security_groups: ["sg-web".into()].into(),
            ..Ledger::default()
        };
        assert!(ids(&found, &ledger).is_empty());
    }

    #[test]
    fn what_is_older_than_the_build_is_not_its_own() {
        let mut image = child(thing(ResourceKind::Image, "ami-old"), "i-ours");
        image.created_at = Some("2020-01-01T00:00:00Z".parse().unwrap());
        let found = [image, tagged(thing(ResourceKind::Instance, "i-ours"), "prod", BUILD)];
        assert_eq!(ids(&found, &Ledger::default()), ["i-ours"]);
    }

    #[test]
    fn a_group_in_the_ledger_with_packers_marks_is_ours() {
        let ledger = Ledger { security_groups: ["packer_1".into()].into(), ..Ledger::default() };
        assert_eq!(ids(&[packer_group("sg-1")], &ledger), ["sg-1"]);
    }
}
