//! The `ciab` binary, used as a person uses it: arguments in, exit code and stdout out.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use local_stack::Stack;
use local_stack::process;
use local_stack::stack::Ready;

pub(crate) struct CommandLine {
    program: PathBuf,
    ready: Ready,
    /// A folder without a configuration: the person's own must not decide what the demo shows.
    configuration: PathBuf,
}

/// What `ciab` says of a build, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Build {
    #[serde(default)]
    pub(crate) build_id: Option<String>,
    #[serde(default)]
    pub(crate) image_id: Option<String>,
    #[serde(default)]
    pub(crate) status: Option<String>,
    #[serde(default)]
    pub(crate) error: Option<Value>,
    #[serde(skip)]
    pub(crate) exit_code: Option<i32>,
}

impl Build {
    pub(crate) fn summary(&self) -> String {
        let text = |value: &Option<String>| value.as_deref().unwrap_or("none").to_owned();
        let error = self.error.as_ref().map_or_else(|| "none".to_owned(), Value::to_string);
        format!("status {}, image {}, error {error}", text(&self.status), text(&self.image_id))
    }
}

impl CommandLine {
    pub(crate) fn new(program: PathBuf, stack: &Stack) -> Self {
        Self { program, ready: stack.ready.clone(), configuration: stack.directory().to_path_buf() }
    }

    /// Builds an image from the builtin template, its log on stderr, and waits for the end.
    pub(crate) fn build(&self, provider: &str) -> Result<Build> {
        let mut command = self.command();
        command.args([
            "build",
            "--provider",
            provider,
            "--template",
            "builtin://default-ec2",
            "--follow",
            "--wait",
        ]);
        let captured = process::capture(&mut command)?;
        // A refused request prints nothing on stdout; its exit code and stderr say it all.
        let build = serde_json::from_str(&captured.stdout).unwrap_or_default();
        Ok(Build { exit_code: captured.status.code(), ..build })
    }

    /// The status of a build.
    pub(crate) fn status(&self, build_id: &str) -> Result<Build> {
        let output = self.output(&["status", build_id])?;
        serde_json::from_str(&output).context("read the output of `ciab image status`")
    }

    /// Whether the list of images shows this one.
    pub(crate) fn lists(&self, image_id: &str) -> Result<bool> {
        let output: Value =
            serde_json::from_str(&self.output(&["list"])?).context("read the output of `ciab image list`")?;
        let images =
            output.get("images").unwrap_or(&output).as_array().context("the list holds no images")?;
        Ok(images.iter().any(|image| image["image_id"] == image_id))
    }

    /// Deletes an image without asking.
    pub(crate) fn delete(&self, image_id: &str) -> Result<()> {
        self.output(&["delete", image_id, "-y"]).map(|_| ())
    }

    fn output(&self, arguments: &[&str]) -> Result<String> {
        let captured = process::capture(self.command().args(arguments))?;
        if !captured.status.success() {
            bail!("`ciab image {}` failed ({})", arguments.join(" "), captured.status);
        }
        Ok(captured.stdout)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("CIAB_SERVER_URL", &self.ready.gateway_url)
            .env("CIAB_API_KEY", &self.ready.api_key)
            .env("XDG_CONFIG_HOME", &self.configuration)
            .args(["--output", "json", "image"]);
        command
    }
}
