//! The inside of an instance: two small processes that this program becomes when it is started under their names.
//!
//! The *launcher* makes a new process-number namespace, starts *init* in it, and waits: once init has ended, the kernel
//! has ended everything in the namespace, so the launcher's end tells the host that nothing is left.
//! *Init* makes the file system, boots, runs sshd, collects orphans, and ends when it is told to or when the control
//! pipe closes. Neither may ever run inside a program with other threads: call [`run_if_asked`] first in `main`.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use caps::{CapSet, Capability};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, sethostname},
};

use super::{BodySpec, READY, SHUT_DOWN, filesystem};

pub(super) const LAUNCHER: &str = "ciab-instance-launcher";
const INIT: &str = "ciab-instance-init";

const BOOT_SCRIPT: &str = include_str!("boot.sh");
/// Where the user data is put. Nothing on this file system gets into an image.
const USER_DATA: &str = "/run/user-data";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long processes may take to end after SIGTERM when an instance is stopped in good order.
const GRACE: Duration = Duration::from_millis(400);
/// How long sshd may take to listen.
const SSHD_LISTENS: Duration = Duration::from_secs(10);

/// What reaches beyond the instance: the machine's clock, kernel, devices, log and network settings.
const KEPT_FROM_INSTANCES: [Capability; 10] = [
    Capability::CAP_MAC_ADMIN,
    Capability::CAP_MAC_OVERRIDE,
    Capability::CAP_MKNOD,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYSLOG,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_BOOT,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_TIME,
];

