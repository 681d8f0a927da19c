//! The state `FinishBuild`: wires AWS to `ciab_core::finish_build`.

use ciab_core::finish_build::run;
use ciab_lambda::{Error, serve_task, start_tracing, tear_down_deps};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    serve_task(tear_down_deps(&aws)?, run).await
}
