//! Builds that are harmed, and what must come of them: a few of the scenarios that `cargo xtask bench leaks` runs all of.

use anyhow::{Result, ensure};
use end_to_end::harm::{run_all, scenarios};
use local_stack::StackParts;

#[test]
fn a_build_that_is_harmed_ends_right_and_leaves_nothing() -> Result<()> {
    let all = scenarios();
    let mut wrong = 0;
    run_all(
        &StackParts::from_environment()?,
        all.iter().filter(|scenario| scenario.in_tests),
        |_, scenario, outcome| {
            eprintln!("{}: {} after {:.1} s", scenario.name, outcome.build["status"], outcome.seconds);
            wrong += usize::from(!outcome.wrong.is_empty());
            Ok(())
        },
        |said| eprintln!("{said}"),
    )?;
    ensure!(wrong == 0, "{wrong} scenarios went wrong");
    Ok(())
}
