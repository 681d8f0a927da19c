//! `build-image`: POST /api/v1/images/build. Checks the request, writes the `queued` record, dispatches.
//!
//! Whatever is wrong with a request is found before anything is written or started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::Instrument as _;
use tracing::field::display;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::build::{Asker, BuildRecord, BuildStatus, Origin, Phase, TemplateReference};
use crate::digest::sha256_hex;
use crate::dispatch::Dispatcher;
use crate::ids::{BuildId, Provider, Region, shown};
use crate::ports::{Clock, IdempotencyKey, Identifiers, ObjectStore, Records, Submission, Workflows};
use crate::prepare_build;
use crate::request::{BuildRequest, RequestedTemplate};
use crate::resolve_template::{ResolveError, Resolver};
use crate::resource::Leftovers;
use crate::settings::Settings;
use crate::spans;
use crate::step::StepError;

/// What it needs.
pub struct Deps {
    /// The operator's settings.
    pub settings: Settings,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// New build ids.
    pub identifiers: Arc<dyn Identifiers>,
    /// Build records.
    pub records: Arc<dyn Records>,
    /// The bucket.
    pub objects: Arc<dyn ObjectStore>,
    /// The state machine.
    pub workflows: Arc<dyn Workflows>,
}

/// What a build starts from, as it was asked for: `builds/<id>/input.json`. Kept out of the record, since variables may
/// be secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildInput {
    /// The template.
    pub template: RequestedTemplate,
    /// Packer variables.
    pub variables: BTreeMap<String, Value>,
}

impl BuildInput {
    /// Where it stands in the bucket.
    pub fn key(id: BuildId) -> String {
        format!("builds/{id}/input.json")
    }
}

/// The answer to an accepted request.
#[derive(Debug, Serialize)]
struct Accepted {
    build_id: BuildId,
    status: BuildStatus,
    provider: Provider,
    region: Region,
    created_at: Timestamp,
}

impl From<&BuildRecord> for Accepted {
    fn from(record: &BuildRecord) -> Self {
        Self {
            build_id: record.build_id,
            status: record.status,
            provider: record.provider,
            region: record.region.clone(),
            created_at: record.created_at,
        }
    }
}

/// Answers the route.
///
/// # Errors
/// Those of the contract.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&[])?;
    require_json(request)?;
    let asked = BuildRequest::read(&request.body, &deps.settings)?;
    request.stay_within_limits("build", asked.provider, &asked.region)?;
    let key = idempotency_key(request, &asked)?;
    let record = submit(deps, asked, key, Origin::Request, request.asker()).await?;
    HttpResponse::json(202, &Accepted::from(&record))
}

/// Accepts a build that was asked for, and dispatches: the one way in which a build comes to be. With a key that was used
/// before for the same, the build that it gave then, whose record goes on to name who asked first.
///
/// # Errors
/// Those of the contract.
pub async fn submit(
    deps: &Deps,
    asked: BuildRequest,
    key: Option<IdempotencyKey>,
    origin: Origin,
    asker: Asker,
) -> Result<BuildRecord, ApiError> {
    let build_id = deps.identifiers.new_build_id();
    let record = BuildRecord {
        origin,
        requested_by: asker.key_id,
        request_id: asker.request_id.clone(),
        ..queued(build_id, &asked, deps.clock.now())
    };
    let input = BuildInput { template: asked.template, variables: asked.variables };
    check_template(deps, &record, &input).await?;

    // The input first: a record without it could not be built, an input without a record expires with the bucket's rule.
    let document = serde_json::to_vec(&input).map_err(|error| ApiError::Internal(Box::new(error)))?;
    deps.objects.put(&BuildInput::key(build_id), document).await?;
    let (record, repeated) = match deps.records.submit(&record, key.as_ref()).await? {
        Submission::Accepted => (record, false),
        Submission::Repeated(earlier) => (*earlier, true),
        Submission::KeyReused => return Err(ApiError::IdempotencyConflict),
    };
    let about = spans::of_build(&record);
    let dispatched = async {
        if repeated {
            let by_request_id = asker.request_id.as_ref().map(display);
            tracing::info!(by_request_id, "the build was asked for once more");
        } else {
            let (provider, region, key_id) = (record.provider, &record.region, &record.requested_by);
            tracing::info!(%provider, %region, key_id, "the build is accepted");
        }
        dispatch(deps, &record).await;
    };
    dispatched.instrument(about).await;
    Ok(record)
}

