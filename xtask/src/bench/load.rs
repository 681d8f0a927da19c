//! Many builds submitted at once on few slots. The load and what counts as right are the end-to-end tests'; here it is large.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use end_to_end::load::{Load, LoadReport};

use crate::progress;
use crate::setup;

#[derive(Args)]
pub(crate) struct Options {
    /// How many builds are submitted at once
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    builds: u16,
    /// How many may run at once
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
    slots: u16,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (tools, _) = setup::for_stack()?;
    let load = Load { builds: options.builds.into(), slots: options.slots.into() };
    let what = format!("{} builds at once on {} slots", load.builds, load.slots);
    let report = progress::step(&what, || load.run(&tools.parts()))?;
    let text = if options.json {
        serde_json::to_string(
            &serde_json::json!({"bench": "load", "ok": report.wrong.is_empty(), "load": report}),
        )? + "\n"
    } else {
        table(&report)
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the results")?;
    Ok(if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(report: &LoadReport) -> String {
    let rows = [
        ("builds submitted at once", report.builds.to_string()),
        ("slots", report.slots.to_string()),
        ("accepted", report.accepted.to_string()),
        ("succeeded", report.succeeded.to_string()),
        ("most under way at once", report.most_at_once.to_string()),
        ("most Packers at once", report.most_packers.to_string()),
        ("all accepted after", format!("{:.1} s", report.submitted_seconds)),
        ("all ended after", format!("{:.1} s", report.seconds)),
        ("wrong", report.wrong.len().to_string()),
    ];
    let mut lines: Vec<String> = rows.map(|(what, value)| format!("{what:24}  {value:>8}")).into();
    lines.extend(report.wrong.iter().map(|wrong| format!("  {wrong}")));
    lines.join("\n") + "\n"
}
