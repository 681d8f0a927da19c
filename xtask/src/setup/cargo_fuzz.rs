//! cargo-fuzz, pinned, from the registry that cargo is configured with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cache::Lock;
use crate::workspace;

const VERSION: &str = "0.13.2";

/// An installed cargo-fuzz.
pub(crate) struct CargoFuzz(PathBuf);

impl CargoFuzz {
    /// `cargo fuzz`, for arguments to follow.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        command.arg("fuzz");
        // Its flags for the compiler are those of a nightly toolchain, which this makes of any.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }
}

pub(super) fn ensure(lock: &Lock<'_>) -> Result<CargoFuzz> {
    let entry = lock.entry("cargo-fuzz", VERSION.as_bytes(), |folder| {
        let mut cargo = workspace::cargo();
        cargo
            .args(["install", "--locked", "--quiet", "--version", VERSION, "cargo-fuzz", "--root"])
            .arg(folder);
        let status = cargo.status().context("start cargo install")?;
        ensure!(status.success(), "cargo-fuzz could not be installed ({status})");
        Ok(())
    })?;
    Ok(CargoFuzz(entry.join("bin/cargo-fuzz")))
}
