//! POST /api/v1/images/build: wires AWS to `ciab_core::build_image`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, RandomIdentifiers, S3Objects, StepFunctionsWorkflows, SystemClock};
use ciab_core::build_image::{Deps, handle};
use ciab_lambda::{Error, serve_http, settings, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        settings: settings()?,
        clock: Arc::new(SystemClock),
        identifiers: Arc::new(RandomIdentifiers),
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        objects: Arc::new(S3Objects::new(&aws, variable("CIAB_BUCKET")?)),
        workflows: Arc::new(StepFunctionsWorkflows::new(&aws, variable("CIAB_STATE_MACHINE_ARN")?)),
    };
    serve_http(deps, handle).await
}
