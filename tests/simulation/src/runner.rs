//! A runner and the Packer on it, after what was measured of both: what Packer makes and when it says so, how it cleans up,
//! and what it leaves.
//!
//! Its calls to EC2 are instantaneous and may be its last: it can die or stand still before each of them. Must never look at
//! the table: a real runner does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ciab_core::build::{Artifact, BuildRecord, Failure, Stage};
use ciab_core::ids::{BuildId, Region};
use ciab_core::ledger::Ledger;
use ciab_core::manifest::Manifest;
use ciab_core::ports::{Deletion, ObjectStore, PortError, RunnerOrder, TaskState, TaskTokens};
use ciab_core::prepare_build::bundle_key;
use ciab_core::resource::{ResourceKind, key_pair_name, tag};
use serde_json::json;

use crate::STACK;
use crate::ec2::{Key, Maker, region};
use crate::world::{MINUTE, Millis, Process, SECOND, State, World, short, timestamp};

/// How often the state machine hears of a runner.
const HEARTBEAT: Millis = 10 * SECOND;
/// How long Packer may clean up once it is stopped.
const GRACE: Millis = 40 * SECOND;
/// How long the last things are tried to be stored.
const LAST_WRITES: Millis = 10 * SECOND;
/// How long a report is tried.
const LONGEST_REPORT: Millis = 120 * SECOND;
/// What one build is called in Packer's words.
const SOURCE: &str = "amazon-ebs.x";

/// Why Packer is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    Deadline,
    TaskGone,
    Signal,
}

/// What a build's template and its Packer will do, unless somebody stops them.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// An old plugin tags neither group nor key pair.
    tags_all: bool,
    /// The moment (a number of waits) at which Packer fails by itself.
    fails_at: Option<u32>,
    provisioning: Millis,
    making: Millis,
    /// Making the AMI fails.
    image_fails: bool,
    copies: Vec<Region>,
    iam: bool,
    spot: bool,
    keeps_volume: bool,
    /// The template writes its own manifest and ledger, with things of others in them.
    forges: bool,
    /// Two sources: what is known of one says nothing of the other.
    two_sources: bool,
    dies_at: Option<u32>,
    /// When it stands still, and how long.
    hangs_at: Option<(u32, Millis)>,
    /// It dies asking for the instance, and EC2 is as late as this with it.
    late_instance: Option<Millis>,
    boots: Millis,
    submitted: Millis,
}

impl Plan {
    pub(crate) fn of(state: &mut State, record: &BuildRecord) -> Self {
        let home = &record.region;
        let weather = state.weather.clone();
        let moment = |state: &mut State, likely| {
            if state.chance(likely) { u32::try_from(state.between(0, 30)).ok() } else { None }
        };
        let (fails_at, dies_at) = (moment(state, weather.packer_fails), moment(state, weather.runner_dies));
        let hang = if state.random.bool() { state.between(MINUTE, 12 * MINUTE) } else { 600 * MINUTE };
        let hangs_at = moment(state, weather.runner_hangs).map(|at| (at, hang));
        let mut copies: Vec<Region> = Vec::new();
        if state.chance(0.35) {
            copies.push(region(2));
            if state.chance(0.5) {
                copies.push(region(usize::from(home.as_str() == "us-east-1")));
            }
        }
        Self {
            tags_all: state.random.bool(),
            fails_at,
            provisioning: state.between(10 * SECOND, 150 * SECOND),
            making: state.between(10 * SECOND, 200 * SECOND),
            image_fails: state.chance(0.05),
            copies,
            iam: state.chance(0.25),
            spot: state.chance(0.25),
            keeps_volume: state.chance(0.25),
            forges: state.chance(0.08),
            two_sources: state.chance(0.08),
            dies_at,
            hangs_at,
            late_instance: state.chance(weather.runner_dies / 8.0).then(|| state.between(0, 400 * SECOND)),
            boots: state.between(8 * SECOND, 80 * SECOND),
            // By the clock of who wrote it.
            submitted: Millis::try_from(record.created_at.duration_since(timestamp(0)).as_millis())
                .unwrap_or(0),
        }
    }
}

impl Plan {
    /// How many AMIs Packer makes, with copies or without.
    pub(crate) fn images(&self, with_copies: bool) -> usize {
        1 + usize::from(self.two_sources) + if with_copies { self.copies.len() } else { 0 }
    }
}

