//! `cargo xtask test`: sets up, builds, and runs every test there is.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::build_binaries::Selection;
use crate::package::{Linking, Package};
use crate::setup::{self, StackTools, TestTools};
use crate::{infrastructure_checks, progress, workspace};
use local_stack::process;

#[derive(Args)]
pub(crate) struct Options {
    /// Run the functions and the runner that `cargo xtask package` makes, as all of the tests do when none is chosen
    #[arg(long)]
    packaged: bool,
    /// Have them optimized across crates as well: what is deployed, at more than twice the time
    #[arg(long)]
    optimized: bool,
    /// Passed on to `cargo test`, for example: -- --package ciab-core, or: -- -- --nocapture
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the tests. They find their parts by the variables that this sets.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let (mut stack, tests) = setup::for_tests(Selection::StackAndTests)?;
    let scripts = shell_scripts(&workspace::root())?;
    if !scripts.is_empty() {
        progress::step(&format!("shellcheck {} scripts", scripts.len()), || {
            process::run(Command::new(&tests.shellcheck).args(&scripts))
        })?;
    }
    infrastructure_checks::run(&tests.infrastructure_checks, &tests.packaging, &workspace::root())?;
    // What was deployed is what must have been tested; whoever tries one test again and again need not wait for it.
    if options.packaged || options.optimized || options.arguments.is_empty() {
        let linking = if options.optimized { Linking::Optimized } else { Linking::Quick };
        let package = Package::for_this_machine(&tests.packaging, linking)?;
        stack.binaries = stack.binaries.packaged(&package)?;
    }
    let called = workspace::target_directory()?.join("called-actions.jsonl");
    std::fs::write(&called, "").with_context(|| format!("empty {}", called.display()))?;
    progress::step("cargo test", || {
        let mut cargo = workspace::cargo();
        cargo.args(["test", "--locked"]);
        // Cargo takes --workspace to win over a package named beside it.
        if !names_a_package(&options.arguments) {
            cargo.arg("--workspace");
        }
        cargo.args(&options.arguments);
        for (name, value) in variables(&stack, &tests) {
            cargo.env(name, value);
        }
        // Every stack that a test starts appends to it.
        cargo.env("CIAB_LOCAL_CALLED_ACTIONS", &called);
        process::run_as_result(&mut cargo)
    })?;
    if options.arguments.is_empty() {
        permissions_are_used(&stack, &called)?;
    } else {
        progress::note("only a part of the tests ran: what roles may is not compared with what they did");
    }
    Ok(ExitCode::SUCCESS)
}

/// What each role may do is what it did in all of the tests, or there is a reason.
fn permissions_are_used(stack: &StackTools, called: &Path) -> Result<()> {
    let root = workspace::root();
    progress::step("compare what roles may with what they did", || {
        let mut compare = Command::new(stack.binaries.local_stack());
        compare.arg("permissions").arg("--infra").arg(root.join("infra"));
        compare.arg("--called").arg(called).arg("--reasons").arg(root.join("infra/unused-permissions.yaml"));
        process::run(&mut compare)
    })
}

fn names_a_package(arguments: &[String]) -> bool {
    let of_cargo = arguments.iter().take_while(|argument| *argument != "--");
    of_cargo.into_iter().any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

fn variables(stack: &StackTools, tests: &TestTools) -> Vec<(&'static str, PathBuf)> {
    let mut variables = vec![
        ("CIAB_TEST_BIN_DIR", stack.binaries.directory().to_path_buf()),
        ("CIAB_TEST_MOTO_SERVER", stack.moto_server.clone()),
        ("CIAB_TEST_PACKER", stack.packer.clone()),
        ("CIAB_TEST_DYNAMODB_LOCAL", tests.dynamodb_local.clone()),
        ("CIAB_TEST_JAVA", tests.java.clone()),
    ];
    if let Some(root) = &stack.root_filesystem {
        variables.push(("CIAB_TEST_ROOTFS", root.clone()));
    }
    variables
}

/// Every shell script of ours: *.sh, and what says so in its first line under .ci.
fn shell_scripts(root: &Path) -> Result<Vec<PathBuf>> {
    let mut scripts = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name();
            if kind.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if kind.is_file()
                && (path.extension().is_some_and(|extension| extension == "sh") || path.ends_with(".ci/run"))
            {
                scripts.push(path);
            }
        }
    }
    scripts.sort();
    Ok(scripts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_seen_only_among_cargos_own_arguments() {
        let names = |arguments: &[&str]| {
            names_a_package(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
        };
        assert!(names(&["-p", "ciab-core"]) && names(&["--package=ciab-core"]));
        assert!(!names(&["--no-fail-fast"]) && !names(&["--", "-p"]));
    }

    #[test]
    fn scripts_are_found_in_every_folder_but_products() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/b/x.sh", "target/y.sh", ".git/z.sh", ".ci/run", "a/run", "w.txt"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = shell_scripts(root.path()).unwrap();
        assert_eq!(found, [root.path().join(".ci/run"), root.path().join("a/b/x.sh")]);
    }
}
