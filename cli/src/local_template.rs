//! A template on this machine's disk: one file, or a folder without what its ignore files name, as the bundle that the
//! service would build from.
//!
//! Only reads; it never follows a link, and never looks into `.git`.

use std::fs::FileType;
use std::path::{Path, PathBuf};

use ciab_template::{Bundle, BundleError, DownloadError, UnpackLimits};
use ignore::WalkBuilder;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Names the file with what is not to be uploaded, in the syntax of `.gitignore`; it goes before that one.
const IGNORE_FILE: &str = ".ciabignore";
/// What the service takes, unpacked and packed.
const LIMITS: UnpackLimits = UnpackLimits { files: 2_000, total_bytes: 64 * 1024 * 1024 };
const PACKED_LIMIT: u64 = 16 * 1024 * 1024;
/// How many files an error names.
const NAMED: usize = 5;

#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("the template {} is neither a file nor a folder nor a source that the service knows", path.display())]
    Missing { path: PathBuf },
    #[error("can't read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("can't read the template {}: {reason}", path.display())]
    Walk { path: PathBuf, reason: String },
    #[error("{} is a symbolic link, and a template can hold none", path.display())]
    Link { path: PathBuf },
    #[error("{} is neither a file nor a folder", path.display())]
    Kind { path: PathBuf },
    #[error("the name of {} is not UTF-8 text", path.display())]
    Name { path: PathBuf },
    #[error("the template {} has {found} files: at most {} are taken; the biggest are {biggest}", path.display(), LIMITS.files)]
    TooMany { path: PathBuf, found: usize, biggest: String },
    #[error(
        "the template {} has {}: at most {} are taken; the biggest files are {biggest}",
        path.display(), megabytes(*found), megabytes(LIMITS.total_bytes)
    )]
    TooLarge { path: PathBuf, found: u64, biggest: String },
    #[error(
        "the template {} has {} once packed: at most {} are taken; the biggest files are {biggest}",
        path.display(), megabytes(*found), megabytes(PACKED_LIMIT)
    )]
    PackedTooLarge { path: PathBuf, found: u64, biggest: String },
    #[error("the template {} is empty, or everything in it is ignored", path.display())]
    Empty { path: PathBuf },
    #[error("the template {} can't be used: {source}", path.display())]
    Download { path: PathBuf, source: DownloadError },
    #[error("the template {} can't be used: {source}", path.display())]
    Bundle { path: PathBuf, source: BundleError },
    #[error("the template {} can't be packed: {reason}", path.display())]
    Pack { path: PathBuf, reason: String },
}

impl Error {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some(
                "sources look like builtin://default-ec2, https://… or git::https://…; a path needs an existing file or folder"
                    .to_owned(),
            ),
            Self::Link { .. } | Self::Kind { .. } | Self::Name { .. } => {
                Some(format!("replace it, or name it in {IGNORE_FILE}"))
            }
            Self::TooMany { .. } | Self::TooLarge { .. } | Self::PackedTooLarge { .. } => {
                Some(format!("name what the build does not need in {IGNORE_FILE}, which is written like a .gitignore"))
            }
            Self::Empty { .. } => Some(format!("look into its {IGNORE_FILE} and .gitignore")),
            Self::Read { .. }
            | Self::Walk { .. }
            | Self::Download { .. }
            | Self::Bundle { .. }
            | Self::Pack { .. } => None,
        }
    }
}

/// A bundle as it travels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PackedTemplate {
    /// A `.tar.gz`; the same files give the same bytes.
    pub(crate) bytes: Vec<u8>,
    /// Of the bytes, in lower-case hexadecimal.
    pub(crate) sha256: String,
    pub(crate) files: usize,
}

/// The bundle that a file (a template, or an archive) or a folder is.
pub(crate) fn read(path: &Path) -> Result<Bundle, Error> {
    let bundle = if path.is_dir() {
        folder(path)?
    } else if path.exists() {
        file(path)?
    } else {
        return Err(Error::Missing { path: path.to_owned() });
    };
    if bundle.files().next().is_none() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    Ok(bundle)
}

