//! A part of a bundle: the folder or the one template that a source names in a larger whole, such as a git repository.
//!
//! Must never give files from outside of the folder named: a template reaches what stands below it, and nothing else.

use crate::bundle::{Bundle, BundleError, normalise, shown};

impl Bundle {
    /// The part of the bundle at `path`, as a bundle of its own.
    ///
    /// A folder's part is what stands in it. A template file's part is what stands in its folder, scripts and all, but
    /// without other templates and variable files at the top, so that Packer reads this one alone, as it does where it is
    /// given a file. An empty path, or `.`, is the whole bundle.
    ///
    /// # Errors
    ///
    /// Where nothing stands there, or a file that is no template.
    pub fn at(&self, path: &str) -> Result<Self, BundleError> {
        if path.split('/').all(|part| part.is_empty() || part == ".") && !path.starts_with('/') {
            return Ok(self.clone());
        }
        let path = normalise(path)?;
        if self.get(&path).is_some() {
            return self.of_template(&path);
        }
        let part = self.below(&format!("{path}/"))?;
        if part.files().next().is_some() {
            return Ok(part);
        }
        Err(BundleError::NotThere { path: shown(&path), found: self.worth_naming() })
    }

    fn below(&self, prefix: &str) -> Result<Self, BundleError> {
        Self::from_files(self.files().filter_map(|(path, bytes)| Some((path.strip_prefix(prefix)?, bytes))))
    }

    fn of_template(&self, path: &str) -> Result<Self, BundleError> {
        let (folder, name) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
        let is_legacy = name.ends_with(".json") && !is_hcl2(name);
        if !is_legacy && !is_hcl2_template(name) {
            return Err(BundleError::NoTemplate { path: shown(path) });
        }
        let part = self.below(folder)?;
        Self::from_files(part.files().filter(|(other, bytes)| {
            let is_at_the_top = !other.contains('/');
            let is_read_too =
                is_hcl2(other) || (is_legacy && other.ends_with(".json") && has_builders(bytes));
            *other == name || !is_at_the_top || !is_read_too
        }))
    }

    /// Paths for a message, templates first.
    fn worth_naming(&self) -> Vec<String> {
        let (templates, others): (Vec<_>, Vec<_>) =
            self.files().map(|(path, _)| path.to_owned()).partition(|path| is_hcl2_template(path));
        templates.into_iter().chain(others).collect()
    }
}

fn is_hcl2_template(path: &str) -> bool {
    path.ends_with(".pkr.hcl") || path.ends_with(".pkr.json")
}

/// What Packer reads by itself in a folder that it is given.
fn is_hcl2(path: &str) -> bool {
    is_hcl2_template(path) || path.ends_with(".auto.pkrvars.hcl") || path.ends_with(".auto.pkrvars.json")
}

/// Whether this is a template of the form before HCL2.
fn has_builders(bytes: &[u8]) -> bool {
    let document = serde_json::from_slice::<serde_json::Value>(bytes);
    document.is_ok_and(|document| document.get("builders").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        Bundle::from_files([
            ("README.md", ""),
            ("root.pkr.hcl", ""),
            ("images/web/a.pkr.hcl", ""),
            ("images/web/b.pkr.json", ""),
            ("images/web/c.auto.pkrvars.hcl", ""),
            ("images/web/d.auto.pkrvars.json", ""),
            ("images/web/given.pkrvars.hcl", ""),
            ("images/web/settings.json", "{}"),
            ("images/web/old.json", r#"{"builders": []}"#),
            ("images/web/older.json", r#"{"builders": []}"#),
            ("images/web/provision/e.sh", ""),
            ("images/web/provision/f.pkr.hcl", ""),
            ("images/website/x", ""),
        ])
        .unwrap()
    }

    fn paths_at(path: &str) -> Vec<String> {
        let part = bundle().at(path).unwrap();
        part.files().map(|(path, _)| path.to_owned()).collect()
    }

    #[test]
    fn a_folder_is_what_stands_in_it() {
        for path in ["images/website", "images/website/", "./images//website"] {
            assert_eq!(paths_at(path), ["x"], "{path}");
        }
        assert_eq!(paths_at("images/web").len(), 10);
        assert_eq!(paths_at("images")[0], "web/a.pkr.hcl");
    }

    #[test]
    fn no_path_is_the_whole_bundle() {
        for path in ["", ".", "./"] {
            assert_eq!(bundle().at(path).unwrap(), bundle(), "{path:?}");
        }
    }

    #[test]
    fn a_template_comes_with_its_folder_and_without_what_packer_would_read_beside_it() {
        let beside = ["given.pkrvars.hcl", "old.json", "older.json", "provision/e.sh", "provision/f.pkr.hcl"];
        for template in ["a.pkr.hcl", "b.pkr.json"] {
            let mut expected = vec![template];
            expected.extend(beside);
            expected.push("settings.json");
            assert_eq!(paths_at(&format!("images/web/{template}")), expected);
        }
        assert_eq!(paths_at("root.pkr.hcl").len(), 13, "nothing else at the top is a template");
    }

    #[test]
    fn a_legacy_template_comes_without_other_legacy_templates() {
        assert_eq!(
            paths_at("images/web/old.json"),
            ["given.pkrvars.hcl", "old.json", "provision/e.sh", "provision/f.pkr.hcl", "settings.json"]
        );
    }

    #[test]
    fn where_nothing_stands_some_of_what_does_is_named() {
        let error = bundle().at("images/db").unwrap_err().to_string();
        assert!(
            error
                .starts_with("there is no `images/db` in the template bundle; it has images/web/a.pkr.hcl, "),
            "{error}"
        );
        assert!(error.ends_with(" and 3 more"), "{error}");
        assert_eq!(
            Bundle::default().at("x").unwrap_err().to_string(),
            "there is no `x` in the template bundle; it has none"
        );
    }

    #[test]
    fn a_file_that_is_no_template_and_a_path_that_leads_out_are_refused() {
        for path in ["README.md", "images/web/given.pkrvars.hcl", "images/web/c.auto.pkrvars.hcl"] {
            assert!(matches!(bundle().at(path), Err(BundleError::NoTemplate { .. })), "{path}");
        }
        for path in ["../x", "/", "/images", "images/../.."] {
            assert!(matches!(bundle().at(path), Err(BundleError::Path { .. })), "{path}");
        }
    }
}
