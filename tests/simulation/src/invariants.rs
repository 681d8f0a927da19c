//! What must hold, at every step and at the end: the invariants of docs/ARCHITECTURE.md, judged by what the world knows and no
//! part of the system does.
//!
//! Must never be lenient because the core cannot know better: where that is so, `is_unprovable` says it in one place.

use std::collections::{BTreeMap, BTreeSet};

use ciab_core::build::{BuildRecord, BuildStatus, FailureKind};
use ciab_core::ids::{BuildId, ImageId};
use ciab_core::ledger::Ledger;
use ciab_core::life::{CLEAN_UP_PATIENCE, STOP_GRACE};
use ciab_core::resource::ResourceKind;

use crate::ec2::{Key, Maker, Thing};
use crate::runner::Plan;
use crate::world::{MINUTE, Millis, State, World, short, timestamp};

/// The value of a variable that the template calls sensitive: no record may hold it.
pub(crate) const SECRET: &str = "hunter2-is-a-secret";

/// How long something of a build may be left beyond its deadline and the grace after it, or beyond the end of all faults. A
/// minute is what it takes as a rule. Only where a runner (or a hostile template in its name) has said that Packer ended well,
/// and EC2 does not show that AMI, is it waited for for five minutes more before the build is given up.
const LATEST: Millis = 10 * MINUTE;

/// What the world knows.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// What each build's Packer will do.
    pub(crate) plans: BTreeMap<BuildId, Plan>,
    /// The builds that requests with each idempotency key have made.
    pub(crate) builds_of_key: BTreeMap<String, BTreeSet<BuildId>>,
    /// What clients were told, by key.
    told: BTreeMap<String, BuildId>,
    accepted: BTreeSet<BuildId>,
    /// The newest version of each build's ledger, stored or not.
    pub(crate) ledgers: BTreeMap<BuildId, u64>,
    /// Builds whose ledger is being stored.
    pub(crate) ledgers_in_writing: BTreeSet<BuildId>,
    cancelled: BTreeSet<BuildId>,
    /// AMIs that somebody asked to delete, or deregistered by hand.
    may_go: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// Builds whose runner stored that Packer ended well, with their records then.
    finished_well: BTreeMap<BuildId, BuildRecord>,
    launches: BTreeMap<BuildId, usize>,
    /// Builds that had a slot at some time.
    had_slot: BTreeSet<BuildId>,
    pub(crate) polls: u64,
    /// When each build became what it stays.
    pub(crate) final_at: BTreeMap<BuildId, Millis>,
    pub(crate) clean_at: BTreeMap<BuildId, Millis>,
    /// How long something was left of each build that should have gone.
    pub(crate) late: BTreeMap<BuildId, Millis>,
    /// Things that were left and that nobody could have known of.
    pub(crate) unprovable: BTreeMap<ResourceKind, usize>,
}

impl State {
    pub(crate) fn submitted(&mut self, record: &BuildRecord, world: &World) {
        let plan = Plan::of(self, record);
        self.truth.plans.insert(record.build_id, plan);
        self.surround(record.build_id, world);
        let doubled = self.truth.builds_of_key.iter().find(|(_, builds)| builds.len() > 1);
        if let Some((key, builds)) = doubled {
            self.violated(format!("the idempotency key {key} gave {} builds", builds.len()));
        }
    }

    pub(crate) fn accepted(&mut self, id: BuildId, key: Option<&str>) {
        self.truth.accepted.insert(id);
        if let Some(key) = key {
            let told = *self.truth.told.entry(key.to_owned()).or_insert(id);
            if told != id {
                self.violated(format!("the idempotency key {key} was answered with two builds"));
            }
        }
    }

    pub(crate) fn cancelled(&mut self, id: BuildId) {
        self.truth.cancelled.insert(id);
    }

    pub(crate) fn refused_to_cancel(&mut self, id: BuildId) {
        if !self.table.builds.get(&id).is_some_and(|build| build.status.is_final()) {
            self.violated(format!("{} was not cancelled although it has not ended", short(id)));
        }
    }

    pub(crate) fn may_delete(&mut self, image: &ImageId) {
        self.truth.may_go.insert(image.to_string());
    }

    pub(crate) fn deleted(&mut self, image: &ImageId) {
        self.truth.deleted.insert(image.to_string());
    }

    pub(crate) fn finished_well(&mut self, id: BuildId, world: &World) {
        self.regret(id, 0.5, world);
        let record = self.table.builds[&id].clone();
        self.truth.finished_well.insert(id, record);
    }

