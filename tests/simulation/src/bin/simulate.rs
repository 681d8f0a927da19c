//! `simulate`: runs many worlds, or one with its trace. What `cargo xtask simulate` starts.
//!
//! Exits with 0 where all held, 1 where something did not, 2 for wrong usage.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use simulation::{Options, run, run_many};

/// Worlds between two lines of progress.
const WORLDS_A_LINE: u64 = 1_000;

/// Lives of builds in a pretend AWS where everything goes wrong, one world a seed.
#[derive(Parser)]
#[command(name = "cargo xtask simulate", bin_name = "cargo xtask simulate")]
struct Arguments {
    /// How many worlds to run
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    from: u64,
    /// Run the world of this seed alone
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Write down every call of it
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all_held = match arguments.seed {
        Some(seed) => one(seed, arguments.trace),
        None => many(arguments.from, arguments.seeds),
    };
    if all_held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, traced: bool) -> bool {
    let life = run(seed, Options { traced, ..Options::default() });
    eprintln!("{life}");
    life.violation.is_none()
}

fn many(from: u64, seeds: u64) -> bool {
    let began = Instant::now();
    let summary = run_many(from, seeds, |so_far| {
        if so_far.worlds % WORLDS_A_LINE == 0 {
            let (worlds, bad) = (so_far.worlds, so_far.violations.len());
            eprintln!("{worlds} of {seeds} worlds, {bad} not as they must be, {:.0?}", began.elapsed());
        }
    });
    for (seed, violation) in &summary.violations {
        eprintln!("seed {seed}: {violation}");
    }
    if let Some(seed) = summary.violations.keys().next() {
        eprintln!("hint: cargo xtask simulate --seed {seed} --trace");
    }
    eprintln!(
        "{} worlds, {} calls, {} builds succeeded, {} failed; all were called clean {} minutes after the faults had stopped, \
         at the latest; {} not as they must be; {:.1?}",
        summary.worlds,
        summary.calls,
        summary.succeeded,
        summary.failed,
        summary.minutes_to_settle,
        summary.violations.len(),
        began.elapsed()
    );
    eprintln!(
        "worlds by the minutes for which something was left beyond its deadline, or beyond the end of all faults: {:?} \
         (the worst is seed {})",
        summary.minutes_late, summary.latest
    );
    if !summary.unprovable.is_empty() {
        eprintln!("left, and nobody could have known of them: {:?}", summary.unprovable);
    }
    summary.violations.is_empty()
}
