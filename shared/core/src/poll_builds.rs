//! `poll-builds`: every minute, the safety net. Brings every active build to where it should be, and needs none of the
//! other parts alive for it.
//!
//! Looks at active builds alone, and at all of them together, so that its cost grows by pages and neither with the past nor with
//! each build. Carries on when one build or one region errors. Must never run twice at a time: it holds a lease, and whoever
//! does not get it leaves the poll to the other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tracing::Instrument as _;

use crate::build::{BuildRecord, BuildStatus, RunnerKind};
use crate::ids::{BuildId, ImageId, Region};
use crate::image::ImageRecord;
use crate::life::{Observation, has_leftovers};
use crate::ports::{ExecutionState, ImageFilter, Lease, PortError};
use crate::reconcile::{self, bring_on, runners_of};
use crate::resource::{Resource, tag};
use crate::spans;
use crate::step::{StepError, update};

/// Pages that one poll reads at most, of builds and of images: a bound, far above what a stack has.
const PAGES: usize = 1_000;
/// Builds that are brought on together; the lease is prolonged in between.
const BUILDS_AT_ONCE: usize = 100;
/// Images that EC2 is asked for at once.
const IMAGES_A_CALL: usize = 100;
/// An image that is younger than this may not be visible in EC2 everywhere yet.
const IMAGE_SETTLES: SignedDuration = SignedDuration::from_secs(300);
/// The lease's name.
const LEASE: &str = "poll-builds";
/// How long the lease is held unless it is prolonged: shorter than the time between two polls, so that the poll after one that
/// died goes on.
const LEASE_TIME: SignedDuration = SignedDuration::from_secs(45);

/// What it needs.
pub struct Deps {
    /// The regions that builds may run in.
    pub regions: Vec<Region>,
    /// What bringing builds on needs.
    pub reconcile: reconcile::Deps,
}

/// What a poll did, for log and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Output {
    /// Whether another poll was under way, so that this one did nothing.
    pub skipped: bool,
    /// Active builds that it looked at.
    pub looked_at: usize,
    /// Those of them that wait for a slot.
    pub queued: usize,
    /// Those that it did something for.
    pub acted_on: usize,
    /// Those that it could not bring on because something failed; the next poll tries again.
    pub failed: usize,
    /// Those that should be clean by now and are not.
    pub with_leftovers: usize,
    /// Builds that it dispatched.
    pub dispatched: usize,
    /// Images that somebody deregistered by hand.
    pub forgotten_images: usize,
}

/// Does one poll. `holder` names this run and no other.
///
/// # Errors
/// Where the lease cannot be asked for, or the active builds cannot be read.
pub async fn run(deps: &Deps, holder: &str) -> Result<Output, StepError> {
    poll_alone(deps, holder).await.inspect_err(|error| {
        tracing::error!(error = error as &dyn std::error::Error, name = error.name(), "the poll failed");
    })
}

async fn poll_alone(deps: &Deps, holder: &str) -> Result<Output, StepError> {
    if !take_lease(deps, holder).await? {
        tracing::info!("another poll is under way");
        return Ok(Output { skipped: true, ..Output::default() });
    }
    let polled = poll(deps, holder).await;
    if let Err(error) = deps.reconcile.records.release_lease(LEASE, holder).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "the lease was not given back; it ends by itself");
    }
    polled
}

async fn take_lease(deps: &Deps, holder: &str) -> Result<bool, PortError> {
    let now = deps.reconcile.clock.now();
    let lease = Lease { name: LEASE, holder, now, until: now + LEASE_TIME };
    deps.reconcile.records.take_lease(&lease).await
}

