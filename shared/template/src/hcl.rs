//! Reading a bundle's HCL: its sources, variables and plugin requirements.
//!
//! Reads what is written and must never evaluate it: an expression stays the author's text.

use std::collections::BTreeSet;
use std::ops::Range;

use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Block, Body};

use crate::bundle::Bundle;
use crate::error::TemplateError;
use crate::tagging::AmazonBuilder;

/// What a template declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateSummary {
    /// Every `source` block, in the order of files and text.
    pub sources: Vec<DeclaredSource>,
    /// Every variable, in the same order.
    pub variables: Vec<DeclaredVariable>,
    /// Packer versions it asks for (`required_version`), each as the author's text without quotes.
    pub required_versions: Vec<String>,
    /// Plugins it asks for.
    pub required_plugins: Vec<RequiredPlugin>,
}

/// One `source` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredSource {
    /// Such as `amazon-ebs`.
    pub kind: String,
    /// Its second label.
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
    /// Its type as the author wrote it, such as `list(string)`.
    pub type_text: Option<String>,
    /// Whether it has a value without being given one: a default, or an assignment in the bundle's own
    /// `*.auto.pkrvars.hcl`.
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

/// Reads all of a bundle's templates.
///
/// # Errors
///
/// Where there is none, one is not HCL, or one is JSON.
pub fn read(bundle: &Bundle) -> Result<TemplateSummary, TemplateError> {
    let mut summary = TemplateSummary::default();
    for file in parse_templates(bundle)? {
        for structure in &file.body {
            let Some(block) = structure.as_block() else { continue };
            match block.ident.as_str() {
                "source" => summary.sources.extend(declared_source(&file, block)),
                "variable" => summary.variables.extend(declared_variable(&file, block)),
                "variables" => summary.variables.extend(shorthand_variables(&file, block)),
                "packer" => read_packer_block(block, &mut summary),
                _ => {}
            }
        }
    }
    let assigned = assigned_in_bundle(bundle)?;
    for variable in &mut summary.variables {
        variable.has_default |= assigned.contains(&variable.name);
    }
    Ok(summary)
}

/// One template of a bundle, parsed.
pub(crate) struct TemplateFile<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    pub(crate) body: Body,
}

impl TemplateFile<'_> {
    pub(crate) fn line_of(&self, spanned: &impl Span) -> usize {
        line_at(self.text, span(spanned).start)
    }

    fn text_of(&self, spanned: &impl Span) -> String {
        self.text.get(span(spanned)).unwrap_or_default().trim().to_owned()
    }
}

/// The templates that Packer would read: `.pkr.hcl` files at the top, as it does not look into folders.
pub(crate) fn parse_templates(bundle: &Bundle) -> Result<Vec<TemplateFile<'_>>, TemplateError> {
    let mut templates = Vec::new();
    for (path, bytes) in bundle.files().filter(|(path, _)| !path.contains('/')) {
        if path.ends_with(".pkr.json") {
            // Read by Packer beside the others: an Amazon source in there would be built without our tags.
            return Err(TemplateError::Json { file: path.to_owned() });
        }
        if path.ends_with(".pkr.hcl") {
            templates.push(parse(path, bytes)?);
        }
    }
    if templates.is_empty() {
        let files = bundle.files().map(|(path, _)| path.to_owned()).collect();
        return Err(TemplateError::NoTemplate { files });
    }
    Ok(templates)
}

pub(crate) fn parse<'a>(path: &'a str, bytes: &'a [u8]) -> Result<TemplateFile<'a>, TemplateError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TemplateError::NotText { file: path.to_owned() })?;
    let body = text.parse::<Body>().map_err(|error| TemplateError::Syntax {
        file: path.to_owned(),
        line: error.location().line(),
        column: error.location().column(),
        message: error.message().replace('\n', " "),
    })?;
    Ok(TemplateFile { path, text, body })
}

/// Where something stands in the text it was parsed from.
pub(crate) fn span(spanned: &impl Span) -> Range<usize> {
    spanned.span().expect("whatever was parsed from text knows where it stands")
}

pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The two labels of a `source "type" "name"` block.
pub(crate) fn source_labels(block: &Block) -> Option<(&str, &str)> {
    match block.labels.as_slice() {
        [kind, name] if block.has_ident("source") => Some((kind.as_str(), name.as_str())),
        _ => None,
    }
}

fn declared_source(file: &TemplateFile<'_>, block: &Block) -> Option<DeclaredSource> {
    let (kind, name) = source_labels(block)?;
    Some(DeclaredSource {
        kind: kind.to_owned(),
        name: name.to_owned(),
        file: file.path.to_owned(),
        line: file.line_of(block),
        is_amazon: AmazonBuilder::of(kind).is_some(),
    })
}

fn declared_variable(file: &TemplateFile<'_>, block: &Block) -> Option<DeclaredVariable> {
    let name = block.labels.first()?.as_str().to_owned();
    let value = |key: &str| block.body.get_attribute(key).map(|attribute| &attribute.value);
    Some(DeclaredVariable {
        name,
        type_text: value("type").map(|value| file.text_of(value)),
        has_default: value("default").is_some(),
        sensitive: value("sensitive").and_then(Expression::as_bool).unwrap_or(false),
        description: value("description").and_then(Expression::as_str).map(str::to_owned),
        file: file.path.to_owned(),
        line: file.line_of(block),
    })
}

/// `variables { name = default }`, the short form.
fn shorthand_variables<'a>(
    file: &'a TemplateFile<'_>,
    block: &'a Block,
) -> impl Iterator<Item = DeclaredVariable> + 'a {
    block.body.attributes().map(|attribute: &Attribute| DeclaredVariable {
        name: attribute.key.to_string(),
        type_text: None,
        has_default: true,
        sensitive: false,
        description: None,
        file: file.path.to_owned(),
        line: file.line_of(attribute),
    })
}

fn read_packer_block(block: &Block, summary: &mut TemplateSummary) {
    let version = block.body.get_attribute("required_version").and_then(|version| version.value.as_str());
    summary.required_versions.extend(version.map(str::to_owned));
    for plugins in block.body.get_blocks("required_plugins") {
        for plugin in plugins.body.attributes() {
            let field = |wanted: &str| {
                plugin.value.as_object()?.iter().find_map(|(key, value)| {
                    let key = key.as_ident().map(|ident| ident.as_str());
                    if key == Some(wanted) { value.expr().as_str().map(str::to_owned) } else { None }
                })
            };
            summary.required_plugins.push(RequiredPlugin {
                name: plugin.key.to_string(),
                source: field("source"),
                version: field("version").or_else(|| plugin.value.as_str().map(str::to_owned)),
            });
        }
    }
}

/// The names that the bundle's own `*.auto.pkrvars.hcl` give values to; Packer reads those by itself.
fn assigned_in_bundle(bundle: &Bundle) -> Result<BTreeSet<String>, TemplateError> {
    let mut names = BTreeSet::new();
    for (path, bytes) in bundle.files() {
        if !path.contains('/') && path.ends_with(".auto.pkrvars.hcl") {
            let file = parse(path, bytes)?;
            names.extend(file.body.attributes().map(|attribute| attribute.key.to_string()));
        }
    }
    Ok(names)
}
