//! A bundle: the files of one template, by path, with a digest that names exactly these bytes.
//!
//! A path in a bundle is always relative, uses `/`, and has no empty, `.` or `..` part: whoever writes a bundle to disk
//! need not check again. Must never hold anything but regular files.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::error::List;

use crate::form::name_of_inline_json;
use crate::hcl::BYTE_ORDER_MARK;

/// The file that inline HCL becomes.
pub(crate) const INLINE_FILE: &str = "template.pkr.hcl";

/// The files of one template, ordered by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    files: BTreeMap<String, Vec<u8>>,
}

/// Why files can't be one bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Absolute, leads out of the bundle, or is empty.
    #[error(
        "`{path}` is not a path inside of a template bundle: paths must be relative, without `..`, backslashes, control \
         characters or drive letters, and of at most {PATH_LENGTH} bytes, {NAME_LENGTH} in each part"
    )]
    Path {
        /// The path as given, shortened, with control characters escaped.
        path: String,
    },
    /// Two files normalise to one path.
    #[error("the template bundle holds `{path}` twice")]
    Twice {
        /// The normalised path.
        path: String,
    },
    /// Two paths that some file systems take for one.
    #[error(
        "the template bundle holds `{path}` and `{other}`, which differ only in case or in how their characters are encoded"
    )]
    Alike {
        /// The later one.
        path: String,
        /// The earlier one.
        other: String,
    },
    /// One path is a file and has files below it.
    #[error("the template bundle holds `{path}` both as a file and as a folder")]
    FileAndFolder {
        /// The normalised path.
        path: String,
    },
    /// A part was asked for that is not there.
    #[error("there is no `{path}` in the template bundle; it has {}", List(.found))]
    NotThere {
        /// As asked for.
        path: String,
        /// What there is, templates first.
        found: Vec<String>,
    },
    /// A file was asked for that Packer would not read as a template.
    #[error("`{path}` is no template: name a folder, or a `.pkr.hcl`, `.pkr.json` or `.json` file")]
    NoTemplate {
        /// The normalised path.
        path: String,
    },
}

/// Bytes of a path; every file system takes as much below the runner's own folder.
const PATH_LENGTH: usize = 1_024;

/// Bytes of one part of a path, which is what Linux takes.
const NAME_LENGTH: usize = 255;

impl Bundle {
    /// A bundle of these files. Paths are normalised (`./a//b` is `a/b`).
    ///
    /// # Errors
    ///
    /// Where a path is absolute, empty or has `..` in it, or two paths could not be told apart, or not both exist, on some
    /// file system.
    pub fn from_files(
        files: impl IntoIterator<Item = (impl AsRef<str>, impl Into<Vec<u8>>)>,
    ) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        let mut paths = Paths::default();
        for (path, bytes) in files {
            let path = normalise(path.as_ref())?;
            paths.claim(&path)?;
            bundle.files.insert(path, bytes.into());
        }
        Ok(bundle)
    }

    /// A bundle of one template that came as text.
    #[must_use]
    pub fn from_inline(content: &str) -> Self {
        let start = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content).trim_start();
        let path = if start.starts_with(['{', '[']) { name_of_inline_json(content) } else { INLINE_FILE };
        Self { files: BTreeMap::from([(path.to_owned(), content.as_bytes().to_vec())]) }
    }

    /// All files, ordered by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// The files in no folder: Packer looks for templates nowhere else.
    pub(crate) fn top_level_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files().filter(|(path, _)| !path.contains('/'))
    }

    /// The bytes of one file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// `sha256:<hex>` over every path, length and byte; the same on every machine.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        // Lengths go before what they measure, so no two different bundles encode alike.
        hasher.update(b"ciab template bundle 1\0");
        for (path, bytes) in &self.files {
            for part in [path.as_bytes(), bytes] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }

    pub(crate) fn replace(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.insert(path.to_owned(), bytes);
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.files.remove(path);
    }
}

/// The unix mode a file of a bundle gets: scripts are executable, nothing else is.
pub(crate) fn mode_of(path: &str) -> u32 {
    if path.ends_with(".sh") { 0o755 } else { 0o644 }
}

/// The paths of a set of files, each compared with all before it as the least particular file system would.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// By folded path: as it was spelt, and whether it is a folder.
    taken: BTreeMap<String, (String, bool)>,
}

impl Paths {
    /// Takes a file's path, which must be normalised.
    pub(crate) fn claim(&mut self, path: &str) -> Result<(), BundleError> {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            let taken = self.taken.entry(folded(folder)).or_insert_with(|| (folder.to_owned(), true));
            if !taken.1 {
                return Err(BundleError::FileAndFolder { path: taken.0.clone() });
            }
        }
        match self.taken.insert(folded(path), (path.to_owned(), false)) {
            None => Ok(()),
            Some((_, true)) => Err(BundleError::FileAndFolder { path: path.to_owned() }),
            Some((other, false)) if other == path => Err(BundleError::Twice { path: other }),
            Some((other, false)) => Err(BundleError::Alike { path: path.to_owned(), other }),
        }
    }
}

