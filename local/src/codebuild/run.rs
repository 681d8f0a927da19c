//! Runs one build: gets the source's archive, unpacks it to a fresh folder, and runs the buildspec's phases in it.
//!
//! As root each phase has a pid namespace of its own, so that the death of its first process ends all that it started, as
//! the end of a container does. Must never leave the folder or a process behind.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::Surroundings;
use super::build::{Build, Status};
use super::buildspec::{Buildspec, BuildspecError, Phase, runs};
use crate::{process, provision};

#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("the source's archive cannot be fetched")]
    Source(#[from] reqwest::Error),
    #[error("the source's archive cannot be unpacked")]
    Unpack(#[from] zip::result::ZipError),
    #[error("{0}")]
    Buildspec(#[from] BuildspecError),
    #[error("{what}")]
    Files { what: String, source: std::io::Error },
}

/// The archive last fetched, by its ETag.
#[derive(Default)]
pub(super) struct SourceCache(Mutex<Option<(String, Bytes)>>);

/// Runs the build to its end in a task of its own.
pub(super) fn start(build: Arc<Build>, surroundings: Surroundings, source: Arc<SourceCache>) {
    tokio::spawn(async move {
        // A short name: Packer's plugins listen on Unix sockets below it, whose paths may have 107 bytes.
        let folder = surroundings.work_dir.join(build.number().to_string());
        let status = match run(&build, &surroundings, &source, &folder).await {
            Ok(status) => status,
            Err(error) => {
                tracing::warn!(build = build.id(), "cannot be run: {}", crate::chain(&error));
                build.end_phase(Status::Fault, crate::chain(&error));
                Status::Fault
            }
        };
        if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
            tracing::warn!("{} is left behind: {error}", folder.display());
        }
        tracing::info!(build = build.id(), "{}", status.name());
        build.finish(status);
    });
}

async fn run(
    build: &Build,
    surroundings: &Surroundings,
    source: &SourceCache,
    folder: &Path,
) -> Result<Status, RunError> {
    let deadline = Instant::now() + build.time_limit;
    build.begin_phase("DOWNLOAD_SOURCE");
    let source_folder = folder.join("src");
    let temporary = folder.join("tmp");
    for path in [&source_folder, &temporary] {
        tokio::fs::create_dir_all(path).await.map_err(|source| files(path, source))?;
    }
    let archive = fetch(build, surroundings, source).await?;
    unpack(archive, source_folder.clone()).await?;
    let path = source_folder.join("buildspec.yml");
    let text = tokio::fs::read_to_string(&path).await.map_err(|source| files(&path, source))?;
    let buildspec = Buildspec::parse(&text)?;
    build.end_phase(Status::Succeeded, String::new());

    let environment = environment(build, surroundings, &buildspec, &source_folder, &temporary);
    let mut failed = None;
    for phase in &buildspec.phases {
        if !runs(phase.name, failed) {
            continue;
        }
        build.begin_phase(phase.name);
        let succeeding = if failed.is_none() { "1" } else { "0" };
        let mut end = Status::Succeeded;
        let mut message = String::new();
        for script in scripts(phase) {
            let mut command = shell(script, surroundings.isolate);
            command.current_dir(&source_folder).env_clear().envs(&environment);
            command.env("CODEBUILD_BUILD_SUCCEEDING", succeeding);
            process::log_to(&mut command, &build.log).map_err(|source| files(&build.log, source))?;
            let child = command.spawn().map_err(|source| files(Path::new("sh"), source))?;
            let (status, how) = watch(build, child, deadline).await;
            if status != Status::Succeeded {
                (end, message) = (status, how);
            }
        }
        build.end_phase(end, message);
        match end {
            Status::Succeeded => {}
            Status::Failed => failed = failed.or(Some(phase.name)),
            other => return Ok(other),
        }
    }
    Ok(if failed.is_some() { Status::Failed } else { Status::Succeeded })
}

fn scripts(phase: &Phase) -> impl Iterator<Item = &str> {
    std::iter::once(phase.script.as_str()).chain(phase.finally.as_deref())
}

fn shell(script: &str, isolate: bool) -> Command {
    // In AWS a build has a machine of its own. Here many of them must not starve the services and functions beside them.
    let mut command = process::command("nice");
    command.args(["-n", "10"]);
    if isolate {
        // The shell becomes the namespace's first process; --kill-child ends it when unshare itself is killed.
        command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    }
    command.args(["sh", "-c", script]);
    command
}

/// Whether this machine lets us make pid namespaces: root may, outside of most containers.
pub(crate) async fn can_isolate() -> bool {
    let mut command = shell("true", true);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// Waits for the process, or ends it and all it started: asked to, or at the deadline.
async fn watch(build: &Build, mut child: Child, deadline: Instant) -> (Status, String) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let ended = tokio::select! {
        biased;
        () = build.stop_requested() => Err(Status::Stopped),
        status = timeout_at(deadline, child.wait()) => status.map_err(|_| Status::TimedOut),
    };
    // Also after a normal end: what the script left in the background ends with it.
    if let Some(group) = group {
        let _ = killpg(group, Signal::SIGKILL);
    }
    match ended {
        Err(status) => {
            let _ = child.wait().await;
            if let Some(group) = group {
                gone(group).await;
            }
            (status, String::new())
        }
        Ok(Ok(status)) if status.success() => (Status::Succeeded, String::new()),
        Ok(Ok(status)) => (Status::Failed, format!("Error while executing command. Reason: {status}")),
        Ok(Err(error)) => (Status::Failed, error.to_string()),
    }
}

/// Returns once no process of the group is left. The namespace's first process is one of them, and it goes last.
async fn gone(group: Pid) {
    for _ in 0..400 {
        if killpg(group, None).is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tracing::warn!("a killed build's processes are still there");
}

async fn fetch(build: &Build, surroundings: &Surroundings, cache: &SourceCache) -> Result<Bytes, RunError> {
    let mut cached = cache.0.lock().await;
    let Surroundings { endpoint, client, region, .. } = surroundings;
    let url = format!("{endpoint}/{}/{}", build.project.source_bucket, build.project.source_key);
    let signed = |request: reqwest::RequestBuilder| {
        request.header("authorization", provision::authorization(&build.project.role, "s3", region))
    };
    let etag_of = |answer: &reqwest::Response| {
        answer.headers().get("etag").and_then(|etag| etag.to_str().ok()).unwrap_or_default().to_owned()
    };
    let head = signed(client.head(&url)).send().await?.error_for_status()?;
    if let Some((etag, archive)) = cached.as_ref()
        && *etag == etag_of(&head)
    {
        return Ok(archive.clone());
    }
    let answer = signed(client.get(&url)).send().await?.error_for_status()?;
    let etag = etag_of(&answer);
    let archive = answer.bytes().await?;
    *cached = Some((etag, archive.clone()));
    Ok(archive)
}

async fn unpack(archive: Bytes, folder: PathBuf) -> Result<(), RunError> {
    let at = folder.clone();
    let unpacked = tokio::task::spawn_blocking(move || -> Result<(), RunError> {
        zip::ZipArchive::new(Cursor::new(archive))?.extract(&folder)?;
        // An archive need not carry modes; CodeBuild's own unpacking gives every file at least these.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))
            .map_err(|source| files(&folder, source))
    });
    unpacked.await.unwrap_or_else(|error| Err(files(&at, std::io::Error::other(error))))
}

/// Later ones win: the machine's, the buildspec's, the project's, the build's own.
fn environment(
    build: &Build,
    surroundings: &Surroundings,
    buildspec: &Buildspec,
    source_folder: &Path,
    temporary: &Path,
) -> BTreeMap<String, String> {
    let inherited = ["PATH", "HOME", "LANG", "http_proxy", "https_proxy", "no_proxy"];
    let mut environment: BTreeMap<String, String> =
        inherited.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect();
    environment.extend(buildspec.variables.clone());
    environment.extend(build.project.environment.clone());
    environment.extend(surroundings.environment.clone());
    environment.insert("AWS_ACCESS_KEY_ID".to_owned(), build.project.role.clone());
    for (name, value) in [
        ("AWS_REGION", surroundings.region.clone()),
        ("AWS_DEFAULT_REGION", surroundings.region.clone()),
        ("CI", "true".to_owned()),
        ("CODEBUILD_CI", "true".to_owned()),
        ("CODEBUILD_BUILD_ID", build.id().to_owned()),
        ("CODEBUILD_BUILD_ARN", build.arn().to_owned()),
        ("CODEBUILD_BUILD_NUMBER", build.number().to_string()),
        ("CODEBUILD_INITIATOR", "ciab-local".to_owned()),
        ("CODEBUILD_SRC_DIR", source_folder.display().to_string()),
        ("CODEBUILD_START_TIME", build.start().as_millisecond().to_string()),
        ("CODEBUILD_LOG_PATH", build.unique().to_owned()),
        // A container's /tmp is its own, and goes with it.
        ("TMPDIR", temporary.display().to_string()),
        ("CIAB_PACKER_WORK_DIR", temporary.display().to_string()),
    ] {
        environment.insert(name.to_owned(), value);
    }
    environment.extend(build.variables.iter().cloned());
    environment
}

fn files(path: &Path, source: std::io::Error) -> RunError {
    RunError::Files { what: format!("{} cannot be used", path.display()), source }
}
