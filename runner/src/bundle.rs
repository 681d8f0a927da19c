//! Writes a build's bundle to disk: the folder `template/` and the file `variables.pkrvars.json`.
//!
//! What may be in an archive at all is `ciab_template`'s to judge; here only these two parts are let onto the disk, and
//! nobody but the runner's user may read the variables.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use ciab_template::{ArchiveError, Bundle, TemplateForm, UnpackLimits, VARIABLES_FILE, read_tar_gz};

/// The folder with the template's files.
pub const TEMPLATE_FOLDER: &str = "template";

/// What a bundle may unpack to: a template of the largest size that is accepted, and its variables.
const LIMITS: UnpackLimits = UnpackLimits { files: 10_000, total_bytes: 256 << 20 };

/// A bundle that is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is no archive that may be unpacked.
    #[error("the bundle cannot be read")]
    Archive(#[from] ArchiveError),
    /// It holds something beside the template and its variables.
    #[error("the bundle holds `{path}`, which is neither of the template nor its variables")]
    Foreign {
        /// The file.
        path: String,
    },
    /// A part is missing.
    #[error("the bundle has no `{0}`")]
    Missing(&'static str),
    /// The disk does not take it.
    #[error("the bundle cannot be written to disk")]
    Disk(#[from] io::Error),
}

/// What Packer has to be told of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// What it builds in the template's folder: the folder itself, or one file in the legacy form.
    pub target: String,
}

impl Template {
    /// The folder itself.
    pub const FOLDER: &str = ".";

    /// What is wrong with a template is Packer's to say.
    fn of(files: Vec<(String, Vec<u8>)>) -> Self {
        let bundle = Bundle::from_files(files).unwrap_or_default();
        let target = match bundle.form() {
            Ok(TemplateForm::Legacy { file }) => file,
            Ok(TemplateForm::Hcl2) | Err(_) => Self::FOLDER.to_owned(),
        };
        Self { target }
    }
}

/// Unpacks the bundle into `folder`, which must exist.
pub fn unpack(bundle: &[u8], folder: &Path) -> Result<Template, BundleError> {
    let mut templates = Vec::new();
    for file in read_tar_gz(bundle, LIMITS)? {
        let is_variables = file.path == VARIABLES_FILE;
        if !is_variables && !Path::new(&file.path).starts_with(TEMPLATE_FOLDER) {
            return Err(BundleError::Foreign { path: file.path });
        }
        let target = folder.join(&file.path);
        if let Some(parent) = target.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mode = if is_variables { 0o600 } else { (file.mode & 0o755) | 0o600 };
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&target)?.write_all(&file.bytes)?;
        if let Ok(path) = Path::new(&file.path).strip_prefix(TEMPLATE_FOLDER) {
            templates.push((path.to_string_lossy().into_owned(), file.bytes));
        }
    }
    if !folder.join(TEMPLATE_FOLDER).is_dir() {
        return Err(BundleError::Missing(TEMPLATE_FOLDER));
    }
    if !folder.join(VARIABLES_FILE).is_file() {
        return Err(BundleError::Missing(VARIABLES_FILE));
    }
    Ok(Template::of(templates))
}

/// Whether a template may have post-processors: one of its files holds the word, or cannot be read.
pub fn may_have_post_processors(template: &Path) -> bool {
    let Ok(entries) = fs::read_dir(template) else { return true };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.extension().is_some_and(|kind| kind == "hcl" || kind == "json"))
        .any(|path| fs::read_to_string(path).map_or(true, |text| text.contains("post-processor")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ciab_template::{ArchivedFile, Bundle};

    use super::*;

    fn file(path: &str, text: &str) -> ArchivedFile {
        ArchivedFile { path: path.into(), bytes: text.into(), mode: 0o644 }
    }

    fn bundle(prefix: &str, beside: &[ArchivedFile]) -> Vec<u8> {
        let template = Bundle::from_files([("a.pkr.hcl", "x"), ("provision/b.sh", "#!/bin/sh\n")]).unwrap();
        template.to_tar_gz(prefix, beside).unwrap()
    }

    fn unpacked(bundle: &[u8]) -> (tempfile::TempDir, Result<Template, BundleError>) {
        let folder = tempfile::tempdir().unwrap();
        let result = unpack(bundle, folder.path());
        (folder, result)
    }

    #[test]
    fn a_bundle_is_unpacked_with_its_modes() {
        let (folder, result) = unpacked(&bundle("template/", &[file(VARIABLES_FILE, "{}")]));
        result.unwrap();
        let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(VARIABLES_FILE), 0o600, "whatever the archive says");
        assert_eq!(mode("template/provision/b.sh") & 0o100, 0o100);
        assert_eq!(mode("template/a.pkr.hcl") & 0o111, 0);
        assert_eq!(fs::read_to_string(folder.path().join("template/a.pkr.hcl")).unwrap(), "x");
    }

    #[test]
    fn packer_is_told_what_the_template_is() {
        let legacy = r#"{"builders": [{"type": "amazon-ebs"}]}"#;
        for (files, target) in [
            (vec![("a.pkr.hcl", "")], "."),
            (vec![("image.json", legacy), ("data.json", "{}")], "image.json"),
            (vec![("image.json", legacy), ("a.pkr.hcl", "")], "."),
            (vec![("a.pkr.hcl", "this is no HCL {{{")], "."),
        ] {
            let bundle = Bundle::from_files(files).unwrap();
            let (_folder, result) =
                unpacked(&bundle.to_tar_gz("template/", &[file(VARIABLES_FILE, "{}")]).unwrap());
            assert_eq!(result.unwrap(), Template { target: target.into() });
        }
    }

    #[test]
    fn files_beside_the_template_are_refused() {
        for foreign in ["packer", "tmp/x", "templates/x"] {
            let (folder, result) =
                unpacked(&bundle("template/", &[file(VARIABLES_FILE, "{}"), file(foreign, "x")]));
            assert!(matches!(result, Err(BundleError::Foreign { .. })), "{foreign}");
            assert!(!folder.path().join(foreign).exists());
        }
    }

    #[test]
    fn a_bundle_without_one_of_its_parts_is_refused() {
        let (_folder, result) = unpacked(&bundle("template/", &[]));
        assert!(matches!(result, Err(BundleError::Missing(VARIABLES_FILE))));
        let (_folder, result) = unpacked(&bundle("", &[]));
        assert!(matches!(result, Err(BundleError::Foreign { .. })));
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let (_folder, result) = unpacked(b"hello");
        assert!(matches!(result, Err(BundleError::Archive(_))));
    }
}
