//! Has what is deployed judged by tools that others wrote, as far as that goes without an AWS account: the template by the SAM
//! CLI, cfn-lint, Amazon's own SAM translator and checkov; the API's description by a validator of OpenAPI. A finding of any
//! of them is an error.
//!
//! Must never ask anything of the network: what they say depends on their versions and the template alone.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{package, progress};
use local_stack::process;

const TRANSLATE: &str = include_str!("translate_template.py");
/// Any will do: it decides which resource types and properties there are.
const REGION: &str = "us-east-1";

/// Runs them, from the Python environments, on what is under `root`.
pub(crate) fn run(environment: &Path, packaging: &Path, root: &Path) -> Result<()> {
    let program = |name: &str| {
        let mut command = Command::new(environment.join("bin").join(name));
        command.current_dir(root).env("CKV_SKIP_PACKAGE_UPDATE_CHECK", "true");
        command
    };
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let translated = folder.path().join("translated.json");
    let template = Path::new("infra/template.yaml");

    progress::step("sam validate --lint", || {
        // It finds the template by samconfig.toml, as whoever deploys has it do.
        process::run_quietly(package::tool(packaging, "sam").args(["validate", "--lint", "--region", REGION]))
    })?;
    progress::step("validate the API's description", || {
        process::run_quietly(program("openapi-spec-validator").arg("infra/openapi.yaml"))
    })?;
    progress::step("translate the template as AWS will", || {
        let arguments = [template.as_os_str(), translated.as_os_str(), REGION.as_ref()];
        process::run_quietly(program("python").args(["-c", TRANSLATE]).args(arguments))
    })?;
    progress::step("cfn-lint the template, as it is written and translated", || {
        process::run_quietly(
            program("cfn-lint").args(["--regions", REGION, "--"]).arg(template).arg(&translated),
        )
    })?;
    // In infra/checkov.yaml stands what does not apply, and why.
    progress::step("checkov on the template, as it is written and translated", || {
        let settings = ["--config-file", "infra/checkov.yaml", "--compact", "--quiet", "--skip-download"];
        process::run_quietly(program("checkov").args(settings).arg("--file").arg(template).arg(&translated))
    })
}
