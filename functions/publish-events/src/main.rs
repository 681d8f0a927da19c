//! The table's stream: wires AWS to `ciab_core::publish_events`, and writes how builds ended as metrics.

use std::sync::Arc;

use ciab_aws::EventBridgeEvents;
use ciab_core::event::{Ended, Outcome};
use ciab_core::publish_events::{Deps, run};
use ciab_lambda::Measure::{self, Count};
use ciab_lambda::{Error, serve_changes, start_tracing, variable, write_metrics, write_metrics_by_provider};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps { stack: variable("CIAB_STACK")?, events: Arc::new(EventBridgeEvents::new(&aws)) };
    serve_changes(deps, async |deps: &Deps, changes| {
        let output = run(deps, changes).await;
        output.ended.iter().for_each(|ended| tell(&deps.stack, ended));
        output.told
    })
    .await
}

fn tell(stack: &str, ended: &Ended) {
    let outcome = match ended.outcome {
        Outcome::Succeeded => ("BuildsSucceeded", Count(1)),
        Outcome::Failed => ("BuildsFailed", Count(1)),
        Outcome::Cancelled => ("BuildsCancelled", Count(1)),
    };
    let whole = ("BuildDuration", Measure::from(ended.whole));
    write_metrics_by_provider(stack, ended.provider, &[outcome, whole]);
    let phases = [
        ("QueuedDuration", Some(ended.queued)),
        ("RunnerDuration", ended.runner),
        ("CleanUpDuration", ended.clean_up),
    ];
    let phases = phases.into_iter().filter_map(|(name, time)| Some((name, Measure::from(time?))));
    write_metrics(stack, &phases.collect::<Vec<_>>());
}
