//! Finding a build's runner among this machine's processes, to do to it what a crash would.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Kills the runner of a build, which can neither catch it nor say anything more. Packer is left to whoever cares.
pub fn kill_runner(build_id: &str) -> Result<()> {
    signal_runner(build_id, Signal::SIGKILL)
}

/// Freezes the runner of a build: it is there, and does nothing any more.
pub fn freeze_runner(build_id: &str) -> Result<()> {
    signal_runner(build_id, Signal::SIGSTOP)
}

fn signal_runner(build_id: &str, signal: Signal) -> Result<()> {
    let mut signalled = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Any process may end while it is looked at: then it is not the one.
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let ours = environment
            .split(|byte| *byte == 0)
            .any(|variable| variable.strip_prefix(b"CIAB_BUILD_ID=") == Some(build_id.as_bytes()));
        if name.trim() == "ciab-runner" && ours {
            kill(Pid::from_raw(pid), signal)?;
            signalled += 1;
        }
    }
    ensure!(signalled == 1, "{signalled} runners of the build {build_id} were found");
    Ok(())
}
