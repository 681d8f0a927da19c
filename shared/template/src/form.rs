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
        if self.top_level_files().any(|(path, _)| is_hcl2(path)) {
            return Ok(TemplateForm::Hcl2);
        }
        let mut legacy = Vec::new();
        let mut unreadable = None;
        for (path, bytes) in self.top_level_files().filter(|(path, _)| path.ends_with(".json")) {
            match json::parse(path, bytes, Dialect::Legacy) {
                Ok(file) if legacy::is_template(&file) => legacy.push(path.to_owned()),
                Ok(_) => {}
                Err(error) => unreadable = unreadable.or(Some(error)),
            }
        }
        if legacy.len() > 1 {
            return Err(TemplateError::SeveralLegacy { files: legacy });
        }
        // A file that can't be read may well be the template; a bundle that has one needs no other.
        match (legacy.pop(), unreadable) {
            (Some(file), _) => Ok(TemplateForm::Legacy { file }),
            (None, Some(error)) => Err(error),
            (None, None) => {
                let files = self.files().map(|(path, _)| path.to_owned()).collect();
                Err(TemplateError::NoTemplate { files })
            }
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
    let form = bundle.form()?;
    let mut templates = Vec::new();
    for (path, bytes) in bundle.top_level_files() {
        match &form {
            TemplateForm::Hcl2 if path.ends_with(".pkr.hcl") => {
                templates.push(TemplateFile::Hcl(hcl::parse(path, bytes)?));
            }
            TemplateForm::Hcl2 if path.ends_with(".pkr.json") => {
                let file = json::parse(path, bytes, Dialect::Hcl2)?;
                if legacy::is_template(&file) {
                    let message = "`builders` is legacy JSON, which Packer does not read from a `.pkr.json` file: give \
                                   it another name that ends with `.json`";
                    return Err(file.error(0, message.to_owned()));
                }
                templates.push(TemplateFile::Json(file));
            }
            TemplateForm::Legacy { file } if path == file.as_str() => {
                let file = json::parse(path, bytes, Dialect::Legacy)?;
                legacy::check_names(&file)?;
                templates.push(TemplateFile::Json(file));
            }
            _ => {}
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

fn is_hcl2(path: &str) -> bool {
    path.ends_with(".pkr.hcl") || path.ends_with(".pkr.json")
}
