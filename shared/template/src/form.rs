//! Which of Packer's forms a bundle is in, and so which of its files are templates.

use crate::bundle::Bundle;
use crate::error::TemplateError;
use crate::hcl::{self, HclFile};
use crate::json::{self, Dialect, JsonFile};
use crate::legacy;

/// How Packer reads a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateForm {
    /// HCL2: all `.pkr.hcl` and `.pkr.json` files at the top together, as in `packer build .`.
    Hcl2,
    /// Legacy JSON: one file alone, as in `packer build <file>`.
    Legacy {
        /// Its path, which has no folder.
        file: String,
    },
}

impl Bundle {
    /// The form this bundle is in. HCL2 goes before legacy JSON: a folder with both is HCL2 to Packer.
    ///
    /// # Errors
    ///
    /// Where it has no template, or several legacy ones.
    pub fn form(&self) -> Result<TemplateForm, TemplateError> {
        if has_hcl2(self) {
            return Ok(TemplateForm::Hcl2);
        }
        let file = legacy_template(self)?.path.to_owned();
        Ok(TemplateForm::Legacy { file })
    }
}

/// The one legacy template of a bundle that has no HCL2.
fn legacy_template(bundle: &Bundle) -> Result<JsonFile<'_>, TemplateError> {
    let mut found = Vec::new();
    let mut unreadable = None;
    for (path, bytes) in bundle.top_level_files().filter(|(path, _)| path.ends_with(".json")) {
        match json::parse(path, bytes, Dialect::Legacy) {
            Ok(file) if legacy::is_template(&file) => found.push(file),
            Ok(_) => {}
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    if found.len() > 1 {
        let files = found.iter().map(|file| file.path.to_owned()).collect();
        return Err(TemplateError::SeveralLegacy { files });
    }
    // A file that can't be read may well be the template; a bundle that has one needs no other.
    match (found.pop(), unreadable) {
        (Some(file), _) => Ok(file),
        (None, Some(error)) => Err(error),
        (None, None) => {
            let files = bundle.files().map(|(path, _)| path.to_owned()).collect();
            Err(TemplateError::NoTemplate { files })
        }
    }
}

/// One template of a bundle, parsed.
pub(crate) enum TemplateFile<'a> {
    Hcl(HclFile<'a>),
    Json(JsonFile<'a>),
}

impl TemplateFile<'_> {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Hcl(file) => file.path,
            Self::Json(file) => file.path,
        }
    }
}

/// The templates that Packer would read.
pub(crate) fn parse_templates(bundle: &Bundle) -> Result<Vec<TemplateFile<'_>>, TemplateError> {
    if !has_hcl2(bundle) {
        let file = legacy_template(bundle)?;
        legacy::check_names(&file)?;
        return Ok(vec![TemplateFile::Json(file)]);
    }
    let mut templates = Vec::new();
    for (path, bytes) in bundle.top_level_files() {
        if path.ends_with(".pkr.hcl") {
            templates.push(TemplateFile::Hcl(hcl::parse(path, bytes)?));
        } else if path.ends_with(".pkr.json") {
            let file = json::parse(path, bytes, Dialect::Hcl2)?;
            if legacy::is_template(&file) {
                let message = "`builders` is legacy JSON, which Packer does not read from a `.pkr.json` file: give it \
                               another name that ends with `.json`";
                return Err(file.error(0, message.to_owned()));
            }
            templates.push(TemplateFile::Json(file));
        }
    }
    Ok(templates)
}

/// The name for JSON that came without one: that under which Packer would read it.
pub(crate) fn name_of_inline_json(content: &str) -> &'static str {
    let is_legacy = match json::parse("", content.as_bytes(), Dialect::Legacy) {
        Ok(file) => legacy::is_template(&file),
        Err(_) => content.contains("\"builders\""),
    };
    if is_legacy { "template.json" } else { "template.pkr.json" }
}

fn has_hcl2(bundle: &Bundle) -> bool {
    bundle.top_level_files().any(|(path, _)| path.ends_with(".pkr.hcl") || path.ends_with(".pkr.json"))
}
