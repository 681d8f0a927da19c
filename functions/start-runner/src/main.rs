//! The state `RunPacker`, which waits for the runner's report: wires AWS to `ciab_core::start_runner`.

use std::sync::Arc;

use ciab_aws::{CodeBuildRunners, DynamoRecords, SystemClock};
use ciab_core::start_runner::{Deps, run};
use ciab_lambda::{Error, serve_task, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        clock: Arc::new(SystemClock),
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        runners: Arc::new(CodeBuildRunners::new(&aws, variable("CIAB_RUNNER_PROJECT")?)),
    };
    serve_task(deps, run).await
}
