//! Reading a tar, plain or compressed with gzip.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;
use tar::{Archive, Entry, EntryType};

use super::{ArchiveError, ArchivedFile, Budget, Files, UnpackLimits, check_folder, text_of};
use crate::bundle::shown;

/// A tar consists of blocks of this size.
const BLOCK: u64 = 512;

/// The files of a `.tar.gz`, in the archive's order. Folders are left out: a file's path implies them.
///
/// This is for archives of our own making; one from elsewhere is read by [`crate::Bundle::from_download`], which also looks
/// at how much more it unpacks to than its size explains.
///
/// # Errors
///
/// Anything that is not plainly a set of files inside of one folder and inside of the limits.
pub fn read_tar_gz(archive: &[u8], limits: UnpackLimits) -> Result<Vec<ArchivedFile>, ArchiveError> {
    unpack(archive, Budget::of_limit(limits.total_bytes), limits.files)
}

/// The same, and no more than the archive's own size explains.
pub(crate) fn read_tar_gz_within(
    archive: &[u8],
    limits: UnpackLimits,
) -> Result<Vec<ArchivedFile>, ArchiveError> {
    unpack(archive, Budget::of_archive(archive, limits.total_bytes), limits.files)
}

fn unpack(archive: &[u8], mut budget: Budget, files: usize) -> Result<Vec<ArchivedFile>, ArchiveError> {
    let mut gzip = GzDecoder::new(archive);
    let tar = budget.read(&mut gzip)?;
    // Some programs would take what follows for more of the archive, others would not.
    if gzip.into_inner().iter().any(|byte| *byte != 0) {
        return Err(ArchiveError::Ambiguous { reason: "something follows the end of its gzip data" });
    }
    entries_of(&tar, files)
}

/// The files of a tar that is not compressed.
pub(crate) fn read_tar(archive: &[u8], limits: UnpackLimits) -> Result<Vec<ArchivedFile>, ArchiveError> {
    if archive.len() as u64 > limits.total_bytes {
        return Err(ArchiveError::TooLarge { allowed: limits.total_bytes });
    }
    entries_of(archive, limits.files)
}

fn entries_of(tar: &[u8], allowed: usize) -> Result<Vec<ArchivedFile>, ArchiveError> {
    let mut files = Files::default();
    let mut end = 0;
    let mut archive = Archive::new(tar);
    for (index, entry) in archive.entries().map_err(ArchiveError::Unreadable)?.enumerate() {
        if index >= allowed {
            return Err(ArchiveError::TooMany { allowed });
        }
        let mut entry = entry.map_err(ArchiveError::Unreadable)?;
        take(&mut entry, &mut files)?;
        end = entry.raw_file_position().saturating_add(entry.size().next_multiple_of(BLOCK));
    }
    // A tar that is cut between two entries looks whole but for its missing end.
    let rest = usize::try_from(end).ok().and_then(|end| tar.get(end..)).unwrap_or_default();
    if (rest.len() as u64) < BLOCK {
        return Err(ArchiveError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err(ArchiveError::Ambiguous { reason: "something follows the end of its tar data" });
    }
    Ok(files.files)
}

fn take(entry: &mut Entry<'_, &[u8]>, files: &mut Files) -> Result<(), ArchiveError> {
    let raw_path = entry.path_bytes().into_owned();
    let raw = text_of(&raw_path)?;
    let not_a_file = || ArchiveError::Kind { path: shown(raw) };
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Directory => {}
        // `git archive`, and so every download from a forge, begins with the commit's name in one of these.
        EntryType::XGlobalHeader => return only_comments(entry),
        _ => return Err(not_a_file()),
    }
    let keys = extension_keys(entry)?;
    if keys.iter().any(|key| key.starts_with("GNU.sparse.")) {
        return Err(not_a_file());
    }
    // Only a file of more than 8 GiB needs a second size, and not every program looks at it.
    if keys.iter().any(|key| key == "size") {
        return Err(ArchiveError::Ambiguous { reason: "a file in it is described in two ways" });
    }
    // Before POSIX a folder was a file whose name ends so.
    if entry.header().entry_type() == EntryType::Directory || raw.ends_with('/') {
        return if entry.size() == 0 { check_folder(raw) } else { Err(not_a_file()) };
    }
    let path = files.claim(raw)?;
    let mode = entry.header().mode().map_err(ArchiveError::Unreadable)?;
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(ArchiveError::Unreadable)?;
    if bytes.len() as u64 != entry.size() {
        return Err(ArchiveError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
    }
    files.add(path, bytes, mode);
    Ok(())
}

/// The keys of an entry's extended header.
fn extension_keys(entry: &mut Entry<'_, &[u8]>) -> Result<Vec<String>, ArchiveError> {
    let Some(extensions) = entry.pax_extensions().map_err(ArchiveError::Unreadable)? else {
        return Ok(Vec::new());
    };
    let key = |extension: io::Result<tar::PaxExtension<'_>>| {
        extension
            .map(|extension| String::from_utf8_lossy(extension.key_bytes()).into_owned())
            .map_err(ArchiveError::Unreadable)
    };
    extensions.map(key).collect()
}

/// A global header may hold a comment: whatever else it says would hold for all entries after it, to some programs.
fn only_comments(entry: &mut Entry<'_, &[u8]>) -> Result<(), ArchiveError> {
    let keys = extension_keys(entry)?;
    if keys.iter().all(|key| key == "comment") {
        return Ok(());
    }
    Err(ArchiveError::Ambiguous { reason: "a header in it changes the entries after it" })
}
