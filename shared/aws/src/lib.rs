//! The adapters of the ports of `ciab-core`: one file per port, and the only crate that imports `aws-sdk-*`.
//!
//! Must never decide anything about a build: an adapter asks one service, translates its answer, and says how it failed.

#![warn(missing_docs)]

mod build_identity;
mod clock;
mod cloud;
mod connect;
mod credentials_issuer;
mod events;
mod failure;
mod identifiers;
mod objects;
mod records;
mod runners;
mod secrets;
mod task_tokens;
mod time;
mod uploads;
mod workflows;

pub use aws_config::SdkConfig;

pub use build_identity::StsBuildIdentity;
pub use clock::SystemClock;
pub use cloud::Ec2Cloud;
pub use connect::{NoRegion, connect, connect_to, with_credentials};
pub use credentials_issuer::LambdaCredentialsIssuer;
pub use events::EventBridgeEvents;
pub use identifiers::RandomIdentifiers;
pub use objects::S3Objects;
pub use records::{DynamoRecords, read_change};
pub use runners::{AwsRunners, CodeBuildRunners, Ec2RunnerSettings, Ec2Runners};
pub use secrets::SsmSecrets;
pub use task_tokens::StepFunctionsTaskTokens;
pub use uploads::S3Uploads;
pub use workflows::StepFunctionsWorkflows;
