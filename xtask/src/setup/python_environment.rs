//! Python environments of our own, each with exactly the versions of its requirements file.
//!
//! There are several, since what they need excludes each other's versions, and a stack that somebody only wants to use need
//! not wait for what checks or deploys it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::cache::Lock;
use super::programs::Program;
use crate::progress;
use local_stack::process;

/// What an environment is made of, and how to see that it works.
pub(crate) struct PythonEnvironment {
    name: &'static str,
    holds: &'static str,
    requirements: &'static str,
    imports: &'static str,
}

impl PythonEnvironment {
    /// moto, for the local stack.
    pub(crate) const STACK: Self = Self {
        name: "python",
        holds: "moto",
        requirements: include_str!("../../requirements.txt"),
        imports: "import moto",
    };
    /// What others wrote to judge CloudFormation and SAM templates.
    pub(crate) const INFRASTRUCTURE_CHECKS: Self = Self {
        name: "infrastructure-checks",
        holds: "cfn-lint, the SAM translator, checkov and an OpenAPI validator",
        requirements: include_str!("../../infrastructure-checks.txt"),
        imports: "import cfnlint, samtranslator, checkov, openapi_spec_validator",
    };
    /// What functions are built and deployed with.
    pub(crate) const PACKAGING: Self = Self {
        name: "packaging",
        holds: "the SAM CLI and cargo-lambda",
        requirements: include_str!("../../packaging.txt"),
        imports: "import samcli, ziglang",
    };

    /// The environment's folder; it works when this returns.
    pub(crate) fn ensure(&self, lock: &Lock<'_>) -> Result<PathBuf> {
        let python = Program::PYTHON.path()?;
        // The interpreter itself: what is found on the PATH may be a link to it or a script that picks one.
        let identity = "import sys; print(sys.base_prefix, sys.version)";
        let interpreter = process::capture(Command::new(&python).args(["-c", identity]))?.stdout;
        let recipe = format!("{interpreter}\n{}", self.requirements);
        let make = || lock.entry(self.name, recipe.as_bytes(), |directory| self.create(&python, directory));
        let environment = make()?;
        if self.works(&environment) {
            return Ok(environment);
        }
        // It was whole once; the interpreter below it has gone or changed.
        lock.discard(&environment)?;
        make()
    }

    fn works(&self, environment: &Path) -> bool {
        Command::new(environment.join("bin/python"))
            .args(["-c", self.imports])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn create(&self, python: &Path, environment: &Path) -> Result<()> {
        progress::step(&format!("make the Python environment with {}", self.holds), || {
            process::run_quietly(Command::new(python).args(["-m", "venv"]).arg(environment))?;
            let requirements = environment.join("requirements.txt");
            std::fs::write(&requirements, self.requirements).context("write the requirements")?;
            process::run_quietly(
                Command::new(environment.join("bin/python"))
                    .args(["-m", "pip", "install", "--no-deps", "--no-input", "--disable-pip-version-check"])
                    .arg("--requirement")
                    .arg(&requirements),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_has_a_full_version() {
        for environment in
            [PythonEnvironment::STACK, PythonEnvironment::INFRASTRUCTURE_CHECKS, PythonEnvironment::PACKAGING]
        {
            let requirements = environment.requirements.lines();
            for line in requirements.filter(|line| !line.starts_with('#') && !line.is_empty()) {
                let (name, version) = line.split_once("==").unwrap();
                assert!(!name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()), "{line}");
            }
        }
    }
}
