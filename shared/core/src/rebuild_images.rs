//! `rebuild-images`: by the schedule, and POST /api/v1/images/rebuilds. Starts a build for each configured agent and region,
//! keeps the newest images that such builds made, and deletes the older ones that nobody uses.
//!
//! Starts builds by the same way as the API. Under one key, which is the schedule's time or the caller's, each agent and
//! region gets one build, however often that is delivered. Must never delete an image that somebody asked for by itself,
//! one that an instance or a launch template uses, or one of the newest that are really there. One that fails does not
//! keep the others from their turn.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::build::{Asker, BuildRecord, Origin};
use crate::build_image;
use crate::delete_image;
use crate::digest::sha256_hex;
use crate::ids::{BuildId, ImageId, Provider, Region, RequestId, shown};
use crate::image::ImageRecord;
use crate::ports::{IdempotencyKey, ImageFilter, PortError};
use crate::request::{BuildRequest, allowed_region, refuse_unknown};
use crate::resource::is_tagged;
use crate::settings::{InvalidSetting, Settings};

/// How many images are kept where nothing is set.
const KEEP_IMAGES: u32 = 3;
/// How long a run that somebody waits for may take: the gateway gives up after 30 seconds.
const HTTP_TIME: SignedDuration = SignedDuration::from_secs(20);
/// How long a run of the schedule may take: a minute less than the function's own limit.
const SCHEDULE_TIME: SignedDuration = SignedDuration::from_secs(240);
/// Builds whose images one run deletes at most; the next run goes on.
const DELETIONS: usize = 50;
/// Pages of images that are read for one agent and region at most: a bound, far above what a stack has.
const PAGES: usize = 100;
/// Images of a page, and as many as EC2 is asked for at once.
const PAGE: u32 = 100;
const FIELDS: [&str; 2] = ["providers", "regions"];

/// What is rebuilt, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilds {
    /// The agents; none for no rebuilds.
    pub providers: Vec<Provider>,
    /// The regions.
    pub regions: Vec<Region>,
    /// How many images of an agent and region stay.
    pub keep: usize,
}

impl Rebuilds {
    /// Reads the settings that this function has beside those that all have.
    ///
    /// # Errors
    /// Names the first setting that is impossible.
    pub fn read(
        get: impl Fn(&'static str) -> Option<String>,
        settings: &Settings,
    ) -> Result<Self, InvalidSetting> {
        let list = |name: &'static str| -> Vec<String> {
            let text = get(name).unwrap_or_default();
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let impossible = |name, given: &str, allowed: String| InvalidSetting::Impossible {
            name,
            given: given.to_owned(),
            allowed,
        };
        let mut providers = Vec::new();
        for given in list("CIAB_REBUILD_PROVIDERS") {
            let provider = given.parse().map_err(|error: crate::ids::InvalidName| {
                impossible("CIAB_REBUILD_PROVIDERS", &given, error.to_string())
            })?;
            if !providers.contains(&provider) {
                providers.push(provider);
            }
        }
        let mut regions = Vec::new();
        for given in list("CIAB_REBUILD_REGIONS") {
            let region = allowed_region(&given, settings)
                .map_err(|error| impossible("CIAB_REBUILD_REGIONS", &given, error.to_string()))?;
            if !regions.contains(&region) {
                regions.push(region);
            }
        }
        if regions.is_empty() {
            regions.push(settings.default_region.clone());
        }
        let keep = match get("CIAB_KEEP_IMAGES").filter(|text| !text.is_empty()) {
            None => KEEP_IMAGES,
            Some(given) => given.parse().ok().filter(|keep| (1..=100).contains(keep)).ok_or_else(|| {
                impossible("CIAB_KEEP_IMAGES", &given, "a whole number from 1 to 100 is expected".into())
            })?,
        };
        Ok(Self { providers, regions, keep: usize::try_from(keep).unwrap_or(usize::MAX) })
    }
}

/// What it needs.
pub struct Deps {
    /// What is rebuilt.
    pub rebuilds: Rebuilds,
    /// What starting a build needs.
    pub build_image: build_image::Deps,
    /// What deleting an image needs.
    pub delete_image: delete_image::Deps,
}

/// What the schedule hands over.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduled {
    /// The time that the schedule names: the same however often, and however late, it is delivered.
    pub scheduled_at: Timestamp,
}

