//! `cargo xtask up`: sets up, builds, and becomes the local stack in the foreground.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup;

#[derive(Args)]
pub(crate) struct Options {
    /// The port of the HTTP API on 127.0.0.1; 0 takes a free one. Everything else is on free ports
    #[arg(long, value_name = "N", default_value_t = 9090)]
    gateway_port: u16,
    /// How often the poller runs (in AWS: every 60 seconds)
    #[arg(long, value_name = "SECONDS")]
    poll_interval: Option<u64>,
}

/// Replaces this process by the stack; returns only if that failed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (tools, _) = setup::for_stack()?;
    let mut command = tools.parts().command();
    command.args(["--gateway-port", &options.gateway_port.to_string()]);
    if let Some(seconds) = options.poll_interval {
        command.args(["--poll-interval", &seconds.to_string()]);
    }
    Err(command.exec()).context("start the local stack")
}
