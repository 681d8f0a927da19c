//! CodeBuild's API for one project, as far as the stack uses it: StartBuild, BatchGetBuilds, StopBuild and
//! ListBuildsForProject, over real processes.
//!
//! Must never report a build as ended while a process of it runs.

mod build;
mod buildspec;
mod run;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use crate::template::RunnerProjectSpec;
use build::Build;

pub(crate) use run::can_isolate;

/// Idempotency tokens last five minutes ("StartBuild" in the API reference).
const TOKEN_LIFE: Duration = Duration::from_secs(5 * 60);

/// BatchGetBuilds' own limit.
const MOST_IDS: usize = 100;

/// What builds need to know of their surroundings.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) region: String,
    /// The AWS endpoint, for the source's archive and for the build itself.
    pub(crate) endpoint: String,
    pub(crate) client: reqwest::Client,
    /// Builds' own folders are made below it.
    pub(crate) work_dir: PathBuf,
    pub(crate) logs: PathBuf,
    /// Over the project's variables and below a build's own.
    pub(crate) environment: Vec<(String, String)>,
    /// Each build gets a pid namespace of its own; see [`can_isolate`].
    pub(crate) isolate: bool,
}

pub(crate) struct CodeBuild {
    projects: Vec<RunnerProjectSpec>,
    surroundings: Surroundings,
    builds: Mutex<Builds>,
    source: Arc<run::SourceCache>,
    number: AtomicU64,
}

#[derive(Default)]
struct Builds {
    by_id: HashMap<String, Arc<Build>>,
    by_token: HashMap<String, Started>,
}

struct Started {
    at: Instant,
    request: Json,
    id: String,
}

#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{0}")]
    InvalidInput(String),
    #[error("{0}")]
    NotFound(String),
    #[error("the action {0} is not known")]
    UnknownAction(String),
}