/// What a file system that knows neither case nor ways of encoding keeps of a name. Upper case first: it makes `ß` two
/// letters, as `SS` are.
fn folded(path: &str) -> String {
    path.nfd().collect::<String>().to_uppercase().to_lowercase().nfd().collect()
}

/// The one spelling of a relative path, or an error where it could lead out.
pub(crate) fn normalise(path: &str) -> Result<String, BundleError> {
    let refused = || BundleError::Path { path: shown(path) };
    // A backslash or a control character is no path that a template needs, and means something else elsewhere. So does
    // `C:`.
    let has_drive = matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if path.starts_with('/') || has_drive || path.contains('\\') || path.chars().any(char::is_control) {
        return Err(refused());
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let is_long = path.len() > PATH_LENGTH || parts.iter().any(|part| part.len() > NAME_LENGTH);
    if parts.is_empty() || parts.contains(&"..") || is_long {
        return Err(refused());
    }
    Ok(parts.join("/"))
}

/// A path that is not to be trusted, fit for a message.
pub(crate) fn shown(path: &str) -> String {
    let mut shown = String::new();
    for character in path.chars().take(200) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_same_whatever_order_files_come_in_and_however_paths_are_spelt() {
        let one = Bundle::from_files([("a.pkr.hcl", "x"), ("provision/b.sh", "y")]).unwrap();
        let two = Bundle::from_files([("provision//b.sh", "y"), ("./a.pkr.hcl", "x")]).unwrap();
        assert_eq!(one.digest(), two.digest());
        assert!(one.digest().starts_with("sha256:") && one.digest().len() == 71);
    }

    #[test]
    fn the_digest_tells_apart_what_only_looks_alike_end_to_end() {
        let digests = [
            Bundle::from_files([("a", "bc")]).unwrap().digest(),
            Bundle::from_files([("ab", "c")]).unwrap().digest(),
            Bundle::from_files([("a", ""), ("b", "c")]).unwrap().digest(),
            Bundle::default().digest(),
        ];
        for (index, digest) in digests.iter().enumerate() {
            assert!(!digests[index + 1..].contains(digest));
        }
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        for path in
            ["/etc/passwd", "../x", "a/../../x", "a/..", "", ".", "a\\..\\b", "a\nb", "//x", "C:/x", "c:x"]
        {
            assert!(
                matches!(Bundle::from_files([(path, "")]), Err(BundleError::Path { .. })),
                "{path:?} was accepted"
            );
        }
    }

    #[test]
    fn one_path_spelt_twice_is_refused() {
        let error = Bundle::from_files([("a/b", "1"), ("a//b", "2")]).unwrap_err();
        assert_eq!(error, BundleError::Twice { path: "a/b".into() });
    }

    #[test]
    fn a_path_too_long_for_a_disk_is_refused_and_not_repeated_whole() {
        for path in ["x".repeat(256), "x/".repeat(513)] {
            let error = Bundle::from_files([(path.as_str(), "")]).unwrap_err();
            assert!(matches!(&error, BundleError::Path { path } if path.len() <= 200), "{error}");
        }
        assert!(Bundle::from_files([("x".repeat(255), "")]).is_ok());
    }

    #[test]
    fn a_control_character_is_only_named_in_the_error() {
        let error = Bundle::from_files([("a\u{1b}[2Jb\n", "")]).unwrap_err();
        assert!(error.to_string().starts_with("`a\\u{1b}[2Jb\\n` is not a path"), "{error}");
    }

    #[test]
    fn paths_that_some_file_system_takes_for_one_are_refused() {
        for (one, other) in [
            ("a/README", "a/readme"),
            ("A/b", "a/b"),
            // An e with an acute accent, as one character and as two.
            ("caf\u{e9}", "cafe\u{301}"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{212a}", "k"),
        ] {
            let error = Bundle::from_files([(one, ""), (other, "")]).unwrap_err();
            assert_eq!(error, BundleError::Alike { path: other.into(), other: one.into() });
        }
    }

    #[test]
    fn a_path_that_is_both_file_and_folder_is_refused_in_either_order() {
        for paths in [["a", "a/b"], ["a/b", "a"], ["x/A", "x/a/b"]] {
            let error = Bundle::from_files(paths.map(|path| (path, ""))).unwrap_err();
            assert!(matches!(error, BundleError::FileAndFolder { .. }), "{paths:?}: {error}");
        }
    }
}
