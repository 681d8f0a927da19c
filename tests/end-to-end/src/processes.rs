//! Finding the stack's processes among this machine's, to do to them what a crash would.
//!
//! Must never signal a process that is not the stack's: each is found by what it was started with, or by a connection that
//! it holds.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

/// A process of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process(PathBuf);

impl Process {
    /// Its number, as this process sees it.
    pub fn pid(&self) -> i32 {
        pid_of(&self.0).unwrap_or_default()
    }

    /// The name of the file that it runs; empty once it is gone.
    pub fn program(&self) -> String {
        let file = fs::read_link(self.0.join("exe")).unwrap_or_default();
        file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Ends it alone with SIGKILL, which it can neither catch nor say anything about.
    pub fn kill(&self) -> Result<()> {
        signal(self, Signal::SIGKILL)
    }

    /// Ends it and all of its process group with SIGKILL.
    pub fn kill_group(&self) -> Result<()> {
        let group = getpgid(Some(Pid::from_raw(self.pid()))).context("the process has no group")?;
        killpg(group, Signal::SIGKILL).context("kill a process group")
    }

    /// Whether it runs: neither gone nor only waited for.
    pub fn is_alive(&self) -> bool {
        !matches!(self.status("State").as_deref(), None | Some("Z" | "X"))
    }

    fn parent(&self) -> Option<i32> {
        self.status("PPid")?.parse().ok()
    }

    /// The first word of a line in its status.
    fn status(&self, name: &str) -> Option<String> {
        let status = fs::read_to_string(self.0.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next().map(str::to_owned)
    }

    fn has_in_environment(&self, variable: &str) -> bool {
        let environment = fs::read(self.0.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|set| set == variable.as_bytes())
    }
}

/// The process at the client's end of a connection; none if it is gone.
pub fn behind_connection(client: SocketAddr, server: SocketAddr) -> Option<Process> {
    let (client, server) = (in_the_kernels_words(client)?, in_the_kernels_words(server)?);
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&client.as_str()) && fields.get(2) == Some(&server.as_str()))
            .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })?;
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    processes().ok()?.into_iter().find(|process| {
        let files = fs::read_dir(process.0.join("fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|target| target == socket))
    })
}

/// Address and port as /proc/net/tcp writes them.
fn in_the_kernels_words(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}

/// Ends the machine that a build's runner is on, as far as its processes see it: they all die at once, Packer too, and
/// none can clean up after itself.
pub fn kill_runners_machine(build_id: &str) -> Result<()> {
    let runner = runner(build_id)?;
    let namespace = |process: &Process| fs::read_link(process.0.join("ns/pid")).ok();
    let ours = namespace(&runner).context("the runner has no process namespace")?;
    let first = processes()?.into_iter().find(|process| {
        let status = fs::read_to_string(process.0.join("status")).unwrap_or_default();
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        namespace(process).as_ref() == Some(&ours) && pids.split_whitespace().last() == Some("1")
    });
    // The kernel ends a process namespace with its first process.
    first.context("the runner's process namespace has no first process")?.kill()
}

/// Kills the runner's process alone, which can neither catch it nor say anything more.
pub fn kill_runner_alone(build_id: &str) -> Result<()> {
    runner(build_id)?.kill()
}

/// Kills all of Packer under the build's runner, at once, and not the runner.
pub fn kill_packers_group(build_id: &str) -> Result<()> {
    let runner = runner(build_id)?.pid();
    let children = processes()?.into_iter().filter(|process| process.parent() == Some(runner));
    let packers: Vec<Process> = children.filter(|process| process.program() == "packer").collect();
    let [packer] = packers.as_slice() else { bail!("{} Packers run under the runner", packers.len()) };
    packer.kill_group()
}

/// Freezes the runner of a build: it is there, and does nothing any more.
pub fn freeze_runner(build_id: &str) -> Result<()> {
    signal(&runner(build_id)?, Signal::SIGSTOP)
}

/// Lets a frozen runner go on.
pub fn thaw_runner(build_id: &str) -> Result<()> {
    signal(&runner(build_id)?, Signal::SIGCONT)
}

/// How many Packers run under runners whose AWS is at this endpoint. A runner that has reported may be there for a moment
/// longer; its Packer is not.
pub fn packers_of(endpoint: &str) -> Result<usize> {
    let runners = with("ciab-runner", &format!("AWS_ENDPOINT_URL={endpoint}"))?;
    let runners: Vec<i32> = runners.iter().map(Process::pid).collect();
    let under_one = |process: &Process| process.parent().is_some_and(|parent| runners.contains(&parent));
    Ok(processes()?.iter().filter(|process| under_one(process) && process.program() == "packer").count())
}

fn signal(process: &Process, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid_of(&process.0).context("no process")?), signal) {
        // It ended by itself in between.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The one process that is the build's runner.
fn runner(build_id: &str) -> Result<Process> {
    let mut runners = with("ciab-runner", &format!("CIAB_BUILD_ID={build_id}"))?;
    ensure!(runners.len() == 1, "{} runners of the build {build_id} were found", runners.len());
    Ok(runners.remove(0))
}

/// The processes that run this program with this in their environment.
fn with(program: &str, variable: &str) -> Result<Vec<Process>> {
    // Any process may end while it is looked at: then it is not one of them.
    let meant = |process: &Process| process.program() == program && process.has_in_environment(variable);
    Ok(processes()?.into_iter().filter(meant).collect())
}

fn processes() -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc")?.map(|entry| entry.map(|entry| Process(entry.path())));
    let all: Vec<Process> = entries.collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|process| pid_of(&process.0).is_some()).collect())
}

fn pid_of(process: &Path) -> Option<i32> {
    process.file_name()?.to_str()?.parse().ok()
}
