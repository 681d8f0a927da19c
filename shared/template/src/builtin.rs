//! The templates that come with the product, embedded from `templates/` at the workspace's root.
//!
//! Must never reach outside of what was embedded: a name is looked up, not opened.

use include_dir::{Dir, include_dir};

use crate::bundle::Bundle;

static TEMPLATES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../templates");

/// The builtin template of this name, or `None` where there is none.
#[must_use]
pub fn builtin(name: &str) -> Option<Bundle> {
    // Compared by name rather than joined to a path, so that `..` or `a/b` is just an unknown name.
    let folder = TEMPLATES.dirs().find(|folder| folder_name(folder) == name)?;
    let mut files = Vec::new();
    collect(folder, folder, &mut files);
    Some(Bundle::from_files(files).expect("embedded paths are relative and unique"))
}

/// The names of all builtin templates, sorted.
#[must_use]
pub fn builtin_names() -> Vec<&'static str> {
    let mut names: Vec<_> = TEMPLATES.dirs().map(folder_name).collect();
    names.sort_unstable();
    names
}

fn folder_name(folder: &Dir<'static>) -> &'static str {
    folder.path().file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn collect(root: &Dir<'static>, folder: &Dir<'static>, files: &mut Vec<(String, Vec<u8>)>) {
    for file in folder.files() {
        let relative = file.path().strip_prefix(root.path()).unwrap_or(file.path());
        files.push((relative.to_string_lossy().into_owned(), file.contents().to_vec()));
    }
    for inner in folder.dirs() {
        collect(root, inner, files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_a_path_finds_nothing() {
        assert!(builtin("default-ec2/provision").is_none());
        assert!(builtin("../templates/default-ec2").is_none());
        assert!(builtin("").is_none());
    }

    #[test]
    fn every_name_that_is_listed_can_be_had() {
        assert!(builtin_names().contains(&"default-ec2"));
        for name in builtin_names() {
            assert!(builtin(name).is_some(), "{name}");
        }
    }
}