/// What happened to the runner within the world: its plan is known to the world alone.
pub(crate) fn start(state: &mut State, world: &World, id: &str, order: &RunnerOrder) {
    let Some(plan) = state.truth.plans.get(&order.build_id).cloned() else { return };
    let process = Arc::new(Process { world: world.clone(), skew: 0, is_function: false });
    let runner = Runner {
        process,
        id: id.to_owned(),
        order: order.clone(),
        plan,
        ledger: Ledger::default(),
        waits: 0,
        made: Vec::new(),
    };
    let task = state.spawn(format!("runner of {}", short(order.build_id)), runner.run());
    state.belongs_to(id, task);
    // CodeBuild's own limit, and the timer inside of an instance.
    let minutes = i64::from(order.timeout_secs.div_ceil(60) + 2).max(5);
    let (world, id) = (world.clone(), id.to_owned());
    state.spawn("runners", async move {
        world.sleep(minutes * MINUTE).await;
        world.state(|state| state.end_runner(&id, false, &world));
    });
}

impl State {
    fn belongs_to(&mut self, runner: &str, task: u64) {
        if let Some(runner) = self.fleet.runners.get_mut(runner) {
            runner.tasks.push(task);
        }
    }

    pub(crate) fn stop_packer(&mut self, runner: &str, reason: StopReason) {
        if let Some(runner) = self.fleet.runners.get_mut(runner)
            && runner.stop_reason.is_none()
            && !runner.hangs
        {
            runner.stop_reason = Some(reason);
            let signal = runner.stop;
            self.fire(signal);
        }
    }

    fn hangs(&self, runner: &str) -> bool {
        self.fleet.runners.get(runner).is_some_and(|runner| runner.hangs)
    }
}

struct Runner {
    process: Arc<Process>,
    id: String,
    order: RunnerOrder,
    plan: Plan,
    ledger: Ledger,
    waits: u32,
    /// What Packer has made and will take away again, the last first.
    made: Vec<Key>,
}

/// Why Packer ended without an image.
enum Ended {
    Stopped,
    Failed(&'static str),
}

impl Runner {
    fn world(&self) -> &World {
        &self.process.world
    }

    async fn run(mut self) {
        let (world, boots) = (self.world().clone(), self.plan.boots);
        world.sleep(boots).await;
        self.attend();
        let result = self.build().await;
        let outcome = match result {
            Ok(artifacts) => Ok(artifacts),
            Err(Ended::Failed(name)) => {
                self.clean_up(None).await;
                Err((name, Failure::of(Stage::RunPacker, "exit status 1")))
            }
            Err(Ended::Stopped) => {
                let until = world.state(|state| state.now) + GRACE;
                self.clean_up(Some(until)).await;
                Err(self.stopped())
            }
        };
        self.report(outcome).await;
    }

    /// Heartbeats, the deadline and the ledger, beside the work.
    fn attend(&self) {
        let (process, id, token) = (self.process.clone(), self.id.clone(), self.order.task_token.clone());
        let beats = self.world().spawn("heartbeats", None, async move {
            let began = process.world.state(|state| state.now);
            let (mut was_known, mut gone_before) = (false, false);
            loop {
                let mut pause = HEARTBEAT;
                if !process.world.state(|state| state.hangs(&id)) {
                    match process.heartbeat(&token).await {
                        Ok(TaskState::Open) => (was_known, gone_before) = (true, false),
                        Ok(TaskState::Gone)
                            if gone_before
                                && (was_known
                                    || process.world.state(|state| state.now) >= began + MINUTE) =>
                        {
                            process.world.state(|state| state.stop_packer(&id, StopReason::TaskGone));
                        }
                        Ok(TaskState::Gone) => {
                            gone_before = true;
                            pause = 2 * SECOND;
                        }
                        Err(_) => {}
                    }
                }
                process.world.sleep(pause).await;
            }
        });
        let (world, id) = (self.world().clone(), self.id.clone());
        let deadline = self.order.deadline;
        let timer = self.world().spawn("deadline", None, async move {
            let left = world.state(|state| deadline.duration_since(timestamp(state.now)));
            world.sleep(Millis::try_from(left.as_millis()).unwrap_or(0)).await;
            while world.state(|state| state.hangs(&id)) {
                world.sleep(SECOND).await;
            }
            world.state(|state| state.stop_packer(&id, StopReason::Deadline));
        });
        self.world().state(|state| {
            state.belongs_to(&self.id, beats);
            state.belongs_to(&self.id, timer);
        });
    }

