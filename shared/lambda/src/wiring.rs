//! The one wiring that three functions share.

use std::sync::Arc;

use ciab_aws::{CodeBuildRunners, DynamoRecords, Ec2Cloud, S3Objects, SdkConfig, SystemClock};
use ciab_core::settings::InvalidSetting;
use ciab_core::tear_down::Deps;

use crate::environment::variable;

/// What a tear-down needs, from AWS and the environment.
///
/// # Errors
/// Names the first variable that is not set.
pub fn tear_down_deps(aws: &SdkConfig) -> Result<Deps, InvalidSetting> {
    Ok(Deps {
        stack: variable("CIAB_STACK")?,
        clock: Arc::new(SystemClock),
        records: Arc::new(DynamoRecords::new(aws, variable("CIAB_TABLE")?)),
        objects: Arc::new(S3Objects::new(aws, variable("CIAB_BUCKET")?)),
        runners: Arc::new(CodeBuildRunners::new(aws, variable("CIAB_RUNNER_PROJECT")?)),
        cloud: Arc::new(Ec2Cloud::new(aws)),
    })
}
