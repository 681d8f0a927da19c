//! EC2 and IAM as far as builds meet them: things that take their time, are shown late, and hold each other.
//!
//! Knows of each thing who made it, which the real EC2 does not tell: that is what deletions are judged by. Must never answer
//! a port with it.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use ciab_core::ids::{BuildId, ImageId, Region};
use ciab_core::ports::{Cloud, CloudImage, Deletion, PortError, Trace};
use ciab_core::resource::{Resource, ResourceKind, key_pair_name, tag};
use jiff::Timestamp;

use crate::STACK;
use crate::world::{MINUTE, Millis, Process, SECOND, State, timestamp, unavailable};

/// Where builds may run; the last one is only copied to.
pub(crate) const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-south-1"];
/// How long EC2 shows an instance that is terminated.
const SHOWN_AFTER_END: Millis = 60 * MINUTE;

pub(crate) fn region(at: usize) -> Region {
    match REGIONS[at].parse() {
        Ok(region) => region,
        Err(error) => panic!("{error}"),
    }
}

/// Who made a thing, in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    Build(BuildId),
    SomebodyElse,
}

pub(crate) type Key = (ResourceKind, String);

/// A thing, as it is in truth.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    pub(crate) kind: ResourceKind,
    pub(crate) region: Region,
    pub(crate) id: String,
    pub(crate) maker: Maker,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) tags: BTreeMap<String, String>,
    /// From when on it is there; a snapshot comes some time after its AMI.
    pub(crate) created: Millis,
    /// From when on it is shown, and its tags.
    pub(crate) shown: Millis,
    pub(crate) tags_shown: Millis,
    pub(crate) removed: Option<Millis>,
    /// Until when it is shown although it is removed.
    pub(crate) shown_until: Millis,
    /// An instance: since when it shuts down, and when it has.
    pub(crate) shuts_down: Option<(Millis, Millis)>,
    /// An instance: whether it was our teardown that ended it.
    pub(crate) ended_by_us: bool,
    /// An instance: its security groups. A profile: its role.
    pub(crate) holds: BTreeSet<Key>,
    /// A volume: its instance, and whether it goes with it.
    pub(crate) attached: Option<(String, bool)>,
    /// An AMI: when it is `available`; never where making it fails.
    pub(crate) available: Option<Millis>,
    /// An AMI's instance; a snapshot's instance and AMI.
    pub(crate) parents: BTreeSet<String>,
    /// An AMI's snapshots.
    pub(crate) snapshots: Vec<String>,
    pub(crate) copied_from: Option<String>,
}

impl Thing {
    pub(crate) fn key(&self) -> Key {
        (self.kind, self.id.clone())
    }

    pub(crate) fn is_available(&self, now: Millis) -> bool {
        self.available.is_some_and(|at| at <= now)
    }

    fn has_shut_down(&self, now: Millis) -> bool {
        self.shuts_down.is_some_and(|(_, at)| at <= now)
    }

    pub(crate) fn is_tagged_for(&self, build: BuildId) -> bool {
        self.tags.get(tag::STACK).map(String::as_str) == Some(STACK)
            && self.tags.get(tag::BUILD_ID) == Some(&build.to_string())
    }
}

/// The things of all regions.
#[derive(Debug, Default)]
pub(crate) struct Ec2 {
    pub(crate) things: BTreeMap<Key, Thing>,
}

impl State {
    /// How late a change is shown.
    pub(crate) fn lag(&mut self) -> Millis {
        let most = self.weather.lag;
        match self.random.u8(0..3) {
            0 => 0,
            1 => most,
            _ => self.between(0, most),
        }
    }

    /// Makes a thing.
    pub(crate) fn make(
        &mut self,
        kind: ResourceKind,
        region: &Region,
        id: impl Into<String>,
        maker: Maker,
        change: impl FnOnce(&mut Thing),
    ) -> String {
        let (shown, tags_shown) = (self.now + self.lag(), self.now + self.lag());
        let mut thing = Thing {
            kind,
            region: region.clone(),
            id: id.into(),
            maker,
            name: String::new(),
            description: String::new(),
            tags: BTreeMap::new(),
            created: self.now,
            shown,
            tags_shown,
            removed: None,
            shown_until: 0,
            shuts_down: None,
            ended_by_us: false,
            holds: BTreeSet::new(),
            attached: None,
            available: None,
            parents: BTreeSet::new(),
            snapshots: Vec::new(),
            copied_from: None,
        };
        change(&mut thing);
        let id = thing.id.clone();
        self.say(|| format!("makes {:?} {id} in {} of {:?}", thing.kind, thing.region, thing.maker));
        self.ec2.things.insert(thing.key(), thing);
        id
    }

