//! Secrets in SSM's parameter store and in Secrets Manager, through the one API that reaches both: a parameter by the name
//! `/aws/reference/secretsmanager/<secret>` is that secret.
//! (https://docs.aws.amazon.com/systems-manager/latest/userguide/integration-ps-secretsmanager.html)
//!
//! Must never write a secret to a log or an error.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ssm::Client;
use ciab_core::ports::{PortError, Secret, Secrets};

use crate::failure::{Call, answered};

/// Parameters in the configuration's region.
#[derive(Debug, Clone)]
pub struct SsmSecrets {
    client: Client,
}

impl SsmSecrets {
    /// SSM in the configuration's region.
    pub fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(config) }
    }
}

#[async_trait]
impl Secrets for SsmSecrets {
    async fn secret(&self, name: &str) -> Result<Option<Secret>, PortError> {
        let call = Call { service: "ssm", operation: "GetParameter" };
        match self.client.get_parameter().name(name).with_decryption(true).send().await {
            Ok(answer) => {
                let value = answer.parameter.and_then(|parameter| parameter.value);
                let value = value.ok_or_else(|| call.unreadable("a parameter without a value"))?;
                Ok(Some(Secret::new(value.trim())))
            }
            Err(error) if answered(&error, &["ParameterNotFound", "ParameterVersionNotFound"]) => Ok(None),
            Err(error) => Err(call.failed(error)),
        }
    }
}
