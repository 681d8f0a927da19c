//! HCL2 templates in HCL's own syntax: parsing, and what they declare.
//!
//! Reads what is written and must never evaluate it: an expression stays the author's text.

use std::ops::Range;

use hcl_edit::Span;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Block, Body};

use crate::error::TemplateError;
use crate::heredocs;
use crate::stack::with_room;
use crate::summary::{DeclaredSource, DeclaredVariable, RequiredPlugin, TemplateSummary};
use crate::tagging::AmazonBuilder;
use crate::text::{column_at, line_at};

/// May stand before a text, and is no part of it.
pub(crate) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Adds what one file declares.
pub(crate) fn read_declarations(file: &HclFile<'_>, summary: &mut TemplateSummary) {
    for block in file.body.blocks() {
        match block.ident.as_str() {
            "source" => summary.sources.extend(declared_source(file, block)),
            "variable" => summary.variables.extend(declared_variable(file, block)),
            "variables" => summary.variables.extend(shorthand_variables(file, block)),
            "packer" => read_packer_block(block, summary),
            _ => {}
        }
    }
}

/// One `.pkr.hcl` file of a bundle, parsed.
pub(crate) struct HclFile<'a> {
    pub(crate) path: &'a str,
    /// Without a byte order mark.
    pub(crate) text: &'a str,
    pub(crate) body: Body,
}

impl HclFile<'_> {
    pub(crate) fn line_of(&self, spanned: &impl Span) -> usize {
        line_at(self.text, span(spanned).start)
    }

    fn text_of(&self, spanned: &impl Span) -> String {
        self.text.get(span(spanned)).unwrap_or_default().trim().to_owned()
    }
}

/// Parses one file.
///
/// # Errors
///
/// Where it is not HCL, or its blocks and expressions stand more than 64 deep in each other (`hcl-edit`'s own limit).
pub(crate) fn parse<'a>(path: &'a str, bytes: &'a [u8]) -> Result<HclFile<'a>, TemplateError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TemplateError::NotText { file: path.to_owned() })?;
    let text = without_mark(text);
    let body = parse_with_room(text).map_err(|error| TemplateError::Syntax {
        file: path.to_owned(),
        line: error.location().line(),
        column: error.location().column(),
        message: error.message().replace('\n', " "),
    })?;
    if let Some(at) = with_room(|| heredocs::unclear_in(text, &body)) {
        return Err(TemplateError::Syntax {
            file: path.to_owned(),
            line: line_at(text, at),
            column: column_at(text, at),
            message: heredocs::MESSAGE.to_owned(),
        });
    }
    Ok(HclFile { path, text, body })
}

/// Parses a text of HCL as deep as it may nest, whatever is left of the thread's stack; none where it is not HCL.
pub fn parse_hcl(text: &str) -> Option<Body> {
    parse_with_room(without_mark(text)).ok()
}

fn parse_with_room(text: &str) -> Result<Body, hcl_edit::parser::Error> {
    with_room(|| text.parse())
}

/// Packer skips it in HCL, though not in JSON.
fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Where something stands in the text it was parsed from.
pub(crate) fn span(spanned: &impl Span) -> Range<usize> {
    spanned.span().expect("whatever was parsed from text knows where it stands")
}

/// The two labels of a `source "type" "name"` block.
pub(crate) fn source_labels(block: &Block) -> Option<(&str, &str)> {
    match block.labels.as_slice() {
        [kind, name] if block.has_ident("source") => Some((kind.as_str(), name.as_str())),
        _ => None,
    }
}

fn declared_source(file: &HclFile<'_>, block: &Block) -> Option<DeclaredSource> {
    let (kind, name) = source_labels(block)?;
    Some(DeclaredSource {
        kind: kind.to_owned(),
        name: name.to_owned(),
        file: file.path.to_owned(),
        line: file.line_of(block),
        is_amazon: AmazonBuilder::of(kind).is_some(),
    })
}

fn declared_variable(file: &HclFile<'_>, block: &Block) -> Option<DeclaredVariable> {
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
    file: &'a HclFile<'_>,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack that overflows ends the test's process.
    #[test]
    fn a_body_is_parsed_as_deep_as_it_may_nest_on_a_small_stack() {
        let text = format!("x = {}1{}\n", "[for a in b : ".repeat(60), "]".repeat(60));
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let parsed = small.spawn(move || parse_hcl(&text).is_some()).unwrap().join().unwrap();
        assert!(parsed);
    }

    #[test]
    fn a_body_may_begin_with_a_byte_order_mark_and_must_be_hcl() {
        assert_eq!(parse_hcl("\u{feff}a = 1\n").unwrap().attributes().count(), 1);
        assert!(parse_hcl("a = {{").is_none());
    }
}
