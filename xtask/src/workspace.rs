//! Where things are in this checkout. It asks Cargo; it must never guess a target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use local_stack::process;

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    // Cargo sets it for what it runs; the value compiled in would be another checkout's if a target folder is shared.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// Cargo, in the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What `cargo xtask` itself was told of its own package. ring's build script asks to be run again where it changes, and all that needs ring
    // would be compiled anew whenever `cargo test` and `cargo xtask test` take turns.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// The folder that holds Cargo's products, wherever the user's settings put it.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = process::capture(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    if !metadata.status.success() {
        bail!("cargo metadata failed ({})", metadata.status);
    }
    let document: Value = serde_json::from_str(&metadata.stdout).context("read cargo metadata")?;
    let directory =
        document["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}

/// The packages in functions/, by name.
pub(crate) fn functions() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("functions")).context("list functions/")? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
