//! Where a source's attributes can stand: in its `source` block or legacy builder, and in `source` blocks inside of builds.
//!
//! Packer lays a build's block over the source's own and refuses an attribute that stands in both.

use std::collections::BTreeMap;

use hcl_edit::expr::Expression;
use hcl_edit::structure::{Block as HclBlock, Body as HclBody};
use jsonc_parser::ast::Value as JsonValue;

use super::builders::AmazonBuilder;
use crate::error::TemplateError;
use crate::form::TemplateFile;
use crate::hcl::{source_labels, span};
use crate::json::{Body as JsonBody, Dialect, JsonFile, as_text, elements};
use crate::legacy;
use crate::text::line_at;

/// A block of either syntax, or a legacy builder.
#[derive(Clone, Copy)]
pub(super) enum Block<'a> {
    Hcl(&'a HclBlock),
    Json(JsonBody<'a>),
}

impl<'a> Block<'a> {
    pub(super) fn as_hcl(self) -> Option<&'a HclBlock> {
        match self {
            Self::Hcl(block) => Some(block),
            Self::Json(_) => None,
        }
    }

    pub(super) fn as_json(self) -> Option<JsonBody<'a>> {
        match self {
            Self::Hcl(_) => None,
            Self::Json(body) => Some(body),
        }
    }

    pub(super) fn has(self, attribute: &str) -> bool {
        match self {
            Self::Hcl(block) => block.body.has_attribute(attribute),
            Self::Json(body) => body.property(attribute).is_some(),
        }
    }

    /// The blocks of a type in this one, those that a `dynamic` block makes included.
    pub(super) fn blocks_named(self, name: &str) -> Result<Vec<Self>, TemplateError> {
        Ok(match self {
            Self::Hcl(block) => {
                let mut found: Vec<_> =
                    block.body.blocks().filter(|block| block.has_ident(name)).map(Self::Hcl).collect();
                for dynamic in dynamic_blocks(&block.body, name) {
                    found.extend(dynamic.body.get_blocks("content").map(Self::Hcl));
                }
                found
            }
            Self::Json(body) => body.plain_blocks(name)?.into_iter().map(Self::Json).collect(),
        })
    }

    /// Whether an attribute is plainly a price; an expression could be anything.
    pub(super) fn has_price(self, attribute: &str) -> bool {
        let is_price = |text: &str| !matches!(text, "" | "0") && !text.contains("${") && !text.contains("{{");
        match self {
            Self::Hcl(block) => {
                block.body.get_attribute(attribute).is_some_and(|attribute| match &attribute.value {
                    Expression::Number(price) => price.value().as_f64() != Some(0.0),
                    price => price.as_str().is_some_and(is_price),
                })
            }
            Self::Json(body) => body.value(attribute).is_some_and(|price| match price {
                JsonValue::NumberLit(price) => price.value.parse::<f64>() != Ok(0.0),
                price => as_text(price).is_some_and(is_price),
            }),
        }
    }
}

/// A block, and the file it stands in.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: usize,
    pub(super) block: Block<'a>,
}

impl Place<'_> {
    pub(super) fn line(&self, file: &TemplateFile<'_>) -> usize {
        match (self.block, file) {
            (Block::Json(body), _) => body.line(),
            (Block::Hcl(block), TemplateFile::Hcl(file)) => file.line_of(block),
            (Block::Hcl(block), TemplateFile::Json(file)) => line_at(file.text, span(block).start),
        }
    }
}

/// One Amazon source and every place that configures it.
pub(super) struct Source<'a> {
    pub(super) builder: AmazonBuilder,
    /// `type.name`.
    pub(super) name: String,
    pub(super) own: Place<'a>,
    /// `source "type.name" { … }` inside of builds.
    pub(super) overrides: Vec<Place<'a>>,
    /// How many builds name it in `sources = […]`, where nothing can be laid over it.
    pub(super) listed: usize,
    /// Whether a build's block may stand for several builds.
    pub(super) repeated: bool,
}

impl<'a> Source<'a> {
    pub(super) fn places(&self) -> impl Iterator<Item = Place<'a>> + '_ {
        std::iter::once(self.own).chain(self.overrides.iter().copied())
    }

    pub(super) fn any_has(&self, attributes: &[&str]) -> bool {
        attributes.iter().any(|attribute| self.places().any(|place| place.block.has(attribute)))
    }

    /// How many builds it takes part in, at most one standing for "none or one".
    pub(super) fn builds_once_at_most(&self) -> bool {
        self.listed + self.overrides.len() <= 1 && !self.repeated
    }
}

/// What a build lays over a source.
struct Override<'a> {
    source: &'a str,
    block: Block<'a>,
    /// Whether it may stand for several builds.
    repeated: bool,
}

