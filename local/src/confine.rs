//! Puts the stack into a pid and a mount namespace of its own, so that nothing of it can survive it: when the
//! namespace's first process ends, however it ends, the kernel kills every process in it and drops every mount.
//!
//! Needs root. Must run before the program has a second thread: it forks.

use std::process::ExitCode;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// The signals that mean: stop everything and end.
const STOP: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Runs `stack` confined if this is root, or as it is, and returns its exit code. `afterwards` runs outside, last.
pub(crate) fn run(stack: impl FnOnce() -> ExitCode, afterwards: impl FnOnce()) -> ExitCode {
    // Whoever started the stack may die without a word: that ends the stack as a signal would.
    if let Err(error) = set_pdeathsig(Signal::SIGTERM) {
        eprintln!("warning: the stack will not notice its parent's death: {error}");
    }
    let code = if nix::unistd::geteuid().is_root() { confined(stack) } else { stack() };
    afterwards();
    code
}

fn confined(stack: impl FnOnce() -> ExitCode) -> ExitCode {
    let mut watched: SigSet = STOP.into_iter().collect();
    watched.add(Signal::SIGCHLD);
    // Blocked, so that one that arrives between fork and wait is kept; the stack itself unblocks them.
    if let Err(error) = watched.thread_block() {
        return refuse("signals cannot be blocked", error);
    }
    if let Err(error) = unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS) {
        eprintln!(
            "warning: no namespaces here ({error}): a killed stack may leave processes or mounts behind"
        );
        let _ = watched.thread_unblock();
        return stack();
    }
    // SAFETY: the program has one thread so far.
    match unsafe { fork() } {
        Err(error) => refuse("the stack cannot be forked", error),
        Ok(ForkResult::Parent { child }) => supervise(child, &watched),
        Ok(ForkResult::Child) => first_process(stack, &watched),
    }
}

/// The namespace's first process. It adopts what the stack's children leave and reaps it, which the stack cannot do
/// without stealing its own children's statuses; so the stack is one process further down.
fn first_process(stack: impl FnOnce() -> ExitCode, watched: &SigSet) -> ExitCode {
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return refuse("the stack's death cannot be tied to its parent's", error);
    }
    let none = None::<&str>;
    let slave = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(error) = slave.and_then(|()| mount(Some("proc"), "/proc", Some("proc"), flags, none)) {
        return refuse("the namespace's /proc cannot be mounted", error);
    }
    // SAFETY: the program has one thread so far.
    match unsafe { fork() } {
        Err(error) => refuse("the stack cannot be forked", error),
        Ok(ForkResult::Parent { child }) => std::process::exit(code_of(supervise_raw(child, watched))),
        Ok(ForkResult::Child) => {
            let _ = watched.thread_unblock();
            let code = stack();
            // Leaves without returning: what follows in the caller is for the process outside.
            std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
        }
    }
}

fn supervise(child: Pid, watched: &SigSet) -> ExitCode {
    ExitCode::from(u8::try_from(code_of(supervise_raw(child, watched))).unwrap_or(1))
}

/// Passes stop signals on to the child, reaps whatever ends, and returns when the child has.
fn supervise_raw(child: Pid, watched: &SigSet) -> WaitStatus {
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..))) if pid == child => {
                    return status;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return WaitStatus::Exited(child, 1),
            }
        }
        match watched.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(_) => {
                let _ = kill(child, Signal::SIGTERM);
            }
        }
    }
}

fn code_of(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => 1,
    }
}

fn refuse(what: &str, error: Errno) -> ExitCode {
    eprintln!("error: {what}: {error}");
    ExitCode::FAILURE
}
