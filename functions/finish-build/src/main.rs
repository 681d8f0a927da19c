//! The state `FinishBuild`: wires AWS to `ciab_core::finish_build`.

use ciab_core::finish_build::run;
use ciab_lambda::{Error, reconcile_deps, serve_task, start_tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    serve_task(reconcile_deps(&aws)?, run).await
}
