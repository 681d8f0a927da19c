//! The APIs of the local stack that speak JSON (DynamoDB, Step Functions, CodeBuild), as plain documents over HTTP. The
//! stack checks no signatures; it reads of them only which service and region is meant.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::Agent;

use crate::http_client;

const REGION: &str = "us-east-1";

pub struct JsonApi {
    agent: Agent,
    endpoint: String,
}

impl JsonApi {
    pub fn new(endpoint: &str) -> Result<Self> {
        http_client::require_loopback(endpoint)?;
        Ok(Self { agent: http_client::agent(), endpoint: endpoint.trim_end_matches('/').to_owned() })
    }

    /// Calls one operation by its target, such as `DynamoDB_20120810.GetItem`, of a service as it is signed for.
    pub fn call(&self, service: &str, target: &str, request: &Value) -> Result<Value> {
        let credential = format!("local/20260101/{REGION}/{service}/aws4_request");
        let mut response = self
            .agent
            .post(format!("{}/", self.endpoint))
            .header("X-Amz-Target", target)
            .header("Content-Type", "application/x-amz-json-1.0")
            .header(
                "Authorization",
                format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=local"),
            )
            .send(request.to_string())
            .with_context(|| format!("call {target}"))?;
        let text = response.body_mut().read_to_string().with_context(|| format!("read {target}'s answer"))?;
        if !response.status().is_success() {
            bail!("{target} answered {}: {}", response.status(), text.trim());
        }
        serde_json::from_str(&text).with_context(|| format!("read {target}'s answer as JSON: {text}"))
    }
}
