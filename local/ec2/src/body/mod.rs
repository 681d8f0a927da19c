//! The body of an instance: a tree of processes with a root file system, host name and process numbers of its own, that
//! lives on this machine's network at one loopback address.
//!
//! This file is the host's side: start it, ask it to end, know when it has ended. The inside is in [`launcher`].
//! Nothing of a body outlives the process that holds its [`Body`]: the control pipe closes with that process, however it
//! dies, and the body ends when the pipe closes.

mod filesystem;
pub(crate) mod launcher;

use std::{
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{Mutex, watch},
};

use crate::rewrite::BodyState;

/// How long an orderly end may take before it is made an immediate one.
const ORDERLY_END: Duration = Duration::from_secs(5);

/// Said by the body on its standard output once its sshd answers.
const READY: &str = "ready";
/// Said to the body on its standard input to make it end in good order. Closing the pipe ends it at once.
const SHUT_DOWN: &str = "shut-down\n";

/// All that a body is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BodySpec {
    pub(crate) hostname: String,
    pub(crate) address: Ipv4Addr,
    /// Read-only directories, the newest first.
    pub(crate) lower: Vec<PathBuf>,
    /// Takes what the instance writes.
    pub(crate) upper: PathBuf,
    /// Overlayfs's own, empty at each boot.
    pub(crate) work: PathBuf,
    /// An empty directory to build the root at, seen by the instance alone.
    pub(crate) mount_point: PathBuf,
    /// The launch key in OpenSSH's form.
    pub(crate) public_key: Option<String>,
    /// A script to run once sshd answers.
    pub(crate) user_data: Option<String>,
    /// The script's variables.
    pub(crate) environment: Vec<(String, String)>,
    /// Programs of this machine to show inside.
    pub(crate) programs: Vec<PathBuf>,
    /// Only see whether this machine can make the file system; boot nothing.
    pub(crate) probe: bool,
}

/// A running body.
#[derive(Debug)]
pub(crate) struct Body {
    control: Mutex<Option<ChildStdin>>,
    state: watch::Receiver<BodyState>,
    ending: watch::Sender<bool>,
}

impl Body {
    /// Starts the processes; returns before sshd answers. `console` takes what they say.
    pub(crate) async fn start(spec: &BodySpec, console: &Path) -> std::io::Result<Self> {
        let (mut child, mut control) = launch(Stdio::from(File::create(console)?))?;
        let mut line = serde_json::to_vec(spec)?;
        line.push(b'\n');
        control.write_all(&line).await?;
        control.flush().await?;
        let output = child.stdout.take();
        let (state_sender, state) = watch::channel(BodyState::Starting);
        tokio::spawn(async move {
            if let Some(output) = output {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line == READY {
                        state_sender.send_replace(BodyState::Running);
                    }
                }
            }
            // The launcher's end is the end of every process of the instance: see `launcher`.
            let status = child.wait().await;
            tracing::debug!(?status, "an instance's body ended");
            state_sender.send_replace(BodyState::Absent);
        });
        Ok(Self { control: Mutex::new(Some(control)), state, ending: watch::Sender::new(false) })
    }

    /// Whether this machine can make an instance's file system and namespaces at all; if not, why.
    pub(crate) async fn probe(spec: &BodySpec) -> Result<(), String> {
        let attempt = async {
            let (mut child, mut control) = launch(Stdio::piped())?;
            let mut line = serde_json::to_vec(spec)?;
            line.push(b'\n');
            // A launcher that can't even start has closed the pipe; what it said on the way is the reason to give.
            let _ = control.write_all(&line).await;
            let _ = control.flush().await;
            child.stdin = Some(control);
            child.wait_with_output().await
        };
        match attempt.await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn state(&self) -> BodyState {
        *self.state.borrow()
    }

    /// Whether somebody asked this body to end.
    pub(crate) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Waits until the body has ended, for whatever reason.
    pub(crate) async fn ended(&self) {
        let mut state = self.state.clone();
        // An error means that the sender is gone, and with it the body.
        let _ = state.wait_for(|state| *state == BodyState::Absent).await;
    }

    /// Waits until sshd answers (true) or the body has ended (false).
    pub(crate) async fn ready(&self) -> bool {
        let mut state = self.state.clone();
        let reached = state.wait_for(|state| *state != BodyState::Starting).await;
        reached.is_ok_and(|state| *state == BodyState::Running)
    }

    /// Ends it in good order, as `shutdown` would, and waits.
    pub(crate) async fn shut_down(&self) {
        self.ending.send_replace(true);
        if let Some(control) = self.control.lock().await.as_mut() {
            // A closed pipe means that it is dying already.
            let _ = control.write_all(SHUT_DOWN.as_bytes()).await;
            let _ = control.flush().await;
        }
        if tokio::time::timeout(ORDERLY_END, self.ended()).await.is_err() {
            self.kill().await;
        }
    }

    /// Ends it at once, as pulling the plug would, and waits.
    pub(crate) async fn kill(&self) {
        self.ending.send_replace(true);
        drop(self.control.lock().await.take());
        self.ended().await;
    }
}

/// Starts the launcher: this same program under another name.
fn launch(console: Stdio) -> std::io::Result<(Child, ChildStdin)> {
    // A process group of its own, so that Ctrl-C in a terminal reaches the host alone, which then ends bodies in order.
    // The program by /proc, so that rebuilding it while it runs changes nothing.
    let mut child = Command::new("/proc/self/exe")
        .arg(launcher::LAUNCHER)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(console)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let control =
        child.stdin.take().ok_or_else(|| std::io::Error::other("the launcher has no control pipe"))?;
    Ok((child, control))
}