impl ApiError {
    fn code(&self) -> &'static str {
        match self {
            Self::InvalidInput(_) => "InvalidInputException",
            Self::NotFound(_) => "ResourceNotFoundException",
            Self::UnknownAction(_) => "UnknownOperationException",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartBuild {
    project_name: String,
    #[serde(default)]
    environment_variables_override: Vec<Variable>,
    idempotency_token: Option<String>,
    timeout_in_minutes_override: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Variable {
    name: String,
    value: String,
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<String>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListBuilds {
    project_name: String,
    #[serde(default)]
    sort_order: Option<String>,
    #[serde(default)]
    next_token: Option<String>,
}

impl CodeBuild {
    pub(crate) fn new(projects: Vec<RunnerProjectSpec>, surroundings: Surroundings) -> Self {
        Self {
            projects,
            surroundings,
            builds: Mutex::default(),
            source: Arc::default(),
            number: AtomicU64::new(0),
        }
    }

    /// Answers one request of the JSON API.
    pub(crate) async fn handle(&self, action: &str, body: &[u8]) -> Response<Bytes> {
        let answer = match action {
            "StartBuild" => self.start_build(body),
            "BatchGetBuilds" => self.batch_get_builds(body),
            "StopBuild" => self.stop_build(body).await,
            "ListBuildsForProject" => self.list_builds(body),
            other => Err(ApiError::UnknownAction(other.to_owned())),
        };
        let (status, document) = match answer {
            Ok(document) => (StatusCode::OK, document),
            Err(error) => {
                (StatusCode::BAD_REQUEST, json!({"__type": error.code(), "message": error.to_string()}))
            }
        };
        let mut response = Response::new(Bytes::from(document.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/x-amz-json-1.1"));
        response
    }

    /// Kills every build and waits until their processes are gone.
    pub(crate) async fn stop(&self) {
        let builds: Vec<_> = self.lock().by_id.values().cloned().collect();
        futures::future::join_all(builds.iter().map(|build| build.stop())).await;
    }

    fn start_build(&self, body: &[u8]) -> Result<Json, ApiError> {
        let raw: Json = parse(body)?;
        let request: StartBuild = parse(body)?;
        let project = self.project(&request.project_name)?;
        for variable in &request.environment_variables_override {
            if variable.kind.as_deref().is_some_and(|kind| kind != "PLAINTEXT") {
                let message = format!("{} is no PLAINTEXT variable, the only kind known here", variable.name);
                return Err(ApiError::InvalidInput(message));
            }
        }
        let minutes = request.timeout_in_minutes_override.unwrap_or(project.timeout_minutes);
        if !(5..=2160).contains(&minutes) {
            let message = format!("timeoutInMinutesOverride is {minutes}; it must be between 5 and 2160");
            return Err(ApiError::InvalidInput(message));
        }
        let mut builds = self.lock();
        if let Some(token) = &request.idempotency_token {
            builds.by_token.retain(|_, started| started.at.elapsed() < TOKEN_LIFE);
            if let Some(started) = builds.by_token.get(token) {
                if started.request != raw {
                    let message = "the idempotency token was used with other parameters";
                    return Err(ApiError::InvalidInput(message.to_owned()));
                }
                let build = builds.by_id.get(&started.id).ok_or_else(|| not_found(&started.id))?;
                return Ok(json!({"build": build.describe()}));
            }
        }
        let overrides = request.environment_variables_override.iter();
        let variables = overrides.map(|variable| (variable.name.clone(), variable.value.clone())).collect();
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let build = Build::new(project.clone(), number, minutes, variables, &self.surroundings);
        run::start(Arc::clone(&build), self.surroundings.clone(), Arc::clone(&self.source));
        let id = build.id().to_owned();
        if let Some(token) = request.idempotency_token {
            builds.by_token.insert(token, Started { at: Instant::now(), request: raw, id: id.clone() });
        }
        let description = build.describe();
        builds.by_id.insert(id, build);
        Ok(json!({"build": description}))
    }

    fn batch_get_builds(&self, body: &[u8]) -> Result<Json, ApiError> {
        let Ids { ids } = parse(body)?;
        if ids.is_empty() || ids.len() > MOST_IDS {
            return Err(ApiError::InvalidInput(format!(
                "{} ids were given; 1 to {MOST_IDS} are allowed",
                ids.len()
            )));
        }
        let builds = self.lock();
        let (found, missing): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| builds.by_id.contains_key(id));
        let found: Vec<Json> = found.iter().filter_map(|id| Some(builds.by_id.get(id)?.describe())).collect();
        Ok(json!({"builds": found, "buildsNotFound": missing}))
    }

    async fn stop_build(&self, body: &[u8]) -> Result<Json, ApiError> {
        let Id { id } = parse(body)?;
        let build = self.lock().by_id.get(&id).cloned().ok_or_else(|| not_found(&id))?;
        build.stop().await;
        Ok(json!({"build": build.describe()}))
    }

    fn list_builds(&self, body: &[u8]) -> Result<Json, ApiError> {
        let ListBuilds { project_name, sort_order, next_token } = parse(body)?;
        self.project(&project_name)?;
        let builds = self.lock();
        let mut of_project: Vec<_> =
            builds.by_id.values().filter(|build| build.project() == project_name).collect();
        // The newest first, unless asked otherwise.
        of_project.sort_by_key(|build| std::cmp::Reverse(build.number()));
        if sort_order.as_deref() == Some("ASCENDING") {
            of_project.reverse();
        }
        // A page's token is the last id before it.
        let before = match next_token {
            None => 0,
            Some(token) => {
                let place = of_project.iter().position(|build| build.id() == token);
                place.ok_or_else(|| ApiError::InvalidInput(format!("{token} is no nextToken")))? + 1
            }
        };
        let ids: Vec<&str> = of_project.iter().skip(before).take(MOST_IDS).map(|build| build.id()).collect();
        let last = ids.last().filter(|_| before + ids.len() < of_project.len());
        let mut page = json!({"ids": ids});
        if let Some(last) = last {
            page["nextToken"] = json!(last);
        }
        Ok(page)
    }

    fn project(&self, name: &str) -> Result<&RunnerProjectSpec, ApiError> {
        let found = self.projects.iter().find(|project| project.name == name);
        found.ok_or_else(|| ApiError::NotFound(format!("Project cannot be found: {name}")))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Builds> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::InvalidInput(error.to_string()))
}

fn not_found(id: &str) -> ApiError {
    ApiError::NotFound(format!("Build cannot be found: {id}"))
}
