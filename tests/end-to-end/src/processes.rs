//! Finding a build's runner among this machine's processes, to do to it what a crash would.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends the machine that a build's runner is on, as far as its processes see it: they all die at once, Packer too, and
/// none can clean up after itself.
pub fn kill_runners_machine(build_id: &str) -> Result<()> {
    let runner = runner(build_id)?;
    let namespace = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
    let ours = namespace(&runner).context("the runner has no process namespace")?;
    let first = processes()?.into_iter().find(|process| {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        namespace(process).as_ref() == Some(&ours) && pids.split_whitespace().last() == Some("1")
    });
    // The kernel ends a process namespace with its first process.
    signal(&first.context("the runner's process namespace has no first process")?, Signal::SIGKILL)
}

/// Kills the runner's process alone, which can neither catch it nor say anything more.
pub fn kill_runner_alone(build_id: &str) -> Result<()> {
    signal(&runner(build_id)?, Signal::SIGKILL)
}

/// Freezes the runner of a build: it is there, and does nothing any more.
pub fn freeze_runner(build_id: &str) -> Result<()> {
    signal(&runner(build_id)?, Signal::SIGSTOP)
}

fn signal(process: &Path, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(pid_of(process).context("no process")?), signal)?)
}

/// The one process that is the build's runner.
fn runner(build_id: &str) -> Result<PathBuf> {
    let mut runners: Vec<PathBuf> = processes()?
        .into_iter()
        .filter(|process| {
            // Any process may end while it is looked at: then it is not the one.
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            let wanted = format!("CIAB_BUILD_ID={build_id}");
            name.trim() == "ciab-runner" && variables.any(|variable| variable == wanted.as_bytes())
        })
        .collect();
    ensure!(runners.len() == 1, "{} runners of the build {build_id} were found", runners.len());
    Ok(runners.remove(0))
}

fn processes() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir("/proc")?.map(|entry| entry.map(|entry| entry.path()));
    let all: Vec<PathBuf> = entries.collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|path| pid_of(path).is_some()).collect())
}

fn pid_of(process: &Path) -> Option<i32> {
    process.file_name()?.to_str()?.parse().ok()
}
