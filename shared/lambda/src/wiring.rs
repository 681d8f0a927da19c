//! The one wiring that four functions share.

use std::sync::Arc;

use ciab_aws::{
    CodeBuildRunners, DynamoRecords, Ec2Cloud, S3Objects, SdkConfig, StepFunctionsWorkflows, SystemClock,
};
use ciab_core::reconcile::Deps;
use ciab_core::settings::InvalidSetting;

use crate::environment::{settings, variable};

/// What bringing builds on needs, from AWS and the environment.
///
/// # Errors
/// Names the first setting that is missing or impossible.
pub fn reconcile_deps(aws: &SdkConfig) -> Result<Deps, InvalidSetting> {
    let settings = settings()?;
    Ok(Deps {
        stack: settings.stack,
        slots: settings.concurrent_builds,
        clock: Arc::new(SystemClock),
        records: Arc::new(DynamoRecords::new(aws, variable("CIAB_TABLE")?)),
        objects: Arc::new(S3Objects::new(aws, variable("CIAB_BUCKET")?)),
        runners: Arc::new(CodeBuildRunners::new(aws, variable("CIAB_RUNNER_PROJECT")?)),
        cloud: Arc::new(Ec2Cloud::new(aws)),
        workflows: Arc::new(StepFunctionsWorkflows::new(aws, variable("CIAB_STATE_MACHINE_ARN")?)),
    })
}
