//! The schedule's function: wires AWS to `ciab_core::poll_builds`.

use std::sync::Arc;

use ciab_aws::StepFunctionsWorkflows;
use ciab_core::poll_builds::{Deps, run};
use ciab_lambda::{Error, Ignored, serve_task, start_tracing, tear_down_deps, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        workflows: Arc::new(StepFunctionsWorkflows::new(&aws, variable("CIAB_STATE_MACHINE_ARN")?)),
        tear_down: tear_down_deps(&aws)?,
    };
    serve_task(deps, async |deps: &Deps, _: Ignored| run(deps).await).await
}
