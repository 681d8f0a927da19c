//! Invoked by runners: wires AWS to `ciab_core::issue_credentials`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, StsBuildIdentity, SystemClock};
use ciab_core::issue_credentials::{Deps, run};
use ciab_lambda::{Error, serve_runners, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let deps = Deps {
        clock: Arc::new(SystemClock),
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        files: Arc::new(StsBuildIdentity::new(&aws, variable("CIAB_BUILD_FILES_ROLE")?)),
        packer: Arc::new(StsBuildIdentity::new(&aws, variable("CIAB_BUILD_ROLE")?)),
    };
    serve_runners(deps, run).await
}
