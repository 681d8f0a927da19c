//! Bundles as archives, there and back.
//!
//! Writing (`pack.rs`) is deterministic: the same bundle gives the same bytes. Reading takes hostile input: it returns
//! files in memory and must never follow, create or write anything, nor inflate more than one byte beyond its limit; its
//! caller writes the files, and need not check paths again. What an archive holds is refused as a whole where any part of it
//! is not plainly a file or a folder, or where two readers of the same bytes could see different files.

mod pack;
mod tarball;
mod zipped;

use std::io::{self, Read};

use crate::bundle::{BundleError, Paths, normalise, shown};

pub use tarball::read_tar_gz;
pub(crate) use tarball::{read_tar, read_tar_gz_within};
pub(crate) use zipped::read_zip;

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

/// How much more than its own size an archive may unpack to, beyond [`FREE_BYTES`]. Source text compresses 3 to 10 times.
const RATIO: u64 = 200;

/// What any archive may unpack to, however small it is.
const FREE_BYTES: u64 = 1024 * 1024;

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not such an archive, or cut short.
    #[error("the template archive can't be read")]
    Unreadable(#[source] io::Error),
    /// Well enough made for some programs, and another archive to others.
    #[error("the template archive can't be trusted: {reason}")]
    Ambiguous {
        /// What is wrong, in words that end a sentence.
        reason: &'static str,
    },
    /// A path that could lead out of the folder it is unpacked to, or two that get in each other's way.
    #[error(transparent)]
    Path(#[from] BundleError),
    /// A link, device, or anything but a file or folder.
    #[error("the template archive holds `{path}`, which is neither a file nor a folder")]
    Kind {
        /// The path as it stands in the archive.
        path: String,
    },
    /// An entry that can't be read without a password.
    #[error("the template archive holds `{path}`, which is encrypted")]
    Encrypted {
        /// The path as it stands in the archive.
        path: String,
    },
    /// An entry compressed in a way that is not supported.
    #[error(
        "the template archive holds `{path}`, which is compressed in a way that is not supported; a zip's files must be \
         stored or deflated"
    )]
    Compression {
        /// The path as it stands in the archive.
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
    /// Far more bytes than its own size explains.
    #[error(
        "the template archive of {packed} bytes unpacks to more than {RATIO} times its size, as no template does"
    )]
    Ratio {
        /// The archive's own size, in bytes.
        packed: u64,
    },
}

/// What may still be unpacked of one archive.
struct Budget {
    allowed: u64,
    /// Set where the archive's own size, and not the limit, decides.
    packed: Option<u64>,
    left: u64,
}

impl Budget {
    fn of_limit(total_bytes: u64) -> Self {
        Self { allowed: total_bytes, packed: None, left: total_bytes }
    }

    /// The limit, or what the archive's own size allows where that is less.
    fn of_archive(archive: &[u8], total_bytes: u64) -> Self {
        let packed = archive.len() as u64;
        let explained = packed.saturating_mul(RATIO).max(FREE_BYTES);
        if explained < total_bytes {
            Self { allowed: total_bytes, packed: Some(packed), left: explained }
        } else {
            Self::of_limit(total_bytes)
        }
    }

    fn exceeded(&self) -> ArchiveError {
        match self.packed {
            Some(packed) => ArchiveError::Ratio { packed },
            None => ArchiveError::TooLarge { allowed: self.allowed },
        }
    }

    /// Reads to the end, and at most one byte beyond what is left: that is enough to know.
    fn read(&mut self, reader: impl Read) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = Vec::new();
        reader.take(self.left.saturating_add(1)).read_to_end(&mut bytes).map_err(ArchiveError::Unreadable)?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| self.exceeded())?;
        Ok(bytes)
    }
}

/// The files of an archive as they are read, each path compared with those before it.
#[derive(Default)]
struct Files {
    paths: Paths,
    files: Vec<ArchivedFile>,
}

impl Files {
    /// Takes a file's path in its one spelling; what it holds follows with [`Files::add`].
    fn claim(&mut self, raw: &str) -> Result<String, ArchiveError> {
        let path = normalise(raw)?;
        self.paths.claim(&path)?;
        Ok(path)
    }

    fn add(&mut self, path: String, bytes: Vec<u8>, mode: u32) {
        self.files.push(ArchivedFile { path, bytes, mode: mode & 0o777 });
    }
}

/// A folder's path is checked and not kept: the paths of its files imply it.
fn check_folder(raw: &str) -> Result<(), ArchiveError> {
    // `./`, the folder that was packed, is in many archives.
    if matches!(raw, "." | "./") { Ok(()) } else { Ok(normalise(raw).map(drop)?) }
}

/// A path as text: one that is none can't be told from others in a message or on another machine.
fn text_of(raw: &[u8]) -> Result<&str, ArchiveError> {
    std::str::from_utf8(raw).map_err(|_| {
        let path = shown(&String::from_utf8_lossy(raw));
        ArchiveError::Path(BundleError::Path { path })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use tar::{Builder, EntryType, Header};

    use super::*;
    use crate::Bundle;

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
            assert!(matches!(error, Err(ArchiveError::Path(_))), "{path}: {error:?}");
            let error = read_tar_gz(&packed(&[(EntryType::Directory, path, "")]), UnpackLimits::default());
            assert!(matches!(error, Err(ArchiveError::Path(_))), "{path}: {error:?}");
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
        assert!(matches!(
            read_tar_gz(&archive, UnpackLimits::default()),
            Err(ArchiveError::Path(BundleError::Twice { .. }))
        ));
    }

    #[test]
    fn nothing_is_inflated_beyond_one_byte_over_the_limit() {
        struct Counting(u64);
        impl Read for Counting {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += buffer.len() as u64;
                Ok(buffer.len())
            }
        }
        let mut budget = Budget::of_limit(10_000);
        budget.read([0; 4_000].as_slice()).unwrap();
        let mut endless = Counting(0);
        assert!(matches!(budget.read(&mut endless), Err(ArchiveError::TooLarge { allowed: 10_000 })));
        assert_eq!(endless.0, 6_001);

        let mut small = Budget::of_archive(&[0; 10], 64 << 20);
        let mut endless = Counting(0);
        assert!(matches!(small.read(&mut endless), Err(ArchiveError::Ratio { packed: 10 })));
        assert_eq!(endless.0, FREE_BYTES + 1);
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