    /// A record is about to be written.
    pub(crate) fn judge_record(&mut self, record: &BuildRecord) {
        let name = short(record.build_id);
        if let Some(before) = self.table.builds.get(&record.build_id) {
            if record.status < before.status {
                let what = format!("{name} went back from {} to {}", before.status, record.status);
                return self.violated(what);
            }
            let end = |record: &BuildRecord| {
                (
                    record.status,
                    record.image_id.clone(),
                    record.artifacts.clone(),
                    record.kept_snapshots.clone(),
                    record.completed_at,
                    record.failure.clone(),
                )
            };
            if before.status.is_final() && end(before) != end(record) {
                return self.violated(format!(
                    "the end of {name} changed: it was {} and is {}",
                    before.status, record.status
                ));
            }
            if before.doomed && !record.doomed {
                return self.violated(format!("{name} is doomed no longer"));
            }
        }
        if record.leftovers.removed.without(&record.leftovers.found).ids().next().is_some() {
            return self.violated(format!("{name} says that it removed what it did not find"));
        }
        if record.status == BuildStatus::Succeeded {
            self.judge_success(record);
        }
        let text = serde_json::to_string(record).unwrap_or_default();
        if text.contains(SECRET) {
            self.violated(format!("the record of {name} holds a secret"));
        }
        let now = self.now;
        if record.status.is_final() {
            self.truth.final_at.entry(record.build_id).or_insert(now);
        }
        if record.clean {
            self.truth.clean_at.insert(record.build_id, now);
        }
    }

    /// `succeeded` means: the AMI is available, in the region asked for, tagged with this build.
    fn judge_success(&mut self, record: &BuildRecord) {
        let name = short(record.build_id);
        if self.table.builds.get(&record.build_id).is_some_and(|before| before.status.is_final()) {
            return;
        }
        let own = record.artifacts.iter().any(|artifact| {
            artifact.region == record.region && Some(&artifact.image_id) == record.image_id.as_ref()
        });
        if !own {
            return self.violated(format!("{name} succeeded without an AMI in {}", record.region));
        }
        // Copies that the stored ledger does not know of yet are nothing that anybody could know of.
        let knows_of_copies = !self.stored_ledger(record.build_id).copy_regions.is_empty();
        let expected = self.truth.plans[&record.build_id].images(knows_of_copies);
        if record.artifacts.len() != expected && !self.truth.finished_well.contains_key(&record.build_id) {
            return self.violated(format!("{name} succeeded with some of its images"));
        }
        for artifact in &record.artifacts {
            let key = (ResourceKind::Image, artifact.image_id.to_string());
            let whole = self.ec2.things.get(&key).is_some_and(|image| {
                self.is_there(image)
                    && image.is_available(self.now)
                    && image.region == artifact.region
                    && image.is_tagged_for(record.build_id)
                    && image.maker == Maker::Build(record.build_id)
            });
            if !whole && !self.truth.may_go.contains(&key.1) {
                return self.violated(format!("{name} succeeded with {}, which is not whole", key.1));
            }
        }
    }

    /// Something is about to be deleted by us.
    pub(crate) fn judge_deletion(&mut self, key: &Key) {
        let Some(thing) = self.ec2.things.get(key).cloned() else { return };
        if !self.is_there(&thing) {
            return;
        }
        let what = format!("{:?} {}", key.0, key.1);
        let Maker::Build(build) = thing.maker else {
            return self.violated(format!("{what}, which is somebody else's, is deleted"));
        };
        let Some(record) = self.table.builds.get(&build) else {
            return self.violated(format!("{what} of a build without a record is deleted"));
        };
        if record.status == BuildStatus::Succeeded {
            if self.belongs_to_image(record, &thing) && !self.is_meant_to_go(&thing) {
                self.violated(format!("{what} of {}, which succeeded, is deleted", short(build)));
            }
        } else if !record.doomed {
            self.violated(format!("{what} of {}, which may still succeed, is deleted", short(build)));
        }
    }

    /// Whether a thing is what a build that succeeded keeps.
    fn belongs_to_image(&self, record: &BuildRecord, thing: &Thing) -> bool {
        let is_kept = |id: &str| record.artifacts.iter().any(|artifact| artifact.image_id.as_str() == id);
        match thing.kind {
            ResourceKind::Image => is_kept(&thing.id),
            ResourceKind::Snapshot => self
                .ec2
                .things
                .values()
                .any(|image| is_kept(&image.id) && image.snapshots.contains(&thing.id)),
            _ => false,
        }
    }

    /// Whether somebody asked to delete an AMI, or the AMI behind a snapshot.
    fn is_meant_to_go(&self, thing: &Thing) -> bool {
        let images = self
            .ec2
            .things
            .values()
            .filter(|image| image.id == thing.id || image.snapshots.contains(&thing.id));
        images.into_iter().any(|image| self.truth.may_go.contains(&image.id))
    }

