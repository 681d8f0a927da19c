//! GET /health, /ready, and what no other route answers: wires AWS to `ciab_core::check_health`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, S3Objects, StepFunctionsWorkflows};
use ciab_core::check_health::{Deps, handle};
use ciab_lambda::{Error, serve_http, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        objects: Arc::new(S3Objects::new(&aws, variable("CIAB_BUCKET")?)),
        workflows: Arc::new(StepFunctionsWorkflows::new(&aws, variable("CIAB_STATE_MACHINE_ARN")?)),
    };
    serve_http(deps, handle).await
}
