//! A role that is taken on for one build: that of its files, and that of Packer.
//!
//! Must never write a credential to a log or an error.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sts::Client;
use aws_sdk_sts::types::Tag;
use ciab_core::ids::BuildId;
use ciab_core::ports::{BuildIdentity, PortError, Secret, TemporaryCredentials};
use ciab_core::resource::tag;
use jiff::Timestamp;

use crate::failure::Call;

/// The longest that STS gives to a role that was taken on by another ("Role chaining limits your session to a maximum of one
/// hour", AssumeRole in its API reference).
const SESSION_SECS: i32 = 3600;

/// Sessions of one role, each with the tag that its policies ask for.
#[derive(Debug, Clone)]
pub struct StsBuildIdentity {
    client: Client,
    role_arn: String,
}

impl StsBuildIdentity {
    /// Sessions of the role with this ARN.
    pub fn new(config: &SdkConfig, role_arn: impl Into<String>) -> Self {
        Self { client: Client::new(config), role_arn: role_arn.into() }
    }
}

#[async_trait]
impl BuildIdentity for StsBuildIdentity {
    async fn credentials(&self, build: BuildId) -> Result<TemporaryCredentials, PortError> {
        let call = Call { service: "sts", operation: "AssumeRole" };
        let of_build = Tag::builder().key(tag::BUILD_ID).value(build.to_string()).build();
        let of_build = of_build.map_err(|error| call.unreadable(error.to_string()))?;
        let answer = self
            .client
            .assume_role()
            .role_arn(&self.role_arn)
            .role_session_name(format!("build-{build}"))
            .duration_seconds(SESSION_SECS)
            .tags(of_build)
            .send()
            .await
            .map_err(|error| call.failed(error))?;
        let given = answer.credentials.ok_or_else(|| call.unreadable("no credentials"))?;
        let expires_at = Timestamp::from_second(given.expiration.secs())
            .map_err(|error| call.unreadable(error.to_string()))?;
        Ok(TemporaryCredentials {
            access_key_id: given.access_key_id,
            secret_access_key: Secret::new(given.secret_access_key),
            session_token: Secret::new(given.session_token),
            expires_at,
        })
    }
}
