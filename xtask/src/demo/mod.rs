//! `cargo xtask demo`: one image from request to deletion, as a user sees it, each claim checked.
//!
//! It only uses what a user has: the `ciab` binary, the EC2 API and SSH. It must never look into the stack's table or
//! bucket, and never take the service's word for what it can see for itself.

mod command_line;
mod instance;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::progress;
use crate::setup::{self, StackTools};
use command_line::CommandLine;
use instance::Instance;
use local_stack::Ec2Api;
use local_stack::Inventory;
use local_stack::Stack;
use local_stack::interruption;
use report::Report;

#[derive(Args)]
pub(crate) struct Options {
    /// The agent to install
    #[arg(long, value_enum, default_value_t = Provider::ClaudeCode)]
    provider: Provider,
    /// Print the report as one JSON document on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Provider {
    ClaudeCode,
    Codex,
    Gemini,
}

impl Provider {
    fn name(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// The agent's own program.
    fn program(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }
}

/// Runs the demo; the code is 0 only if everything held.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut report = Report::default();
    let outcome = everything(options, &mut report);
    if let Err(error) = &outcome {
        report.error = Some(format!("{error:#}"));
        progress::note(&format!("the demo failed: {error:#}"));
    }
    report.print(options.json)?;
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(_) if interruption::interrupted() => Ok(ExitCode::from(130)),
        Err(_) => Ok(ExitCode::FAILURE),
    }
}

fn everything(options: &Options, report: &mut Report) -> Result<()> {
    let (tools, durations) = setup::for_stack()?;
    report.phase("setup", durations.setup);
    report.phase("build_binaries", durations.build_binaries);
    // Said before half an hour of work, not after: without instances nothing can be booted, and nothing is pretended.
    ensure!(
        tools.root_filesystem.is_some(),
        "the demo boots the image it builds, and this machine can't host instances (it takes Linux, Debian, root)"
    );

    let mut stack = report.time("stack_start", || {
        progress::step("start the local stack", || Stack::start(&tools.parts(), &[]))
    })?;
    let outcome = life_of_an_image(options.provider, &tools, &stack, report);
    if outcome.is_err() && !interruption::interrupted() {
        progress::note(&stack.keep_logs());
    }
    let stopped = report.time("teardown", || progress::step("take the stack down", || stack.stop()));
    outcome.and(stopped)
}

fn life_of_an_image(
    provider: Provider,
    tools: &StackTools,
    stack: &Stack,
    report: &mut Report,
) -> Result<()> {
    let ec2 = Ec2Api::new(&stack.ready.aws_endpoint_url)?;
    let ciab = CommandLine::new(tools.binaries.command_line(), stack);
    let before = Inventory::take(&ec2).context("list what EC2 holds before")?;

    let image_id = report.build(&ciab, provider)?;
    ensure!(Inventory::take(&ec2)?.holds_image(&image_id), "EC2 knows no image {image_id}");

    let found = report.time("boot", || {
        progress::step(&format!("boot {image_id} and run {} --version in it", provider.program()), || {
            look_inside(&ec2, stack, &image_id, provider)
        })
    })?;
    report.agent_version = Some(found.agent_version.clone());
    report.versions = report::versions(&found.description);
    let build_id = report.build_id.as_deref().unwrap_or_default();
    report::agrees(&found.description, build_id, provider.name(), &found.agent_version)?;

    report.time("delete", || {
        progress::step(&format!("delete {image_id}"), || {
            ciab.delete(&image_id)?;
            ensure!(!ciab.lists(&image_id)?, "{image_id} is deleted and still listed");
            Ok(())
        })
    })?;
    report.leftovers = Inventory::take(&ec2).context("list what EC2 holds after")?.beyond(&before);
    if !report.leftovers.is_empty() {
        bail!("left in EC2: {}", report.leftovers.join(", "));
    }
    Ok(())
}

impl Report {
    /// Builds, lists, and shows the status; returns the AMI's id.
    fn build(&mut self, ciab: &CommandLine, provider: Provider) -> Result<String> {
        let begun = Instant::now();
        let built = progress::step(&format!("build an image for {}", provider.name()), || {
            ciab.build(provider.name())
        });
        self.phase("image_build", begun.elapsed().as_secs_f64());
        let built = built?;
        self.build_id.clone_from(&built.build_id);
        self.status.clone_from(&built.status);
        self.image_id.clone_from(&built.image_id);
        ensure!(
            built.exit_code == Some(0),
            "`ciab image build` ended with {:?}: {}",
            built.exit_code,
            built.summary()
        );

        let build_id = built.build_id.context("`ciab image build` named no build")?;
        let image_id = built.image_id.context("the build succeeded without an image")?;
        let status = ciab.status(&build_id)?;
        ensure!(
            status.status.as_deref() == Some("succeeded")
                && status.image_id.as_deref() == Some(image_id.as_str()),
            "`ciab image status` says {}",
            status.summary()
        );
        ensure!(ciab.lists(&image_id)?, "`ciab image list` does not show {image_id}");
        Ok(image_id)
    }
}

/// What an instance started from the image shows.
struct Found {
    agent_version: String,
    /// What the image says of itself.
    description: Value,
}

fn look_inside(ec2: &Ec2Api, stack: &Stack, image_id: &str, provider: Provider) -> Result<Found> {
    let instance = Instance::start(ec2, image_id, stack.directory())?;
    let looked = (|| {
        let agent_version = instance.run(&format!("{} --version", provider.program()))?;
        let description = instance.run("cat /etc/ciab-image.json")?;
        let description = serde_json::from_str(&description).context("read /etc/ciab-image.json")?;
        Ok(Found { description, agent_version })
    })();
    // Whatever was found, the instance goes; the first thing that went wrong is what counts.
    let ended = instance.terminate();
    looked.and_then(|found| ended.map(|()| found))
}
