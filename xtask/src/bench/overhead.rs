//! What everything outside Packer costs: the same template, which starts an instance and makes an image of it without
//! connecting to it, built by a bare `packer build` and through the API, in turns, against the same EC2 endpoint.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use ureq::Agent;

use super::{Results, Row};
use crate::progress;
use crate::setup::{self, StackTools};
use local_stack::Ec2Api;
use local_stack::Stack;
use local_stack::stack::Ready;
use local_stack::{http_client, interruption, process};

/// Seconds that a build through the API may take beyond a bare one.
const BUDGET: f64 = 2.0;
const BETWEEN_POLLS: Duration = Duration::from_millis(50);
const BUILD_LIMIT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct Options {
    /// How many builds of each kind count, after one of each that does not
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (tools, _) = setup::for_stack()?;
    let mut stack = progress::step("start the local stack", || Stack::start(&tools.parts(), &[]))?;
    let measured = measure(&tools, &stack, options.runs);
    if measured.is_err() && !interruption::interrupted() {
        progress::note(&stack.keep_logs());
    }
    let stopped = stack.stop();
    let times = measured?;
    stopped?;
    times.results().print(options.json)
}

/// Seconds of each build, in the order in which they ran.
#[derive(Default)]
struct Times {
    bare: Vec<f64>,
    through_api: Vec<f64>,
}

impl Times {
    fn results(&self) -> Results {
        let row = |what: &str, pick: fn(&[f64]) -> f64, budgeted: bool| {
            let (ours, peer) = (pick(&self.through_api), pick(&self.bare));
            Row::new(what, ours, peer, "packer build", budgeted.then_some(peer + BUDGET))
        };
        Results {
            bench: "overhead",
            rows: vec![
                row("POST to succeeded, median", median, true),
                row(
                    "POST to succeeded, fastest",
                    |times| times.iter().copied().fold(f64::INFINITY, f64::min),
                    false,
                ),
                row("POST to succeeded, slowest", |times| times.iter().copied().fold(0.0, f64::max), false),
            ],
        }
    }
}

fn measure(tools: &StackTools, stack: &Stack, runs: u16) -> Result<Times> {
    let template = template(&stack.ready)?;
    let folder = stack.directory().join("bare");
    std::fs::create_dir(&folder).context("create a folder for the template")?;
    std::fs::write(folder.join("template.pkr.hcl"), &template).context("write the template")?;
    let agent = http_client::agent();

    progress::step("warm up", || {
        build_bare(&tools.packer, &folder)?;
        build_through_api(&agent, &stack.ready, &template).map(|_| ())
    })?;
    let mut times = Times::default();
    for run in 1..=runs {
        times.bare.push(build_bare(&tools.packer, &folder)?);
        times.through_api.push(build_through_api(&agent, &stack.ready, &template)?);
        let last = |times: &[f64]| times.last().copied().unwrap_or_default();
        progress::note(&format!(
            "{run}/{runs}: packer build {:.3} s, POST to succeeded {:.3} s",
            last(&times.bare),
            last(&times.through_api)
        ));
    }
    Ok(times)
}

/// Seconds that a bare `packer build` takes.
fn build_bare(packer: &Path, folder: &Path) -> Result<f64> {
    let begun = Instant::now();
    process::run_quietly(
        Command::new(packer)
            .args(["build", "-machine-readable", "."])
            .current_dir(folder)
            // The endpoint checks no signatures; Packer wants credentials all the same.
            .envs([
                ("AWS_ACCESS_KEY_ID", "local"),
                ("AWS_SECRET_ACCESS_KEY", "local"),
                ("AWS_REGION", "us-east-1"),
            ])
            .env("CHECKPOINT_DISABLE", "1"),
    )?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Seconds from the request to the first answer that says `succeeded`.
fn build_through_api(agent: &Agent, ready: &Ready, template: &str) -> Result<f64> {
    let key = format!("Bearer {}", ready.api_key);
    let base = format!("{}/api/v1/images", ready.gateway_url.trim_end_matches('/'));
    let body = json!({
        "provider": "claude-code",
        "template": {"type": "inline", "content": template},
        // The same inputs have an image after the first build; each build has to be one.
        "force": true,
    });
    let begun = Instant::now();
    let mut answer = agent
        .post(format!("{base}/build"))
        .header("Authorization", &key)
        .send_json(&body)
        .context("ask for a build")?;
    let status = answer.status();
    let build: Value = answer.body_mut().read_json().context("read the answer to the build request")?;
    ensure!(status.as_u16() == 202, "the build request was answered with {status}: {build}");
    let build_id = build["build_id"].as_str().context("the answer names no build")?;
    while begun.elapsed() < BUILD_LIMIT {
        let mut answer = agent
            .get(format!("{base}/builds/{build_id}"))
            .header("Authorization", &key)
            .call()
            .context("ask for the build's status")?;
        let build: Value = answer.body_mut().read_json().context("read the build's status")?;
        match build["status"].as_str() {
            Some("succeeded") => return Ok(begun.elapsed().as_secs_f64()),
            Some("queued" | "building") => interruption::pause(BETWEEN_POLLS)?,
            _ => bail!("the build ended otherwise: {build}"),
        }
    }
    bail!("build {build_id} did not end within {} s", BUILD_LIMIT.as_secs())
}

/// A template that knows nothing of this project, but for where EC2 is: Packer 1.6 takes that from nowhere else.
fn template(ready: &Ready) -> Result<String> {
    let source_image = source_image(&Ec2Api::new(&ready.aws_endpoint_url)?)?;
    Ok(format!(
        r#"source "amazon-ebs" "bench" {{
  ami_name                = "ciab-bench-${{uuidv4()}}"
  source_ami              = "{source_image}"
  instance_type           = "t3.micro"
  region                  = "us-east-1"
  communicator            = "none"
  custom_endpoint_ec2     = "{endpoint}"
  skip_region_validation  = true
  skip_metadata_api_check = true
}}

build {{
  sources = ["source.amazon-ebs.bench"]
}}
"#,
        endpoint = ready.aws_endpoint_url
    ))
}

/// Any base image that the stack's EC2 offers.
fn source_image(ec2: &Ec2Api) -> Result<String> {
    ec2.call("DescribeImages", &[("Filter.1.Name", "architecture"), ("Filter.1.Value.1", "x86_64")])?
        .text("imagesSet/item/imageId")
        .context("EC2 offers no base image")
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn the_budget_is_two_seconds_over_the_bare_build() {
        let results = Times { bare: vec![0.3, 0.2, 0.4], through_api: vec![1.0, 2.0, 2.4] }.results();
        assert_eq!(results.rows[0].budget, Some(2.3));
        assert!(results.rows[0].ok);
    }
}
