//! What harmed builds leave behind: ours, and a bare `packer build` to which the same was done.
//!
//! The scenarios are the end-to-end tests'; here all of them run. Must never forgive: whatever of ours is left or wrong
//! fails it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use end_to_end::harm::{Outcome, Rig, Scenario, run_all, scenarios};
use local_stack::interruption;
use serde::Serialize;

use crate::progress;
use crate::setup::{self, StackTools};

#[derive(Args)]
pub(crate) struct Options {
    /// Only the scenarios whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Without the comparison with a bare `packer build`
    #[arg(long)]
    ours: bool,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// One scenario's result.
#[derive(Serialize)]
struct Row {
    scenario: String,
    /// The build's status; none if it never had one.
    status: Option<String>,
    error: Option<String>,
    /// Whether everything about the build was right.
    right: bool,
    /// What was not.
    wrong: Vec<String>,
    /// What our build left, by kind.
    ours: BTreeMap<String, usize>,
    /// What a bare Packer left, by kind; none where there is no like of the harm.
    bare: Option<BTreeMap<String, usize>>,
    /// Whether it was right only at the last look before the build was called clean, and not after two polls.
    at_last_look: bool,
    seconds: f64,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    scenarios: usize,
    /// Scenarios with something wrong.
    wrong: usize,
    /// Things that our builds left.
    ours_left: usize,
    /// Things that bare builds left.
    bare_left: usize,
    rows: Vec<Row>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let chosen: Vec<Scenario> =
        scenarios().into_iter().filter(|scenario| scenario.name.contains(&options.only)).collect();
    ensure!(!chosen.is_empty(), "no scenario's name contains `{}`", options.only);
    let (tools, _) = setup::for_stack()?;
    ensure!(
        tools.root_filesystem.is_some(),
        "builds are harmed while they are provisioned, and this machine hosts no instances"
    );
    let mut rows = Vec::new();
    run_all(
        &tools.parts(),
        &chosen,
        |rig, scenario, outcome| {
            interruption::pause(Duration::ZERO)?;
            let row = row(rig, &tools, scenario, outcome, options.ours)?;
            progress::note(&format!("{}/{} {}", rows.len() + 1, chosen.len(), row.told()));
            rows.push(row);
            Ok(())
        },
        progress::note,
    )?;
    Report::of(rows).print(options.json)
}

fn row(
    rig: &Rig,
    tools: &StackTools,
    scenario: &Scenario,
    outcome: Outcome,
    ours_alone: bool,
) -> Result<Row> {
    let Outcome { build, leaked, wrong, at_last_look, seconds } = outcome;
    let bare = if ours_alone {
        None
    } else {
        rig.run_bare(&tools.packer, scenario).context(scenario.name.clone())?
    };
    Ok(Row {
        scenario: scenario.name.clone(),
        status: build["status"].as_str().map(str::to_owned),
        error: build["error"].as_str().map(str::to_owned),
        right: wrong.is_empty(),
        wrong,
        ours: by_kind(&leaked),
        bare: bare.map(|bare| by_kind(&bare.left)),
        at_last_look,
        seconds: (seconds * 10.0).round() / 10.0,
    })
}

/// How many there are of each kind; each is given as "kind id".
fn by_kind(items: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        let kind = item.rsplit_once(' ').map_or(item.as_str(), |(kind, _)| kind);
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    counts
}

fn told(counts: &BTreeMap<String, usize>) -> String {
    if counts.is_empty() {
        return "nothing".to_owned();
    }
    counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

impl Row {
    fn told(&self) -> String {
        let status = self.status.as_deref().unwrap_or("--");
        let verdict = if self.right { String::new() } else { format!(" WRONG: {}", self.wrong.join("; ")) };
        format!("{}: {status} after {:.1} s{verdict}", self.scenario, self.seconds)
    }
}

impl Report {
    fn of(rows: Vec<Row>) -> Self {
        Self {
            bench: "leaks",
            scenarios: rows.len(),
            wrong: rows.iter().filter(|row| !row.right).count(),
            ours_left: rows.iter().flat_map(|row| row.ours.values()).sum(),
            bare_left: rows.iter().filter_map(|row| row.bare.as_ref()).flat_map(BTreeMap::values).sum(),
            rows,
        }
    }

    fn print(&self, json: bool) -> Result<ExitCode> {
        let text = if json { serde_json::to_string(self)? + "\n" } else { self.to_table() };
        std::io::stdout().write_all(text.as_bytes()).context("print the results")?;
        Ok(self.code())
    }

    fn code(&self) -> ExitCode {
        let ok = self.wrong == 0 && self.ours_left == 0;
        if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn to_table(&self) -> String {
        let width = |text: fn(&Row) -> String, least: usize| {
            self.rows.iter().map(|row| text(row).len()).max().unwrap_or_default().max(least)
        };
        let scenario = width(|row| row.scenario.clone(), 8);
        let ours = width(|row| told(&row.ours), 9);
        let mut lines = vec![format!(
            "{:scenario$}  {:9}  {:7}  {:ours$}  packer build left",
            "leaks", "status", "verdict", "ours left"
        )];
        for row in &self.rows {
            let status = row.status.as_deref().unwrap_or("--");
            let verdict = match (row.right, row.at_last_look) {
                (true, false) => "right",
                (true, true) => "right *",
                (false, _) => "WRONG",
            };
            let bare = row.bare.as_ref().map_or_else(|| "--".to_owned(), told);
            lines.push(format!(
                "{:scenario$}  {status:9}  {verdict:7}  {:ours$}  {bare}",
                row.scenario,
                told(&row.ours)
            ));
            lines.extend(row.wrong.iter().map(|wrong| format!("  {wrong}")));
        }
        if self.rows.iter().any(|row| row.right && row.at_last_look) {
            lines.push(
                "* not after two polls, but at the last look before the build was called clean".to_owned(),
            );
        }
        lines.push(format!(
            "{} scenarios, {} wrong; ours left {} things, packer build {}",
            self.scenarios, self.wrong, self.ours_left, self.bare_left
        ));
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(right: bool, ours: &[&str]) -> Row {
        let ours: Vec<String> = ours.iter().map(|item| (*item).to_owned()).collect();
        Row {
            scenario: "x".into(),
            status: Some("failed".into()),
            error: None,
            right,
            wrong: Vec::new(),
            ours: by_kind(&ours),
            bare: Some(by_kind(&["instance i-1".into(), "key pair k".into(), "instance i-2".into()])),
            at_last_look: false,
            seconds: 1.0,
        }
    }

    #[test]
    fn things_are_counted_by_kind() {
        let report = Report::of(vec![row(true, &[]), row(false, &["security group sg-1"])]);
        assert_eq!((report.wrong, report.ours_left, report.bare_left), (1, 1, 6));
        assert!(report.to_table().contains("2 instance, 1 key pair"), "{}", report.to_table());
    }

    #[test]
    fn nothing_of_ours_may_be_left_or_wrong() {
        let code = |rows| Report::of(rows).code();
        assert_eq!(code(vec![row(true, &[])]), ExitCode::SUCCESS);
        assert_eq!(code(vec![row(false, &[])]), ExitCode::FAILURE);
        assert_eq!(code(vec![row(true, &["volume vol-1"])]), ExitCode::FAILURE);
    }
}
