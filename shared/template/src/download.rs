//! What was downloaded or uploaded, as a bundle: one template, or an archive of files.
//!
//! Takes hostile input. The name decides what something is, and only where it says nothing do the bytes; must never guess
//! where neither is clear.

use crate::archive::{ArchiveError, ArchivedFile, UnpackLimits, read_tar, read_tar_gz_within, read_zip};
use crate::bundle::{Bundle, BundleError, shown};

/// Why what came is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Neither its name nor its bytes say what it is.
    #[error(
        "`{name}` is no template that can be used: it must be a `.pkr.hcl`, `.pkr.json` or `.json` file, or a `.zip`, \
         `.tar.gz`, `.tgz` or `.tar` archive"
    )]
    Unknown {
        /// Its name, without folders.
        name: String,
    },
    /// Its name promises something else.
    #[error("`{name}` is not the {expected} that its name says")]
    Misnamed {
        /// Its name, without folders.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
    /// One template, larger than everything together may be.
    #[error("`{name}` has {bytes} bytes: at most {allowed} are allowed")]
    TooLarge {
        /// Its name, without folders.
        name: String,
        /// What it has.
        bytes: u64,
        /// The limit.
        allowed: u64,
    },
    /// An archive that is not unpacked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A name that is no file's name.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Template,
    Zip,
    TarGz,
    Tar,
}

impl Form {
    /// Packer knows its own files by their exact names; nobody is as strict about archives.
    fn of_name(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| lower.ends_with(ending));
        if name.ends_with(".pkr.hcl") || name.ends_with(".json") {
            Some(Self::Template)
        } else if ends(&[".zip"]) {
            Some(Self::Zip)
        } else if ends(&[".tar.gz", ".tgz"]) {
            Some(Self::TarGz)
        } else if ends(&[".tar"]) {
            Some(Self::Tar)
        } else {
            None
        }
    }

    /// An archive, by what it begins with. A zip without files is only its end.
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            Some(Self::Zip)
        } else if bytes.starts_with(&[0x1f, 0x8b]) {
            Some(Self::TarGz)
        } else if bytes.get(257..).is_some_and(|magic| magic.starts_with(b"ustar")) {
            Some(Self::Tar)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Zip => "zip archive",
            Self::TarGz => "tar archive compressed with gzip",
            Self::Tar => "tar archive",
        }
    }
}

impl Bundle {
    /// The bundle that something named so and holding these bytes is: one template file (`.pkr.hcl`, `.pkr.json`,
    /// `.json`), kept under its own name, or the files of an archive (`.zip`, `.tar.gz`, `.tgz`, `.tar`). The files of an
    /// archive that has everything in one folder, as a forge's downloads do, are that folder's.
    ///
    /// `name` may be a path or an address without its query; its last part counts.
    ///
    /// # Errors
    ///
    /// Where it is something else, an archive that is not plainly a set of files, or larger than the limits.
    pub fn from_download(name: &str, bytes: &[u8], limits: UnpackLimits) -> Result<Self, DownloadError> {
        let name = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let named = Form::of_name(name);
        let found = Form::of_bytes(bytes);
        let form = named.or(found).ok_or_else(|| DownloadError::Unknown { name: shown(name) })?;
        let files = match form {
            Form::Template => return one_template(name, bytes, limits),
            // Tars from before POSIX have no magic number.
            _ if found != Some(form) && (form != Form::Tar || found.is_some()) => {
                return Err(DownloadError::Misnamed { name: shown(name), expected: form.name() });
            }
            Form::Zip => read_zip(bytes, limits)?,
            Form::TarGz => read_tar_gz_within(bytes, limits)?,
            Form::Tar => read_tar(bytes, limits)?,
        };
        Ok(of_archive(files)?)
    }
}

fn one_template(name: &str, bytes: &[u8], limits: UnpackLimits) -> Result<Bundle, DownloadError> {
    if bytes.len() as u64 > limits.total_bytes {
        let (bytes, allowed) = (bytes.len() as u64, limits.total_bytes);
        return Err(DownloadError::TooLarge { name: shown(name), bytes, allowed });
    }
    Ok(Bundle::from_files([(name, bytes)])?)
}

fn of_archive(mut files: Vec<ArchivedFile>) -> Result<Bundle, BundleError> {
    // The Finder puts what it knows of files beside them, and Packer would find folders where there was one.
    files.retain(|file| !file.path.starts_with("__MACOSX/"));
    let folder =
        files.first().and_then(|file| file.path.split_once('/')).map(|(folder, _)| format!("{folder}/"));
    if let Some(folder) =
        folder.filter(|folder| files.iter().all(|file| file.path.starts_with(folder.as_str())))
    {
        for file in &mut files {
            file.path.drain(..folder.len());
        }
    }
    Bundle::from_files(files.into_iter().map(|file| (file.path, file.bytes)))
}