#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error("{what} failed")]
    System { what: &'static str, source: nix::Error },
    #[error("{what} failed")]
    Io { what: &'static str, source: std::io::Error },
    #[error("the control pipe closed before the instance was described")]
    NoSpec,
    #[error("the instance's description can't be read")]
    Spec(#[source] serde_json::Error),
    #[error("the boot script ended with {0}")]
    Boot(std::process::ExitStatus),
    #[error("dropping a capability failed")]
    Capability(#[source] caps::errors::CapsError),
    #[error("sshd does not listen on {0}")]
    NoSshd(std::net::SocketAddr),
}

/// Names the step in which a call failed.
pub(super) trait Step<T> {
    fn step(self, what: &'static str) -> Result<T, InitError>;
}

impl<T> Step<T> for Result<T, nix::Error> {
    fn step(self, what: &'static str) -> Result<T, InitError> {
        self.map_err(|source| InitError::System { what, source })
    }
}

impl<T> Step<T> for Result<T, std::io::Error> {
    fn step(self, what: &'static str) -> Result<T, InitError> {
        self.map_err(|source| InitError::Io { what, source })
    }
}

/// Becomes the launcher or the init of an instance if this process was started as one; `None` if it was not.
///
/// Every program that uses this crate calls it first in `main`, before any thread exists:
/// `if let Some(code) = ciab_local_ec2::run_if_asked() { return code; }`
pub fn run_if_asked() -> Option<ExitCode> {
    let name = std::env::args_os().nth(1)?;
    let outcome = match name.to_str()? {
        LAUNCHER => launch(),
        INIT => init(),
        _ => return None,
    };
    Some(outcome.unwrap_or_else(|error| {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        // Standard error is the instance's console.
        let _ = writeln!(std::io::stderr(), "ciab-instance: {message}");
        ExitCode::FAILURE
    }))
}

fn launch() -> Result<ExitCode, InitError> {
    unshare(CloneFlags::CLONE_NEWPID).step("making a process-number namespace")?;
    // The first child after that is process 1 of the namespace. It inherits the control pipe and the console.
    let status = Command::new("/proc/self/exe").arg(INIT).status().step("starting init")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn init() -> Result<ExitCode, InitError> {
    // The control pipe says when the host dies; this says when the launcher does.
    prctl::set_pdeathsig(Signal::SIGKILL).step("asking to die with the launcher")?;
    let mut control = BufReader::new(std::io::stdin());
    let mut line = String::new();
    if control.read_line(&mut line).step("reading the control pipe")? == 0 {
        return Err(InitError::NoSpec);
    }
    let spec: BodySpec = serde_json::from_str(&line).map_err(InitError::Spec)?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .step("making mount, name and IPC namespaces")?;
    filesystem::enter(&spec)?;
    sethostname(&spec.hostname).step("setting the host name")?;
    for capability in KEPT_FROM_INSTANCES {
        caps::drop(None, CapSet::Bounding, capability).map_err(InitError::Capability)?;
    }
    if spec.probe {
        return Ok(ExitCode::SUCCESS);
    }

    let shutting_down = Arc::new(AtomicBool::new(false));
    // Blocked here and so in every thread: whoever sends SIGTERM to process 1 wants the machine to shut down.
    let mut termination = SigSet::empty();
    termination.add(Signal::SIGTERM);
    termination.thread_block().step("blocking SIGTERM")?;
    obey_control_pipe(control, shutting_down.clone());
    obey_signals(termination, shutting_down.clone());

    boot(&spec)?;
    let sshd = Arc::new(AtomicI32::new(start_sshd(&spec)?));
    wait_for_sshd(&spec)?;
    let mut output = std::io::stdout();
    writeln!(output, "{READY}").and_then(|()| output.flush()).step("saying that the instance is ready")?;
    if let Some(script) = &spec.user_data {
        run_user_data(script, &spec)?;
    }
    collect_orphans(&spec, &sshd, &shutting_down)
}

/// Ends the instance at once when the pipe closes, in good order when it is told to.
fn obey_control_pipe(control: BufReader<std::io::Stdin>, shutting_down: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        for line in control.lines() {
            match line {
                Ok(line) if line == SHUT_DOWN.trim_end() => shut_down(&shutting_down),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        // Process 1 takes all others of its namespace with it.
        std::process::exit(0);
    });
}

fn obey_signals(signals: SigSet, shutting_down: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            shut_down(&shutting_down);
        }
    });
}

fn shut_down(shutting_down: &AtomicBool) {
    if shutting_down.swap(true, Ordering::SeqCst) {
        return;
    }
    // To every process but this one; that there is none is fine.
    let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
    std::thread::spawn(|| {
        std::thread::sleep(GRACE);
        std::process::exit(0);
    });
}

/// The console for a child's standard output: ours speaks to the host alone.
fn console() -> Result<Stdio, InitError> {
    Ok(Stdio::from(std::io::stderr().as_fd().try_clone_to_owned().step("opening the console")?))
}

fn boot(spec: &BodySpec) -> Result<(), InitError> {
    let status = Command::new("/bin/sh")
        .args(["-c", BOOT_SCRIPT])
        .env_clear()
        .env("PATH", PATH)
        .env("INSTANCE_ADDRESS", spec.address.to_string())
        .env("INSTANCE_HOSTNAME", &spec.hostname)
        .env("PUBLIC_KEY", spec.public_key.as_deref().unwrap_or_default().trim())
        .stdin(Stdio::null())
        .stdout(console()?)
        .status()
        .step("running the boot script")?;
    if status.success() { Ok(()) } else { Err(InitError::Boot(status)) }
}

/// As cloud-init does it last of all: as root, with what it says on the console. Nobody waits for it.
fn run_user_data(script: &str, spec: &BodySpec) -> Result<(), InitError> {
    let path = Path::new(USER_DATA);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(path)
        .step("storing the user data")?;
    file.write_all(script.as_bytes()).step("storing the user data")?;
    // The kernel runs no file that is open for writing.
    drop(file);
    let started = Command::new(path)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .envs(spec.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(console()?)
        .spawn();
    // A script whose interpreter is missing is no reason not to run: the instance's sshd answers.
    if let Err(error) = started {
        let _ = writeln!(std::io::stderr(), "ciab-instance: the user data can't be run: {error}");
    }
    Ok(())
}

fn start_sshd(spec: &BodySpec) -> Result<i32, InitError> {
    let child = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-o"])
        .arg(format!("ListenAddress={}", spec.address))
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(console()?)
        .spawn()
        .step("starting sshd")?;
    Ok(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn wait_for_sshd(spec: &BodySpec) -> Result<(), InitError> {
    let address = (spec.address, 22).into();
    let deadline = Instant::now() + SSHD_LISTENS;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            return Err(InitError::NoSshd(address));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

/// Waits for every child and orphan of the instance, and starts sshd again if it ends: an instance whose sshd is
/// upgraded or restarted from within has no service manager to do it.
fn collect_orphans(
    spec: &BodySpec,
    sshd: &AtomicI32,
    shutting_down: &AtomicBool,
) -> Result<ExitCode, InitError> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => {
                if pid.as_raw() == sshd.load(Ordering::SeqCst) && !shutting_down.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(200));
                    sshd.store(start_sshd(spec)?, Ordering::SeqCst);
                }
            }
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(nix::Error::ECHILD) if shutting_down.load(Ordering::SeqCst) => return Ok(ExitCode::SUCCESS),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