/// Packs what [`read`] gave for this path, and looks whether the service would unpack it.
pub(crate) fn pack(path: &Path, bundle: &Bundle) -> Result<PackedTemplate, Error> {
    let bytes = bundle
        .to_tar_gz("", &[])
        .map_err(|error| Error::Pack { path: path.to_owned(), reason: error.to_string() })?;
    if bytes.len() as u64 > PACKED_LIMIT {
        let sizes = bundle.files().map(|(path, bytes)| (path.to_owned(), bytes.len() as u64));
        let (path, found) = (path.to_owned(), bytes.len() as u64);
        return Err(Error::PackedTooLarge { path, found, biggest: biggest(sizes.collect()) });
    }
    Bundle::from_download("template.tar.gz", &bytes, LIMITS)
        .map_err(|source| Error::Download { path: path.to_owned(), source })?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(PackedTemplate { bytes, sha256, files: bundle.files().count() })
}

fn file(path: &Path) -> Result<Bundle, Error> {
    let unread = |source| Error::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(unread)?;
    if !metadata.is_file() {
        // Some of them never end.
        return Err(Error::Kind { path: path.to_owned() });
    }
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Error::Name { path: path.to_owned() })?;
    check_size(path, &[(path.to_owned(), name.to_owned(), metadata.len())])?;
    let bytes = std::fs::read(path).map_err(unread)?;
    Bundle::from_download(name, &bytes, LIMITS)
        .map_err(|source| Error::Download { path: path.to_owned(), source })
}

fn folder(root: &Path) -> Result<Bundle, Error> {
    let mut found = Vec::new();
    for entry in walk(root).build() {
        let entry =
            entry.map_err(|error| Error::Walk { path: root.to_owned(), reason: error.to_string() })?;
        if entry.depth() == 0 {
            continue;
        }
        let path = entry.path();
        match entry.file_type() {
            Some(kind) if kind.is_dir() => {}
            Some(kind) if kind.is_file() => {
                let size = entry.metadata().map_or(0, |metadata| metadata.len());
                found.push((path.to_owned(), relative(root, path)?, size));
            }
            kind => return Err(not_a_file(path, kind)),
        }
    }
    check_size(root, &found)?;
    let mut files = Vec::new();
    for (path, name, _) in found {
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path, source })?;
        files.push((name, bytes));
    }
    Bundle::from_files(files).map_err(|source| Error::Bundle { path: root.to_owned(), source })
}

