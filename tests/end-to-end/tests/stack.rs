//! The stack as a process: it goes without a trace, two stand side by side, and it never pretends to host instances.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, eventually, templates};
use local_stack::process::stop;
use local_stack::{StackParts, stack::Ready};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// A stack that is driven by hand, with its work folder below `folder`.
fn start(parts: &StackParts, folder: &Path, port: u16) -> Result<Child> {
    let log = fs::File::create(folder.join("log"))?;
    let child = parts
        .command()
        .args(["--gateway-port", &port.to_string(), "--ready-file"])
        .arg(folder.join("ready.json"))
        .arg("--work-dir")
        .arg(folder.join("work"))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(child)
}

fn ready(folder: &Path) -> Result<Ready> {
    eventually("the stack is ready", || {
        let Ok(text) = fs::read_to_string(folder.join("ready.json")) else { return Ok(None) };
        Ok(Some(serde_json::from_str(&text)?))
    })
}

/// What of a stack is still there: processes that name its folder, and mounts that they or this process see of it.
fn traces(folder: &Path) -> Result<Vec<String>> {
    let name = folder.to_str().context("a folder's name is text")?;
    let mut traces = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_other_process = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|pid| pid.parse().is_ok_and(|pid: u32| pid != std::process::id()));
        if !is_other_process {
            continue;
        }
        // Any process may end while it is looked at: then it is no trace.
        for file in ["cmdline", "environ", "mounts"] {
            let text = fs::read(path.join(file)).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains(name) {
                traces.push(format!("{} of {}", file, path.display()));
            }
        }
    }
    if fs::read_to_string("/proc/self/mounts")?.contains(name) {
        traces.push("a mount".to_owned());
    }
    Ok(traces)
}

#[test]
fn an_interrupted_stack_leaves_nothing_behind_even_in_the_middle_of_a_build() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let parts = StackParts::from_environment()?;
    let mut stack = start(&parts, folder.path(), 0)?;
    let outcome = (|| {
        let scene = Scene::visit(&ready(folder.path())?)?;
        let script = templates::with_script("echo now; sleep 600");
        let id = scene.start_build(&json!({
            "provider": "codex", "template": {"type": "inline", "content": script}
        }))?;
        scene.logged(&id, "now")?;
        ensure!(!traces(folder.path())?.is_empty(), "a running stack must be seen");
        kill(Pid::from_raw(i32::try_from(stack.id())?), Signal::SIGINT)?;
        let status = eventually("the stack ends", || Ok(stack.try_wait()?))?;
        ensure!(
            status.success(),
            "it ended with {status}: {}",
            fs::read_to_string(folder.path().join("log"))?
        );
        let left = traces(folder.path())?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        let logs_only: Vec<_> = fs::read_dir(folder.path().join("work"))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        ensure!(logs_only == ["logs"], "a named work folder keeps its logs and nothing else: {logs_only:?}");
        Ok(())
    })();
    stop(&mut stack, Duration::from_secs(30));
    outcome
}

#[test]
fn a_second_stack_takes_another_port_and_a_taken_port_is_a_clear_error() -> Result<()> {
    let (first_folder, second_folder, third_folder) =
        (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
    let parts = StackParts::from_environment()?;
    let mut stacks = vec![start(&parts, first_folder.path(), 0)?, start(&parts, second_folder.path(), 0)?];
    let outcome = (|| {
        let (first, second) = (ready(first_folder.path())?, ready(second_folder.path())?);
        ensure!(first.gateway_url != second.gateway_url, "both have {}", first.gateway_url);
        for ready in [&first, &second] {
            let answer = Scene::visit(ready)?.api.get("/ready")?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        let port = first.gateway_url.rsplit(':').next().context("a URL with a port")?.parse()?;
        let mut third = start(&parts, third_folder.path(), port)?;
        let status = eventually("the third stack gives up", || Ok(third.try_wait()?))?;
        let said = fs::read_to_string(third_folder.path().join("log"))?;
        ensure!(!status.success() && said.contains(&port.to_string()), "{status}: {said}");
        Ok(())
    })();
    for stack in &mut stacks {
        stop(stack, Duration::from_secs(30));
    }
    outcome
}

#[test]
fn an_image_that_no_provisioner_ran_in_says_so() -> Result<()> {
    let parts = StackParts { root_filesystem: None, ..StackParts::from_environment()? };
    let scene = Scene::with(&parts)?;
    let outcome = (|| {
        let content = templates::without_communicator();
        let id = scene.start_build(&json!({
            "provider": "codex", "template": {"type": "inline", "content": content}
        }))?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "succeeded", "{build:#}");
        let listing = scene.api.get("/api/v1/images")?;
        ensure!(listing.body["images"][0]["provisioned"] == false, "{listing:?}");
        Ok(())
    })();
    scene.end(outcome)
}