    /// Whether a thing is there, in truth.
    pub(crate) fn is_there(&self, thing: &Thing) -> bool {
        if thing.created > self.now || thing.removed.is_some() || thing.has_shut_down(self.now) {
            return false;
        }
        // A volume that goes with its instance is gone once that has shut down.
        !matches!(&thing.attached, Some((instance, true)) if !self.is_up(instance))
    }

    /// Whether an instance has not shut down.
    pub(crate) fn is_up(&self, instance: &str) -> bool {
        let key = (ResourceKind::Instance, instance.to_owned());
        self.ec2.things.get(&key).is_some_and(|instance| !instance.has_shut_down(self.now))
    }

    /// A thing as EC2 shows it, by a replica that is so much behind with what is new.
    fn show(&self, thing: &Thing, behind: Millis) -> Option<Resource> {
        let now = self.now;
        let is_ended_instance = thing.kind == ResourceKind::Instance && thing.has_shut_down(now);
        let lingers = thing.removed.is_some() && now < thing.shown_until;
        let ended_lately =
            is_ended_instance && thing.shuts_down.is_some_and(|(_, ended)| now < ended + SHOWN_AFTER_END);
        if now - behind < thing.shown || !(self.is_there(thing) || lingers || ended_lately) {
            return None;
        }
        let mut shown = Resource::bare(thing.kind, thing.region.clone(), &thing.id);
        shown.going = thing.shuts_down.is_some() && !is_ended_instance;
        shown.gone = is_ended_instance;
        if now - behind >= thing.tags_shown {
            shown.tags = thing.tags.clone();
        }
        shown.name = thing.name.clone();
        shown.description = thing.description.clone();
        // Groups and launch templates tell no time; the others tell it to the second.
        if !matches!(thing.kind, ResourceKind::SecurityGroup | ResourceKind::LaunchTemplate) {
            shown.created_at = Timestamp::from_second(timestamp(thing.created).as_second()).ok();
        }
        shown.parents = match thing.kind {
            ResourceKind::SecurityGroup => self.users_of(thing),
            ResourceKind::Volume => thing.attached.iter().map(|(instance, _)| instance.clone()).collect(),
            _ => thing.parents.clone(),
        };
        shown.available = thing.is_available(now);
        if shown.available {
            shown.snapshots = thing.snapshots.iter().cloned().collect();
        }
        shown.copied_from = thing.copied_from.clone();
        Some(shown)
    }

    /// The instances that use a group and have not shut down.
    fn users_of(&self, group: &Thing) -> BTreeSet<String> {
        let key = group.key();
        let instances = self.ec2.things.values().filter(|thing| thing.kind == ResourceKind::Instance);
        instances
            .filter(|instance| instance.holds.contains(&key) && !instance.has_shut_down(self.now))
            .map(|instance| instance.id.clone())
            .collect()
    }

    /// Whether something that is there holds a thing, so that it cannot be deleted.
    fn is_held(&self, thing: &Thing) -> bool {
        let key = thing.key();
        let mut others = self.ec2.things.values().filter(|other| self.is_there(other));
        match thing.kind {
            ResourceKind::SecurityGroup | ResourceKind::Role => {
                others.any(|other| other.holds.contains(&key))
            }
            ResourceKind::Volume => thing.attached.as_ref().is_some_and(|(instance, _)| self.is_up(instance)),
            ResourceKind::Snapshot => {
                others.any(|other| other.kind == ResourceKind::Image && other.snapshots.contains(&thing.id))
            }
            _ => false,
        }
    }

