//! Changes to the text of one HCL file, or of one expression. Everything that is not changed stays byte for byte: the
//! text is never printed anew.

use std::collections::BTreeMap;
use std::ops::Range;

use hcl_edit::expr::{Expression, Object, ObjectKey, ObjectValueAssignment, ObjectValueTerminator};
use hcl_edit::structure::{Block, BlockLabel};

use super::edits::{Change, Tags, apply};
use super::text::quoted;
use crate::error::TemplateError;
use crate::hcl::{HclFile, span};
use crate::text::{column_at, indent_at, line_at, line_start, newline_of, own_line_indent};

/// What is to change in one text.
pub(super) struct HclEdits<'a> {
    path: &'a str,
    text: &'a str,
    newline: &'static str,
    /// Whether it may use lines of its own, which an expression inside of a JSON string may not.
    lines: bool,
    changes: Vec<Change>,
    /// New attributes by the block they go to the end of: (where its body starts and ends, lines).
    additions: BTreeMap<usize, Addition>,
}

struct Addition {
    body: Range<usize>,
    indent: String,
    attributes: Vec<String>,
}

impl<'a> HclEdits<'a> {
    pub(super) fn new(file: &HclFile<'a>) -> Self {
        let newline = newline_of(file.text);
        Self {
            path: file.path,
            text: file.text,
            newline,
            lines: true,
            changes: Vec::new(),
            additions: BTreeMap::new(),
        }
    }

    /// The changes that merge tags into an expression of a text, on one line.
    pub(super) fn of_merge(text: &'a str, expression: &Expression, tags: &Tags) -> Vec<Change> {
        let mut edits = Self {
            path: "",
            text,
            newline: "\n",
            lines: false,
            changes: Vec::new(),
            additions: BTreeMap::new(),
        };
        edits.merge_into(expression, "", tags);
        edits.changes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.additions.is_empty()
    }

    /// The text with every change made.
    pub(super) fn apply(mut self) -> String {
        for addition in std::mem::take(&mut self.additions).into_values() {
            self.append(&addition);
        }
        apply(self.text, self.changes)
    }

    /// Sets an attribute of a block, whatever the author set.
    pub(super) fn set(&mut self, block: &Block, name: &str, value: &str) {
        match block.body.get_attribute(name) {
            Some(attribute) => self.replace(span(&attribute.value), value),
            None => self.add_attribute(block, format!("{name} = {value}")),
        }
    }

    /// Merges tags into an attribute of a block; where both have a key, ours win.
    pub(super) fn merge(&mut self, block: &Block, name: &str, tags: &Tags) -> Result<(), TemplateError> {
        let Some(attribute) = block.body.get_attribute(name) else {
            let indent = self.attribute_indent(block);
            let object = self.object(tags, &indent);
            self.add_attribute(block, format!("{name} = {object}"));
            return Ok(());
        };
        if is_no_map(&attribute.value) {
            let at = span(&attribute.value).start;
            return Err(TemplateError::UnmergeableTags {
                file: self.path.to_owned(),
                line: line_at(self.text, at),
                column: column_at(self.text, at),
                attribute: name.to_owned(),
                reason: "its value is neither an object nor an expression that could be one",
            });
        }
        let indent = indent_at(self.text, span(attribute).start);
        self.merge_into(&attribute.value, indent, tags);
        Ok(())
    }

    fn merge_into(&mut self, expression: &Expression, indent: &str, tags: &Tags) {
        if let Some(object) = literal_at_the_end(expression) {
            return self.merge_into_object(object, indent, tags);
        }
        let range = span(expression);
        let object = self.object(tags, indent);
        let blank = expression.as_object().is_some_and(Object::is_empty)
            && self.text[range.clone()].trim_matches(['{', '}']).trim().is_empty();
        if expression.is_null() || blank {
            self.replace(range, &object);
        } else {
            self.changes.push((range.start..range.start, "merge(".to_owned()));
            self.changes.push((range.end..range.end, format!(", {object})")));
        }
    }

