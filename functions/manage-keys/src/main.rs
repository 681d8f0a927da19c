//! POST, GET and DELETE /api/v1/images/keys: wires AWS to `ciab_core::manage_keys`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, RandomIdentifiers, SystemClock};
use ciab_core::manage_keys::{Deps, handle};
use ciab_lambda::{Error, serve_http, settings, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        allowed_regions: settings()?.allowed_regions,
        clock: Arc::new(SystemClock),
        maker: Arc::new(RandomIdentifiers),
        keys: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
    };
    serve_http(deps, handle).await
}