    /// Notes what Packer says, and stores it beside the work.
    fn note(&mut self, change: impl FnOnce(&mut Ledger)) {
        change(&mut self.ledger);
        let (process, ledger, id) = (self.process.clone(), self.ledger.clone(), self.order.build_id);
        let newer = self.world().state(|state| {
            let version = state.next();
            state.truth.ledgers.insert(id, version);
            version
        });
        let task = self.world().spawn("ledger", None, async move {
            store_ledger(&process, id, &ledger, newer).await;
        });
        self.world().state(|state| state.belongs_to(&self.id, task));
    }

    /// A moment at which it may die or stand still. Answers which one.
    async fn moment(&mut self) -> u32 {
        let world = self.world().clone();
        let at = self.waits;
        self.waits += 1;
        let calm = world.state(|state| state.calm);
        if self.plan.dies_at == Some(at) && !calm {
            world.state(|state| state.end_runner(&self.id, false, &world));
            std::future::pending::<()>().await;
        }
        if let Some((moment, long)) = self.plan.hangs_at
            && moment == at
        {
            let id = self.id.clone();
            let hangs = |hangs| {
                world.state(|state| {
                    state.say(|| format!("hangs: {hangs}"));
                    if let Some(runner) = state.fleet.runners.get_mut(&id) {
                        runner.hangs = hangs;
                    }
                });
            };
            hangs(true);
            world.sleep(long).await;
            hangs(false);
        }
        at
    }

    /// A moment that Packer spends waiting, in which it may be stopped, fail, hang or die.
    async fn wait(&mut self, millis: Millis) -> Result<(), Ended> {
        let at = self.moment().await;
        let world = self.world().clone();
        let (stop, jitter) = world.state(|state| (state.fleet.runners[&self.id].stop, state.between(0, 400)));
        if world.wait(&[stop], Some(millis + jitter)).await {
            return Err(Ended::Stopped);
        }
        if self.plan.fails_at == Some(at) {
            return Err(Ended::Failed("PackerFailed"));
        }
        Ok(())
    }

    fn make(
        &mut self,
        kind: ResourceKind,
        id: String,
        change: impl FnOnce(&mut crate::ec2::Thing),
    ) -> String {
        let maker = Maker::Build(self.order.build_id);
        let id = self.process.world.state(|state| state.make(kind, &self.order.region, id, maker, change));
        self.made.push((kind, id.clone()));
        id
    }

    /// Dies with its request for an instance on the way. Nothing but the sweep finds what comes after the build was clean.
    async fn die_asking(&self, after: Millis, tags: &BTreeMap<String, String>) {
        let world = self.world().clone();
        if world.state(|state| state.calm) {
            return;
        }
        let (id, maker) = (self.id("i-"), Maker::Build(self.order.build_id));
        let (region, tags, later) = (self.order.region.clone(), tags.clone(), world.clone());
        world.spawn("somebody at EC2", None, async move {
            later.sleep(after).await;
            later.state(|state| {
                state.make(ResourceKind::Instance, &region, id, maker, |thing| thing.tags = tags)
            });
        });
        world.state(|state| state.end_runner(&self.id, false, &world));
        std::future::pending().await
    }

    fn name(&self, prefix: &str) -> String {
        let uuid = self.world().state(State::uuid);
        format!("{prefix}{uuid}")
    }

    fn id(&self, prefix: &str) -> String {
        self.world().state(|state| format!("{prefix}{}", state.digits()))
    }

