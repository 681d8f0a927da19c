//! What a template declares, whichever form it is in: sources, variables, and what it asks of Packer.
//!
//! Reads what is written and must never evaluate it: an expression stays the author's text.

use std::collections::BTreeSet;

use crate::bundle::Bundle;
use crate::error::TemplateError;
use crate::form::TemplateFile;
use crate::json::Dialect;
use crate::{hcl, json, legacy};

/// What a template declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateSummary {
    /// Every `source` block or legacy builder, in the order of files and text.
    pub sources: Vec<DeclaredSource>,
    /// Every variable, in the same order.
    pub variables: Vec<DeclaredVariable>,
    /// Packer versions it asks for (`required_version`), each as the author's text without quotes; a legacy
    /// `min_packer_version` of `1.6.0` as `>= 1.6.0`.
    pub required_versions: Vec<String>,
    /// Plugins it asks for.
    pub required_plugins: Vec<RequiredPlugin>,
}

/// One `source` block, or one builder of a legacy template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredSource {
    /// Such as `amazon-ebs`.
    pub kind: String,
    /// Its second label; a legacy builder's `name`, or its type where it has none.
    pub name: String,
    /// Path inside of the bundle.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// Whether it is one of Amazon's builders, so whether its build makes something in AWS.
    pub is_amazon: bool,
}

/// One variable that a template declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredVariable {
    /// Its name.
    pub name: String,
    /// Its type as the author wrote it, such as `list(string)`. Legacy variables are strings, and nothing else.
    pub type_text: Option<String>,
    /// Whether it has a value without being given one: a default, or an assignment in the bundle's own
    /// `*.auto.pkrvars.hcl` or `*.auto.pkrvars.json`, which Packer reads beside HCL2 templates.
    pub has_default: bool,
    /// Whether its value must appear in no log, record or error.
    pub sensitive: bool,
    /// What the author says about it.
    pub description: Option<String>,
    /// Path inside of the bundle.
    pub file: String,
    /// From 1.
    pub line: usize,
}

/// One entry of `required_plugins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiredPlugin {
    /// Its local name, such as `amazon`.
    pub name: String,
    /// Such as `github.com/hashicorp/amazon`.
    pub source: Option<String>,
    /// Such as `>= 1.2.8`.
    pub version: Option<String>,
}

/// What a bundle's templates declare together.
pub(crate) fn summarise(
    bundle: &Bundle,
    files: &[TemplateFile<'_>],
) -> Result<TemplateSummary, TemplateError> {
    let mut summary = TemplateSummary::default();
    for file in files {
        match file {
            TemplateFile::Hcl(file) => hcl::read_declarations(file, &mut summary),
            TemplateFile::Json(file) if file.dialect == Dialect::Legacy => {
                legacy::read_declarations(file, &mut summary)?;
            }
            TemplateFile::Json(file) => json::read::declarations(file, &mut summary)?,
        }
    }
    let is_legacy =
        |file: &TemplateFile<'_>| matches!(file, TemplateFile::Json(file) if file.dialect == Dialect::Legacy);
    if !files.iter().any(is_legacy) {
        let assigned = assigned_in_bundle(bundle)?;
        for variable in &mut summary.variables {
            variable.has_default |= assigned.contains(&variable.name);
        }
    }
    Ok(summary)
}

/// The names that the bundle's own `*.auto.pkrvars.*` files give values to; Packer reads those by itself.
fn assigned_in_bundle(bundle: &Bundle) -> Result<BTreeSet<String>, TemplateError> {
    let mut names = BTreeSet::new();
    for (path, bytes) in bundle.top_level_files() {
        if path.ends_with(".auto.pkrvars.hcl") {
            let file = hcl::parse(path, bytes)?;
            names.extend(file.body.attributes().map(|attribute| attribute.key.to_string()));
        } else if path.ends_with(".auto.pkrvars.json") {
            let file = json::parse(path, bytes, Dialect::Hcl2)?;
            for body in file.bodies()? {
                names.extend(body.object.properties.iter().map(|property| property.name.as_str().to_owned()));
            }
        }
    }
    Ok(names)
}