/// Everything below the folder but what its own ignore files name. Those of other places (the user's, a repository's around
/// it) do not count: the same folder has to give the same bundle everywhere.
fn walk(root: &Path) -> WalkBuilder {
    let mut walk = WalkBuilder::new(root);
    walk.standard_filters(false)
        .git_ignore(true)
        .require_git(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .follow_links(false)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(|entry| entry.depth() == 0 || entry.file_name() != ".git");
    walk
}

fn not_a_file(path: &Path, kind: Option<FileType>) -> Error {
    let path = path.to_owned();
    if kind.is_some_and(|kind| kind.is_symlink()) { Error::Link { path } } else { Error::Kind { path } }
}

/// The path in the bundle, which has `/` between its parts on every system.
fn relative(root: &Path, path: &Path) -> Result<String, Error> {
    let parts = path.strip_prefix(root).unwrap_or(path).iter();
    let parts: Option<Vec<&str>> = parts.map(|part| part.to_str()).collect();
    parts.map(|parts| parts.join("/")).ok_or_else(|| Error::Name { path: path.to_owned() })
}

/// Before anything is read into memory.
fn check_size(root: &Path, found: &[(PathBuf, String, u64)]) -> Result<(), Error> {
    let sizes = || found.iter().map(|(_, name, size)| (name.clone(), *size)).collect();
    let total = found.iter().map(|(_, _, size)| size).sum::<u64>();
    let path = root.to_owned();
    if found.len() > LIMITS.files {
        return Err(Error::TooMany { path, found: found.len(), biggest: biggest(sizes()) });
    }
    if total > LIMITS.total_bytes {
        return Err(Error::TooLarge { path, found: total, biggest: biggest(sizes()) });
    }
    Ok(())
}

fn biggest(mut sizes: Vec<(String, u64)>) -> String {
    sizes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let named = sizes.iter().take(NAMED).map(|(name, size)| format!("{name} ({})", megabytes(*size)));
    named.collect::<Vec<_>>().join(", ")
}

/// A size for people; all limits are whole numbers of these.
pub(crate) fn megabytes(bytes: u64) -> String {
    const MEBIBYTE: u64 = 1024 * 1024;
    if bytes < 1024 {
        format!("{bytes} bytes")
    } else if bytes < MEBIBYTE {
        format!("{} KiB", bytes.div_ceil(1024))
    } else if bytes.is_multiple_of(MEBIBYTE) {
        format!("{} MiB", bytes / MEBIBYTE)
    } else {
        format!("{:.1} MiB", bytes as f64 / MEBIBYTE as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    fn paths(bundle: &Bundle) -> Vec<String> {
        bundle.files().map(|(path, _)| path.to_owned()).collect()
    }

    #[test]
    fn a_folder_is_everything_in_it_but_what_its_ignore_files_name() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("template");
        write(outer.path(), &[(".gitignore", "*"), (".git/info/exclude", "*")]);
        write(
            &root,
            &[
                ("a.pkr.hcl", "x"),
                (".hidden", "x"),
                (".git/config", "x"),
                ("sub/.git/config", "x"),
                (".ignore", "a.pkr.hcl"),
                (".gitignore", "*.log\n/out/\nkept.txt\n"),
                (".ciabignore", "secret.*\n!kept.txt\n"),
                ("b.log", "x"),
                ("out/c", "x"),
                ("kept.txt", "x"),
                ("secret.pem", "x"),
                ("sub/.ciabignore", "d"),
                ("sub/d", "x"),
                ("sub/e.sh", "x"),
                ("sub/out/f", "x"),
            ],
        );
        assert_eq!(
            paths(&read(&root).unwrap()),
            [
                ".ciabignore",
                ".gitignore",
                ".hidden",
                ".ignore",
                "a.pkr.hcl",
                "kept.txt",
                "sub/.ciabignore",
                "sub/e.sh",
                "sub/out/f"
            ]
        );
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let pack_of = |order: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), order);
            pack(folder.path(), &read(folder.path()).unwrap()).unwrap()
        };
        let one = pack_of(&[("a.pkr.hcl", "x"), ("b/c", "y")]);
        assert_eq!(one, pack_of(&[("b/c", "y"), ("a.pkr.hcl", "x")]));
        assert_eq!(one.files, 2);
        assert_eq!(one.sha256.len(), 64);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_what_is_no_file_are_refused_by_name_unless_ignored() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[("a.pkr.hcl", "x")]);
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(matches!(read(folder.path()), Err(Error::Link { path }) if path.ends_with("link")));
        write(folder.path(), &[(".ciabignore", "link\n")]);
        assert_eq!(paths(&read(folder.path()).unwrap()), [".ciabignore", "a.pkr.hcl"]);
        std::os::unix::fs::symlink("/etc", folder.path().join("folder")).unwrap();
        assert!(matches!(read(folder.path()), Err(Error::Link { path }) if path.ends_with("folder")));
        std::fs::remove_file(folder.path().join("folder")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(matches!(read(folder.path()), Err(Error::Kind { path }) if path.ends_with("socket")));
    }

    #[test]
    fn what_is_over_a_limit_is_said_with_the_biggest_files() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[("a.pkr.hcl", "x")]);
        let disk = std::fs::File::create(folder.path().join("disk.img")).unwrap();
        disk.set_len(65 * 1024 * 1024).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("at most 64 MiB are taken; the biggest files are disk.img (65 MiB), a.pkr.hcl"),
            "{error}"
        );

        let folder = tempfile::tempdir().unwrap();
        for number in 0..2_001 {
            write(folder.path(), &[(&number.to_string(), "")]);
        }
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has 2001 files: at most 2000 are taken"), "{error}");
    }

    #[test]
    fn what_does_not_pack_small_enough_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..17 * 1024 * 1024)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        write(folder.path(), &[("a.pkr.hcl", "x")]);
        std::fs::write(folder.path().join("noise"), noise).unwrap();
        let bundle = read(folder.path()).unwrap();
        let error = pack(folder.path(), &bundle).unwrap_err().to_string();
        assert!(
            error.contains("once packed: at most 16 MiB are taken; the biggest files are noise (17 MiB)"),
            "{error}"
        );
    }

    #[test]
    fn nothing_and_no_template_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(Error::Empty { .. })));
        assert!(matches!(read(&folder.path().join("none")), Err(Error::Missing { .. })));
        write(folder.path(), &[("notes.txt", "x")]);
        assert!(matches!(read(&folder.path().join("notes.txt")), Err(Error::Download { .. })));
        #[cfg(unix)]
        assert!(matches!(read(Path::new("/dev/zero")), Err(Error::Kind { .. })));
        std::fs::File::create(folder.path().join("x.tar")).unwrap().set_len(65 * 1024 * 1024).unwrap();
        assert!(matches!(read(&folder.path().join("x.tar")), Err(Error::TooLarge { .. })));
    }
}
