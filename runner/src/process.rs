//! Runs one program as a child in a process group of its own, hands over its lines, and leaves none of its descendants.
//!
//! Packer is a tree (wrapper, core, plugins, and what provisioners start). SIGTERM to its first process makes it cancel and
//! clean up; SIGKILL to that process alone would let the plugins work on. Measured with 1.6.6: even after a clean cancel
//! a local provisioner's shell stays behind, so the group is swept after every end, and with it what left the group but still
//! carries the build's own temporary folder in its environment.
//!
//! Must never signal a process that is not a descendant of the child.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::stop::{StopReason, StopSwitch};

/// Longer lines are cut. Packer puts a whole error of many lines into one.
const LONGEST_RAW_LINE: usize = 256 * 1024;
/// Lines that wait to be handled; beyond it the program waits for us.
const WAITING_LINES: usize = 256;
/// How long output is awaited after every process that could write it is gone.
const LAST_OUTPUT: Duration = Duration::from_secs(5);
/// How long a killed process may take to go.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// How often a program that is being written is tried, and the pause before the next time.
const BUSY_ATTEMPTS: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// What to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program, by path or by a name that is looked up in `PATH`.
    pub binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Its whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// A folder of this build alone, which becomes `TMPDIR`: whoever has it in his environment is a descendant.
    pub temporary_folder: PathBuf,
}

/// Which of its two outputs a program wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// One line that a program wrote, without its line end; bytes that are no UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawLine {
    /// Where to.
    pub source: Source,
    /// What.
    pub text: String,
    /// Whether its end was cut off.
    pub cut: bool,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Why it was told to stop, where it was.
    pub stopped: Option<StopReason>,
    /// Whether it had to be killed.
    pub killed: bool,
}

/// Runs a program to its end, or until the switch is thrown: then SIGTERM, and SIGKILL to all after the grace. The grace is asked
/// for when the switch is thrown; where it is none, SIGKILL comes at once, and no SIGTERM before it.
pub async fn run(
    program: &Program,
    switch: &StopSwitch,
    grace: impl Fn() -> Duration,
    mut on_line: impl FnMut(RawLine),
) -> io::Result<Ended> {
    let (mut child, outputs) = start(program).await?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let (sender, mut lines) = mpsc::channel(WAITING_LINES);
    let readers = outputs.map(|(source, pipe)| tokio::spawn(read_lines(source, pipe, sender.clone())));
    drop(sender);

    let mut stopped = None;
    let mut killed = false;
    let mut kill_at = None;
    let status = loop {
        tokio::select! {
            Some(line) = lines.recv() => on_line(line),
            status = child.wait() => break status?,
            reason = switch.stopped(), if stopped.is_none() => {
                stopped = Some(reason);
                let grace = grace();
                kill_at = Some(Instant::now() + grace);
                if !grace.is_zero() {
                    // To the first process alone: the group would get the signal twice, and the second one means "at once".
                    signal_first(group, Signal::SIGTERM);
                }
            }
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                kill_at = None;
                killed = true;
                signal_group(group, Signal::SIGKILL);
            }
        }
    };
    signal_group(group, Signal::SIGKILL);
    sweep(group, &program.temporary_folder).await;

    let _ = timeout(LAST_OUTPUT, async {
        while let Some(line) = lines.recv().await {
            on_line(line);
        }
    })
    .await;
    for reader in readers {
        reader.abort();
    }
    Ok(Ended { status, stopped, killed })
}

/// What this process has just written cannot be run while another of its threads is between fork and exec, and so holds the file: it
/// can be in a moment.
async fn start(program: &Program) -> io::Result<(Child, Outputs)> {
    for _ in 1..BUSY_ATTEMPTS {
        match spawn(program) {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => sleep(BUSY_PAUSE).await,
            started => return started,
        }
    }
    spawn(program)
}

type Outputs = [(Source, tokio::net::unix::pipe::Receiver); 2];

