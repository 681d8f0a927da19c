//! GET /api/v1/images and /api/v1/images/{image_id}: wires AWS to `ciab_core::list_images`.

use std::sync::Arc;

use ciab_aws::DynamoRecords;
use ciab_core::list_images::{Deps, handle};
use ciab_lambda::{Error, serve_http, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps { records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)) };
    serve_http(deps, handle).await
}