    /// Takes a thing away, whoever wants it. What is held stays.
    pub(crate) fn take_away(&mut self, key: &Key) -> Deletion {
        let Some(thing) = self.ec2.things.get(key) else { return Deletion::Gone };
        if !self.is_there(thing) {
            return Deletion::Gone;
        }
        if self.is_held(thing) {
            return Deletion::InUse;
        }
        let is_instance = thing.kind == ResourceKind::Instance;
        let slowest = if self.random.bool() { 5 * SECOND } else { 50 * SECOND };
        let (now, lag, takes) = (self.now, self.lag(), self.between(2 * SECOND, slowest));
        let Some(thing) = self.ec2.things.get_mut(key) else { return Deletion::Gone };
        if is_instance {
            thing.shuts_down.get_or_insert((now, now + takes));
            return Deletion::Going;
        }
        thing.removed = Some(now);
        thing.shown_until = now + lag;
        Deletion::Gone
    }

    /// Sets tags on a thing, as CreateTags does.
    pub(crate) fn tag(&mut self, key: &Key, tags: &BTreeMap<String, String>) {
        let shown = self.now + self.lag();
        if let Some(thing) = self.ec2.things.get_mut(key) {
            thing.tags.extend(tags.clone());
            thing.tags_shown = thing.tags_shown.max(shown);
        }
    }

    /// Makes an AMI from an instance, with a snapshot behind it that comes a little later.
    pub(crate) fn create_image(
        &mut self,
        region: &Region,
        maker: Maker,
        name: &str,
        instance: Option<&str>,
        copied_from: Option<&str>,
        takes: Option<Millis>,
    ) -> String {
        let (ami, snapshot) = (format!("ami-{}", self.digits()), format!("snap-{}", self.digits()));
        let (ready, begins) = (takes.map(|takes| self.now + takes), self.between(0, 8 * SECOND));
        let from: BTreeSet<String> = instance.map(str::to_owned).into_iter().collect();
        let begins = begins.min(takes.unwrap_or(begins));
        let parents = from.iter().cloned().chain([ami.clone()]).collect();
        self.make(ResourceKind::Snapshot, region, snapshot.clone(), maker, |thing| {
            thing.created += begins;
            thing.shown += begins;
            thing.tags_shown += begins;
            thing.parents = parents;
            thing.copied_from = copied_from.map(str::to_owned);
        });
        self.make(ResourceKind::Image, region, ami, maker, |thing| {
            thing.name = name.to_owned();
            thing.available = ready;
            thing.parents = from;
            thing.snapshots = vec![snapshot];
            thing.copied_from = copied_from.map(str::to_owned);
        })
    }

    fn answers_in(&self, region: &Region) -> bool {
        !self.weather.outage.is_some_and(|(at, from, to)| {
            REGIONS[at] == region.as_str() && from <= self.now && self.now < to && !self.calm
        })
    }

    fn ask(&self, region: &Region, operation: &'static str) -> Result<(), PortError> {
        if self.answers_in(region) {
            Ok(())
        } else {
            Err(unavailable("ec2", operation, "the region does not answer"))
        }
    }

    /// Everything that the region shows.
    fn all_shown(&mut self, region: &Region) -> Vec<Resource> {
        let behind = if self.random.u8(0..3) == 0 { self.lag() } else { 0 };
        let here = self.ec2.things.values().filter(|thing| thing.region == *region);
        here.filter_map(|thing| self.show(thing, behind)).collect()
    }

    /// What a search finds for these builds, and some that has nothing to do with them.
    fn search(&mut self, region: &Region, wanted: &[Wanted], home: bool) -> Vec<Resource> {
        let shown = self.all_shown(region);
        let mut found: BTreeMap<Key, Resource> = BTreeMap::new();
        for wanted in wanted {
            let hits = if home { wanted.find(&shown) } else { wanted.find_copies(&shown) };
            found.extend(hits.into_iter().map(|thing| ((thing.kind, thing.id.clone()), thing.clone())));
        }
        for thing in shown {
            if self.random.u8(0..4) == 0 {
                found.entry((thing.kind, thing.id.clone())).or_insert(thing);
            }
        }
        let mut found: Vec<Resource> = found.into_values().collect();
        self.random.shuffle(&mut found);
        found
    }
}

/// What a trace asks for, as the adapter asks: by tag, by what is noted and proven, and by what comes from that.
struct Wanted {
    build: String,
    key_pair: String,
    noted: BTreeSet<String>,
}

