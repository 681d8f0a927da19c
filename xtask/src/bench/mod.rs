//! Benchmarks: ours beside a peer's, both measured in one run on one machine, each against a budget written here.
//! They are measurements for people and no tests: a busy machine may miss a budget.

mod leaks;
mod load;
mod overhead;
mod poll;
mod template;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde::Serialize;

#[derive(Subcommand)]
pub(crate) enum Benchmark {
    /// From POST to `succeeded`, against a bare `packer build` of the same template without a communicator
    Overhead(overhead::Options),
    /// What is left after everything that can die has died, at every moment, against a bare `packer build`
    ///
    /// Builds one image after another and harms each build at a moment of its own: kills the runner, Packer, the runner's
    /// machine, a function's process or the execution, loses the reply of a call, cancels. Two polls after the build's
    /// end, EC2 must hold what it held before and the AMI of a build that succeeded, and the status must be right. Where
    /// a bare Packer can be harmed in the same way, it is. Exits 0 only if nothing of ours was left or wrong.
    Leaks(leaks::Options),
    /// Many builds at once on few slots: all end right, in the order of their submission, and none is lost
    Load(load::Options),
    /// One poll with 10, 100 and 1,000 active builds: calls to each of AWS's APIs, and time
    Poll(poll::Options),
    /// Reading, checking and tagging a template of 1,000 lines, against `packer validate -syntax-only`
    Template(template::Options),
}

/// Runs a benchmark; the code is 0 if it could be measured and every budget was kept.
pub(crate) fn run(benchmark: &Benchmark) -> Result<ExitCode> {
    match benchmark {
        Benchmark::Overhead(options) => overhead::run(options),
        Benchmark::Leaks(options) => leaks::run(options),
        Benchmark::Load(options) => load::run(options),
        Benchmark::Poll(options) => poll::run(options),
        Benchmark::Template(options) => template::run(options),
    }
}

/// One benchmark's results.
#[derive(Serialize)]
struct Results {
    bench: &'static str,
    rows: Vec<Row>,
}

/// One measured thing.
#[derive(Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    peer: f64,
    peer_name: &'static str,
    /// What `ours` may be at most; none where the row only informs.
    budget: Option<f64>,
    ok: bool,
}

impl Row {
    fn new(what: &str, ours: f64, peer: f64, peer_name: &'static str, budget: Option<f64>) -> Self {
        let round = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        Self {
            what: what.to_owned(),
            unit: "s",
            ours: round(ours),
            peer: round(peer),
            peer_name,
            budget: budget.map(round),
            ok: budget.is_none_or(|budget| ours <= budget),
        }
    }
}

impl Results {
    fn print(&self, json: bool) -> Result<ExitCode> {
        let text = if json { serde_json::to_string(self)? + "\n" } else { self.to_table() };
        std::io::stdout().write_all(text.as_bytes()).context("print the results")?;
        Ok(if self.rows.iter().all(|row| row.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn to_table(&self) -> String {
        let width = self.rows.iter().map(|row| row.what.len()).max().unwrap_or_default();
        let peer_name = self.rows.first().map_or("peer", |row| row.peer_name);
        let mut lines =
            vec![format!("{:width$}  {:>10}  {peer_name:>14}  {:>10}", self.bench, "ours", "budget")];
        for row in &self.rows {
            let number = |value: f64| format!("{value:.3} {}", row.unit);
            let budget = row.budget.map_or_else(|| "--".to_owned(), number);
            let verdict = match (row.budget, row.ok) {
                (None, _) => "",
                (Some(_), true) => "  ok",
                (Some(_), false) => "  MISSED",
            };
            let (ours, peer) = (number(row.ours), number(row.peer));
            lines.push(format!("{:width$}  {ours:>10}  {peer:>14}  {budget:>10}{verdict}", row.what));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_over_its_budget_is_not_ok() {
        assert!(Row::new("x", 2.0, 1.0, "peer", Some(3.0)).ok);
        assert!(!Row::new("x", 3.1, 1.0, "peer", Some(3.0)).ok);
        assert!(Row::new("x", 3.1, 1.0, "peer", None).ok);
    }

    #[test]
    fn the_document_has_the_agreed_names() {
        let results = Results { bench: "b", rows: vec![Row::new("x", 1.0, 0.5, "peer", Some(2.5))] };
        assert_eq!(
            serde_json::to_string(&results).unwrap(),
            r#"{"bench":"b","rows":[{"what":"x","unit":"s","ours":1.0,"peer":0.5,"peer_name":"peer","budget":2.5,"ok":true}]}"#
        );
    }
}
