//! Runs child processes so that a signal to this process stops them too, and a failure shows what they said.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::interruption;

const GRACE: Duration = Duration::from_secs(10);
const TAIL_LINES: usize = 30;

/// A child's end and what it printed on stdout.
pub struct Captured {
    pub status: ExitStatus,
    pub stdout: String,
}

/// Runs a command whose output is for the person: both of its streams go to our stderr, and it must succeed.
pub fn run(command: &mut Command) -> Result<()> {
    succeed(command.stdout(std::io::stderr()))
}

/// Runs a command whose stdout is our own result, and which must succeed.
pub fn run_as_result(command: &mut Command) -> Result<()> {
    succeed(command.stdout(Stdio::inherit()))
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = name_of(command);
    let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("start {name}"))?;
    let status = wait(child)?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

/// Runs a command whose output is only of interest if it fails; then its last lines are part of the error.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let name = name_of(command);
    let mut log = tempfile::tempfile().context("create a temporary file")?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let status = wait(child)?;
    if !status.success() {
        bail!("{name} failed ({status}):\n{}", tail(&read_from_start(&mut log)?));
    }
    Ok(())
}

/// Runs a command for what it prints on stdout; its stderr goes to ours. It may fail: the caller looks.
pub fn capture(command: &mut Command) -> Result<Captured> {
    let name = name_of(command);
    let mut output = tempfile::tempfile().context("create a temporary file")?;
    let child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let status = wait(child)?;
    Ok(Captured { status, stdout: read_from_start(&mut output)? })
}

/// Waits for a child; if someone asks us to stop meanwhile, stops it and fails.
pub fn wait(mut child: Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().context("wait for a child process")? {
            // A Ctrl-C reaches the whole terminal, children included: one that ended of it did not fail by itself.
            if interruption::interrupted() && status.signal().is_some() {
                bail!("stopped by a signal");
            }
            return Ok(status);
        }
        if let Err(interrupted) = interruption::pause(Duration::from_millis(10)) {
            stop(&mut child, GRACE);
            return Err(interrupted);
        }
    }
}

/// Asks a child to end, and ends it after `grace`. Says how it ended, or nothing if it had to be killed.
pub fn stop(child: &mut Child, grace: Duration) -> Option<ExitStatus> {
    let asked = Instant::now();
    if let Ok(id) = i32::try_from(child.id()) {
        // It may have ended already: then there is nobody to tell, which is what we want.
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    }
    while asked.elapsed() < grace {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// The last lines of a file, for an error message; empty if it can't be read.
pub fn tail_of(path: &Path) -> String {
    std::fs::read(path).map(|bytes| tail(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn read_from_start(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .context("read a child's output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_reported_with_what_it_said_last() {
        let error =
            run_quietly(Command::new("sh").args(["-c", "echo first; echo last >&2; exit 3"])).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("sh failed") && message.contains("first\nlast"), "{message}");
    }

    #[test]
    fn only_stdout_is_captured() {
        let captured = capture(Command::new("sh").args(["-c", "echo data; exit 4"])).unwrap();
        assert_eq!(captured.stdout, "data\n");
        assert_eq!(captured.status.code(), Some(4));
    }

    #[test]
    fn a_tail_is_short() {
        let long: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(tail(&long.join("\n")).lines().count(), TAIL_LINES);
        assert!(tail(&long.join("\n")).ends_with("99"));
    }

    #[test]
    fn a_child_that_ignores_the_request_to_end_is_ended_all_the_same() {
        let script = "trap '' TERM; echo deaf; while :; do sleep 0.05; done";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();
        assert!(stop(&mut child, Duration::from_millis(200)).is_none());
    }
}
