//! More builds at once than there are slots.

use anyhow::{Result, ensure};
use end_to_end::load::Load;
use local_stack::StackParts;

#[test]
fn builds_beyond_the_slots_wait_and_begin_in_the_order_they_came() -> Result<()> {
    let report = Load { builds: 12, slots: 3 }.run(&StackParts::from_environment()?)?;
    ensure!(report.wrong.is_empty(), "{report:#?}");
    ensure!(report.most_at_once == 3, "the slots were never all taken: {report:#?}");
    Ok(())
}
