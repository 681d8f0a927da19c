//! What a template of a thousand lines costs: reading it, checking its variables and tagging it, as prepare-build does,
//! beside `packer validate -syntax-only` on the same file. In each of the three forms that a template may have.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use local_stack::process;
use serde_json::{Value, json};

use super::{Results, Row};
use crate::{progress, setup, workspace};

/// Milliseconds that the 99th percentile may take.
const BUDGET: f64 = 5.0;
const LINES: usize = 1000;

#[derive(Args)]
pub(crate) struct Options {
    /// How many runs of ours count
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    runs: u32,
    /// How many runs of Packer count
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    packer_runs: u32,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let packer = setup::packer()?;
    let program = progress::step("build the crate of templates with optimizations", || {
        process::run_quietly(workspace::cargo().args([
            "build",
            "--locked",
            "--quiet",
            "--release",
            "--package",
            "ciab-template",
            "--example",
            "time",
        ]))?;
        Ok(workspace::target_directory()?.join("release/examples/time"))
    })?;
    let mut rows = Vec::new();
    for (form, file, text) in templates() {
        let folder = tempfile::tempdir().context("create a folder for the template")?;
        std::fs::write(folder.path().join(file), &text).context("write the template")?;
        let ours = time_ours(&program, folder.path(), options.runs)?;
        let peer = time_packer(&packer, folder.path(), file, options.packer_runs)?;
        for (percent, budget) in [(50, None), (99, Some(BUDGET))] {
            rows.push(row(
                &format!("{form}, {} lines, p{percent}", text.lines().count()),
                percentile(&ours, percent),
                percentile(&peer, percent),
                budget,
            ));
        }
    }
    Results { bench: "template", rows }.print(options.json)
}

fn row(what: &str, ours: f64, peer: f64, budget: Option<f64>) -> Row {
    Row { unit: "ms", ..Row::new(what, ours, peer, "packer validate", budget) }
}

/// Milliseconds of each run.
fn time_ours(program: &Path, folder: &Path, runs: u32) -> Result<Vec<f64>> {
    let output =
        Command::new(program).arg(folder).arg(runs.to_string()).output().context("start the measurement")?;
    ensure!(output.status.success(), "the measurement failed: {}", String::from_utf8_lossy(&output.stderr));
    let nanoseconds = String::from_utf8(output.stdout).context("read the measurement")?;
    let times: Result<Vec<f64>, _> = nanoseconds.lines().map(str::parse::<f64>).collect();
    Ok(times.context("read the measurement")?.into_iter().map(|time| time / 1e6).collect())
}

/// Milliseconds of each run.
fn time_packer(packer: &Path, folder: &Path, file: &str, runs: u32) -> Result<Vec<f64>> {
    (0..runs)
        .map(|_| {
            let mut command = Command::new(packer);
            command
                .args(["validate", "-syntax-only", file])
                .current_dir(folder)
                .env("CHECKPOINT_DISABLE", "1");
            let begun = Instant::now();
            process::run_quietly(&mut command)?;
            Ok(begun.elapsed().as_secs_f64() * 1000.0)
        })
        .collect()
}

/// The value that so many percent of all are at or below.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A form's name, the file that Packer reads it from, and the template.
fn templates() -> [(&'static str, &'static str, String); 3] {
    [
        ("HCL2", "template.pkr.hcl", until_long_enough(hcl)),
        ("HCL2 in JSON", "template.pkr.json", until_long_enough(hcl_in_json)),
        ("legacy JSON", "template.json", until_long_enough(legacy)),
    ]
}

/// A template with as many sources as it takes.
fn until_long_enough(template: impl Fn(usize) -> String) -> String {
    (1..).map(template).find(|text| text.lines().count() >= LINES).unwrap_or_default()
}

const VARIABLES: usize = 20;

