//! The state `PrepareBuild`: wires AWS to `ciab_core::prepare_build`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, S3Objects, SystemClock};
use ciab_core::prepare_build::{Deps, run};
use ciab_lambda::{Error, serve_task, settings, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        settings: settings()?,
        clock: Arc::new(SystemClock),
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        objects: Arc::new(S3Objects::new(&aws, variable("CIAB_BUCKET")?)),
    };
    serve_task(deps, run).await
}
