//! The root file system that stand-in EC2 instances start from. The local stack knows how to make one, what it depends
//! on, and when one that is there will do; this only gives it a place in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use super::cache::Lock;
use crate::build_binaries::Binaries;
use crate::progress;
use local_stack::process;

/// Why this machine can't host instances, if it can't.
pub(crate) fn obstacle() -> Option<&'static str> {
    if !cfg!(target_os = "linux") {
        return Some("instances need Linux");
    }
    if !Uid::effective().is_root() {
        return Some("instances need root");
    }
    if !Path::new("/etc/debian_version").exists() {
        return Some("instances are made from a Debian machine's own package sources");
    }
    None
}

/// The root file system's folder, made now unless the cache has one of the same recipe.
pub(crate) fn ensure(lock: &Lock<'_>, binaries: &Binaries) -> Result<PathBuf> {
    progress::step("find or make the root file system for instances", || {
        let made = process::capture(
            Command::new(binaries.local_stack()).args(["root-filesystem", "--out"]).arg(lock.directory()),
        )?;
        let root = PathBuf::from(made.stdout.trim());
        if !made.status.success() || made.stdout.trim().is_empty() || !root.is_dir() {
            bail!("`ciab-local root-filesystem` made none ({}); what it said is above", made.status);
        }
        Ok(root)
    })
}