/// What one run did.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Builds that were started, by this run or by an earlier one under the same key.
    pub started: Vec<Started>,
    /// Images that were deleted.
    pub deleted: Vec<Pruned>,
    /// Images that would have been deleted if nobody used them.
    pub kept_in_use: Vec<InUse>,
    /// What went wrong; it kept nothing else from its turn.
    pub failed: Vec<Failed>,
    /// Images that are too many and were not looked at any more: the next run goes on with them.
    pub left_for_next_run: usize,
}

/// A build that was started.
#[derive(Debug, Serialize)]
pub struct Started {
    /// The agent.
    pub provider: Provider,
    /// The region.
    pub region: Region,
    /// The build.
    pub build_id: BuildId,
}

/// The images of one build, deleted together.
#[derive(Debug, Serialize)]
pub struct Pruned {
    /// The agent.
    pub provider: Provider,
    /// The region that was asked for.
    pub region: Region,
    /// The image in that region.
    pub image_id: ImageId,
    /// The build.
    pub build_id: BuildId,
    /// All images of the build, those in other regions too.
    pub images: Vec<ImageId>,
}

/// An image that somebody uses.
#[derive(Debug, Serialize)]
pub struct InUse {
    /// The agent.
    pub provider: Provider,
    /// The region that was asked for.
    pub region: Region,
    /// The image in that region.
    pub image_id: ImageId,
    /// The build.
    pub build_id: BuildId,
    /// Instances and launch templates that use it, or another image of its build.
    pub used_by: BTreeSet<String>,
}

/// Something that could not be done.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// The agent.
    pub provider: Provider,
    /// The region.
    pub region: Region,
    /// The image that should have been deleted; none where no build could be started, or no image looked for.
    pub image_id: Option<ImageId>,
    /// The error's name, as the API has it.
    pub code: &'static str,
    /// What it says.
    pub message: String,
}

/// A scheduled run that did not do all of its work. Whoever scheduled it delivers it again.
#[derive(Debug, thiserror::Error)]
#[error("{failed} parts of the rebuild failed, the first with: {first}")]
pub struct Incomplete {
    failed: usize,
    first: String,
}

/// Agents and regions of one run, and the key under which each gets one build.
struct Run {
    providers: Vec<Provider>,
    regions: Vec<Region>,
    key: String,
    until: Timestamp,
    /// Who asked: whoever called the API, or the schedule, which has no key.
    asker: Asker,
}

/// Answers the route: a rebuild at once, of all that is configured or of what the body names.
///
/// # Errors
/// Those of the contract. What fails for one agent and region is told in the answer.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&[])?;
    if !request.body.is_empty() {
        build_image::require_json(request)?;
    }
    let (providers, regions) = asked_for(deps, &request.body)?;
    let key = match build_image::key_of(request)? {
        Some(key) => format!("rebuild request {key}"),
        None => format!("rebuild request {}", deps.build_image.identifiers.new_holder()),
    };
    let until = deps.build_image.clock.now() + HTTP_TIME;
    let run = Run { providers, regions, key, until, asker: request.asker() };
    HttpResponse::json(202, &rebuild(deps, &run).await)
}

/// Does the schedule's run. `request_id` is what the builds that it starts name as the request that asked for them.
///
/// # Errors
/// Where a part of it failed, once all others have had their turn.
pub async fn run(deps: &Deps, event: Scheduled, request_id: Option<RequestId>) -> Result<Report, Incomplete> {
    let report = rebuild(
        deps,
        &Run {
            providers: deps.rebuilds.providers.clone(),
            regions: deps.rebuilds.regions.clone(),
            key: format!("rebuild schedule {}", event.scheduled_at),
            until: deps.build_image.clock.now() + SCHEDULE_TIME,
            asker: Asker { key_id: None, request_id },
        },
    )
    .await;
    match report.failed.first() {
        None => Ok(report),
        Some(first) => Err(Incomplete {
            failed: report.failed.len(),
            first: format!("{} in {}: {} ({})", first.provider, first.region, first.message, first.code),
        }),
    }
}

