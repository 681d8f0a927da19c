//! Builds, in one Cargo invocation and thus with one set of features, the binaries that the stack is made of.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::package::Package;
use crate::{progress, workspace};
use local_stack::process;

/// What to build.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The functions, the runner, the CLI and the local stack.
    Stack,
    /// Those and all tests, with the features that the tests switch on, so that nothing is compiled twice.
    StackAndTests,
}

/// The folder with the binaries, each by its package's name.
pub(crate) struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
    pub(crate) fn local_stack(&self) -> PathBuf {
        self.directory.join("ciab-local")
    }
    pub(crate) fn runner(&self) -> PathBuf {
        self.directory.join("ciab-runner")
    }
    pub(crate) fn command_line(&self) -> PathBuf {
        self.directory.join("ciab")
    }

    /// With the functions and the runner of a package; what nobody deploys stays what it is.
    pub(crate) fn packaged(&self, package: &Package) -> Result<Self> {
        let directory = package.unpack()?;
        for tool in ["ciab", "ciab-local", "ciab-local-ec2"] {
            symlink(self.directory.join(tool), directory.join(tool))
                .with_context(|| format!("put {tool} beside the functions"))?;
        }
        Ok(Self { directory })
    }
}

/// Builds the selection in the dev profile.
pub(crate) fn build(selection: Selection) -> Result<Binaries> {
    let mut packages = workspace::functions()?;
    packages.extend(["ciab-runner", "ciab", "ciab-local"].map(str::to_owned));
    progress::step("build binaries", || {
        let mut cargo = workspace::cargo();
        cargo.args(["build", "--locked"]);
        match selection {
            Selection::Stack => {
                cargo.arg("--bins");
                for package in &packages {
                    cargo.args(["--package", package]);
                }
            }
            Selection::StackAndTests => {
                cargo.args(["--workspace", "--all-targets"]);
            }
        }
        process::run(&mut cargo)
    })?;
    let directory = workspace::target_directory()?.join("debug");
    if let Some(missing) = packages.iter().find(|name| !directory.join(name).is_file()) {
        bail!("cargo built no {missing} in {}", directory.display());
    }
    Ok(Binaries { directory })
}
