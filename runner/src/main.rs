//! The runner's process: its environment, the AWS adapters, and the signals that end it early.
//!
//! Exit code 0: the build's outcome, good or bad, was reported. 1: it was not; whoever watches the build must find out.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use ciab_aws::{S3Objects, StepFunctionsTaskTokens, StsBuildIdentity};
use ciab_runner::configuration::{Configuration, named_in_lines};
use ciab_runner::downloads::WebDownloads;
use ciab_runner::report::Reported;
use ciab_runner::run::{Ports, run};
use ciab_runner::stop::{StopReason, StopSwitch};
use tokio::signal::unix::{SignalKind, signal};

// One thread: the kernel tells Packer of the death of the thread that started it, and this one lives to the end.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // To stderr: a process that serves one build alone names it in all lines, whichever task they come from.
    ciab_logs::start(std::io::stderr, named_in_lines(|name| std::env::var(name).ok()));
    match run_build().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run_build() -> anyhow::Result<()> {
    let configuration = Configuration::read(|name| std::env::var(name).ok())?;
    let aws = ciab_aws::connect()?;
    let ports = Ports {
        objects: Arc::new(S3Objects::new(&aws, &configuration.bucket)),
        tasks: Arc::new(StepFunctionsTaskTokens::new(&aws)),
        identity: Arc::new(StsBuildIdentity::new(&aws, &configuration.build_role)),
        downloads: Arc::new(WebDownloads),
    };
    let switch = StopSwitch::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("signals cannot be received")?;
        let switch = switch.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                switch.stop(StopReason::Signal);
            }
        });
    }
    match run(&configuration, &ports, &switch, std::env::vars_os().collect()).await {
        Reported::Yes => Ok(()),
        Reported::NobodyWaits => anyhow::bail!("the state machine no longer waits for this build"),
        Reported::No(Some(error)) => Err(error).context("the outcome could not be reported"),
        Reported::No(None) => anyhow::bail!("the outcome could not be reported: no answer"),
    }
}
