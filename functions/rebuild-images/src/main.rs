//! The nightly schedule and POST /api/v1/images/rebuilds: wires AWS to `ciab_core::rebuild_images`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, Ec2Cloud, RandomIdentifiers, S3Objects, StepFunctionsWorkflows, SystemClock};
use ciab_core::rebuild_images::{Deps, Rebuilds, handle, run};
use ciab_core::{build_image, delete_image};
use ciab_lambda::{Error, serve_http_and_events, settings, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    let settings = settings()?;
    let records = Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?));
    let deps = Deps {
        rebuilds: Rebuilds::read(|name| variable(name).ok(), &settings)?,
        delete_image: delete_image::Deps {
            stack: settings.stack.clone(),
            records: records.clone(),
            cloud: Arc::new(Ec2Cloud::new(&aws)),
        },
        build_image: build_image::Deps {
            settings,
            clock: Arc::new(SystemClock),
            identifiers: Arc::new(RandomIdentifiers),
            records,
            objects: Arc::new(S3Objects::new(&aws, variable("CIAB_BUCKET")?)),
            workflows: Arc::new(StepFunctionsWorkflows::new(&aws, variable("CIAB_STATE_MACHINE_ARN")?)),
        },
    };
    serve_http_and_events(deps, handle, run).await
}