/// All Amazon sources of a bundle's templates, by where they stand.
pub(super) fn amazon_sources<'a>(files: &'a [TemplateFile<'a>]) -> Result<Vec<Source<'a>>, TemplateError> {
    let mut sources = Vec::new();
    for (file, template) in files.iter().enumerate() {
        for (kind, name, block) in declared(template)? {
            let Some(builder) = AmazonBuilder::of(kind) else { continue };
            sources.push(Source {
                builder,
                name: format!("{kind}.{name}"),
                own: Place { file, block },
                overrides: Vec::new(),
                listed: 0,
                repeated: false,
            });
        }
    }
    let by_name: BTreeMap<String, usize> =
        sources.iter().enumerate().map(|(index, source)| (source.name.clone(), index)).collect();
    for (file, template) in files.iter().enumerate() {
        let (listed, overrides) = uses(template)?;
        for reference in listed {
            if let Some(index) = by_name.get(without_prefix(reference)) {
                sources[*index].listed += 1;
            }
        }
        for Override { source, block, repeated } in overrides {
            if let Some(index) = by_name.get(without_prefix(source)) {
                sources[*index].overrides.push(Place { file, block });
                sources[*index].repeated |= repeated;
            }
        }
    }
    Ok(sources)
}

/// Every source's type, name and block.
fn declared<'a>(file: &'a TemplateFile<'a>) -> Result<Vec<(&'a str, &'a str, Block<'a>)>, TemplateError> {
    let mut found = Vec::new();
    match file {
        TemplateFile::Hcl(file) => {
            for block in file.body.blocks() {
                found.extend(source_labels(block).map(|(kind, name)| (kind, name, Block::Hcl(block))));
            }
        }
        TemplateFile::Json(file) if file.dialect == Dialect::Legacy => {
            for builder in legacy::builders(file)? {
                found.push((builder.kind, builder.name, Block::Json(builder.body)));
            }
        }
        TemplateFile::Json(file) => {
            for body in file.bodies()? {
                for block in body.blocks("source", 2)? {
                    if let [kind, name] = block.labels.as_slice() {
                        found.push((*kind, *name, Block::Json(block.body)));
                    }
                }
            }
        }
    }
    Ok(found)
}

/// What a file's builds list by name, and what they lay over sources. A legacy builder is its own build.
fn uses<'a>(file: &'a TemplateFile<'a>) -> Result<(Vec<&'a str>, Vec<Override<'a>>), TemplateError> {
    match file {
        TemplateFile::Hcl(file) => {
            let builds = || file.body.get_blocks("build").map(|build| &build.body);
            Ok((builds().flat_map(listed_in_hcl).collect(), builds().flat_map(overrides_in_hcl).collect()))
        }
        TemplateFile::Json(file) if file.dialect == Dialect::Hcl2 => uses_in_json(file),
        TemplateFile::Json(_) => Ok((Vec::new(), Vec::new())),
    }
}

fn listed_in_hcl(build: &HclBody) -> impl Iterator<Item = &str> {
    let list = build.get_attribute("sources").and_then(|sources| sources.value.as_array());
    list.into_iter().flat_map(|list| list.iter()).filter_map(Expression::as_str)
}

fn overrides_in_hcl(build: &HclBody) -> Vec<Override<'_>> {
    let mut found = Vec::new();
    for block in build.get_blocks("source") {
        if let Some(label) = block.labels.first() {
            found.push(Override { source: label.as_str(), block: Block::Hcl(block), repeated: false });
        }
    }
    for dynamic in dynamic_blocks(build, "source") {
        let labels = dynamic.body.get_attribute("labels").and_then(|labels| labels.value.as_array());
        let label = labels.and_then(|labels| labels.iter().next()).and_then(Expression::as_str);
        if let (Some(source), Some(content)) = (label, dynamic.body.get_blocks("content").next()) {
            found.push(Override { source, block: Block::Hcl(content), repeated: true });
        }
    }
    found
}

fn uses_in_json<'a>(file: &'a JsonFile<'a>) -> Result<(Vec<&'a str>, Vec<Override<'a>>), TemplateError> {
    let mut listed = Vec::new();
    let mut overrides = Vec::new();
    for body in file.bodies()? {
        for build in body.blocks("build", 0)? {
            let build = build.body;
            listed.extend(build.value("sources").into_iter().flat_map(elements).filter_map(as_text));
            for block in build.blocks("source", 1)? {
                if let Some(source) = block.labels.first() {
                    overrides.push(Override { source, block: Block::Json(block.body), repeated: false });
                }
            }
            for dynamic in build.blocks("dynamic", 1)? {
                if dynamic.labels.first() != Some(&"source") {
                    continue;
                }
                let labels = dynamic.body.value("labels").map_or(&[] as &[_], elements);
                let content = dynamic.body.blocks("content", 0)?.into_iter().next();
                if let (Some(source), Some(content)) = (labels.first().and_then(as_text), content) {
                    overrides.push(Override { source, block: Block::Json(content.body), repeated: true });
                }
            }
        }
    }
    Ok((listed, overrides))
}

fn dynamic_blocks<'a, 'n>(
    body: &'a HclBody,
    name: &'n str,
) -> impl Iterator<Item = &'a HclBlock> + use<'a, 'n> {
    body.get_blocks("dynamic")
        .filter(move |block| block.labels.first().is_some_and(|label| label.as_str() == name))
}

fn without_prefix(reference: &str) -> &str {
    reference.strip_prefix("source.").unwrap_or(reference)
}