fn hcl(sources: usize) -> String {
    let mut text = String::new();
    for index in 0..VARIABLES {
        let _ = write!(
            text,
            "variable \"variable_{index}\" {{\n  type        = string\n  description = \"A variable.\"\n  default     = \
             \"x\"\n}}\n\n"
        );
    }
    text.push_str("locals {\n  tags = { Team = \"images\" }\n}\n\n");
    for index in 0..sources {
        let _ = write!(
            text,
            r#"# One of many.
source "amazon-ebs" "source_{index}" {{
  ami_name      = "image-{index}-${{formatdate("YYYYMMDD", timestamp())}}"
  instance_type = "t3.micro"
  region        = "us-east-1"
  ssh_username  = "ubuntu"

  source_ami_filter {{
    filters = {{
      name                = "ubuntu/images/*"
      virtualization-type = "hvm"
    }}
    owners      = ["099720109477"]
    most_recent = true
  }}

  launch_block_device_mappings {{
    device_name = "/dev/sda1"
    volume_size = 8
  }}

  user_data = <<-EOF
    #!/bin/sh
    echo "${{var.variable_0}}"
  EOF

  tags = {{
    Name  = "image-${{var.variable_{variable}}}"
    Owner = "team"
  }}
  run_tags        = merge(local.tags, {{ Name = "builder" }})
  run_volume_tags = local.tags
}}

build {{
  sources = ["source.amazon-ebs.source_{index}"]

  provisioner "shell" {{
    inline = [
      "sudo apt-get update",
      "sudo apt-get install -y ${{var.variable_1}}",
    ]
  }}
}}

"#,
            variable = index % VARIABLES
        );
    }
    text
}

fn builder(index: usize) -> Value {
    json!({
        "ami_name": format!("image-{index}-{{{{timestamp}}}}"),
        "instance_type": "t3.micro",
        "region": "us-east-1",
        "ssh_username": "ubuntu",
        "source_ami_filter": {
            "filters": {"name": "ubuntu/images/*", "virtualization-type": "hvm"},
            "owners": ["099720109477"],
            "most_recent": true,
        },
        "launch_block_device_mappings": [{"device_name": "/dev/sda1", "volume_size": 8}],
        "tags": {"Name": "image", "Owner": "team"},
        "run_tags": {"Name": "builder"},
    })
}

fn hcl_in_json(sources: usize) -> String {
    let variables: Value = (0..VARIABLES)
        .map(|index| (format!("variable_{index}"), json!({"type": "string", "default": "x"})))
        .collect();
    let blocks: Value = (0..sources)
        .map(|index| {
            let mut source = builder(index);
            source["run_volume_tags"] = json!("${merge(local.tags, {Name = var.variable_0})}");
            (format!("source_{index}"), source)
        })
        .collect();
    let names: Vec<_> = (0..sources).map(|index| format!("amazon-ebs.source_{index}")).collect();
    let template = json!({
        "variable": variables,
        "locals": {"tags": {"Team": "images"}},
        "source": {"amazon-ebs": blocks},
        "build": {"sources": names, "provisioner": {"shell": {"inline": ["sudo apt-get update"]}}},
    });
    format!("{template:#}\n")
}

fn legacy(sources: usize) -> String {
    let variables: Value = (0..VARIABLES).map(|index| (format!("variable_{index}"), json!("x"))).collect();
    let builders: Value = (0..sources)
        .map(|index| {
            let mut builder = builder(index);
            builder["type"] = json!("amazon-ebs");
            builder["name"] = json!(format!("source_{index}"));
            builder
        })
        .collect();
    let template = json!({
        "variables": variables,
        "builders": builders,
        "provisioners": [{"type": "shell", "inline": ["sudo apt-get update"]}],
    });
    format!("{template:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!((percentile(&values, 50) - 100.0).abs() < 1e-9);
        assert!((percentile(&values, 99) - 198.0).abs() < 1e-9);
        assert!((percentile(&[7.0], 99) - 7.0).abs() < 1e-9);
    }

    #[test]
    fn every_template_has_a_thousand_lines_and_not_many_more() {
        for (form, _, text) in templates() {
            assert!((LINES..LINES + 100).contains(&text.lines().count()), "{form}");
        }
    }
}