impl Wanted {
    fn of(trace: &Trace<'_>) -> Self {
        let ledger = trace.ledger;
        let sets = [
            &ledger.instances,
            &ledger.volumes,
            &ledger.security_groups,
            &ledger.key_pairs,
            &ledger.images,
            &ledger.snapshots,
            &ledger.launch_templates,
            &ledger.instance_profiles,
            &ledger.roles,
        ];
        Self {
            build: trace.build_id.to_string(),
            key_pair: key_pair_name(trace.build_id),
            noted: sets.into_iter().flatten().cloned().chain(trace.proven.ids().map(str::to_owned)).collect(),
        }
    }

    fn is_noted_or_tagged(&self, thing: &Resource) -> bool {
        let tagged = thing.tags.get(tag::STACK).map(String::as_str) == Some(STACK)
            && thing.tags.get(tag::BUILD_ID) == Some(&self.build);
        tagged || self.noted.contains(&thing.id) || self.noted.contains(&thing.name)
    }

    fn find<'a>(&self, shown: &'a [Resource]) -> Vec<&'a Resource> {
        let of_kind = |kind| shown.iter().filter(move |thing: &&Resource| thing.kind == kind);
        let instances: BTreeSet<&str> = of_kind(ResourceKind::Instance)
            .filter(|instance| self.is_noted_or_tagged(instance))
            .map(|instance| instance.id.as_str())
            .collect();
        let comes_from = |thing: &Resource, origins: &BTreeSet<&str>| {
            thing
                .parents
                .iter()
                .any(|parent| origins.contains(parent.as_str()) || self.noted.contains(parent))
        };
        let images: BTreeSet<&str> = of_kind(ResourceKind::Image)
            .filter(|image| self.is_noted_or_tagged(image) || comes_from(image, &instances))
            .map(|image| image.id.as_str())
            .collect();
        let behind: BTreeSet<&String> = of_kind(ResourceKind::Image)
            .filter(|image| images.contains(image.id.as_str()))
            .flat_map(|image| &image.snapshots)
            .collect();
        let origins: BTreeSet<&str> = instances.union(&images).copied().collect();
        shown
            .iter()
            .filter(|thing| match thing.kind {
                ResourceKind::Instance => instances.contains(thing.id.as_str()),
                ResourceKind::Image => images.contains(thing.id.as_str()),
                ResourceKind::KeyPair => {
                    self.is_noted_or_tagged(thing) || thing.id.starts_with(&self.key_pair)
                }
                ResourceKind::Volume | ResourceKind::SecurityGroup => {
                    self.is_noted_or_tagged(thing) || comes_from(thing, &instances)
                }
                ResourceKind::Snapshot => {
                    self.is_noted_or_tagged(thing)
                        || behind.contains(&thing.id)
                        || comes_from(thing, &origins)
                }
                ResourceKind::LaunchTemplate | ResourceKind::InstanceProfile | ResourceKind::Role => {
                    self.is_noted_or_tagged(thing)
                }
            })
            .collect()
    }

    fn find_copies<'a>(&self, shown: &'a [Resource]) -> Vec<&'a Resource> {
        let is_copy = |thing: &Resource| {
            self.is_noted_or_tagged(thing)
                || thing.copied_from.as_ref().is_some_and(|original| self.noted.contains(original))
        };
        let images: Vec<&Resource> =
            shown.iter().filter(|thing| thing.kind == ResourceKind::Image && is_copy(thing)).collect();
        let behind = |thing: &Resource| {
            images
                .iter()
                .any(|image| image.snapshots.contains(&thing.id) || thing.parents.contains(&image.id))
        };
        shown
            .iter()
            .filter(|thing| match thing.kind {
                ResourceKind::Image => is_copy(thing),
                ResourceKind::Snapshot => is_copy(thing) || behind(thing),
                _ => false,
            })
            .collect()
    }
}