    /// A build is about to get a slot: those that waited longer, and that the listing showed when it was read, come first.
    pub(crate) fn judge_turn(&mut self, id: BuildId) {
        let Some(read_at) = self.table.read_at.get(&self.current()).copied() else { return };
        let Some(record) = self.table.builds.get(&id) else { return };
        let mine = (record.created_at, record.build_id);
        let waits_longer = |other: &&BuildRecord| {
            (other.created_at, other.build_id) < mine
                && other.status == BuildStatus::Queued
                && !self.table.slots.contains(&other.build_id)
                && self
                    .table
                    .listed(other.build_id, read_at - 1)
                    .is_some_and(|listed| listed.status == BuildStatus::Queued)
        };
        let passed_over = self.table.builds.values().find(waits_longer).map(|other| other.build_id);
        if let Some(other) = passed_over
            && !self.truth.had_slot(other)
        {
            self.violated(format!("{} got a slot before {}, which waits longer", short(id), short(other)));
        }
        self.truth.had_slot.insert(id);
    }

    /// A runner has been launched.
    pub(crate) fn judge_launch(&mut self, build: BuildId) {
        let launches = self.truth.launches.entry(build).or_default();
        *launches += 1;
        if *launches > 1 {
            self.violated(format!("a second runner was launched for {}", short(build)));
        }
    }

    /// What must hold after everything that happens.
    pub(crate) fn check(&mut self) {
        let works =
            |record: &&BuildRecord| record.status == BuildStatus::Building && record.started_at.is_some();
        let at_work: Vec<BuildId> =
            self.table.builds.values().filter(works).map(|record| record.build_id).collect();
        let slots = usize::try_from(self.weather.slots).unwrap_or(usize::MAX);
        if at_work.len() > slots {
            self.violated(format!("{} builds run at once: {slots} may", at_work.len()));
        }
        if let Some(id) = at_work.iter().find(|id| !self.table.slots.contains(id)) {
            self.violated(format!("{} runs without a slot", short(*id)));
        }
    }

    /// What is left of a build in truth and must not be.
    pub(crate) fn leaks(&self, record: &BuildRecord) -> Vec<String> {
        let maker = Maker::Build(record.build_id);
        let things = self.ec2.things.values().filter(|thing| {
            thing.maker == maker
                && self.is_there(thing)
                && (record.status != BuildStatus::Succeeded
                    || !self.belongs_to_image(record, thing)
                    || self.is_deleted(thing))
        });
        let runners = self
            .fleet
            .runners
            .iter()
            .filter(|(_, runner)| runner.build == record.build_id && runner.ended.is_none())
            .map(|(id, _)| format!("runner {id}"));
        things
            .filter(|thing| !self.is_unprovable(thing, record.build_id))
            .map(|thing| format!("{:?} {} in {}", thing.kind, thing.id, thing.region))
            .chain(runners)
            .collect()
    }

    fn is_deleted(&self, thing: &Thing) -> bool {
        let mut images = self
            .ec2
            .things
            .values()
            .filter(|image| image.id == thing.id || image.snapshots.contains(&thing.id));
        images.any(|image| self.truth.deleted.contains(&image.id))
    }

    /// What nobody could know of, whatever they did: Packer made it, it carries no tag, and its runner died before the ledger
    /// that names it (or the region of the copy) was stored; and nothing of ours that was still there led to it.
    pub(crate) fn is_unprovable(&self, thing: &Thing, build: BuildId) -> bool {
        let ledger = self.stored_ledger(build);
        match thing.kind {
            ResourceKind::SecurityGroup => {
                let key = thing.key();
                let led_to_it = self
                    .ec2
                    .things
                    .values()
                    .any(|instance| instance.holds.contains(&key) && instance.ended_by_us);
                !thing.is_tagged_for(build) && !ledger.security_groups.contains(&thing.name) && !led_to_it
            }
            ResourceKind::LaunchTemplate => !ledger.launch_templates.contains(&thing.id),
            ResourceKind::Role => !ledger.roles.contains(&thing.id),
            ResourceKind::InstanceProfile => !ledger.instance_profiles.contains(&thing.id),
            ResourceKind::Image | ResourceKind::Snapshot => {
                // What EC2 calls a copy of an AMI that Packer has taken away before anybody looked.
                let original = thing.copied_from.clone().map(|original| (ResourceKind::Image, original));
                let original = original.and_then(|original| self.ec2.things.get(&original));
                let led_to_it =
                    original.is_some_and(|original| self.is_there(original) || original.ended_by_us);
                let home = self.table.builds.get(&build).map(|record| &record.region);
                home != Some(&thing.region)
                    && (!ledger.copy_regions.contains(thing.region.as_str())
                        || !led_to_it && !thing.is_tagged_for(build))
            }
            ResourceKind::Instance | ResourceKind::Volume | ResourceKind::KeyPair => false,
        }
    }

