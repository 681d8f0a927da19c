//! Bundles as `.tar.gz`, there and back.
//!
//! Writing is deterministic: the same bundle gives the same bytes. Reading takes hostile input: it returns files in
//! memory and must never follow, create or write anything; its caller writes them, and need not check paths again.

use std::collections::BTreeSet;
use std::io::{self, Read};

use flate2::{Compression, GzBuilder, read::GzDecoder};
use tar::{Archive, Builder, EntryType, Header};

use crate::bundle::{Bundle, mode_of, normalise};

/// The name of the variables file that goes beside the `template/` folder.
pub const VARIABLES_FILE: &str = "variables.pkrvars.json";

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedFile {
    /// Relative, `/`-separated, without `..`.
    pub path: String,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Unix permission bits, such as `0o600`; never set-uid, set-gid or sticky.
    pub mode: u32,
}

/// What an archive may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Entries of any kind.
    pub files: usize,
    /// Bytes once decompressed, the archive's own headers included.
    pub total_bytes: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { files: 2_000, total_bytes: 64 * 1024 * 1024 }
    }
}

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not gzip, not tar, or cut short.
    #[error("the template archive can't be read")]
    Unreadable(#[source] io::Error),
    /// An entry that could land outside of the folder it is unpacked to.
    #[error("the template archive holds `{path}`: paths must be relative, without `..`")]
    Path {
        /// The path as it stands in the archive.
        path: String,
    },
    /// A link, device, or anything but a file or folder.
    #[error("the template archive holds `{path}`, which is neither a file nor a folder")]
    Kind {
        /// The path as it stands in the archive.
        path: String,
    },
    /// The same path again: one would hide the other.
    #[error("the template archive holds `{path}` twice")]
    Twice {
        /// The normalised path.
        path: String,
    },
    /// More entries than allowed.
    #[error("the template archive holds more than {allowed} files")]
    TooMany {
        /// The limit.
        allowed: usize,
    },
    /// More bytes than allowed.
    #[error("the template archive unpacks to more than {allowed} bytes")]
    TooLarge {
        /// The limit, in bytes.
        allowed: u64,
    },
}

impl Bundle {
    /// The bundle under `prefix` (such as `template/`), with `extra` files beside it. The same input gives the same bytes.
    ///
    /// # Errors
    ///
    /// Where the prefix or an extra file's path leads out of the archive.
    pub fn to_tar_gz(&self, prefix: &str, extra: &[ArchivedFile]) -> Result<Vec<u8>, ArchiveError> {
        let own = self.files().map(|(path, bytes)| (format!("{prefix}{path}"), bytes, mode_of(path)));
        let others = extra.iter().map(|file| (file.path.clone(), file.bytes.as_slice(), file.mode));
        let mut files: Vec<_> = own.chain(others).collect();
        files.sort();

        // Neither time nor operating system goes into gzip's header: they would change the bytes.
        let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::default());
        let mut tar = Builder::new(gzip);
        for (path, bytes, mode) in files {
            let path = normalise(&path).map_err(|_| ArchiveError::Path { path })?;
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes.len() as u64);
            header.set_mode(mode & 0o777);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            tar.append_data(&mut header, path, bytes).map_err(ArchiveError::Unreadable)?;
        }
        tar.into_inner().and_then(flate2::write::GzEncoder::finish).map_err(ArchiveError::Unreadable)
    }
}