/// The agents and regions that a body names; what it does not name is as configured.
fn asked_for(deps: &Deps, body: &[u8]) -> Result<(Vec<Provider>, Vec<Region>), ApiError> {
    let invalid = |message: String| ApiError::InvalidRequest(message);
    let document: Value = match body {
        [] => json!({}),
        body => {
            serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not JSON: {error}")))?
        }
    };
    let Value::Object(fields) = document else {
        return Err(invalid("the body must be a JSON object".into()));
    };
    refuse_unknown("field", &fields, &FIELDS)?;
    let names = |field: &str| -> Result<Option<Vec<String>>, ApiError> {
        let Some(value) = fields.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
        let names = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        match names {
            Some(names) if !names.is_empty() => Ok(Some(names)),
            _ => Err(invalid(format!(
                "`{field}` is {}: a list of one or more names is expected",
                shown(&value.to_string())
            ))),
        }
    };
    let settings = &deps.build_image.settings;
    let providers = match names("providers")? {
        None => deps.rebuilds.providers.clone(),
        Some(names) => {
            names.iter().map(|name| name.parse()).collect::<Result<BTreeSet<_>, _>>()?.into_iter().collect()
        }
    };
    let regions = match names("regions")? {
        None => deps.rebuilds.regions.clone(),
        Some(names) => names
            .iter()
            .map(|name| allowed_region(name, settings))
            .collect::<Result<BTreeSet<_>, _>>()?
            .into_iter()
            .collect(),
    };
    if providers.is_empty() {
        return Err(ApiError::ConfigValidation(
            "no agents are configured to be rebuilt: name some in `providers`, or have the stack's parameter \
             RebuildProviders set"
                .into(),
        ));
    }
    Ok((providers, regions))
}

async fn rebuild(deps: &Deps, run: &Run) -> Report {
    let mut report = Report::default();
    for (provider, region) in pairs(run) {
        match start(deps, run, provider, region).await {
            Ok(record) => {
                report.started.push(Started { provider, region: region.clone(), build_id: record.build_id });
            }
            Err(error) => report.failed.push(failed(provider, region, None, &error)),
        }
    }
    for (provider, region) in pairs(run) {
        if let Err(error) = prune(deps, run, provider, region, &mut report).await {
            report.failed.push(failed(provider, region, None, &error.into()));
        }
    }
    tracing::info!(
        started = report.started.len(),
        deleted = report.deleted.len(),
        kept_in_use = report.kept_in_use.len(),
        failed = report.failed.len(),
        left_for_next_run = report.left_for_next_run,
        "rebuilt"
    );
    report
}

fn pairs(run: &Run) -> impl Iterator<Item = (Provider, &Region)> {
    run.providers.iter().flat_map(|provider| run.regions.iter().map(move |region| (*provider, region)))
}

fn failed(provider: Provider, region: &Region, image_id: Option<&ImageId>, error: &ApiError) -> Failed {
    let (code, cause) = (error.code(), error as &dyn std::error::Error);
    tracing::error!(%provider, %region, code, error = cause, "a part of the rebuild failed");
    Failed { provider, region: region.clone(), image_id: image_id.cloned(), code, message: error.to_string() }
}

/// A build of what the operator has set. The key is no text that a caller could send: theirs have no spaces.
async fn start(deps: &Deps, run: &Run, provider: Provider, region: &Region) -> Result<BuildRecord, ApiError> {
    if deps.build_image.clock.now() >= run.until {
        return Err(ApiError::Unavailable("the run's time was over before this one's turn".into()));
    }
    let body = json!({"provider": provider, "region": region}).to_string();
    let asked = BuildRequest::read(body.as_bytes(), &deps.build_image.settings)?;
    // Of what is always the same: where the operator changes a setting between two deliveries, they still are one.
    let request_digest = sha256_hex(b"rebuild");
    let key = IdempotencyKey { key: format!("{} {provider} {region}", run.key), request_digest };
    build_image::submit(&deps.build_image, asked, Some(key), Origin::Rebuild, run.asker.clone()).await
}

/// Deletes what is older than the newest images of an agent and region. An image that cannot be deleted keeps no other from
/// being.
async fn prune(
    deps: &Deps,
    run: &Run,
    provider: Provider,
    region: &Region,
    report: &mut Report,
) -> Result<(), PortError> {
    for image in rebuilt(deps, provider, region).await?.into_iter().skip(deps.rebuilds.keep) {
        let done = report.deleted.len() + report.kept_in_use.len();
        if done >= DELETIONS || deps.build_image.clock.now() >= run.until {
            report.left_for_next_run += 1;
            continue;
        }
        match delete_unused(deps, &image).await {
            Ok(Outcome::Deleted(images)) => {
                let (image_id, build_id) = (image.image_id, image.build_id);
                report.deleted.push(Pruned { provider, region: region.clone(), image_id, build_id, images });
            }
            Ok(Outcome::Used(used_by)) => {
                let (image_id, build_id) = (image.image_id, image.build_id);
                report.kept_in_use.push(InUse {
                    provider,
                    region: region.clone(),
                    image_id,
                    build_id,
                    used_by,
                });
            }
            Ok(Outcome::NotOurs) => {}
            Err(error) => report.failed.push(failed(provider, region, Some(&image.image_id), &error.into())),
        }
    }
    Ok(())
}

