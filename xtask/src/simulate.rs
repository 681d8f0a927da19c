//! `cargo xtask simulate`: compiles the simulation with optimizations and becomes it.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace;

#[derive(Args)]
// `--help` is the simulation's to answer.
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on: --seeds N, --from SEED, or --seed SEED --trace
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Replaces this process by the simulation; returns only if that failed.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--locked", "--quiet", "--release", "--package", "simulation", "--"]);
    cargo.args(&options.arguments);
    Err(cargo.exec()).context("start cargo")
}
