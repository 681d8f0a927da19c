//! Installs the missing programs from the machine's own Debian mirrors: one update and one install, and neither where
//! nothing is missing. It never upgrades or removes what is there.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use super::programs::Program;
use crate::progress;
use local_stack::process;

/// Makes sure that the programs are there.
pub(crate) fn ensure(programs: &[Program]) -> Result<()> {
    let missing: Vec<&Program> = programs.iter().filter(|program| program.is_missing()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = packages_of(&missing);
    if !Path::new("/usr/bin/apt-get").exists() {
        let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
        bail!(
            "missing on this machine: {}. It is no Debian, so nothing was installed; install them and try again",
            names.join(", ")
        );
    }
    if !Uid::effective().is_root() {
        bail!("missing on this machine; as root: apt-get install {}", packages.join(" "));
    }
    progress::step(&format!("install Debian packages {}", packages.join(" ")), || {
        process::run_quietly(apt().args(["update", "--quiet"])).context("refresh the package lists")?;
        process::run_quietly(
            apt().args(["install", "--quiet", "--yes", "--no-install-recommends"]).args(&packages),
        )
    })?;
    match missing.iter().find(|program| program.is_missing()) {
        None => Ok(()),
        Some(program) => bail!("{} is still missing after its package was installed", program.name),
    }
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Another apt (unattended upgrades on a machine that just booted) ends within minutes.
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]);
    command
}

fn packages_of(programs: &[&Program]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = programs.iter().flat_map(|program| program.packages).copied().collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_two_programs_is_installed_once() {
        assert_eq!(
            packages_of(&[&Program::SSH_KEYGEN, &Program::PACKER, &Program::SSH]),
            ["openssh-client", "packer"]
        );
    }
}