/// The images of an agent that rebuilds made in a region, newest first: one for each build, and only those that EC2 calls
/// available and ours. What is not there makes no other one too many.
async fn rebuilt(deps: &Deps, provider: Provider, region: &Region) -> Result<Vec<ImageRecord>, PortError> {
    let (records, cloud) = (&deps.delete_image.records, &deps.delete_image.cloud);
    let filter = ImageFilter { region: Some(region.clone()), provider: Some(provider) };
    let mut rebuilt = Vec::new();
    let mut next = None;
    for _ in 0..PAGES {
        let page = records.images(&filter, PAGE, next.as_deref()).await?;
        let mut of_rebuilds = Vec::new();
        for image in page.items.into_iter().filter(|image| image.origin == Origin::Rebuild) {
            // A copy that a build made in another region than its own is not what that region's rebuilds made.
            let build = records.build(image.build_id).await?;
            if build.is_some_and(|build| build.image_id.as_ref() == Some(&image.image_id)) {
                of_rebuilds.push(image);
            }
        }
        let ids: Vec<ImageId> = of_rebuilds.iter().map(|image| image.image_id.clone()).collect();
        let there = if ids.is_empty() { Vec::new() } else { cloud.images(region, &ids).await? };
        of_rebuilds.retain(|image| {
            there.iter().any(|ami| {
                ami.id == image.image_id
                    && ami.available
                    && is_tagged(&ami.tags, &deps.delete_image.stack, image.build_id)
            })
        });
        rebuilt.extend(of_rebuilds);
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    Ok(rebuilt)
}

enum Outcome {
    Deleted(Vec<ImageId>),
    Used(BTreeSet<String>),
    NotOurs,
}

/// Deletes all images of an image's build, unless somebody uses one of them.
async fn delete_unused(deps: &Deps, image: &ImageRecord) -> Result<Outcome, PortError> {
    let Some(all) = delete_image::of_one_build(&deps.delete_image, image.clone()).await? else {
        return Ok(Outcome::NotOurs);
    };
    let mut used_by = BTreeSet::new();
    let regions: BTreeSet<&Region> = all.iter().map(|(image, _)| &image.region).collect();
    for region in regions {
        let here = all.iter().filter(|(image, _)| image.region == *region);
        let ids: Vec<ImageId> = here.map(|(image, _)| image.image_id.clone()).collect();
        used_by.extend(deps.delete_image.cloud.users_of(region, &ids).await?.into_values().flatten());
    }
    if !used_by.is_empty() {
        return Ok(Outcome::Used(used_by));
    }
    delete_image::delete(&deps.delete_image, &all).await?;
    Ok(Outcome::Deleted(all.into_iter().map(|(image, _)| image.image_id).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn read(pairs: &[(&str, &str)]) -> Result<Rebuilds, InvalidSetting> {
        let get =
            |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Rebuilds::read(get, &settings())
    }

    #[test]
    fn nothing_is_rebuilt_unless_it_is_named_and_then_in_the_default_region() {
        let expected = Rebuilds { providers: Vec::new(), regions: vec![settings().default_region], keep: 3 };
        assert_eq!(read(&[]).unwrap(), expected);
        let empty = [("CIAB_REBUILD_PROVIDERS", ""), ("CIAB_REBUILD_REGIONS", ""), ("CIAB_KEEP_IMAGES", "")];
        assert_eq!(read(&empty).unwrap(), expected);
        let named = read(&[("CIAB_REBUILD_PROVIDERS", "codex, gemini,codex"), ("CIAB_KEEP_IMAGES", "1")]);
        let named = named.unwrap();
        assert_eq!(named.providers, [Provider::Codex, Provider::Gemini]);
        assert_eq!(named.keep, 1);
    }

    #[test]
    fn an_impossible_setting_is_named() {
        for (name, value) in [
            ("CIAB_REBUILD_PROVIDERS", "copilot"),
            ("CIAB_REBUILD_REGIONS", "mars-north-1"),
            ("CIAB_REBUILD_REGIONS", "eu"),
            ("CIAB_KEEP_IMAGES", "0"),
            ("CIAB_KEEP_IMAGES", "all"),
        ] {
            let message = read(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(value), "{message}");
        }
    }
}
