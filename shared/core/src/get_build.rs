//! `get-build`: GET /api/v1/images/builds, …/{build_id} and …/log. Reads; must never change a build.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::build::{BuildRecord, BuildStatus, Failure, Origin, Phase, RunnerKind, Stage, TemplateReference};
use crate::ids::{BuildId, ImageId, Provider, Region, shown};
use crate::log;
use crate::ports::{BuildFilter, ObjectStore, PortError, Records};
use crate::resource::Leftovers;

/// Lines that one answer holds at most.
const LINES: usize = 1_000;
/// Pages that one listing reads at most for a caller who may see nothing of the first ones.
const PAGES: usize = 20;

/// What it needs.
pub struct Deps {
    /// Build records.
    pub records: Arc<dyn Records>,
    /// The bucket, which holds the logs.
    pub objects: Arc<dyn ObjectStore>,
}

/// A build as callers see it.
#[derive(Debug, Serialize)]
pub(crate) struct BuildView<'a> {
    build_id: BuildId,
    status: BuildStatus,
    provider: Provider,
    region: &'a Region,
    image_id: Option<&'a ImageId>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    error: Option<&'a str>,
    phase: Phase,
    origin: Origin,
    failure: Option<FailureView<'a>>,
    instance_type: &'a str,
    runner: RunnerKind,
    template: &'a TemplateReference,
    leftovers: LeftoversView<'a>,
}

/// The clean-up proof.
#[derive(Debug, Serialize)]
struct LeftoversView<'a> {
    #[serde(flatten)]
    leftovers: &'a Leftovers,
    /// Whether a last look, a while after the end, found nothing of the build. Until then it is looked after.
    clean: bool,
}

#[derive(Debug, Serialize)]
struct FailureView<'a> {
    stage: Stage,
    step: Option<&'a str>,
    message: &'a str,
    last_log_lines: &'a [String],
}

impl<'a> From<&'a BuildRecord> for BuildView<'a> {
    fn from(record: &'a BuildRecord) -> Self {
        // While nobody knows how it went, nothing is said: it may turn out well.
        let failure = record.failure.as_ref().filter(|_| record.doomed);
        Self {
            build_id: record.build_id,
            status: record.status,
            provider: record.provider,
            region: &record.region,
            image_id: record.image_id.as_ref(),
            created_at: record.created_at,
            started_at: record.started_at,
            completed_at: record.completed_at,
            error: failure.map(|failure: &Failure| failure.message.as_str()),
            phase: record.phase,
            origin: record.origin,
            failure: failure.map(|failure| FailureView {
                stage: failure.stage,
                step: failure.step.as_deref(),
                message: &failure.message,
                last_log_lines: &failure.last_log_lines,
            }),
            instance_type: &record.instance_type,
            runner: record.runner,
            template: &record.template,
            leftovers: LeftoversView { leftovers: &record.leftovers, clean: record.clean },
        }
    }
}

/// A part of a log as callers see it.
#[derive(Debug, Serialize)]
struct LogView {
    lines: Vec<log::Line>,
    next_offset: u64,
    complete: bool,
}

/// A part of the builds as callers see it.
#[derive(Debug, Serialize)]
struct Listing<'a> {
    builds: Vec<BuildView<'a>>,
    next_token: Option<String>,
}

/// Answers all three routes.
///
/// # Errors
/// Those of the contract.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    match request.path_parameters.get("build_id") {
        Some(id) => one(deps, request, id).await,
        None => several(deps, request).await,
    }
}

async fn several(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&["status", "provider", "limit", "next_token"])?;
    let status = request.query.get("status").map(|text| {
        BuildStatus::parse(text).ok_or_else(|| {
            ApiError::InvalidRequest(format!(
                "`{}` is not a status: one of {} is expected",
                shown(text),
                BuildStatus::NAMES
            ))
        })
    });
    let filter = BuildFilter {
        status: status.transpose()?,
        provider: request.query.get("provider").map(|text| text.parse()).transpose()?,
    };
    let (limit, next) = request.page()?;
    let mut next_token = next.map(str::to_owned);
    let mut seen: Vec<BuildRecord> = Vec::new();
    // A page of which the caller may see nothing would look like the end.
    for _ in 0..PAGES {
        let page = deps.records.builds(&filter, limit, next_token.as_deref()).await?;
        next_token = page.next;
        seen.extend(page.items.into_iter().filter(|build| request.sees(build.provider, &build.region)));
        if !seen.is_empty() || next_token.is_none() {
            break;
        }
    }
    let builds = seen.iter().map(BuildView::from).collect();
    HttpResponse::json(200, &Listing { builds, next_token })
}

async fn one(deps: &Deps, request: &HttpRequest, id: &str) -> Result<HttpResponse, ApiError> {
    let id: BuildId = id.parse()?;
    let wants_log = request.path.ends_with("/log");
    request.only_query(if wants_log { &["offset"] } else { &[] })?;
    let offset = match request.query.get("offset") {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            ApiError::InvalidRequest(format!(
                "`offset` is `{}`: a line's number, from 0, is expected",
                shown(text)
            ))
        })?,
    };
    let record = deps.records.build(id).await?.ok_or_else(|| ApiError::BuildNotFound(id.to_string()))?;
    request.stay_within_limits("build", record.provider, &record.region)?;
    if wants_log {
        HttpResponse::json(200, &read_log(deps, &record, offset).await?)
    } else {
        HttpResponse::json(200, &BuildView::from(&record))
    }
}

async fn read_log(deps: &Deps, record: &BuildRecord, offset: u64) -> Result<LogView, PortError> {
    let keys = deps.objects.list(&log::prefix(record.build_id)).await?;
    let mut lines = Vec::new();
    let mut next_offset = offset;
    let mut more = false;
    for key in log::chunks_from(&keys, offset) {
        if lines.len() >= LINES {
            more = true;
            break;
        }
        let Some(bytes) = deps.objects.get(key).await? else { continue };
        let first = log::first_line(key).unwrap_or(0);
        let skip = usize::try_from(next_offset.saturating_sub(first)).unwrap_or(usize::MAX);
        let chunk = log::read_chunk(&bytes).into_iter().skip(skip);
        for line in chunk {
            lines.push(line);
            next_offset += 1;
        }
    }
    // The runner writes all of its log before it reports, so nothing comes after a final status.
    Ok(LogView { lines, next_offset, complete: record.status.is_final() && !more })
}
