//! A Python environment of our own with moto, at exactly the versions of requirements.txt.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::cache::Lock;
use super::programs::Program;
use crate::progress;
use local_stack::process;

const REQUIREMENTS: &str = include_str!("../../requirements.txt");

/// The environment's folder; it works when this returns.
pub(crate) fn ensure(lock: &Lock<'_>) -> Result<PathBuf> {
    let python = Program::PYTHON.path()?;
    // The interpreter itself: what is found on the PATH may be a link to it or a script that picks one.
    let identity = "import sys; print(sys.base_prefix, sys.version)";
    let interpreter = process::capture(Command::new(&python).args(["-c", identity]))?.stdout;
    let recipe = format!("{interpreter}\n{REQUIREMENTS}");
    let environment = lock.entry("python", recipe.as_bytes(), |directory| create(&python, directory))?;
    if works(&environment) {
        return Ok(environment);
    }
    // It was whole once; the interpreter below it has gone or changed.
    lock.discard(&environment)?;
    lock.entry("python", recipe.as_bytes(), |directory| create(&python, directory))
}

fn works(environment: &Path) -> bool {
    Command::new(environment.join("bin/python"))
        .args(["-c", "import moto"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn create(python: &Path, environment: &Path) -> Result<()> {
    progress::step("make the Python environment with moto", || {
        process::run_quietly(Command::new(python).args(["-m", "venv"]).arg(environment))?;
        let requirements = environment.join("requirements.txt");
        std::fs::write(&requirements, REQUIREMENTS).context("write the requirements")?;
        process::run_quietly(
            Command::new(environment.join("bin/python"))
                .args(["-m", "pip", "install", "--no-deps", "--no-input", "--disable-pip-version-check"])
                .arg("--requirement")
                .arg(&requirements),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_has_a_full_version() {
        let requirements = REQUIREMENTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in requirements {
            let (name, version) = line.split_once("==").unwrap();
            assert!(!name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()), "{line}");
        }
    }
}
