//! The state `CleanUp`: wires AWS to `ciab_core::clean_up`.

use ciab_core::clean_up::run;
use ciab_lambda::{Error, reconcile_deps, serve_task, start_tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    serve_task(reconcile_deps(&aws)?, run).await
}
