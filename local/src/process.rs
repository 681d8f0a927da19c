//! Starts child processes so that none can outlive the stack.
//!
//! Must never start one without the parent-death signal: where pid namespaces are not allowed (no root) it is all there
//! is between a killed stack and a left-over process.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use tokio::process::Command;

/// A command whose process is killed with the stack, and which a terminal's Ctrl-C does not reach: the stack stops its
/// children itself, in order.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let parent = nix::unistd::getpid();
    // SAFETY: only async-signal-safe calls (prctl, getppid) are made between fork and exec.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above took effect.
            if nix::unistd::getppid() != parent {
                return Err(io::Error::other("the stack has ended"));
            }
            Ok(())
        });
    }
    command
}

/// Both of the command's outputs go to the end of this file.
pub(crate) fn log_to(command: &mut Command, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let log = File::options().create(true).append(true).open(path)?;
    command.stdout(log.try_clone()?).stderr(log);
    Ok(())
}