fn spawn(program: &Program) -> io::Result<(Child, Outputs)> {
    let (stdout, stdout_writer) = output()?;
    let (stderr, stderr_writer) = output()?;
    let keep_open = [stdout.as_raw_fd(), stderr.as_raw_fd()];
    let runner = nix::unistd::getpid();
    let mut command = Command::new(&program.binary);
    command
        .args(&program.arguments)
        .current_dir(&program.folder)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .env("TMPDIR", &program.temporary_folder)
        .stdin(Stdio::null())
        .stdout(stdout_writer)
        .stderr(stderr_writer)
        .process_group(0);
    // SAFETY: between fork and exec only calls that are safe after a fork: fcntl, prctl, getppid, _exit's like.
    unsafe {
        command.pre_exec(move || {
            // The child holds the reading ends too. A runner that dies then does not end Packer by SIGPIPE at its next word,
            // before it could clean up: Packer gets SIGTERM instead.
            for fd in keep_open {
                let fd = std::os::fd::BorrowedFd::borrow_raw(fd);
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            // Died before that call: nobody would tell.
            if nix::unistd::getppid() != runner {
                return Err(io::Error::from(Errno::ESRCH));
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    // `command` holds the writing ends: without them gone no end of output would ever be seen.
    drop(command);
    let receiver = |fd: OwnedFd| tokio::net::unix::pipe::Receiver::from_owned_fd(fd);
    Ok((child, [(Source::Stdout, receiver(stdout)?), (Source::Stderr, receiver(stderr)?)]))
}

/// A pipe whose writing end waits for its reader as programs expect, and whose reading end does not.
fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((reader.into(), writer.into()))
}

async fn read_lines(source: Source, mut pipe: impl AsyncRead + Unpin, lines: mpsc::Sender<RawLine>) {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut line: Vec<u8> = Vec::new();
    let mut cut = false;
    loop {
        let read = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            let (content, ended) = match piece.split_last() {
                Some((b'\n', content)) => (content, true),
                _ => (piece, false),
            };
            let room = LONGEST_RAW_LINE - line.len();
            cut |= content.len() > room;
            line.extend_from_slice(&content[..content.len().min(room)]);
            if ended && lines.send(finished(source, &mut line, &mut cut)).await.is_err() {
                return;
            }
        }
    }
    if !line.is_empty() {
        let _ = lines.send(finished(source, &mut line, &mut cut)).await;
    }
}

fn finished(source: Source, line: &mut Vec<u8>, cut: &mut bool) -> RawLine {
    let text = String::from_utf8_lossy(line).into_owned();
    line.clear();
    RawLine { source, text, cut: std::mem::take(cut) }
}

fn signal_first(process: Option<Pid>, signal: Signal) {
    if let Some(process) = process {
        let _ = kill(process, signal);
    }
}

fn signal_group(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = killpg(group, signal);
    }
}

/// Kills what is left of the group, and what has left it, until nothing is.
async fn sweep(group: Option<Pid>, temporary_folder: &Path) {
    let until = Instant::now() + AFTER_KILL;
    loop {
        let left = descendants(group, temporary_folder);
        if left.is_empty() {
            return;
        }
        if Instant::now() >= until {
            tracing::warn!(?left, "processes of the build outlive SIGKILL");
            return;
        }
        for process in left {
            let _ = kill(process, Signal::SIGKILL);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Living processes of the group, or with the folder in their environment.
fn descendants(group: Option<Pid>, temporary_folder: &Path) -> Vec<Pid> {
    let mut variable = b"TMPDIR=".to_vec();
    variable.extend_from_slice(temporary_folder.as_os_str().as_encoded_bytes());
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|process| {
            let Some((state, process_group)) = state_and_group(*process) else { return false };
            let in_group = group.is_some_and(|group| group.as_raw() == process_group);
            let marked = || {
                std::fs::read(format!("/proc/{process}/environ")).is_ok_and(|environment| {
                    environment.split(|byte| *byte == 0).any(|entry| entry == variable)
                })
            };
            // A zombie is dead: only its parent can take it away.
            !matches!(state, 'Z' | 'X') && (in_group || marked())
        })
        .map(Pid::from_raw)
        .collect()
}

/// A process's state and group, from `/proc/<pid>/stat` (proc(5)); the name in it may hold anything, so read from its end.
fn state_and_group(process: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    Some((state, group))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_program_that_is_still_being_written_is_run_once_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("program");
        std::fs::write(&binary, "#!/bin/sh\necho here\n").unwrap();
        std::fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
        let program = Program {
            binary: binary.clone(),
            arguments: Vec::new(),
            folder: folder.path().to_owned(),
            environment: Vec::new(),
            temporary_folder: folder.path().to_owned(),
        };
        let writes = File::options().append(true).open(&binary).unwrap();
        assert_eq!(spawn(&program).err().unwrap().kind(), io::ErrorKind::ExecutableFileBusy);
        let mut lines = Vec::new();
        let switch = StopSwitch::new();
        let run = run(&program, &switch, || Duration::ZERO, |line| lines.push(line.text));
        let (ended, ()) = tokio::join!(run, async { drop(writes) });
        assert!(ended.unwrap().status.success());
        assert_eq!(lines, ["here"]);
    }
}
