//! Starts the local stack as a child for a task, and takes it down whatever happens to the task.
//!
//! It sees of the stack only what a user does: the process, its ready file, its log.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::setup::StackTools;
use crate::{http_client, interruption, process, workspace};

const START_LIMIT: Duration = Duration::from_secs(60);
/// Taking down means to stop instances and unmount what they used, which a busy machine may take a while for.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What the stack writes once it is ready.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ready {
    /// Where the HTTP API is.
    pub(crate) gateway_url: String,
    /// Where all of AWS's APIs are.
    pub(crate) aws_endpoint_url: String,
    /// The development key.
    pub(crate) api_key: String,
}

/// A running stack.
pub(crate) struct Stack {
    child: Child,
    /// Where it is, and with which key.
    pub(crate) ready: Ready,
    logs: TempDir,
    stopped: bool,
}

impl Stack {
    /// Starts a stack on free ports and returns once it answers.
    pub(crate) fn start(tools: &StackTools) -> Result<Self> {
        let mut logs =
            tempfile::Builder::new().prefix("ciab-stack-").tempdir().context("make a folder for logs")?;
        let ready_file = logs.path().join("ready.json");
        let log = File::create(logs.path().join("stack.log")).context("create the stack's log")?;
        // Should this process be killed outright, the stack notices and ends by itself.
        let mut child = Command::new(tools.binaries.local_stack())
            .args(arguments(tools))
            .args(["--gateway-port", "0", "--ready-file"])
            .arg(&ready_file)
            .arg("--work-dir")
            .arg(logs.path())
            .current_dir(workspace::root())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the local stack")?;
        match wait_until_ready(&mut child, &ready_file) {
            Ok(ready) => Ok(Self { child, ready, logs, stopped: false }),
            Err(error) => {
                process::stop(&mut child, STOP_LIMIT);
                if interruption::interrupted() {
                    return Err(error);
                }
                Err(error.context(format!("the local stack did not start; {}", keep(&mut logs))))
            }
        }
    }

    /// Takes the stack down; an error if it did not go in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.stopped = true;
        match process::stop(&mut self.child, STOP_LIMIT) {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the local stack ended with {status}; {}", self.keep_logs()),
            None => {
                bail!("the local stack did not end within {} s; {}", STOP_LIMIT.as_secs(), self.keep_logs())
            }
        }
    }

    /// Keeps the logs beyond the stack's life. Says where they are and how they end.
    pub(crate) fn keep_logs(&mut self) -> String {
        keep(&mut self.logs)
    }

    /// A folder that lives as long as the stack.
    pub(crate) fn directory(&self) -> &Path {
        self.logs.path()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if !self.stopped {
            process::stop(&mut self.child, STOP_LIMIT);
        }
    }
}

fn keep(logs: &mut TempDir) -> String {
    logs.disable_cleanup(true);
    let folder = logs.path();
    let tail = process::tail_of(&folder.join("stack.log"));
    format!("the stack's logs are in {}; stack.log ends:\n{tail}", folder.display())
}

/// The arguments of `ciab-local` that say where its parts are.
pub(crate) fn arguments(tools: &StackTools) -> Vec<OsString> {
    let path = |flag: &str, path: &Path| [OsString::from(flag), path.as_os_str().to_owned()];
    let mut arguments = vec![OsString::from("up")];
    arguments.extend(path("--functions-dir", tools.binaries.directory()));
    arguments.extend(path("--runner", &tools.binaries.runner()));
    arguments.extend(path("--infra", &workspace::root().join("infra")));
    arguments.extend(path("--moto-server", &tools.moto_server));
    arguments.extend(path("--packer", &tools.packer));
    arguments.push("--set".into());
    arguments.push(format!("PackerVersion={}", tools.packer_version).into());
    if let Some(root) = &tools.root_filesystem {
        arguments.extend(path("--root-filesystem", root));
    }
    arguments
}

fn wait_until_ready(child: &mut Child, ready_file: &PathBuf) -> Result<Ready> {
    let started = Instant::now();
    while started.elapsed() < START_LIMIT {
        if let Some(status) = child.try_wait().context("wait for the local stack")? {
            bail!("it ended with {status}");
        }
        // The file appears whole or not at all; while it isn't there, there is nothing to say.
        if let Ok(text) = std::fs::read_to_string(ready_file) {
            let ready: Ready = serde_json::from_str(&text).context("read the stack's ready file")?;
            http_client::require_loopback(&ready.gateway_url)?;
            http_client::require_loopback(&ready.aws_endpoint_url)?;
            return Ok(ready);
        }
        interruption::pause(Duration::from_millis(20))?;
    }
    bail!("it was not ready within {} s", START_LIMIT.as_secs())
}
