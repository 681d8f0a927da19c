//! `cargo xtask`: sets up what the project needs, and builds, runs, shows, tests and measures the local stack; starts the
//! simulation.
//!
//! It does on a fresh machine what a person would otherwise do by hand from a list, and drives the stack only from
//! outside: by the `ciab` binary, the HTTP API and the EC2 API. It must never share code with what it checks, and it
//! keeps its dependencies few, since a fresh machine compiles it before anything else.

mod bench;
mod build_binaries;
mod demo;
mod fuzz;
mod infrastructure_checks;
mod package;
mod progress;
mod setup;
mod simulate;
mod test;
mod up;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use local_stack::interruption;

/// Builds, runs, shows, tests and measures ciab-images on one machine.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install all that the other tasks need (Debian as root; cached for the next time)
    ///
    /// Debian packages that are missing, Python environments with a pinned moto and checks of the infrastructure, Amazon's DynamoDB
    /// Local, and the root file system of the stand-in EC2 instances. What is already there is left alone; two may run
    /// at once. The cache is $CIAB_CACHE_DIR, or ciab-images in $XDG_CACHE_HOME, or ~/.cache/ciab-images.
    Setup,
    /// Build the binaries of the functions, the runner, the CLI and the local stack
    Build,
    /// Run the local stack in the foreground until Ctrl-C
    Up(up::Options),
    /// Build an image end to end, boot it, delete it, and show that nothing is left
    ///
    /// Starts a stack of its own on free ports, then does what a user does: `ciab image build --follow`, list, status;
    /// boots the AMI and runs the agent's `--version` in it over SSH; deletes the image; compares what EC2 holds with
    /// what it held before. Exits 0 only if all of it held.
    Demo(demo::Options),
    /// Set up what the tests need and run all of them
    Test(test::Options),
    /// Run lives of builds in a pretend AWS where everything goes wrong (needs nothing set up)
    Simulate(simulate::Options),
    /// Give the readers of other people's text whatever a fuzzer comes up with (a C++ compiler is needed)
    Fuzz(fuzz::Options),
    /// Make what a deployment uploads: the functions as zips, the runner, and the template that names them
    ///
    /// By `sam build`, into target/package/<architecture>, with sizes on stdout and digests in SHA256SUMS. The runner is made for every
    /// architecture that the toolchain has a target for: static with a musl target, else for glibc 2.26 and later.
    Package(package::Options),
    /// Measure the product against its budgets
    #[command(subcommand)]
    Bench(bench::Benchmark),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) if interruption::interrupted() => {
            progress::note(&format!("interrupted: {error:#}"));
            ExitCode::from(130)
        }
        Err(error) => {
            progress::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    interruption::listen()?;
    match task {
        Task::Setup => setup::everything().map(|_| ExitCode::SUCCESS),
        Task::Build => build_binaries::build(build_binaries::Selection::Stack).map(|_| ExitCode::SUCCESS),
        Task::Up(options) => up::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Simulate(options) => simulate::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Bench(benchmark) => bench::run(&benchmark),
    }
}
