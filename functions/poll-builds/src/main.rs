//! The schedule's function: wires AWS to `ciab_core::poll_builds`, and writes what a poll saw as metrics.

use std::time::Instant;

use ciab_aws::RandomIdentifiers;
use ciab_core::poll_builds::{Deps, Output, run};
use ciab_core::ports::Identifiers as _;
use ciab_lambda::Measure::{Count, Duration};
use ciab_lambda::{Error, Ignored, reconcile_deps, serve_task, settings, start_tracing, write_metrics};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps { regions: settings()?.allowed_regions, reconcile: reconcile_deps(&aws)? };
    serve_task(deps, async |deps: &Deps, _: Ignored| {
        let began = Instant::now();
        let output = run(deps, &RandomIdentifiers.new_holder()).await?;
        tell(&deps.reconcile.stack, &output, began);
        Ok(output)
    })
    .await
}

/// A poll that left its work to another has seen nothing, which is not the same as none.
fn tell(stack: &str, output: &Output, began: Instant) {
    if output.skipped {
        return;
    }
    let metrics = [
        ("ActiveBuilds", Count(output.looked_at)),
        ("BuildsQueued", Count(output.queued)),
        ("BuildsActedOn", Count(output.acted_on)),
        ("BuildsNotBroughtOn", Count(output.failed)),
        ("BuildsWithLeftovers", Count(output.with_leftovers)),
        ("BuildsDispatched", Count(output.dispatched)),
        ("ImagesForgotten", Count(output.forgotten_images)),
        ("PollDuration", Duration(began.elapsed())),
    ];
    write_metrics(stack, &metrics);
}
