//! POST /api/v1/images/builds/{build_id}/cancel: wires AWS to `ciab_core::cancel_build`.

use ciab_core::cancel_build::handle;
use ciab_lambda::{Error, reconcile_deps, serve_http, start_tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    serve_http(reconcile_deps(&aws)?, handle).await
}
