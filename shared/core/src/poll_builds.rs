//! `poll-builds`: every minute, the safety net. Brings every active build to where it should be, and needs none of the
//! other parts alive for it.
//!
//! Carries on when one build errors. Looks at active builds alone, so that its cost does not grow with the past.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use serde::Serialize;

use crate::build::BuildRecord;
use crate::clean_up;
use crate::ids::{ImageId, Region};
use crate::image::ImageRecord;
use crate::life::{Action, Observation, decide};
use crate::ports::{ExecutionState, ImageFilter, PortError, RunnerState, Workflows};
use crate::step::StepError;
use crate::tear_down;

/// Pages that one poll reads at most, of builds and of images: a bound, far above what a stack has.
const PAGES: usize = 1_000;
/// Images that EC2 is asked for at once.
const IMAGES_A_CALL: usize = 100;
/// An image that is younger than this may not be visible in EC2 everywhere yet.
const IMAGE_SETTLES: SignedDuration = SignedDuration::from_secs(300);

/// What it needs.
pub struct Deps {
    /// The state machine.
    pub workflows: Arc<dyn Workflows>,
    /// What a tear-down needs.
    pub tear_down: tear_down::Deps,
}

/// What a poll did, for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Output {
    /// Active builds that it looked at.
    pub looked_at: usize,
    /// Those that it did something for.
    pub acted_on: usize,
    /// Those that it could not bring on because something failed; the next poll tries again.
    pub failed: usize,
    /// Images that somebody deregistered by hand.
    pub forgotten_images: usize,
}

/// Does one poll.
///
/// # Errors
/// Only where the active builds themselves cannot be read.
pub async fn run(deps: &Deps) -> Result<Output, StepError> {
    let mut output = Output::default();
    let mut next = None;
    for _ in 0..PAGES {
        let page = deps.tear_down.records.active_builds(next.as_deref()).await?;
        let runners = runner_states(deps, &page.items).await;
        for record in &page.items {
            output.looked_at += 1;
            match bring_on(deps, record, &runners).await {
                Ok(acted) => output.acted_on += usize::from(acted),
                // Nothing is wrong: it only is not done yet.
                Err(StepError::LeftoversRemain(_) | StepError::RecordContended) => output.acted_on += 1,
                Err(error) => {
                    output.failed += 1;
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(build_id = %record.build_id, error, "the build could not be brought on");
                }
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    match forget_images(deps).await {
        Ok(count) => output.forgotten_images = count,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "images could not be compared with EC2"
            );
        }
    }
    Ok(output)
}

/// How the runners of these builds stand: one call per hundred. None where nobody could tell.
async fn runner_states(deps: &Deps, builds: &[BuildRecord]) -> Option<BTreeMap<String, RunnerState>> {
    let ids: BTreeSet<String> = builds.iter().filter_map(|build| build.runner_id.clone()).collect();
    if ids.is_empty() {
        return Some(BTreeMap::new());
    }
    match deps.tear_down.runners.states(&ids).await {
        Ok(states) => Some(states),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "runners could not be looked at");
            None
        }
    }
}

/// Does what is to be done for one build. Answers whether there was anything.
async fn bring_on(
    deps: &Deps,
    record: &BuildRecord,
    runners: &Option<BTreeMap<String, RunnerState>>,
) -> Result<bool, StepError> {
    let now = deps.tear_down.clock.now();
    let stack = &deps.tear_down.stack;
    let mut seen = Observation::nothing();
    if let (Some(states), Some(id)) = (runners, &record.runner_id) {
        seen.runner = Some(states.get(id).copied().unwrap_or(RunnerState::Absent));
    }
    if record.failure.is_some() || record.status.is_final() {
        let mut record = record.clone();
        let gone_on = clean_up::go_on(&deps.tear_down, &mut record).await;
        if record.status.is_final() {
            deps.workflows.stop(record.build_id).await?;
        }
        return gone_on.map(|()| true);
    }
    let mut actions = decide(record, &seen, stack, now);
    if actions == [Action::LookAtRunner] && record.runner_id.is_none() {
        seen.execution = Some(deps.workflows.state(record.build_id).await?);
        actions = decide(record, &seen, stack, now);
    }
    let acted = !actions.is_empty();
    for action in actions {
        match action {
            Action::Dispatch => deps.workflows.start(record.build_id).await?,
            Action::BeginCleanUp(failure) => {
                // The execution first, so that it does not bring a result after the build has failed.
                if deps.workflows.state(record.build_id).await? == ExecutionState::Running {
                    deps.workflows.stop(record.build_id).await?;
                }
                clean_up::fail(&deps.tear_down, record.build_id, failure).await?;
            }
            Action::StopRunner(_)
            | Action::LookAtRunner
            | Action::LookForLeftovers
            | Action::Delete(_)
            | Action::Wait
            | Action::RecordFailed { .. }
            | Action::RecordClean => {}
        }
    }
    Ok(acted)
}

/// Forgets the images that somebody deregistered by hand: they leave the listing within one poll.
async fn forget_images(deps: &Deps) -> Result<usize, PortError> {
    let records = &deps.tear_down.records;
    let settled = deps.tear_down.clock.now() - IMAGE_SETTLES;
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
            let there = deps.tear_down.cloud.images(region, &ids).await?;
            for image in some.iter().filter(|image| there.iter().all(|ami| ami.id != image.image_id)) {
                for snapshot in &image.snapshots {
                    deps.tear_down.cloud.delete_snapshot(region, snapshot).await?;
                }
                records.remove_image(image).await?;
                forgotten += 1;
            }
        }
    }
    Ok(forgotten)
}
