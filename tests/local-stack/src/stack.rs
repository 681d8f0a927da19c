//! Starts the local stack as a child for a task or a test, and takes it down whatever happens to the task.
//!
//! It sees of the stack only what a user does: the process, its ready file, its log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{http_client, interruption, process};

const START_LIMIT: Duration = Duration::from_secs(60);
/// Taking down means to stop instances and unmount what they used, which a busy machine may take a while for.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What the stack writes once it is ready.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Where the HTTP API is.
    pub gateway_url: String,
    /// Where all of AWS's APIs are.
    pub aws_endpoint_url: String,
    /// The development key.
    pub api_key: String,
}

/// Where the parts of a stack are.
#[derive(Clone, Debug)]
pub struct StackParts {
    /// The local stack's binary.
    pub ciab_local: PathBuf,
    /// The folder with the functions' binaries.
    pub functions: PathBuf,
    /// The runner's binary.
    pub runner: PathBuf,
    /// The folder with template.yaml and its companions.
    pub infra: PathBuf,
    /// moto's server.
    pub moto_server: PathBuf,
    /// Packer.
    pub packer: PathBuf,
    /// What instances boot from; none where this machine can't host instances.
    pub root_filesystem: Option<PathBuf>,
}

/// A running stack.
pub struct Stack {
    child: Child,
    /// Where it is, and with which key.
    pub ready: Ready,
    logs: TempDir,
    stopped: bool,
}

impl Stack {
    /// Starts a stack on free ports and returns once it answers.
    pub fn start(parts: &StackParts, arguments: &[&str]) -> Result<Self> {
        let mut logs =
            tempfile::Builder::new().prefix("ciab-stack-").tempdir().context("make a folder for logs")?;
        let ready_file = logs.path().join("ready.json");
        let log = File::create(logs.path().join("stack.log")).context("create the stack's log")?;
        // Should this process be killed outright, the stack notices and ends by itself.
        let mut child = parts
            .command()
            .args(arguments)
            .args(["--gateway-port", "0", "--ready-file"])
            .arg(&ready_file)
            .arg("--work-dir")
            .arg(logs.path())
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
    pub fn stop(mut self) -> Result<()> {
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
    pub fn keep_logs(&mut self) -> String {
        keep(&mut self.logs)
    }

    /// A folder that lives as long as the stack.
    pub fn directory(&self) -> &Path {
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

impl StackParts {
    /// Where `cargo xtask test` says that they are.
    ///
    /// # Errors
    /// Names the variable that is not set, and what sets it.
    pub fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set: run the tests with `cargo xtask test`"))
        };
        let binaries = variable("CIAB_TEST_BIN_DIR")?;
        Ok(Self {
            ciab_local: binaries.join("ciab-local"),
            runner: binaries.join("ciab-runner"),
            functions: binaries,
            infra: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra"),
            moto_server: variable("CIAB_TEST_MOTO_SERVER")?,
            packer: variable("CIAB_TEST_PACKER")?,
            root_filesystem: Some(variable("CIAB_TEST_ROOTFS")?),
        })
    }

    /// `ciab-local up` with these parts.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.ciab_local);
        command.arg("up").arg("--functions-dir").arg(&self.functions).arg("--runner").arg(&self.runner);
        command.arg("--infra").arg(&self.infra).arg("--moto-server").arg(&self.moto_server);
        command.arg("--packer").arg(&self.packer);
        if let Some(root) = &self.root_filesystem {
            command.arg("--root-filesystem").arg(root);
        }
        command
    }
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
