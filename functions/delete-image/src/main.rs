//! DELETE /api/v1/images/{image_id}: wires AWS to `ciab_core::delete_image`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, Ec2Cloud};
use ciab_core::delete_image::{Deps, handle};
use ciab_lambda::{Error, serve_http, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        stack: variable("CIAB_STACK")?,
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        cloud: Arc::new(Ec2Cloud::new(&aws)),
    };
    serve_http(deps, handle).await
}