/// The files of a `.tar.gz`, in the archive's order. Folders are left out: a file's path implies them.
///
/// # Errors
///
/// Anything that is not plainly a set of files inside of one folder and inside of the limits.
pub fn read_tar_gz(archive: &[u8], limits: UnpackLimits) -> Result<Vec<ArchivedFile>, ArchiveError> {
    let mut plain = Vec::new();
    // One byte over the limit is enough to know; a bomb is not inflated any further.
    GzDecoder::new(archive)
        .take(limits.total_bytes.saturating_add(1))
        .read_to_end(&mut plain)
        .map_err(ArchiveError::Unreadable)?;
    if plain.len() as u64 > limits.total_bytes {
        return Err(ArchiveError::TooLarge { allowed: limits.total_bytes });
    }

    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    let mut tar = Archive::new(plain.as_slice());
    for (index, entry) in tar.entries().map_err(ArchiveError::Unreadable)?.enumerate() {
        if index >= limits.files {
            return Err(ArchiveError::TooMany { allowed: limits.files });
        }
        let mut entry = entry.map_err(ArchiveError::Unreadable)?;
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if !matches!(kind, EntryType::Regular | EntryType::Directory) {
            return Err(ArchiveError::Kind { path: raw });
        }
        let path = match normalise(&raw) {
            Ok(path) => path,
            // `./`, the folder that was packed, is in many archives.
            Err(_) if kind == EntryType::Directory && matches!(raw.as_str(), "." | "./") => continue,
            Err(_) => return Err(ArchiveError::Path { path: raw }),
        };
        if kind == EntryType::Directory {
            continue;
        }
        if !seen.insert(path.clone()) {
            return Err(ArchiveError::Twice { path });
        }
        let mode = entry.header().mode().map_err(ArchiveError::Unreadable)? & 0o777;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(ArchiveError::Unreadable)?;
        if bytes.len() as u64 != entry.size() {
            return Err(ArchiveError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        files.push(ArchivedFile { path, bytes, mode });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn bundle() -> Bundle {
        Bundle::from_files([("a.pkr.hcl", "x"), ("provision/b.sh", "#!/bin/sh\n")]).unwrap()
    }

    fn variables() -> ArchivedFile {
        ArchivedFile { path: VARIABLES_FILE.into(), bytes: b"{}".to_vec(), mode: 0o600 }
    }

    fn packed(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut tar = Builder::new(flate2::write::GzEncoder::new(Vec::new(), Compression::fast()));
        for (kind, path, bytes) in entries {
            let mut header = Header::new_gnu();
            // Written past the crate's own check, as an attacker would.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4755);
            header.set_size(bytes.len() as u64);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            tar.append(&header, bytes.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn what_was_packed_comes_back_with_scripts_executable_and_variables_private() {
        let bytes = bundle().to_tar_gz("template/", &[variables()]).unwrap();
        let files = read_tar_gz(&bytes, UnpackLimits::default()).unwrap();
        let seen: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.mode)).collect();
        assert_eq!(
            seen,
            [("template/a.pkr.hcl", 0o644), ("template/provision/b.sh", 0o755), (VARIABLES_FILE, 0o600)]
        );
        assert_eq!(files[0].bytes, b"x");
    }

    #[test]
    fn packing_twice_gives_the_same_bytes() {
        assert_eq!(
            bundle().to_tar_gz("template/", &[variables()]).unwrap(),
            bundle().to_tar_gz("template/", &[variables()]).unwrap()
        );
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        for path in ["/etc/cron.d/x", "../x", "a/../../x", "..", "a\\..\\x"] {
            let error = read_tar_gz(&packed(&[(EntryType::Regular, path, "x")]), UnpackLimits::default());
            assert!(matches!(error, Err(ArchiveError::Path { .. })), "{path}: {error:?}");
            let error = read_tar_gz(&packed(&[(EntryType::Directory, path, "")]), UnpackLimits::default());
            assert!(matches!(error, Err(ArchiveError::Path { .. })), "{path}: {error:?}");
        }
    }

    #[test]
    fn links_and_devices_are_refused() {
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo]
        {
            let error = read_tar_gz(&packed(&[(kind, "x", "")]), UnpackLimits::default());
            assert!(matches!(error, Err(ArchiveError::Kind { .. })), "{kind:?}: {error:?}");
        }
    }

    #[test]
    fn a_set_uid_bit_does_not_survive() {
        let files = read_tar_gz(&packed(&[(EntryType::Regular, "x", "x")]), UnpackLimits::default()).unwrap();
        assert_eq!(files[0].mode, 0o755);
    }

    #[test]
    fn the_same_path_twice_is_refused() {
        let archive = packed(&[(EntryType::Regular, "x", "1"), (EntryType::Regular, "./x", "2")]);
        assert!(matches!(read_tar_gz(&archive, UnpackLimits::default()), Err(ArchiveError::Twice { .. })));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![0; 1 << 20]).unwrap();
        let limits = UnpackLimits { files: 10, total_bytes: 1 << 16 };
        let error = read_tar_gz(&gzip.finish().unwrap(), limits);
        assert!(matches!(error, Err(ArchiveError::TooLarge { allowed: 65_536 })));
    }

    #[test]
    fn too_many_files_are_refused() {
        let archive = packed(&[(EntryType::Regular, "a", ""), (EntryType::Regular, "b", "")]);
        let error = read_tar_gz(&archive, UnpackLimits { files: 1, total_bytes: 1 << 20 });
        assert!(matches!(error, Err(ArchiveError::TooMany { allowed: 1 })));
    }

    #[test]
    fn garbage_and_a_cut_archive_are_errors() {
        assert!(matches!(read_tar_gz(b"garbage", UnpackLimits::default()), Err(ArchiveError::Unreadable(_))));
        let whole = bundle().to_tar_gz("", &[]).unwrap();
        assert!(matches!(
            read_tar_gz(&whole[..whole.len() / 2], UnpackLimits::default()),
            Err(ArchiveError::Unreadable(_))
        ));
    }
}
