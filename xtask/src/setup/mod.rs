//! Finds or installs what the tasks need on a machine where nothing was installed by hand.
//!
//! It may run any number of times and twice at once: one lock covers all of it, what is there is left alone, and a
//! result that was not finished is never taken for one. Only a Debian machine, as root, gets packages installed;
//! elsewhere it says by name what is missing. Registries and mirrors are the machine's own configuration's.

mod apt_packages;
mod cache;
mod cargo_fuzz;
mod dynamodb_local;
mod programs;
mod python_environment;
mod root_filesystem;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::build_binaries::{self, Binaries, Selection};
use crate::{progress, workspace};
use cache::Cache;
pub(crate) use cargo_fuzz::CargoFuzz;
use local_stack::StackParts;
use programs::Program;
use python_environment::PythonEnvironment;

/// What the local stack needs beside our own binaries.
pub(crate) struct StackTools {
    pub(crate) packer: PathBuf,
    /// The interpreter of our Python environment.
    python: PathBuf,
    pub(crate) moto_server: PathBuf,
    /// None where this machine can't host instances; the stack then says so and builds without provisioning.
    pub(crate) root_filesystem: Option<PathBuf>,
    pub(crate) binaries: Binaries,
}

impl StackTools {
    /// Where the parts of a stack are.
    pub(crate) fn parts(&self) -> StackParts {
        StackParts {
            ciab_local: self.binaries.local_stack(),
            functions: self.binaries.directory().to_path_buf(),
            runner: self.binaries.runner(),
            infra: workspace::root().join("infra"),
            moto_server: self.moto_server.clone(),
            packer: self.packer.clone(),
            root_filesystem: self.root_filesystem.clone(),
        }
    }
}

/// What the tests need beside the stack.
pub(crate) struct TestTools {
    pub(crate) dynamodb_local: PathBuf,
    pub(crate) java: PathBuf,
    pub(crate) shellcheck: PathBuf,
    /// The folder of the Python environment with what judges the infrastructure.
    pub(crate) infrastructure_checks: PathBuf,
    /// The folder of the Python environment with the SAM CLI and cargo-lambda.
    pub(crate) packaging: PathBuf,
}

const FOR_STACK: &[Program] = &[
    Program::PACKER,
    Program::PYTHON,
    Program::MMDEBSTRAP,
    Program::SSH,
    Program::SSH_KEYGEN,
    Program::UNSHARE,
    Program::CERTIFICATES,
];
const FOR_TESTS: &[Program] = &[Program::CURL, Program::JAVA, Program::SHELLCHECK];

/// Sets up all there is to set up.
pub(crate) fn everything() -> Result<()> {
    for_tests(Selection::Stack).map(|_| ())
}

/// Sets up what the stack needs and builds its binaries; says how long each of the two took, in seconds.
pub(crate) fn for_stack() -> Result<(StackTools, Durations)> {
    let cache = Cache::open()?;
    prepare(&cache, FOR_STACK, Selection::Stack)
}

/// Sets up what stack and tests need and builds their binaries.
pub(crate) fn for_tests(selection: Selection) -> Result<(StackTools, TestTools)> {
    let cache = Cache::open()?;
    let programs = [FOR_STACK, FOR_TESTS].concat();
    let (stack, _) = prepare(&cache, &programs, selection)?;
    let lock = cache.lock()?;
    let tests = TestTools {
        dynamodb_local: dynamodb_local::jar(&lock, &stack.python)?,
        java: Program::JAVA.path()?,
        shellcheck: Program::SHELLCHECK.path()?,
        infrastructure_checks: PythonEnvironment::INFRASTRUCTURE_CHECKS.ensure(&lock)?,
        packaging: PythonEnvironment::PACKAGING.ensure(&lock)?,
    };
    Ok((stack, tests))
}

/// Sets up what packaging needs: the folder of its Python environment.
pub(crate) fn packaging() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let lock = cache.lock()?;
    apt_packages::ensure(&[Program::PYTHON])?;
    PythonEnvironment::PACKAGING.ensure(&lock)
}

/// Sets up what fuzzing needs.
pub(crate) fn cargo_fuzz() -> Result<CargoFuzz> {
    cargo_fuzz::ensure(&Cache::open()?.lock()?)
}

/// Packer alone.
pub(crate) fn packer() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let _lock = cache.lock()?;
    apt_packages::ensure(&[Program::PACKER])?;
    Program::PACKER.path()
}

/// Seconds that the two halves of the preparation took.
pub(crate) struct Durations {
    pub(crate) setup: f64,
    pub(crate) build_binaries: f64,
}

fn prepare(cache: &Cache, programs: &[Program], selection: Selection) -> Result<(StackTools, Durations)> {
    let mut setup = Duration::ZERO;
    let begun = Instant::now();
    let python = {
        let lock = cache.lock()?;
        apt_packages::ensure(programs)?;
        PythonEnvironment::STACK.ensure(&lock)?
    };
    setup += begun.elapsed();

    let begun = Instant::now();
    let binaries = build_binaries::build(selection)?;
    let build_binaries = begun.elapsed();

    // Last, since the binary that makes the root file system has to be built first.
    let begun = Instant::now();
    let root_filesystem = match root_filesystem::obstacle() {
        None => Some(root_filesystem::ensure(&cache.lock()?, &binaries)?),
        Some(obstacle) => {
            progress::note(&format!(
                "no root file system for instances: {obstacle}; images will not be provisioned"
            ));
            None
        }
    };
    setup += begun.elapsed();

    let tools = StackTools {
        packer: Program::PACKER.path()?,
        python: python.join("bin/python"),
        moto_server: python.join("bin/moto_server"),
        root_filesystem,
        binaries,
    };
    let durations = Durations { setup: setup.as_secs_f64(), build_binaries: build_binaries.as_secs_f64() };
    Ok((tools, durations))
}
