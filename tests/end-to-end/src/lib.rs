//! A stack of a test's own, and what a test does with it: ask the API, wait for a build, look into EC2.
//!
//! Must never look into the stack's table or bucket: what a user cannot see is no end-to-end test's business.

mod api;
mod processes;
pub mod templates;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use local_stack::stack::Ready;
use local_stack::{Ec2Api, Inventory, Stack, StackParts};
use serde_json::Value;

pub use api::{Answer, Api};
pub use processes::{freeze_runner, kill_runner_alone, kill_runners_machine};

/// Longest that anything in here is waited for: far more than a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(240);

/// A stack, what EC2 held before, and the API's client.
pub struct Scene {
    /// None where somebody else starts and ends it.
    stack: Option<Stack>,
    ready: Ready,
    /// EC2, as the stack serves it.
    pub ec2: Ec2Api,
    /// The API with the right key.
    pub api: Api,
    before: Inventory,
}

impl Scene {
    /// Starts a stack whose poller comes every two seconds.
    pub fn set() -> Result<Self> {
        Self::with(&StackParts::from_environment()?)
    }

    /// Starts such a stack of these parts.
    pub fn with(parts: &StackParts) -> Result<Self> {
        let stack = Stack::start(parts, &["--poll-interval", "2"])?;
        let scene = Self::visit(&stack.ready)?;
        Ok(Self { stack: Some(stack), ..scene })
    }

    /// Looks at a stack that somebody else started.
    pub fn visit(ready: &Ready) -> Result<Self> {
        let ec2 = Ec2Api::new(&ready.aws_endpoint_url)?;
        let api = Api::new(&ready.gateway_url, Some(&ready.api_key));
        let before = Inventory::take(&ec2)?;
        Ok(Self { stack: None, ready: ready.clone(), ec2, api, before })
    }

    /// The API without a key, or with another one.
    pub fn api_with_key(&self, key: Option<&str>) -> Api {
        Api::new(&self.ready.gateway_url, key)
    }

    /// Where the API is.
    pub fn gateway_url(&self) -> &str {
        &self.ready.gateway_url
    }

    /// The key that it takes.
    pub fn api_key(&self) -> &str {
        &self.ready.api_key
    }

    /// Takes the stack down, which must go in order. After a failure the stack's log is part of the message.
    pub fn end(self, outcome: Result<()>) -> Result<()> {
        let Some(mut stack) = self.stack else { return outcome };
        if let Err(error) = outcome {
            let log = stack.keep_logs();
            bail!("{error:#}\n{log}");
        }
        stack.stop()
    }

    /// Starts a build; its id.
    pub fn start_build(&self, request: &Value) -> Result<String> {
        let answer = self.api.post("/api/v1/images/build", request)?;
        ensure!(answer.status == 202, "the build was not accepted: {answer:?}");
        ensure!(answer.body["status"] == "queued", "{answer:?}");
        answer.text("build_id")
    }

    /// A build's document.
    pub fn build(&self, id: &str) -> Result<Value> {
        let answer = self.api.get(&format!("/api/v1/images/builds/{id}"))?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.body)
    }

    /// Waits until the build has ended; its document.
    pub fn ended(&self, id: &str) -> Result<Value> {
        let mut last = "queued".to_owned();
        eventually("the build ends", || {
            let build = self.build(id)?;
            let status = build["status"].as_str().unwrap_or_default().to_owned();
            ensure!(rank(&status)? >= rank(&last)?, "the status went from {last} to {status}");
            last.clone_from(&status);
            Ok(matches!(status.as_str(), "succeeded" | "failed").then_some(build))
        })
    }

    /// Waits until a line of the build's log contains the text.
    pub fn logged(&self, id: &str, text: &str) -> Result<()> {
        eventually(&format!("`{text}` in the log"), || {
            Ok(self.log(id)?.iter().any(|line| line.contains(text)).then_some(()))
        })
    }

    /// The build's whole log so far, read page by page.
    pub fn log(&self, id: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let path = format!("/api/v1/images/builds/{id}/log?offset={}", lines.len());
            let answer = self.api.get(&path)?;
            ensure!(answer.status == 200, "{answer:?}");
            let page = answer.body["lines"].as_array().cloned().unwrap_or_default();
            ensure!(answer.body["next_offset"] == lines.len() + page.len(), "{answer:?}");
            if page.is_empty() {
                return Ok(lines);
            }
            lines.extend(page.iter().map(|line| line["text"].as_str().unwrap_or_default().to_owned()));
        }
    }

    /// What EC2 holds beyond what it held before any build.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        Ok(Inventory::take(&self.ec2)?.beyond(&self.before))
    }

    /// Fails unless EC2 holds what it held before any build, and the build's own proof says that all was removed.
    pub fn nothing_is_left_of(&self, build: &Value) -> Result<()> {
        let left = self.leftovers()?;
        ensure!(left.is_empty(), "left in EC2: {left:?}");
        let (found, removed) = (&build["leftovers"]["found"], &build["leftovers"]["removed"]);
        ensure!(found.is_object() && found == removed, "the proof does not hold: {build:#}");
        Ok(())
    }
}

fn rank(status: &str) -> Result<usize> {
    match status {
        "queued" => Ok(0),
        "building" => Ok(1),
        "succeeded" | "failed" => Ok(2),
        other => bail!("`{other}` is no status of a build"),
    }
}

/// Asks again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(began.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}
