//! The wiring that several functions share.

use std::sync::Arc;

use ciab_aws::{
    AwsRunners, CodeBuildRunners, DynamoRecords, Ec2Cloud, Ec2RunnerSettings, Ec2Runners, S3Objects,
    SdkConfig, StepFunctionsWorkflows, SystemClock,
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
        runners: Arc::new(runners(aws)?),
        cloud: Arc::new(Ec2Cloud::new(aws)),
        workflows: Arc::new(StepFunctionsWorkflows::new(aws, variable("CIAB_STATE_MACHINE_ARN")?)),
    })
}

/// What a runner on EC2 is told, by the names that both have for it.
const RUNNER_VARIABLES: [&str; 10] = [
    "CIAB_CREDENTIALS_FUNCTION",
    "CIAB_PACKER_AUTO_INSTALL",
    "CIAB_PACKER_BINARY",
    "CIAB_PACKER_MIRROR",
    "CIAB_PACKER_PLUGIN_MIRROR",
    "CIAB_PACKER_PLUGIN_SHA256",
    "CIAB_PACKER_PLUGIN_VERSION",
    "CIAB_PACKER_SHA256",
    "CIAB_PACKER_VERSION",
    "CIAB_PACKER_WORK_DIR",
];

/// Where Packer runs, of both kinds.
///
/// # Errors
/// Names the first variable that is missing.
pub fn runners(aws: &SdkConfig) -> Result<AwsRunners, InvalidSetting> {
    let settings = Ec2RunnerSettings {
        launch_template: variable("CIAB_RUNNER_LAUNCH_TEMPLATE")?,
        stack: variable("CIAB_STACK")?,
        bucket: variable("CIAB_BUCKET")?,
        runner_sha256: variable("CIAB_RUNNER_SHA256").ok(),
        log_filter: variable("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
        // Only start-runner has them; nobody else starts a runner.
        variables: RUNNER_VARIABLES
            .into_iter()
            .filter_map(|name| Some((name, variable(name).ok()?)))
            .collect(),
    };
    Ok(AwsRunners {
        codebuild: CodeBuildRunners::new(aws, variable("CIAB_RUNNER_PROJECT")?),
        ec2: Ec2Runners::new(aws, settings),
    })
}
