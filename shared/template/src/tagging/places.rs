//! Where a source's attributes can stand: in its `source` block, and in `source` blocks inside of builds.
//!
//! Packer lays a build's block over the source's own and refuses an attribute that stands in both.

use std::collections::BTreeMap;

use hcl_edit::expr::Expression;
use hcl_edit::structure::{Block, Body};

use super::builders::AmazonBuilder;
use crate::hcl::{TemplateFile, source_labels};

/// A block, and the file it stands in.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: usize,
    pub(super) block: &'a Block,
}

impl Place<'_> {
    pub(super) fn has(&self, attribute: &str) -> bool {
        self.block.body.has_attribute(attribute)
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
        attributes.iter().any(|attribute| self.places().any(|place| place.has(attribute)))
    }

    /// How many builds it takes part in, at most one standing for "none or one".
    pub(super) fn builds_once_at_most(&self) -> bool {
        self.listed + self.overrides.len() <= 1 && !self.repeated
    }
}

/// All Amazon sources of a bundle's templates, by where they stand.
pub(super) fn amazon_sources<'a>(files: &'a [TemplateFile<'_>]) -> Vec<Source<'a>> {
    let mut sources = Vec::new();
    for (file, template) in files.iter().enumerate() {
        for block in template.body.blocks() {
            let Some((kind, name)) = source_labels(block) else { continue };
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
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        by_name.insert(source.name.clone(), index);
    }
    for (file, template) in files.iter().enumerate() {
        for build in template.body.get_blocks("build") {
            for reference in listed_references(&build.body) {
                if let Some(index) = by_name.get(reference) {
                    sources[*index].listed += 1;
                }
            }
            for (reference, block, repeated) in override_blocks(&build.body) {
                if let Some(index) = by_name.get(reference) {
                    sources[*index].overrides.push(Place { file, block });
                    sources[*index].repeated |= repeated;
                }
            }
        }
    }
    sources
}

/// The blocks of a type in a body, those that a `dynamic` block makes included.
pub(super) fn blocks_named<'a>(body: &'a Body, name: &'a str) -> Vec<&'a Block> {
    let dynamic = body
        .get_blocks("dynamic")
        .filter(move |block| block.labels.first().is_some_and(|label| label.as_str() == name))
        .flat_map(|block| block.body.get_blocks("content"));
    body.get_blocks(name).chain(dynamic).collect()
}

fn listed_references(build: &Body) -> impl Iterator<Item = &str> {
    let list = build.get_attribute("sources").and_then(|sources| sources.value.as_array());
    list.into_iter().flat_map(|list| list.iter()).filter_map(Expression::as_str).map(without_prefix)
}

/// What a build lays over its sources: the source's name, the block, and whether it may stand for several builds.
fn override_blocks(build: &Body) -> Vec<(&str, &Block, bool)> {
    let mut found = Vec::new();
    for block in build.get_blocks("source") {
        if let Some(label) = block.labels.first() {
            found.push((without_prefix(label.as_str()), block, false));
        }
    }
    for dynamic in build.get_blocks("dynamic") {
        if dynamic.labels.first().is_none_or(|label| label.as_str() != "source") {
            continue;
        }
        let labels = dynamic.body.get_attribute("labels").and_then(|labels| labels.value.as_array());
        let label = labels.and_then(|labels| labels.iter().next()).and_then(Expression::as_str);
        if let (Some(label), Some(content)) = (label, dynamic.body.get_blocks("content").next()) {
            found.push((without_prefix(label), content, true));
        }
    }
    found
}

fn without_prefix(reference: &str) -> &str {
    reference.strip_prefix("source.").unwrap_or(reference)
}
