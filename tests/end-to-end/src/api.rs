//! The HTTP API, as any client would call it. An answer that its description does not promise is an error.

use std::time::Duration;

use anyhow::{Context, Result};
use local_stack::http_client;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use crate::contract;

/// The API under one key.
pub struct Api {
    agent: Agent,
    url: String,
    key: Option<String>,
}

/// A status and a document; `null` where there is none.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The document.
    pub body: Value,
    /// The id that the gateway gave the request, which the logs have.
    pub request_id: Option<String>,
}

impl Answer {
    /// A string of the document.
    pub fn text(&self, field: &str) -> Result<String> {
        self.body[field].as_str().map(str::to_owned).with_context(|| format!("no `{field}` in {self:?}"))
    }

    /// The error's code, for an answer that tells one.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

impl Api {
    pub(crate) fn new(url: &str, key: Option<&str>) -> Self {
        Self { agent: http_client::agent(), url: url.to_owned(), key: key.map(str::to_owned) }
    }

    /// The same with a client that waits longer for its answers.
    pub fn patient(&self, patience: Duration) -> Self {
        Self { agent: http_client::patient_agent(patience), url: self.url.clone(), key: self.key.clone() }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, &[], "")
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.send("DELETE", path, &[], "")
    }

    /// POST of a document.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send("POST", path, &[("content-type", "application/json")], &body.to_string())
    }

    /// Any request.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body.to_owned())?)?;
        let status = response.status().as_u16();
        let request_id = response.headers().get("apigw-requestid");
        let request_id = request_id.map(|id| id.to_str().map(str::to_owned)).transpose()?;
        let text = response.body_mut().read_to_string()?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text)
                .with_context(|| format!("{method} {path} answered no JSON: {text}"))?
        };
        let answer = Answer { status, body, request_id };
        contract::check(method, path, &answer)?;
        Ok(answer)
    }
}
