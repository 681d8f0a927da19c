//! Starts moto's server, which stands in for the AWS services that the stack has no emulation of its own for.
//!
//! Must never listen beyond the loopback address.
//!
//! Where moto 5.2.5's Step Functions interpreter differs from AWS on what `infra/build-image.asl.json` uses:
//! - SendTaskFailure loses its cause over HTTP; `sitecustomize.py` corrects that.
//! - A lost heartbeat is reported as `States.Timeout`, where AWS says `States.HeartbeatTimeout`. Both are caught.
//! - A Fail state refuses an error whose name begins with `States.`, at run time and only then.
//!
//! `TimeoutSecondsPath`, `HeartbeatSecondsPath`, `ResultSelector`, `ResultPath` (null too), `Retry` with `MaxDelaySeconds`, and
//! `CausePath` with `States.Format` work as documented.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

use crate::process;

/// What moto lacks; the file says what.
const CORRECTIONS: &str = include_str!("sitecustomize.py");

/// Importing moto takes about two seconds on a small machine.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub(crate) enum MotoError {
    #[error("moto's server cannot be started from {path}")]
    Spawn { path: PathBuf, source: std::io::Error },
    #[error("moto's server did not say where it listens; its output is in {log}")]
    Silent { log: PathBuf },
    #[error("moto's server refused its configuration")]
    Configuration(#[from] reqwest::Error),
    #[error("{path} cannot be written")]
    Unwritable { path: PathBuf, source: std::io::Error },
}

/// A running server; dropping it kills the process.
pub(crate) struct Moto {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Moto {
    /// `callback_port` is where its Step Functions interpreter finds Lambda; `base_images` is its list of AMIs; `folder`
    /// is for files of its own.
    pub(crate) async fn start(
        server: &Path,
        callback_port: u16,
        base_images: &Json,
        folder: &Path,
        log: &Path,
        client: &reqwest::Client,
    ) -> Result<Self, MotoError> {
        let mut command = process::command(server);
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        command.env("MOTO_PORT", callback_port.to_string()).env("PYTHONUNBUFFERED", "1");
        // Its interpreter calls us through the environment's proxy otherwise.
        command.env("NO_PROXY", "localhost,127.0.0.1").env("no_proxy", "localhost,127.0.0.1");
        let images = folder.join("base-images.json");
        for (path, content) in
            [(&images, base_images.to_string()), (&folder.join("sitecustomize.py"), CORRECTIONS.to_owned())]
        {
            let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, content));
            written.map_err(|source| MotoError::Unwritable { path: path.clone(), source })?;
        }
        command.env("MOTO_AMIS_PATH", &images).env("PYTHONPATH", folder);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let spawn_failed = |source| MotoError::Spawn { path: server.to_owned(), source };
        let mut child = command.spawn().map_err(spawn_failed)?;
        let log_failed = |source| MotoError::Unwritable { path: log.to_owned(), source };
        let file = File::create(log).await.map_err(log_failed)?;
        let silent = || MotoError::Silent { log: log.to_owned() };
        let stderr = child.stderr.take().ok_or_else(silent)?;
        let address = timeout(START_LIMIT, listening_address(stderr, file)).await;
        let address = address.ok().flatten().ok_or_else(silent)?;
        // Without this an execution stays RUNNING and nothing happens.
        let configuration = json!({"stepfunctions": {"execute_state_machine": true}});
        let request = client.post(format!("http://{address}/moto-api/config")).json(&configuration);
        request.send().await?.error_for_status()?;
        Ok(Self { address, child })
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn stop(&mut self) {
        let _ = self.child.kill().await;
    }

    /// Returns when it has ended by itself, which it should not.
    pub(crate) async fn ended(&mut self) {
        let _ = self.child.wait().await;
    }
}

/// Reads the log until it names the address (werkzeug's line), and lets a task keep the rest of it.
async fn listening_address(stderr: ChildStderr, mut log: File) -> Option<SocketAddr> {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = log.write_all(format!("{line}\n").as_bytes()).await;
        let found = line.split_once("Running on http://").map(|(_, rest)| rest.trim());
        if let Some(address) = found.and_then(|text| text.parse().ok()) {
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    let _ = log.write_all(format!("{line}\n").as_bytes()).await;
                }
            });
            return Some(address);
        }
    }
    let _ = log.flush().await;
    None
}