async fn poll(deps: &Deps, holder: &str) -> Result<Output, StepError> {
    let mut output = Output::default();
    let builds = active_builds(deps).await?;
    output.looked_at = builds.len();
    output.queued = builds.iter().filter(|build| build.status == BuildStatus::Queued).count();

    let slots = noted("slots", deps.reconcile.records.slots_taken().await);
    let executions = noted("executions", deps.reconcile.workflows.running().await);
    let mut seen = observe(deps, &builds, slots.as_ref(), executions.as_ref()).await;
    let mut rest = builds.iter();
    loop {
        let some: Vec<_> = rest
            .by_ref()
            .take(BUILDS_AT_ONCE)
            .map(|build| (build.clone(), seen.remove(&build.build_id).unwrap_or_else(Observation::nothing)))
            .collect();
        if some.is_empty() {
            break;
        }
        for brought in bring_on(&deps.reconcile, some).await {
            let _about = spans::of_build(&brought.record).entered();
            output.acted_on += usize::from(brought.acted);
            if has_leftovers(&brought.record, deps.reconcile.clock.now()) {
                output.with_leftovers += 1;
                let leftovers = &brought.record.leftovers;
                let left = leftovers.found.without(&leftovers.removed);
                tracing::warn!(?left, "the build is not clean yet");
            }
            match brought.outcome {
                // Somebody else wrote first: nothing is wrong.
                Ok(_) | Err(StepError::RecordContended) => {}
                Err(error) => {
                    output.failed += 1;
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the build could not be brought on");
                }
            }
        }
        if !take_lease(deps, holder).await? {
            tracing::warn!("another poll took over");
            return Ok(output);
        }
    }

    let active: BTreeMap<BuildId, &BuildRecord> =
        builds.iter().map(|build| (build.build_id, build)).collect();
    if let Some(slots) = slots {
        noted("slots of builds that have ended", free_slots(deps, &active, &slots).await);
    }
    output.dispatched =
        noted("builds that wait", deps.reconcile.dispatcher().dispatch(None).await).unwrap_or_default();
    sweep(deps, &active).await;
    output.forgotten_images = noted("images", forget_images(deps).await).unwrap_or_default();
    Ok(output)
}

/// What was asked for, or a line in the log: one thing that fails does not keep a poll from the others.
fn noted<T>(what: &str, answer: Result<T, impl std::error::Error + 'static>) -> Option<T> {
    answer
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::error!(what, error, "a part of this poll failed");
        })
        .ok()
}