/// Has the build begin, if it can. It is accepted all the same where that fails: the poller dispatches what waits.
async fn dispatch(deps: &Deps, record: &BuildRecord) {
    if record.status == BuildStatus::Queued {
        let dispatcher = Dispatcher {
            records: deps.records.clone(),
            workflows: deps.workflows.clone(),
            slots: deps.settings.concurrent_builds,
        };
        if let Err(error) = dispatcher.dispatch(Some(record)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "not dispatched yet");
        }
    }
}

/// Whatever can be told of a template that is at hand is told before the build is accepted. One that has to be fetched is
/// looked at by the build's first step.
async fn check_template(deps: &Deps, record: &BuildRecord, input: &BuildInput) -> Result<(), ApiError> {
    let resolver = Resolver { settings: &deps.settings, objects: &*deps.objects };
    let at_hand = resolver.at_hand(&input.template).await.map_err(|error| match error {
        ResolveError::NotFound(message) => ApiError::TemplateSourceNotFound(message),
        ResolveError::Rejected(message) => ApiError::ConfigValidation(message),
        ResolveError::Unavailable(message) => ApiError::Internal(message.into()),
        ResolveError::Port(error) => error.into(),
    })?;
    let Some(authored) = at_hand else { return Ok(()) };
    prepare_build::check(&deps.settings, record, input, &authored).map_err(|error| match error {
        StepError::TemplateRejected(message) => ApiError::ConfigValidation(message),
        other => ApiError::Internal(Box::new(other)),
    })
}

pub(crate) fn require_json(request: &HttpRequest) -> Result<(), ApiError> {
    match request.headers.get("content-type") {
        None => Ok(()),
        Some(given)
            if given
                .split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) =>
        {
            Ok(())
        }
        Some(given) => Err(ApiError::UnsupportedMediaType(shown(given))),
    }
}

fn idempotency_key(request: &HttpRequest, asked: &BuildRequest) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(key) = key_of(request)? else { return Ok(None) };
    // The checked request, not the bytes: another order of fields, or the client's names for them, is the same request.
    let canonical = serde_json::to_vec(asked).map_err(|error| ApiError::Internal(Box::new(error)))?;
    let request_digest = sha256_hex(&canonical);
    Ok(Some(IdempotencyKey { key: key.to_owned(), request_digest }))
}

/// The `Idempotency-Key` of a request, where it has one.
pub(crate) fn key_of(request: &HttpRequest) -> Result<Option<&str>, ApiError> {
    let Some(key) = request.headers.get("idempotency-key") else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > 255 || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ApiError::InvalidRequest(
            "the Idempotency-Key must have 1 to 255 printable ASCII characters without spaces".into(),
        ));
    }
    Ok(Some(key))
}

fn queued(build_id: BuildId, asked: &BuildRequest, now: Timestamp) -> BuildRecord {
    BuildRecord {
        build_id,
        revision: 0,
        origin: Origin::Request,
        provider: asked.provider,
        region: asked.region.clone(),
        instance_type: asked.instance_type.clone(),
        subnet_id: asked.subnet_id.clone(),
        runner: asked.runner,
        template: TemplateReference { source: asked.template.source.to_string(), digest: None },
        tags: asked.tags.clone(),
        requested_by: None,
        request_id: None,
        timeout_secs: asked.timeout_secs,
        created_at: now,
        started_at: None,
        deadline: None,
        completed_at: None,
        status: BuildStatus::Queued,
        phase: Phase::Queued,
        image_id: None,
        artifacts: Vec::new(),
        kept_snapshots: BTreeSet::new(),
        runner_requested_at: None,
        runner_id: None,
        task_tokens: BTreeSet::new(),
        failing_since: None,
        failure: None,
        doomed: false,
        leftovers: Leftovers::default(),
        quiet_since: None,
        tried_at: None,
        clean: false,
    }
}
