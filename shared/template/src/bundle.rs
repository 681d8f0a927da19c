//! A bundle: the files of one template, by path, with a digest that names exactly these bytes.
//!
//! A path in a bundle is always relative, uses `/`, and has no empty, `.` or `..` part: whoever writes a bundle to disk
//! need not check again. Must never hold anything but regular files.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// The file that inline content becomes.
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
    #[error("`{path}` is not a path inside of a template bundle: paths must be relative, without `..`")]
    Path {
        /// The path as given.
        path: String,
    },
    /// Two files normalise to one path.
    #[error("the template bundle holds `{path}` twice")]
    Twice {
        /// The normalised path.
        path: String,
    },
}

impl Bundle {
    /// A bundle of these files. Paths are normalised (`./a//b` is `a/b`).
    ///
    /// # Errors
    ///
    /// Where a path is absolute, empty or has `..` in it, or two paths are the same once normalised.
    pub fn from_files(
        files: impl IntoIterator<Item = (impl AsRef<str>, impl Into<Vec<u8>>)>,
    ) -> Result<Self, BundleError> {
        let mut bundle = Self::default();
        for (path, bytes) in files {
            let path = normalise(path.as_ref())?;
            if bundle.files.insert(path.clone(), bytes.into()).is_some() {
                return Err(BundleError::Twice { path });
            }
        }
        Ok(bundle)
    }

    /// A bundle of one template that came as text.
    #[must_use]
    pub fn from_inline(content: &str) -> Self {
        // JSON gets the name under which Packer would read it, so that reading can say what it is.
        let path = if content.trim_start().starts_with('{') { "template.pkr.json" } else { INLINE_FILE };
        Self { files: BTreeMap::from([(path.to_owned(), content.as_bytes().to_vec())]) }
    }

    /// All files, ordered by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
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

/// The one spelling of a relative path, or an error where it could lead out.
pub(crate) fn normalise(path: &str) -> Result<String, BundleError> {
    let refused = || BundleError::Path { path: path.to_owned() };
    // A backslash or a control character is no path that a template needs, and means something else elsewhere.
    if path.starts_with('/') || path.contains('\\') || path.chars().any(char::is_control) {
        return Err(refused());
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.contains(&"..") {
        return Err(refused());
    }
    Ok(parts.join("/"))
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
        for path in ["/etc/passwd", "../x", "a/../../x", "a/..", "", ".", "a\\..\\b", "a\nb", "//x"] {
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
}