async fn active_builds(deps: &Deps) -> Result<Vec<BuildRecord>, PortError> {
    let mut builds = Vec::new();
    let mut next = None;
    for _ in 0..PAGES {
        let page = deps.reconcile.records.active_builds(next.as_deref()).await?;
        builds.extend(page.items);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    Ok(builds)
}

/// Looks at executions and runners, of all builds together. What could not be looked at is left out: then the build is looked
/// at alone, or waits for the next poll.
async fn observe(
    deps: &Deps,
    builds: &[BuildRecord],
    slots: Option<&BTreeSet<BuildId>>,
    executions: Option<&BTreeMap<BuildId, Timestamp>>,
) -> BTreeMap<BuildId, Observation> {
    let mut seen: BTreeMap<BuildId, Observation> =
        builds.iter().map(|build| (build.build_id, Observation::nothing())).collect();
    for build in builds {
        let Some(executions) = executions else { break };
        let id = build.build_id;
        let state = match (executions.get(&id), build.status) {
            (Some(since), _) => Some(ExecutionState::Running { since: *since }),
            // A build that waits for a slot has none, and one that has ended needs none.
            (None, BuildStatus::Succeeded | BuildStatus::Failed) => None,
            // One that fails is brought to its end with or without.
            (None, BuildStatus::Building) if build.failure.is_some() => None,
            (None, BuildStatus::Queued) if !slots.is_some_and(|slots| slots.contains(&id)) => None,
            // Of the few that should have one and seem not to, each is asked for.
            (None, BuildStatus::Queued | BuildStatus::Building) => {
                noted("an execution", deps.reconcile.workflows.state(id).await)
            }
        };
        if let Some(seen) = seen.get_mut(&id) {
            seen.execution = state;
        }
    }
    for kind in [RunnerKind::Codebuild, RunnerKind::Ec2] {
        let with_runner = builds
            .iter()
            .filter(|build| build.runner == kind && !build.status.is_final() && build.may_have_runner());
        let Some(mut runners) =
            noted("runners", runners_of(&deps.reconcile, kind, with_runner.clone()).await)
        else {
            continue;
        };
        for build in with_runner {
            if let Some(seen) = seen.get_mut(&build.build_id) {
                seen.runners = Some(runners.remove(&build.build_id).unwrap_or_default());
            }
        }
    }
    seen
}

/// Frees the slots of builds that have ended: whoever ended them may have died before it could.
async fn free_slots(
    deps: &Deps,
    active: &BTreeMap<BuildId, &BuildRecord>,
    slots: &BTreeSet<BuildId>,
) -> Result<(), PortError> {
    let needs_it = |id: &&BuildId| active.get(id).is_some_and(|record| !record.status.is_final());
    for id in slots.iter().filter(|id| !needs_it(id)) {
        // As of now: the listing may be behind, and a slot that is freed too early would be one too many.
        let record = deps.reconcile.records.build(*id).await?;
        if record.is_none_or(|record| record.status.is_final()) {
            deps.reconcile.records.release_slot(*id).await?;
        }
    }
    Ok(())
}

/// Looks for instances of the stack whose builds are not looked after any more: what turned up after a build was called clean
/// makes it active again, and a runner that is not its build's runner is stopped.
async fn sweep(deps: &Deps, active: &BTreeMap<BuildId, &BuildRecord>) {
    for region in &deps.regions {
        let found = deps.reconcile.cloud.instances(region, &deps.reconcile.stack).await;
        for instance in noted("instances of the stack", found).unwrap_or_default() {
            let swept = sweep_instance(deps, active, &instance).await;
            noted("an instance of the stack", swept);
        }
    }
}

async fn sweep_instance(
    deps: &Deps,
    active: &BTreeMap<BuildId, &BuildRecord>,
    instance: &Resource,
) -> Result<(), StepError> {
    let records = &*deps.reconcile.records;
    let id_in = |key| instance.tags.get(key).and_then(|id: &String| id.parse::<BuildId>().ok());
    if instance.gone || instance.going {
        return Ok(());
    }
    if let Some(id) = id_in(tag::BUILD_ID) {
        if active.contains_key(&id) {
            return Ok(());
        }
        match records.build(id).await? {
            Some(record) if !record.is_active() => {
                let reopened = async {
                    tracing::warn!(instance = instance.id, "an instance turned up after its build was clean");
                    update(records, id, |record| {
                        record.reopen();
                        Ok(())
                    })
                    .await
                };
                reopened.instrument(spans::of_build(&record)).await?;
            }
            Some(_) => {}
            None => tracing::error!(build_id = %id, instance = instance.id, "an instance of no known build"),
        }
    } else if let Some(id) = id_in(tag::RUNNER_OF) {
        let is_its_runner = |record: &BuildRecord| {
            // One whose id is not noted yet may still be noted.
            !record.clean && record.runner_id.as_ref().is_none_or(|runner| *runner == instance.id)
        };
        let known = active.get(&id).is_some_and(|record| is_its_runner(record));
        if known {
            return Ok(());
        }
        let record = records.build(id).await?;
        if !record.as_ref().is_some_and(is_its_runner) {
            record.as_ref().map_or_else(|| spans::of_build_id(id), spans::of_build).in_scope(|| {
                tracing::warn!(runner = instance.id, "a runner of a build that has none, or another")
            });
            deps.reconcile.runners.stop(&instance.id).await?;
        }
    }
    Ok(())
}

/// Forgets the images that somebody deregistered by hand: they leave the listing within one poll.
async fn forget_images(deps: &Deps) -> Result<usize, PortError> {
    let records = &deps.reconcile.records;
    let settled = deps.reconcile.clock.now() - IMAGE_SETTLES;
    let mut by_region: BTreeMap<Region, Vec<ImageRecord>> = BTreeMap::new();
    let mut next = None;
    for _ in 0..PAGES {
        let page = records.images(&ImageFilter::default(), 100, next.as_deref()).await?;
        for image in page.items.into_iter().filter(|image| image.created_at < settled) {
            by_region.entry(image.region.clone()).or_default().push(image);
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let mut forgotten = 0;
    for (region, images) in &by_region {
        for some in images.chunks(IMAGES_A_CALL) {
            let ids: Vec<ImageId> = some.iter().map(|image| image.image_id.clone()).collect();
            let there = deps.reconcile.cloud.images(region, &ids).await?;
            for image in some.iter().filter(|image| there.iter().all(|ami| ami.id != image.image_id)) {
                for snapshot in &image.snapshots {
                    deps.reconcile.cloud.delete_snapshot(region, snapshot).await?;
                }
                records.remove_image(image).await?;
                forgotten += 1;
            }
        }
    }
    Ok(forgotten)
}
