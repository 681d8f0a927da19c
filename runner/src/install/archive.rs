//! One program out of a zip archive that was checked.
//!
//! Must never write a file whose name the archive chose.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio::task::{JoinError, spawn_blocking};
use zip::ZipArchive;
use zip::result::ZipError;

/// More than any version of Packer or of a plugin has.
const LARGEST: u64 = 1 << 30;

/// The program is not there, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is no archive, or does not hold the program.
    #[error("`{program}` cannot be read from the archive")]
    NoProgram {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: ZipError,
    },
    /// The disk does not take it.
    #[error("it cannot be written")]
    NotWritten(#[from] io::Error),
    /// It is larger than any release.
    #[error("it unpacks to more than {LARGEST} bytes")]
    TooLarge,
    /// The work was given up.
    #[error("the work was given up")]
    GivenUp(#[from] JoinError),
}

/// Unpacks this one program into the folder and makes it one that can be run.
pub(super) async fn unpack(
    archive: Vec<u8>,
    program: String,
    folder: PathBuf,
) -> Result<PathBuf, UnpackError> {
    spawn_blocking(move || unpack_now(archive, program, &folder)).await?
}

fn unpack_now(archive: Vec<u8>, program: String, folder: &Path) -> Result<PathBuf, UnpackError> {
    let path = folder.join(&program);
    let unreadable = |source| UnpackError::NoProgram { program: program.clone(), source };
    let mut archive = ZipArchive::new(Cursor::new(archive)).map_err(unreadable)?;
    let mut packed = archive.by_name(&program).map_err(unreadable)?;
    fs::create_dir_all(folder)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path)?;
    let written = io::copy(&mut (&mut packed).take(LARGEST + 1), &mut file)?;
    if written > LARGEST { Err(UnpackError::TooLarge) } else { Ok(path) }
}

/// Writes the file beside a plugin without which Packer does not take it: its SHA-256.
pub(super) async fn write_checksum(plugin: PathBuf) -> Result<(), UnpackError> {
    spawn_blocking(move || {
        let mut bytes = Vec::new();
        File::open(&plugin)?.read_to_end(&mut bytes)?;
        let mut name = plugin.into_os_string();
        name.push("_SHA256SUM");
        fs::write(name, super::sha256(&bytes))?;
        Ok(())
    })
    .await?
}
