//! GET /api/v1/images/builds, one of them, and its log: wires AWS to `ciab_core::get_build`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, S3Objects};
use ciab_core::get_build::{Deps, handle};
use ciab_lambda::{Error, serve_http, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        objects: Arc::new(S3Objects::new(&aws, variable("CIAB_BUCKET")?)),
    };
    serve_http(deps, handle).await
}
