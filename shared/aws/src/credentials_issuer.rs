//! The function `issue-credentials`, as a runner asks it.
//!
//! Must never write a token or a credential to a log or an error: neither what was sent nor what came back.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use ciab_core::ids::BuildId;
use ciab_core::issue_credentials::{Input, IssueError, Output};
use ciab_core::ports::{BuildCredentials, CredentialsIssuer, PortError};
use serde::Deserialize;

use crate::failure::Call;

const CALL: Call = Call { service: "lambda", operation: "Invoke" };

/// What Lambda answers for a function that did not answer itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionError {
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error_message: String,
}

/// One function.
#[derive(Debug, Clone)]
pub struct LambdaCredentialsIssuer {
    client: Client,
    function: String,
}

impl LambdaCredentialsIssuer {
    /// The function with this name, in the configuration's region.
    pub fn new(config: &SdkConfig, function: impl Into<String>) -> Self {
        Self { client: Client::new(config), function: function.into() }
    }
}

#[async_trait]
impl CredentialsIssuer for LambdaCredentialsIssuer {
    async fn issue(&self, build: BuildId, task_token: &str) -> Result<BuildCredentials, PortError> {
        let input = Input { build_id: build, task_token: task_token.to_owned() };
        let payload = serde_json::to_vec(&input).map_err(|error| CALL.refused("RequestNotBuilt", error))?;
        let answer = self
            .client
            .invoke()
            .function_name(&self.function)
            .payload(Blob::new(payload))
            .send()
            .await
            .map_err(|error| CALL.failed(error))?;
        let payload = answer.payload.map(Blob::into_inner).unwrap_or_default();
        if answer.function_error.is_some() {
            return Err(failed(&payload));
        }
        // serde's own message might repeat what it could not read.
        let output: Output = serde_json::from_slice(&payload)
            .map_err(|_| CALL.unreadable("it holds no two sets of credentials"))?;
        Ok(output.into())
    }
}

/// Only the function's own word is final: one that crashed, ran out of time or could not reach the table may do better next time.
fn failed(payload: &[u8]) -> PortError {
    let error: FunctionError = serde_json::from_slice(payload).unwrap_or_default();
    match error.error_type.as_str() {
        IssueError::REFUSED | IssueError::INVALID_REQUEST => {
            CALL.refused(&error.error_type, error.error_message)
        }
        _ => CALL.unavailable(format!("the function failed: {}", error.error_type)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_refusal_is_final_and_its_failure_is_not() {
        for name in [IssueError::REFUSED, IssueError::INVALID_REQUEST] {
            let error = failed(format!(r#"{{"errorType": "{name}", "errorMessage": "why"}}"#).as_bytes());
            assert!(matches!(&error, PortError::Refused { code, .. } if code == name), "{error:?}");
        }
        for payload in [
            r#"{"errorType": "ServiceUnavailable", "errorMessage": "dynamodb is not available"}"#,
            r#"{"errorType": "Runtime.ExitError", "errorMessage": "RequestId: 1 Error: Runtime exited"}"#,
            r#"{"errorMessage": "2026-03-25T14:30:00Z 1 Task timed out after 30.00 seconds"}"#,
            "no JSON",
        ] {
            assert!(matches!(failed(payload.as_bytes()), PortError::Unavailable { .. }), "{payload}");
        }
    }
}
