//! A stack of a test's own, and what a test does with it: ask the API, wait for a build, look into EC2.
//!
//! Must never look into the stack's table or bucket: what a user cannot see is no end-to-end test's business.

mod api;
mod contract;
pub mod events;
pub mod harm;
pub mod load;
pub mod processes;
pub mod proxy;
pub mod templates;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use local_stack::stack::Ready;
use local_stack::{Ec2Api, Inventory, JsonApi, Stack, StackParts};
use serde_json::Value;

pub use api::{Answer, Api};
pub use processes::{freeze_runner, kill_runner_alone, kill_runners_machine};
use proxy::Proxy;

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
        Self::start(parts, &["--poll-interval", "2"])
    }

    /// Starts a stack of these parts with these arguments.
    pub fn start(parts: &StackParts, arguments: &[&str]) -> Result<Self> {
        let stack = Stack::start(parts, arguments)?;
        let scene = Self::visit(&stack.ready)?;
        Ok(Self { stack: Some(stack), ..scene })
    }

    /// Starts such a stack of these parts, whose functions, runner and Packer reach AWS by the proxy alone.
    pub fn behind(proxy: &Proxy, parts: &StackParts, arguments: &[&str]) -> Result<Self> {
        let url = proxy.url();
        let stack = Stack::start(parts, &[&["--advertise-endpoint", &url], arguments].concat())?;
        proxy.pass_on_to(&stack.ready.aws_endpoint_url)?;
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

    /// Where AWS is, without a proxy between.
    pub fn aws_endpoint_url(&self) -> &str {
        &self.ready.aws_endpoint_url
    }

    /// The key that it takes.
    pub fn api_key(&self) -> &str {
        &self.ready.api_key
    }

    /// Where the stack's logs are; none where somebody else started it.
    pub fn directory(&self) -> Option<&Path> {
        self.stack.as_ref().map(Stack::directory)
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

    /// As [`Scene::end`], and the logs stay, also where nothing failed, if they are worth keeping; where they are.
    pub fn end_with_logs(mut self, outcome: Result<()>, worth_keeping: bool) -> Result<Option<String>> {
        let kept = self.stack.as_mut().filter(|_| worth_keeping && outcome.is_ok()).map(Stack::keep_logs);
        self.end(outcome)?;
        Ok(kept)
    }

    /// Stops the build's execution in the state machine's interpreter, as if that had died.
    pub fn stop_execution(&self, build_id: &str) -> Result<()> {
        let execution =
            format!("arn:aws:states:us-east-1:123456789012:execution:ciab-local-build-image:{build_id}");
        let request = serde_json::json!({"executionArn": execution});
        JsonApi::new(&self.ready.aws_endpoint_url)?.call(
            "states",
            "AWSStepFunctions.StopExecution",
            &request,
        )?;
        Ok(())
    }

    /// Runs `ciab` against the stack, with JSON on stdout and nobody's configuration.
    pub fn ciab(&self, arguments: &[&str]) -> Result<Output> {
        self.ciab_with_key(self.api_key(), arguments)
    }

    /// As [`Scene::ciab`], with another key.
    pub fn ciab_with_key(&self, key: &str, arguments: &[&str]) -> Result<Output> {
        let binaries =
            std::env::var_os("CIAB_TEST_BIN_DIR").context("run the tests with `cargo xtask test`")?;
        Ok(Command::new(Path::new(&binaries).join("ciab"))
            .args(["--output", "json"])
            .args(arguments)
            .env("CIAB_SERVER_URL", self.gateway_url())
            .env("CIAB_API_KEY", key)
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .output()?)
    }

    /// Invokes a function of the stack, by its folder's name, as a service of AWS would; what it answers. A failed
    /// invocation answers with an error document (`errorType`, `errorMessage`).
    pub fn invoke(&self, function: &str, event: &Value) -> Result<Value> {
        let endpoint = self.ready.aws_endpoint_url.trim_end_matches('/');
        let url = format!("{endpoint}/2015-03-31/functions/ciab-local-{function}/invocations");
        let scope = "local/20260101/us-east-1/lambda/aws4_request";
        let signature = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=local");
        let call = local_stack::http_client::agent().post(url).header("Authorization", signature);
        let mut answer = call.send(event.to_string())?;
        ensure!(answer.status().is_success(), "{function} cannot be invoked: {}", answer.status());
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
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