    /// `packer init`, `validate` and `build`.
    async fn build(&mut self) -> Result<Vec<Artifact>, Ended> {
        self.fetch().await?;
        self.wait(SECOND).await?;
        if self.plan.forges {
            self.forge().await;
        }
        let two = self.plan.two_sources;
        self.note(|ledger| {
            ledger.begun.insert(SOURCE.into());
            if two {
                ledger.begun.insert("amazon-ebs.y".into());
            }
        });
        let tags = tags_of(self.order.build_id);
        let on_all = if self.plan.tags_all { tags.clone() } else { BTreeMap::new() };
        let home = self.order.region.clone();

        let key_pair = key_pair_name(self.order.build_id);
        self.note(|ledger| {
            ledger.key_pairs.insert(key_pair.clone());
        });
        self.wait(300).await?;
        self.make(ResourceKind::KeyPair, key_pair, |thing| thing.tags = on_all.clone());

        self.wait(300).await?;
        let name = self.name("packer_");
        self.note(|ledger| {
            ledger.security_groups.insert(name.clone());
        });
        self.wait(300).await?;
        let id = self.id("sg-");
        let group = self.make(ResourceKind::SecurityGroup, id, |thing| {
            thing.name = name;
            thing.description = "Temporary group for Packer".into();
            thing.tags = on_all.clone();
        });
        if self.plan.iam {
            let name = self.name("packer-");
            self.note(|ledger| {
                ledger.instance_profiles.insert(name.clone());
                ledger.roles.insert(name.clone());
            });
            self.wait(300).await?;
            self.make(ResourceKind::Role, name.clone(), |_| {});
            self.wait(300).await?;
            self.make(ResourceKind::InstanceProfile, name.clone(), |thing| {
                thing.holds.insert((ResourceKind::Role, name));
            });
        }
        if self.plan.spot {
            self.wait(300).await?;
            let (id, name) = (self.id("lt-"), self.name("packer-fleet-launch-template-"));
            let id = self.make(ResourceKind::LaunchTemplate, id, |thing| thing.name = name);
            self.note(|ledger| {
                ledger.launch_templates.insert(id);
            });
        }
        self.wait(SECOND).await?;
        if let Some(after) = self.plan.late_instance {
            self.die_asking(after, &tags).await;
        }
        let (id, attached, keeps) = (self.id("vol-"), self.id("i-"), self.plan.keeps_volume);
        let instance = attached.clone();
        let volume = self.make(ResourceKind::Volume, id, |thing| {
            thing.tags = tags.clone();
            thing.attached = Some((attached, !keeps));
        });
        let instance = self.make(ResourceKind::Instance, instance, |thing| {
            thing.tags = tags.clone();
            thing.holds.insert((ResourceKind::SecurityGroup, group));
        });
        self.process.world.state(|state| state.regret(self.order.build_id, 0.3, self.world()));
        let noted = instance.clone();
        self.note(|ledger| {
            ledger.instances.insert(noted);
            ledger.volumes.insert(volume);
        });
        self.wait(self.plan.provisioning).await?;
        self.wait(self.plan.provisioning / 4).await?;
        self.note(|ledger| {
            ledger.provisioned.insert(SOURCE.into());
        });
        // Stopping the instance.
        self.wait(6 * SECOND).await?;
        let artifacts = self.image(&instance, &home).await?;
        for artifact in &artifacts {
            self.tag_image(artifact, &tags);
            self.wait(400).await?;
        }
        self.clean_up(None).await;
        self.note(|ledger| {
            ledger.images.extend(artifacts.iter().map(|artifact| artifact.image_id.to_string()));
        });
        Ok(artifacts)
    }

    /// The AMI, and its copies in other regions.
    async fn image(&mut self, instance: &str, home: &Region) -> Result<Vec<Artifact>, Ended> {
        let maker = Maker::Build(self.order.build_id);
        let takes = (!self.plan.image_fails).then_some(self.plan.making);
        let image = self
            .world()
            .state(|state| state.create_image(home, maker, "an image", Some(instance), None, takes));
        self.process.world.state(|state| state.regret(self.order.build_id, 0.3, self.world()));
        let noted = image.clone();
        self.note(|ledger| {
            ledger.images.insert(noted);
        });
        // From here on the AMI stays where Packer is stopped before it is ready; after that Packer takes it away.
        self.wait(self.plan.making + 2 * SECOND).await?;
        if self.plan.image_fails {
            return Err(Ended::Failed("PackerFailed"));
        }
        self.made.push((ResourceKind::Image, image.clone()));
        let mut all = vec![(home.clone(), image.clone())];
        let copies = self.plan.copies.clone();
        if !copies.is_empty() {
            self.note(|ledger| ledger.copy_regions.extend(copies.iter().map(ToString::to_string)));
            self.wait(500).await?;
            for region in &copies {
                let takes = Some(self.plan.making / 2);
                let copy = self
                    .world()
                    .state(|state| state.create_image(region, maker, "an image", None, Some(&image), takes));
                all.push((region.clone(), copy));
                self.wait(300).await?;
            }
            self.wait(self.plan.making / 2 + 2 * SECOND).await?;
        }
        let artifact = |(region, id): (Region, String)| Some(Artifact { region, image_id: id.parse().ok()? });
        Ok(all.into_iter().filter_map(artifact).collect())
    }

