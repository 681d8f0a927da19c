//! POST /api/v1/images/templates: wires AWS to `ciab_core::upload_template`.

use std::sync::Arc;

use ciab_aws::{S3Objects, S3Uploads, SystemClock};
use ciab_core::upload_template::{Deps, handle};
use ciab_lambda::{Error, serve_http, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let bucket = variable("CIAB_BUCKET")?;
    let deps = Deps {
        clock: Arc::new(SystemClock),
        objects: Arc::new(S3Objects::new(&aws, bucket.clone())),
        uploads: Arc::new(S3Uploads::new(&aws, bucket)),
    };
    serve_http(deps, handle).await
}
