//! The state `RunPacker`, which waits for the runner's report: wires AWS to `ciab_core::start_runner`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, SystemClock};
use ciab_core::start_runner::{Deps, run};
use ciab_lambda::{Error, runners, serve_task, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        clock: Arc::new(SystemClock),
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        runners: Arc::new(runners(&aws)?),
    };
    serve_task(deps, run).await
}
