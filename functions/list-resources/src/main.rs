//! GET /api/v1/images/resources: wires AWS to `ciab_core::list_resources`.

use std::sync::Arc;

use ciab_aws::Ec2Cloud;
use ciab_core::list_resources::{Deps, handle};
use ciab_lambda::{Error, serve_http, settings, start_tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let settings = settings()?;
    let deps = Deps {
        stack: settings.stack,
        regions: settings.allowed_regions,
        cloud: Arc::new(Ec2Cloud::new(&aws)),
    };
    serve_http(deps, handle).await
}
