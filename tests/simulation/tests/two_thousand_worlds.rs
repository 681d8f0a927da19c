//! Two thousand worlds in which everything goes wrong, and the same seed twice.

use simulation::{Options, run, run_many};

#[test]
fn two_thousand_worlds_are_as_they_must_be() {
    let summary = run_many(0, 2_000, |_| {});
    assert!(
        summary.violations.is_empty(),
        "{:#?}\nhint: cargo xtask simulate --seed N --trace",
        summary.violations
    );
    // That they are not all the same sad end.
    assert!(summary.succeeded > 1_000 && summary.failed > 1_000, "{summary:?}");
}

#[test]
fn a_seed_is_the_same_world_call_by_call() {
    for seed in [1, 20, 300] {
        let traced = || run(seed, Options { traced: true, ..Options::default() }).trace;
        let first = traced();
        assert!(first.len() > 10);
        assert!(first == traced(), "seed {seed} is not the same world twice");
    }
}