    fn tag_image(&self, artifact: &Artifact, tags: &BTreeMap<String, String>) {
        self.world().state(|state| {
            let image = (ResourceKind::Image, artifact.image_id.to_string());
            let snapshots =
                state.ec2.things.get(&image).map(|image| image.snapshots.clone()).unwrap_or_default();
            for snapshot in snapshots {
                state.tag(&(ResourceKind::Snapshot, snapshot), tags);
            }
            state.tag(&image, tags);
            state.say(|| format!("tags {}", image.1));
        });
    }

    /// Takes away what was made, the last first, and waits for an instance to shut down. The AMI goes only where there is no
    /// result.
    async fn clean_up(&mut self, until: Option<Millis>) {
        let world = self.world().clone();
        let ends_well = until.is_none() && self.ends_well();
        while let Some(key) = self.made.pop() {
            self.moment().await;
            if key.0 == ResourceKind::Image && ends_well {
                continue;
            }
            loop {
                let (deletion, time_is_over) = world.state(|state| {
                    let is_over = until.is_some_and(|until| state.now >= until);
                    let deletion = if is_over { Deletion::Gone } else { state.packer_takes_away(&key) };
                    (deletion, is_over)
                });
                if time_is_over {
                    return;
                }
                world.sleep(400).await;
                if deletion == Deletion::Gone {
                    break;
                }
            }
        }
    }

    fn ends_well(&self) -> bool {
        let maker = Maker::Build(self.order.build_id);
        self.world().state(|state| {
            let mut images = state
                .ec2
                .things
                .values()
                .filter(|thing| thing.kind == ResourceKind::Image && thing.maker == maker)
                .peekable();
            images.peek().is_some() && images.all(|image| image.is_tagged_for(self.order.build_id))
        })
    }

    fn stopped(&self) -> (&'static str, Failure) {
        let reason = self.world().state(|state| state.fleet.runners[&self.id].stop_reason);
        match reason {
            Some(StopReason::Deadline) => ("BuildTimedOut", Failure::timed_out(self.order.timeout_secs)),
            _ => ("RunnerFailed", Failure::of(Stage::RunPacker, "The runner was told to end before Packer")),
        }
    }

    async fn fetch(&mut self) -> Result<(), Ended> {
        let key = bundle_key(self.order.build_id);
        for _ in 0..20 {
            match self.process.get(&key).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => return Err(Ended::Failed("RunnerFailed")),
                Err(_) => self.wait(2 * SECOND).await?,
            }
        }
        Err(Ended::Failed("RunnerFailed"))
    }

    /// What a hostile template can do: say what is not so.
    async fn forge(&mut self) {
        let submitted = self.plan.submitted;
        let (ledger, image) = self.world().state(|state| state.things_of_others(submitted));
        self.ledger = ledger;
        self.note(|_| {});
        let manifest = Manifest {
            outcome: Manifest::SUCCEEDED.into(),
            artifacts: image
                .into_iter()
                .map(|image_id| Artifact { region: self.order.region.clone(), image_id })
                .collect(),
            failure: None,
        };
        let body = serde_json::to_vec(&manifest).unwrap_or_default();
        drop(self.process.put(&Manifest::key(self.order.build_id), body).await);
    }