#[async_trait]
impl Cloud for Process {
    async fn find(&self, region: &Region, traces: &[Trace<'_>]) -> Result<Vec<Resource>, PortError> {
        let wanted: Vec<Wanted> = traces.iter().map(Wanted::of).collect();
        self.call("ec2", "Describe…", region, |state| {
            state.ask(region, "Describe…")?;
            Ok(state.search(region, &wanted, true))
        })
        .await
    }

    async fn find_copies(&self, region: &Region, traces: &[Trace<'_>]) -> Result<Vec<Resource>, PortError> {
        let wanted: Vec<Wanted> = traces.iter().map(Wanted::of).collect();
        self.call("ec2", "DescribeImages (copies)", region, |state| {
            state.ask(region, "DescribeImages")?;
            Ok(state.search(region, &wanted, false))
        })
        .await
    }

    async fn instances(&self, region: &Region, stack: &str) -> Result<Vec<Resource>, PortError> {
        self.call("ec2", "DescribeInstances", region, |state| {
            state.ask(region, "DescribeInstances")?;
            let mut shown = state.all_shown(region);
            shown.extend(state.runner_instances(region));
            shown.retain(|thing| {
                thing.kind == ResourceKind::Instance
                    && !thing.gone
                    && thing.tags.get(tag::STACK).map(String::as_str) == Some(stack)
            });
            Ok(shown)
        })
        .await
    }

    async fn of_stack(&self, region: &Region, stack: &str) -> Result<Vec<Resource>, PortError> {
        self.call("ec2", "Describe… (stack)", region, |state| {
            state.ask(region, "Describe…")?;
            let mut shown = state.all_shown(region);
            shown
                .retain(|thing| !thing.gone && thing.tags.get(tag::STACK).map(String::as_str) == Some(stack));
            Ok(shown)
        })
        .await
    }

    async fn users_of(
        &self,
        region: &Region,
        _images: &[ImageId],
    ) -> Result<BTreeMap<ImageId, BTreeSet<String>>, PortError> {
        // Nobody in these worlds starts anything from an image that is finished.
        self.call("ec2", "DescribeInstances (users)", region, |state| {
            state.ask(region, "DescribeInstances")?;
            Ok(BTreeMap::new())
        })
        .await
    }

    async fn delete(&self, resource: &Resource) -> Result<Deletion, PortError> {
        let about = format!("{:?} {}", resource.kind, resource.id);
        self.call("ec2", "Delete", &about, |state| {
            state.ask(&resource.region, "Delete")?;
            let key = (resource.kind, resource.id.clone());
            state.judge_deletion(&key);
            let deletion = state.take_away(&key);
            if let Some(thing) = state.ec2.things.get_mut(&key) {
                thing.ended_by_us = true;
            }
            Ok(match (state.planted, deletion) {
                (Some("a thing in use counts as gone"), Deletion::InUse) => Deletion::Gone,
                (_, deletion) => deletion,
            })
        })
        .await
    }

    async fn images(&self, region: &Region, ids: &[ImageId]) -> Result<Vec<CloudImage>, PortError> {
        self.call("ec2", "DescribeImages", region, |state| {
            state.ask(region, "DescribeImages")?;
            let wanted = |thing: &&Resource| {
                thing.kind == ResourceKind::Image && ids.iter().any(|id| id.as_str() == thing.id)
            };
            let shown = state.all_shown(region);
            let image = |image: &Resource| {
                let thing = state.ec2.things.get(&(ResourceKind::Image, image.id.clone()))?;
                Some(CloudImage {
                    id: image.id.parse().ok()?,
                    available: image.available,
                    pending: thing.available.is_some_and(|at| at > state.now),
                    name: image.name.clone(),
                    tags: image.tags.clone(),
                    snapshots: image.snapshots.iter().cloned().collect(),
                })
            };
            Ok(shown.iter().filter(wanted).filter_map(image).collect())
        })
        .await
    }

    async fn deregister(&self, region: &Region, id: &ImageId) -> Result<(), PortError> {
        self.call("ec2", "DeregisterImage", id, |state| {
            state.ask(region, "DeregisterImage")?;
            let key = (ResourceKind::Image, id.to_string());
            state.judge_deletion(&key);
            state.take_away(&key);
            Ok(())
        })
        .await
    }

    async fn delete_snapshot(&self, region: &Region, id: &str) -> Result<(), PortError> {
        self.call("ec2", "DeleteSnapshot", &id, |state| {
            state.ask(region, "DeleteSnapshot")?;
            let key = (ResourceKind::Snapshot, id.to_owned());
            state.judge_deletion(&key);
            match state.take_away(&key) {
                Deletion::Gone | Deletion::Going => Ok(()),
                Deletion::InUse => Err(PortError::Refused {
                    service: "ec2",
                    operation: "DeleteSnapshot",
                    code: "InvalidSnapshot.InUse".into(),
                    source: "an AMI uses it".into(),
                }),
            }
        })
        .await
    }
}
