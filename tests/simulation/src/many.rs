//! Many worlds, on all processors. A world is a matter of its seed alone, so that they may be run in any order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ciab_core::resource::ResourceKind;

use crate::{Life, Options, run};

/// What many worlds came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many worlds were run.
    pub worlds: u64,
    /// Calls to services in all of them.
    pub calls: u64,
    /// Builds that succeeded.
    pub succeeded: usize,
    /// Builds that failed.
    pub failed: usize,
    /// The worst of all: minutes from the moment at which faults stopped until every build was called clean.
    pub minutes_to_settle: i64,
    /// How many worlds there are in which something was left for so many minutes beyond its time.
    pub minutes_late: BTreeMap<i64, u64>,
    /// The seed of the worst of them.
    pub latest: u64,
    /// Things that were left and that nobody could have known of, by kind.
    pub unprovable: BTreeMap<ResourceKind, usize>,
    /// The worlds that were not as they must be, by their seeds, and how.
    pub violations: BTreeMap<u64, String>,
}

impl Summary {
    fn add(&mut self, life: Life) {
        self.worlds += 1;
        self.calls += life.calls;
        self.succeeded += life.ended.0;
        self.failed += life.ended.1;
        self.minutes_to_settle = self.minutes_to_settle.max(life.minutes_to_settle);
        if self.minutes_late.keys().next_back().is_none_or(|worst| life.minutes_late > *worst) {
            self.latest = life.seed;
        }
        *self.minutes_late.entry(life.minutes_late).or_default() += 1;
        for (kind, count) in life.unprovable {
            *self.unprovable.entry(kind).or_default() += count;
        }
        if let Some(violation) = life.violation {
            self.violations.insert(life.seed, violation);
        }
    }
}

/// Runs the worlds of `seeds` seeds from `from` on. `seen` is told after each what there is so far.
pub fn run_many(from: u64, seeds: u64, seen: impl Fn(&Summary) + Sync) -> Summary {
    let (next, summary) = (AtomicU64::new(0), Mutex::new(Summary::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= seeds {
                        break;
                    }
                    let life = run(from + at, Options::default());
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.add(life);
                    seen(&summary);
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}
