//! The state `PrepareBuild`: wires AWS and the fetching of templates to `ciab_core::prepare_build`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, S3Objects, SsmSecrets, SystemClock};
use ciab_core::prepare_build::{Deps, run};
use ciab_fetch::{Roots, WebFetcher};
use ciab_lambda::{Error, serve_task, settings, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let settings = settings()?;
    let deps = Deps {
        clock: Arc::new(SystemClock),
        records: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        objects: Arc::new(S3Objects::new(&aws, variable("CIAB_BUCKET")?)),
        fetcher: Arc::new(WebFetcher::new(settings.template_hosts.clone(), Roots::of_the_machine())),
        secrets: Arc::new(SsmSecrets::new(&aws)),
        settings,
    };
    serve_task(deps, run).await
}
