//! The runner's process: its environment, the AWS adapters, and the signals that end it early.
//!
//! Exit code 0: the build's outcome, good or bad, was reported. 1: it was not; whoever watches the build must find out.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use ciab_aws::{LambdaCredentialsIssuer, S3Objects, StepFunctionsTaskTokens, with_credentials};
use ciab_runner::configuration::{Configuration, named_in_lines};
use ciab_runner::downloads::WebDownloads;
use ciab_runner::issued_credentials::{BuildFiles, IssuedCredentials};
use ciab_runner::report::Reported;
use ciab_runner::run::{Ports, run};
use ciab_runner::stop::{StopReason, StopSwitch};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    // To stderr: a process that serves one build alone names it in all lines, whichever task they come from.
    ciab_logs::start(std::io::stderr, named_in_lines(|name| std::env::var(name).ok()));
    // One thread: the kernel tells Packer of the death of the thread that started it, and this one lives to the end.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("no runtime could be made").and_then(|runtime| {
        let ended = runtime.block_on(run_build());
        // Without waiting for a download that was given up, which a thread may still be at.
        runtime.shutdown_background();
        ended
    });
    match ended {
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
    let credentials = Arc::new(IssuedCredentials::new(
        Arc::new(LambdaCredentialsIssuer::new(&aws, &configuration.credentials_function)),
        configuration.build_id,
        &configuration.task_token,
    ));
    let as_build = with_credentials(&aws, Arc::new(BuildFiles(credentials.clone())));
    let ports = Ports {
        objects: Arc::new(S3Objects::new(&as_build, &configuration.bucket)),
        tools: Arc::new(S3Objects::new(&aws, &configuration.bucket)),
        tasks: Arc::new(StepFunctionsTaskTokens::new(&aws)),
        credentials,
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
