//! Changes to the text of one template file, whichever form it is in.

use std::collections::BTreeMap;
use std::ops::Range;

use super::hcl_edits::HclEdits;
use super::json_edits::JsonEdits;
use super::places::Block;
use super::text::quoted;
use crate::error::TemplateError;
use crate::form::TemplateFile;

/// Tags by key.
pub(super) type Tags = BTreeMap<String, String>;

/// A piece of a text, and what takes its place.
pub(super) type Change = (Range<usize>, String);

/// The value of an attribute of ours.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Yes,
}

impl Value {
    fn to_hcl(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Yes => "true".to_owned(),
        }
    }
}

/// What is to change in one file.
pub(super) enum FileEdits<'a> {
    Hcl(HclEdits<'a>),
    Json(JsonEdits<'a>),
}

impl<'a> FileEdits<'a> {
    pub(super) fn new(file: &'a TemplateFile<'a>) -> Self {
        match file {
            TemplateFile::Hcl(file) => Self::Hcl(HclEdits::new(file)),
            TemplateFile::Json(file) => Self::Json(JsonEdits::new(file)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Hcl(edits) => edits.is_empty(),
            Self::Json(edits) => edits.is_empty(),
        }
    }

    /// The text with every change made.
    pub(super) fn apply(self) -> String {
        match self {
            Self::Hcl(edits) => edits.apply(),
            Self::Json(edits) => edits.apply(),
        }
    }

    /// Sets an attribute of a block, whatever the author set.
    pub(super) fn set(&mut self, block: Block<'a>, name: &str, value: &Value) {
        match (self, block) {
            (Self::Hcl(edits), Block::Hcl(block)) => edits.set(block, name, &value.to_hcl()),
            (Self::Json(edits), Block::Json(body)) => edits.set(body, name, value),
            _ => elsewhere(),
        }
    }

    /// Sets an attribute of a block where the author did not.
    pub(super) fn set_if_absent(&mut self, block: Block<'a>, name: &str, value: &Value) {
        if !block.has(name) {
            self.set(block, name, value);
        }
    }

    /// Merges tags into an attribute of a block; where both have a key, ours win.
    pub(super) fn merge(&mut self, block: Block<'a>, name: &str, tags: &Tags) -> Result<(), TemplateError> {
        match (self, block) {
            (Self::Hcl(edits), Block::Hcl(block)) => edits.merge(block, name, tags),
            (Self::Json(edits), Block::Json(body)) => edits.merge(body, name, tags),
            _ => elsewhere(),
        }
    }

    /// In `tag { key = …, value = … }` blocks, which Packer applies after `tags`, gives our keys our values.
    pub(super) fn correct_tag_blocks(&mut self, blocks: &[Block<'a>], tags: &Tags) {
        match self {
            Self::Hcl(edits) => {
                edits.correct_tag_blocks(blocks.iter().filter_map(|block| block.as_hcl()), tags);
            }
            Self::Json(edits) => {
                blocks
                    .iter()
                    .filter_map(|block| block.as_json())
                    .for_each(|body| edits.correct_tag_block(body, tags));
            }
        }
    }
}

fn elsewhere() -> ! {
    unreachable!("a block is changed in the file it was found in")
}

/// A text with changes made that do not overlap.
pub(super) fn apply(text: &str, mut changes: Vec<Change>) -> String {
    changes.sort_by_key(|(range, _)| (range.start, range.end));
    let mut result = String::with_capacity(text.len() + 1024);
    let mut done = 0;
    for (range, replacement) in &changes {
        result.push_str(&text[done..range.start]);
        result.push_str(replacement);
        done = range.end;
    }
    result.push_str(&text[done..]);
    result
}