    /// Notes how long something has been left of each build that should have gone.
    pub(crate) fn look_for_leaks(&mut self) {
        for record in self.table.builds.values() {
            let since = record.deadline.unwrap_or(record.created_at) + STOP_GRACE;
            let since = since.duration_since(timestamp(0)).as_millis();
            let since = Millis::try_from(since).unwrap_or(0).max(self.weather.calm_at);
            if self.now > since && !self.leaks(record).is_empty() {
                self.truth.late.insert(record.build_id, self.now - since);
            }
        }
    }

    fn stored_ledger(&self, build: BuildId) -> Ledger {
        let stored = self.bucket.objects.get(&Ledger::key(build));
        stored.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }

    /// Whether nothing more is to be done: every build has ended and is clean, in the records and in truth.
    pub(crate) fn is_settled(&self) -> bool {
        self.table.slots.is_empty()
            && self.table.builds.values().all(|record| !record.is_active() && self.leaks(record).is_empty())
    }

    /// What must hold at the end.
    pub(crate) fn judge_end(&mut self) {
        if let Some(id) = self.truth.accepted.iter().find(|id| !self.table.builds.contains_key(id)).copied() {
            return self.violated(format!("{} was accepted and is not there", short(id)));
        }
        if !self.table.slots.is_empty() {
            let slots = self.table.slots.clone();
            return self.violated(format!("slots are still held by {slots:?}"));
        }
        if let Some((id, late)) = self.truth.late.iter().find(|(_, late)| **late > LATEST) {
            let what =
                format!("something of {} was left {} minutes beyond its time", short(*id), late / MINUTE);
            return self.violated(what);
        }
        let records: Vec<BuildRecord> = self.table.builds.values().cloned().collect();
        for record in &records {
            let name = short(record.build_id);
            let leaks = self.leaks(record);
            if !leaks.is_empty() {
                return self.violated(format!("{name} ({}) left {}", record.status, leaks.join(", ")));
            }
            if !record.status.is_final() {
                return self.violated(format!("{name} never ended: it is {}", record.status));
            }
            if !record.clean {
                return self.violated(format!("{name} is never called clean"));
            }
            if record.leftovers.found != record.leftovers.removed {
                return self.violated(format!("{name} does not say that it removed what it found"));
            }
            if self.truth.cancelled.contains(&record.build_id) && record.status != BuildStatus::Failed {
                return self.violated(format!("{name} was cancelled and is {}", record.status));
            }
            self.judge_images(record);
            self.judge_honesty(record);
        }
        let mut unprovable: BTreeMap<ResourceKind, usize> = BTreeMap::new();
        for thing in self.ec2.things.values().filter(|thing| self.is_there(thing)) {
            if let Maker::Build(build) = thing.maker
                && !self.belongs_to_image(&self.table.builds[&build], thing)
            {
                *unprovable.entry(thing.kind).or_default() += 1;
            }
        }
        self.truth.unprovable = unprovable;
    }

    /// Each image of a build that succeeded is there and listed, or was meant to go and is gone from both.
    fn judge_images(&mut self, record: &BuildRecord) {
        for artifact in &record.artifacts {
            let id = artifact.image_id.to_string();
            let thing = self.ec2.things.get(&(ResourceKind::Image, id.clone()));
            let is_there = thing.is_some_and(|image| self.is_there(image));
            let is_listed = self.table.images.contains_key(&id);
            let meant_to_go = self.truth.may_go.contains(&id);
            if !is_there && !meant_to_go {
                return self
                    .violated(format!("{id} of {}, which succeeded, is gone", short(record.build_id)));
            }
            if is_there && !is_listed {
                return self.violated(format!("{id} of {} is not listed", short(record.build_id)));
            }
        }
    }

    /// A build whose runner stored that Packer ended well, and that nobody had given up or cancelled by then, has succeeded; but
    /// for one that could not be looked at for so long that patience with it was over.
    fn judge_honesty(&mut self, record: &BuildRecord) {
        let Some(then) = self.truth.finished_well.get(&record.build_id) else { return };
        let was_given_up = then.doomed || then.status.is_final();
        let failed_for = record.failing_since.zip(record.completed_at);
        let was_unreachable =
            failed_for.is_some_and(|(since, end)| end.duration_since(since) > CLEAN_UP_PATIENCE);
        if record.status == BuildStatus::Failed
            && !was_given_up
            && !was_unreachable
            && self.weather.outage.is_none()
            && record.failure.as_ref().is_none_or(|failure| failure.kind != FailureKind::Cancelled)
        {
            let message = record.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
            self.violated(format!(
                "{} failed ({message}) although Packer had ended well at {}",
                short(record.build_id),
                then.started_at.unwrap_or(timestamp(0))
            ));
        }
    }
}

impl Truth {
    fn had_slot(&self, id: BuildId) -> bool {
        self.had_slot.contains(&id)
    }
}