    /// Stores the manifest and the ledger, reports, and ends.
    async fn report(mut self, outcome: Result<Vec<Artifact>, (&'static str, Failure)>) {
        let world = self.world().clone();
        let id = self.order.build_id;
        let manifest = match &outcome {
            Ok(artifacts) => {
                Manifest { outcome: Manifest::SUCCEEDED.into(), artifacts: artifacts.clone(), failure: None }
            }
            Err((name, failure)) => {
                Manifest { outcome: (*name).into(), artifacts: Vec::new(), failure: Some(failure.clone()) }
            }
        };
        let body = serde_json::to_vec(&manifest).unwrap_or_default();
        let until = world.state(|state| state.now) + LAST_WRITES;
        while world.state(|state| state.now) < until {
            if self.process.put(&Manifest::key(id), body.clone()).await.is_ok() {
                break;
            }
            world.sleep(500).await;
        }
        if outcome.is_ok() {
            world.state(|state| state.finished_well(id, &world));
        }
        store_ledger(&self.process, id, &self.ledger, u64::MAX).await;
        // One may die after its last word was stored, and before it is told.
        if self.plan.dies_at.is_some_and(|at| at >= self.waits) {
            self.plan.dies_at = Some(self.waits);
        }
        drop(self.wait(100).await);
        let reported = self.tell(&outcome).await;
        world.state(|state| state.end_runner(&self.id, reported, &world));
    }

    async fn tell(&self, outcome: &Result<Vec<Artifact>, (&'static str, Failure)>) -> bool {
        let world = self.world();
        let token = &self.order.task_token;
        let until = world.state(|state| state.now) + LONGEST_REPORT;
        let mut tried_before = false;
        while world.state(|state| state.now) < until {
            let told: Result<TaskState, PortError> = match outcome {
                Ok(artifacts) => self.process.succeed(token, &json!({ "artifacts": artifacts })).await,
                Err((name, failure)) => {
                    let cause = json!({"step": failure.step, "message": failure.message,
                                       "last_log_lines": failure.last_log_lines});
                    self.process.fail(token, name, &cause.to_string()).await
                }
            };
            match told {
                Ok(TaskState::Open) => return true,
                Ok(TaskState::Gone) => return tried_before,
                Err(_) => tried_before = true,
            }
            world.sleep(2 * SECOND).await;
        }
        false
    }
}

/// Stores a version of the ledger, one after the other, and none that there is a newer one of.
async fn store_ledger(process: &Process, id: BuildId, ledger: &Ledger, version: u64) {
    let body = serde_json::to_vec(ledger).unwrap_or_default();
    let world = &process.world;
    let is_last = version == u64::MAX;
    let until = world.state(|state| state.now) + LAST_WRITES;
    let mut pause = 200;
    loop {
        let (is_newest, may_write) = world.state(|state| {
            let is_newest = state.truth.ledgers.get(&id).is_none_or(|newest| *newest <= version);
            (is_newest, is_newest && state.truth.ledgers_in_writing.insert(id))
        });
        if !is_newest || is_last && world.state(|state| state.now) >= until {
            return;
        }
        if may_write {
            let stored = process.put(&Ledger::key(id), body.clone()).await.is_ok();
            world.state(|state| state.truth.ledgers_in_writing.remove(&id));
            if stored {
                return;
            }
        }
        world.sleep(pause).await;
        pause = (pause * 2).min(10 * SECOND);
    }
}

impl State {
    /// Packer takes its own thing away.
    fn packer_takes_away(&mut self, key: &Key) -> Deletion {
        let deletion = self.take_away(key);
        if deletion == Deletion::Gone {
            self.say(|| format!("has taken away {:?} {}", key.0, key.1));
        }
        deletion
    }

    /// Things of others, as a hostile template could name them.
    fn things_of_others(&self, submitted: Millis) -> (Ledger, Option<ciab_core::ids::ImageId>) {
        let of_others = |kind| {
            let things = self.ec2.things.values();
            things
                .filter(move |thing| thing.kind == kind && thing.maker == Maker::SomebodyElse)
                .map(|thing| thing.id.clone())
                .collect::<BTreeSet<String>>()
        };
        // Of what tells its age, what is older than the build: a younger one with Packer's own name is taken at its word.
        let older = |kind| {
            let of_others = of_others(kind);
            of_others
                .into_iter()
                .filter(|id| self.ec2.things[&(kind, id.clone())].created + SECOND < submitted)
                .collect::<BTreeSet<String>>()
        };
        let images = of_others(ResourceKind::Image);
        let image = images.iter().next().and_then(|image| image.parse().ok());
        let ledger = Ledger {
            instances: of_others(ResourceKind::Instance),
            volumes: of_others(ResourceKind::Volume),
            images,
            snapshots: of_others(ResourceKind::Snapshot),
            key_pairs: older(ResourceKind::KeyPair),
            roles: older(ResourceKind::Role),
            ..Ledger::default()
        };
        (ledger, image)
    }
}

/// The tags that every source of a build's template carries.
pub(crate) fn tags_of(build: BuildId) -> BTreeMap<String, String> {
    BTreeMap::from([
        (tag::MANAGED.to_owned(), "true".to_owned()),
        (tag::STACK.to_owned(), STACK.to_owned()),
        (tag::BUILD_ID.to_owned(), build.to_string()),
    ])
}
