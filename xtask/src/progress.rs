//! What the tasks tell a person, on stderr: what is being done and how long it took. stdout belongs to results.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Says one thing.
pub(crate) fn note(text: &str) {
    eprintln!("xtask: {text}");
}

/// Says what begins, does it, and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    note(&format!("{what} ..."));
    let started = Instant::now();
    let result = work();
    let outcome = if result.is_ok() { "done in" } else { "failed after" };
    note(&format!("{what}: {outcome} {}", seconds(started.elapsed())));
    result
}

/// A duration for people.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