    /// In `tag { key = …, value = … }` blocks, which Packer applies after `tags`, gives our keys our values.
    pub(super) fn correct_tag_blocks<'b>(&mut self, blocks: impl Iterator<Item = &'b Block>, tags: &Tags) {
        for block in blocks {
            let value = |name: &str| block.body.get_attribute(name).map(|attribute| &attribute.value);
            let Some(ours) = value("key").and_then(Expression::as_str).and_then(|key| tags.get(key)) else {
                continue;
            };
            if let Some(theirs) = value("value") {
                self.replace(span(theirs), &quoted(ours));
            }
        }
    }

    /// Removes a block, and its lines where it has them for itself.
    pub(super) fn remove(&mut self, block: &Block) {
        let range = span(block);
        let line_start = line_start(self.text, range.start);
        let line_end = self.text[range.end..].find('\n').map_or(self.text.len(), |at| range.end + at + 1);
        let alone = self.text[line_start..range.start].trim().is_empty()
            && self.text[range.end..line_end].trim().is_empty();
        self.changes.push((if alone { line_start..line_end } else { range }, String::new()));
    }

    fn replace(&mut self, range: Range<usize>, text: &str) {
        if &self.text[range.clone()] != text {
            self.changes.push((range, text.to_owned()));
        }
    }

    fn merge_into_object(&mut self, object: &Object, indent: &str, tags: &Tags) {
        let mut missing: Vec<(String, String)> = Vec::new();
        for (key, value) in tags {
            match object.iter().find(|(theirs, _)| literal_key(theirs) == Some(key)) {
                Some((_, theirs)) => self.replace(span(theirs.expr()), &quoted(value)),
                None => missing.push((quoted(key), quoted(value))),
            }
        }
        let Some((_, last)) = object.iter().last() else {
            // `literal_at_the_end` gives no empty one.
            return;
        };
        if missing.is_empty() {
            return;
        }
        let sign = match last.assignment() {
            ObjectValueAssignment::Colon => ":",
            ObjectValueAssignment::Equals => " =",
        };
        let after_last = span(last.expr()).end;
        let brace = after_last + self.closing_brace(&self.text[after_last..]);
        let line_start = line_start(self.text, brace);
        let comma = last.terminator() == ObjectValueTerminator::Comma;
        if line_start > after_last && self.text[line_start..brace].trim().is_empty() {
            let (first, _) = object.iter().next().expect("it has a last item, so a first");
            let inner = own_line_indent(self.text, span(first).start)
                .map_or_else(|| format!("{indent}  "), str::to_owned);
            let end = if comma { "," } else { "" };
            let lines: String = missing
                .iter()
                .map(|(key, value)| format!("{inner}{key}{sign} {value}{end}{}", self.newline))
                .collect();
            self.changes.push((line_start..line_start, lines));
        } else {
            let items: Vec<_> = missing.iter().map(|(key, value)| format!("{key}{sign} {value}")).collect();
            // Behind the last value rather than before the brace, so that the space before the brace stays.
            let tail = self.text[after_last..brace].trim_end();
            let at = after_last + tail.len();
            let separator = match last.terminator() {
                ObjectValueTerminator::Comma => " ",
                ObjectValueTerminator::None | ObjectValueTerminator::Newline => ", ",
            };
            self.changes.push((at..at, format!("{separator}{}", items.join(", "))));
        }
    }

    /// The offset of the first `}` outside of comments.
    fn closing_brace(&self, text: &str) -> usize {
        let mut at = 0;
        while let Some(rest) = text.get(at..) {
            let skipped = if rest.starts_with('#') || rest.starts_with("//") {
                rest.find('\n')
            } else if rest.starts_with("/*") {
                rest.find("*/").map(|end| end + 2)
            } else if rest.starts_with('}') {
                return at;
            } else {
                rest.chars().next().map(char::len_utf8)
            };
            match skipped {
                Some(skipped) => at += skipped.max(1),
                None => break,
            }
        }
        text.len()
    }

    fn add_attribute(&mut self, block: &Block, attribute: String) {
        let indent = self.attribute_indent(block);
        let body = self.body_range(block);
        self.additions
            .entry(body.start)
            .or_insert_with(|| Addition { body, indent, attributes: Vec::new() })
            .attributes
            .push(attribute);
    }

    fn append(&mut self, addition: &Addition) {
        let Addition { body, indent, attributes } = addition;
        let newline = self.newline;
        let lines: String =
            attributes.iter().map(|attribute| format!("{indent}{attribute}{newline}")).collect();
        let inner = &self.text[body.clone()];
        let outer = indent_at(self.text, body.start);
        if inner.contains('\n') {
            let line_start = body.start + inner.rfind('\n').map_or(0, |at| at + 1);
            if self.text[line_start..body.end].trim().is_empty() {
                self.changes.push((line_start..line_start, lines));
            } else {
                self.changes.push((body.end..body.end, format!("{newline}{lines}{outer}")));
            }
            return;
        }
        // A block on one line holds one attribute at most: it has to be opened up.
        let leading = inner.len() - inner.trim_start().len();
        let trailing = inner.trim_start().len() - inner.trim().len();
        if inner.trim().is_empty() {
            self.changes.push((body.clone(), format!("{newline}{lines}{outer}")));
        } else {
            self.changes.push((body.start..body.start + leading, format!("{newline}{indent}")));
            self.changes.push((body.end - trailing..body.end, format!("{newline}{lines}{outer}")));
        }
    }

    /// What stands between a block's braces.
    fn body_range(&self, block: &Block) -> Range<usize> {
        let whole = span(block);
        let head_end = block.labels.last().map_or_else(
            || span(&block.ident).end,
            |label| match label {
                BlockLabel::Ident(ident) => span(ident).end,
                BlockLabel::String(text) => span(text).end,
            },
        );
        let open = self.text[head_end..whole.end].find('{').map_or(whole.end, |at| head_end + at + 1);
        let close = self.text[..whole.end].rfind('}').map_or(whole.end, |at| at);
        open..close.max(open)
    }

    /// The indent of a block's attributes: that of its first one, else one step in from the block.
    fn attribute_indent(&self, block: &Block) -> String {
        let first = block.body.iter().next().map(|structure| match structure.as_attribute() {
            Some(attribute) => span(attribute).start,
            None => structure.as_block().map_or(0, |block| span(block).start),
        });
        first
            .and_then(|at| own_line_indent(self.text, at))
            .map_or_else(|| format!("{}  ", indent_at(self.text, span(block).start)), str::to_owned)
    }

    /// Tags as an object literal, laid out as `packer fmt` would.
    fn object(&self, tags: &Tags, indent: &str) -> String {
        if !self.lines {
            let items: Vec<_> =
                tags.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
            return format!("{{ {} }}", items.join(", "));
        }
        let newline = self.newline;
        let keys: Vec<_> = tags.keys().map(|key| quoted(key)).collect();
        let width = keys.iter().map(|key| key.chars().count()).max().unwrap_or(0);
        let lines: String = keys
            .iter()
            .zip(tags.values())
            .map(|(key, value)| format!("{indent}  {key:<width$} = {}{newline}", quoted(value)))
            .collect();
        format!("{{{newline}{lines}{indent}}}")
    }
}

/// The object literal that has the last word in an expression: the expression itself, or the last argument of `merge`.
/// Only one whose keys are all plain, so that none of them could turn out to be one of ours.
fn literal_at_the_end(expression: &Expression) -> Option<&Object> {
    let object = match expression {
        Expression::Object(object) => object,
        Expression::FuncCall(call) if call.name.name.as_str() == "merge" && !call.name.is_namespaced() => {
            if call.args.expand_final() {
                return None;
            }
            call.args.iter().last()?.as_object()?
        }
        _ => return None,
    };
    let plain = !object.is_empty() && object.iter().all(|(key, _)| literal_key(key).is_some());
    plain.then_some(object)
}

/// Whether an expression is plainly something else than a map.
pub(super) fn is_no_map(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::String(_)
            | Expression::HeredocTemplate(_)
            | Expression::Number(_)
            | Expression::Bool(_)
            | Expression::Array(_)
    )
}

fn literal_key(key: &ObjectKey) -> Option<&str> {
    match key {
        ObjectKey::Ident(ident) => Some(ident.as_str()),
        ObjectKey::Expression(expression) => expression.as_str(),
    }
}
