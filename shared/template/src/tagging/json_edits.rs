//! Changes to the text of one JSON template. Everything that is not changed stays byte for byte: what is added is laid
//! out as what stands beside it.

use std::collections::BTreeMap;
use std::ops::Range;

use hcl_edit::template::{Element, Template};
use jsonc_parser::ast::{Object, ObjectProp, Value as JsonValue};
use jsonc_parser::common::Ranged as _;

use super::edits::{Change, Tags, Value, apply};
use super::hcl_edits::{HclEdits, is_no_map};
use super::text::{as_json_text, json_string};
use crate::error::TemplateError;
use crate::hcl::span;
use crate::json::{Body, Dialect, JsonFile, range};
use crate::stack::with_room;
use crate::text::{column_at, indent_at, newline_of, own_line_indent};

/// What is to change in one file.
pub(super) struct JsonEdits<'a> {
    file: &'a JsonFile<'a>,
    newline: &'static str,
    /// One level of indent.
    step: &'a str,
    changes: Vec<Change>,
    /// New properties, by where the object starts that they go to the end of.
    additions: BTreeMap<usize, Addition<'a>>,
}

struct Addition<'a> {
    object: &'a Object<'a>,
    properties: Vec<(String, NewValue)>,
}

enum NewValue {
    /// As JSON.
    Plain(String),
    Tags(Tags),
}

impl<'a> JsonEdits<'a> {
    pub(super) fn new(file: &'a JsonFile<'a>) -> Self {
        Self {
            file,
            newline: newline_of(file.text),
            step: step_of(file.text),
            changes: Vec::new(),
            additions: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.additions.is_empty()
    }

    /// The text with every change made.
    pub(super) fn apply(mut self) -> String {
        for addition in std::mem::take(&mut self.additions).into_values() {
            let change = self.append(&addition);
            self.changes.push(change);
        }
        apply(self.file.text, self.changes)
    }

    /// Sets an attribute of a block, whatever the author set.
    pub(super) fn set(&mut self, body: Body<'a>, name: &str, value: &Value) {
        let json = match value {
            Value::Text(text) => self.string(text),
            Value::Yes => "true".to_owned(),
        };
        match body.value(name) {
            Some(theirs) => self.replace(range(theirs), json),
            None => self.add(body.object, name, NewValue::Plain(json)),
        }
    }

    /// Merges tags into an attribute of a block; where both have a key, ours win.
    pub(super) fn merge(&mut self, body: Body<'a>, name: &str, tags: &Tags) -> Result<(), TemplateError> {
        let Some(property) = body.property(name) else {
            self.add(body.object, name, NewValue::Tags(tags.clone()));
            return Ok(());
        };
        let value = &property.value;
        let file = self.file;
        let refused = |reason| TemplateError::UnmergeableTags {
            file: file.path.to_owned(),
            line: file.line_at(value.start()),
            column: column_at(file.text, value.start()),
            attribute: name.to_owned(),
            reason,
        };
        match (value, file.dialect) {
            (JsonValue::Object(object), _) if !object.properties.is_empty() => {
                self.merge_into_object(object, tags);
            }
            (JsonValue::Object(_) | JsonValue::NullKeyword(_), _) => self.write_tags_over(property, tags),
            (JsonValue::StringLit(text), Dialect::Hcl2) => {
                let changes = merged_expression(&text.value, tags)
                    .ok_or_else(|| refused("its value is a string, and neither an object nor one `${…}`"))?;
                self.change_in_string(range(text), changes);
            }
            (JsonValue::Array(array), Dialect::Legacy) => {
                // Packer lays such objects over each other, the last one on top.
                let objects: Option<Vec<_>> = array.elements.iter().map(JsonValue::as_object).collect();
                match objects.as_deref() {
                    Some([]) => self.write_tags_over(property, tags),
                    Some([.., last]) => self.merge_into_object(last, tags),
                    None => return Err(refused("its value is neither an object nor an array of objects")),
                }
            }
            (JsonValue::StringLit(_), Dialect::Legacy) => {
                return Err(refused(
                    "its value is a string, and legacy JSON can't merge into that: give it as an object",
                ));
            }
            _ => return Err(refused("its value is not an object")),
        }
        Ok(())
    }

    /// In an object of `key` and `value`, which Packer applies after `tags`, gives a key of ours our value.
    pub(super) fn correct_tag_block(&mut self, body: Body<'a>, tags: &Tags) {
        let Some(theirs) = body.text("key") else { return };
        let ours = tags.iter().find(|(key, _)| as_json_text(key, self.file.dialect) == theirs);
        if let (Some((_, ours)), Some(value)) = (ours, body.value("value")) {
            let ours = self.string(ours);
            self.replace(range(value), ours);
        }
    }

    /// Removes properties of an object, and the comma that goes with each.
    pub(super) fn remove(&mut self, object: &Object<'_>, is_removed: impl Fn(&ObjectProp<'_>) -> bool) {
        let properties = &object.properties;
        let Some(last_kept) = properties.iter().rposition(|property| !is_removed(property)) else {
            self.changes.push((object.start() + 1..object.end() - 1, String::new()));
            return;
        };
        for pair in properties[..=last_kept].windows(2) {
            if is_removed(&pair[0]) {
                self.changes.push((pair[0].start()..pair[1].start(), String::new()));
            }
        }
        if last_kept + 1 < properties.len() {
            let end = properties[properties.len() - 1].end();
            self.changes.push((properties[last_kept].end()..end, String::new()));
        }
    }

    fn merge_into_object(&mut self, object: &'a Object<'a>, tags: &Tags) {
        for (key, value) in tags {
            let key = as_json_text(key, self.file.dialect);
            let ours = self.string(value);
            let mut theirs =
                object.properties.iter().filter(|property| property.name.as_str() == key).peekable();
            if theirs.peek().is_none() {
                self.add(object, &key, NewValue::Plain(ours));
            } else {
                theirs.for_each(|property| self.replace(range(&property.value), ours.clone()));
            }
        }
    }

    fn write_tags_over(&mut self, property: &ObjectProp<'_>, tags: &Tags) {
        let text = self.tags(tags, own_line_indent(self.file.text, property.start()));
        self.changes.push((range(&property.value), text));
    }

    /// `changes` are to what the string of `range` means; a string's escapes make that shorter than its text.
    fn change_in_string(&mut self, range: Range<usize>, changes: Vec<Change>) {
        let start = range.start + 1;
        let places = places_in_string(&self.file.text[start..range.end - 1]);
        for (within, text) in changes {
            let escaped = json_string(&text);
            let place = start + places[within.start]..start + places[within.end];
            self.changes.push((place, escaped[1..escaped.len() - 1].to_owned()));
        }
    }

    fn replace(&mut self, range: Range<usize>, json: String) {
        let theirs = &self.file.text[range.clone()];
        // A string can be spelt in several ways.
        let same = match (serde_json::from_str::<String>(theirs), serde_json::from_str::<String>(&json)) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            _ => theirs == json,
        };
        if !same {
            self.changes.push((range, json));
        }
    }

    fn add(&mut self, object: &'a Object<'a>, name: &str, value: NewValue) {
        self.additions
            .entry(object.start())
            .or_insert_with(|| Addition { object, properties: Vec::new() })
            .properties
            .push((name.to_owned(), value));
    }

    fn append(&self, addition: &Addition<'_>) -> Change {
        let Addition { object, properties } = addition;
        let text = self.file.text;
        let Some((first, last)) = object.properties.first().zip(object.properties.last()) else {
            let outer = indent_at(text, object.start());
            let inner = format!("{outer}{}", self.step);
            let lines: Vec<_> =
                properties.iter().map(|property| self.property(property, Some(&inner))).collect();
            let newline = self.newline;
            let content =
                format!("{newline}{inner}{}{newline}{outer}", lines.join(&format!(",{newline}{inner}")));
            return (object.start() + 1..object.end() - 1, content);
        };
        // Properties that share a line with the object's brace, or with each other, get more on that line.
        let indent = own_line_indent(text, first.start())
            .filter(|_| text[object.start()..first.start()].contains('\n'));
        let separator = indent.map_or_else(|| ", ".to_owned(), |indent| format!(",{}{indent}", self.newline));
        let added: String = properties
            .iter()
            .map(|property| format!("{separator}{}", self.property(property, indent)))
            .collect();
        (last.end()..last.end(), added)
    }

    /// `"name": value`, on lines of its own where it has an indent.
    fn property(&self, (name, value): &(String, NewValue), indent: Option<&str>) -> String {
        let value = match value {
            NewValue::Plain(json) => json.clone(),
            NewValue::Tags(tags) => self.tags(tags, indent),
        };
        format!("{}: {value}", json_string(name))
    }

    fn tags(&self, tags: &Tags, indent: Option<&str>) -> String {
        let pairs = tags.iter().map(|(key, value)| {
            format!("{}: {}", json_string(&as_json_text(key, self.file.dialect)), self.string(value))
        });
        let pairs: Vec<_> = pairs.collect();
        match indent {
            None => format!("{{{}}}", pairs.join(", ")),
            Some(indent) => {
                let Self { newline, step, .. } = self;
                let between = format!(",{newline}{indent}{step}");
                format!("{{{newline}{indent}{step}{}{newline}{indent}}}", pairs.join(&between))
            }
        }
    }

    fn string(&self, value: &str) -> String {
        json_string(&as_json_text(value, self.file.dialect))
    }
}

/// The indent of the first line that has one, or two spaces.
fn step_of(text: &str) -> &str {
    let indents = text.lines().skip(1).filter(|line| !line.trim().is_empty()).map(|line| {
        let content = line.trim_start_matches([' ', '\t']);
        &line[..line.len() - content.len()]
    });
    indents.into_iter().find(|indent| !indent.is_empty()).unwrap_or("  ")
}

/// The changes that merge tags into a string that is one `${…}` and nothing else: only such a string can be a map.
fn merged_expression(text: &str, tags: &Tags) -> Option<Vec<Change>> {
    let template: Template = with_room(|| text.parse()).ok()?;
    let mut elements = template.iter();
    let (Some(Element::Interpolation(interpolation)), None) = (elements.next(), elements.next()) else {
        return None;
    };
    if is_no_map(&interpolation.expr) {
        return None;
    }
    // Only an expression that knows where it stands can be changed there.
    let place = span(&interpolation.expr);
    text.get(place)?;
    Some(HclEdits::of_merge(text, &interpolation.expr, tags))
}

/// For each byte that the inside of a JSON string means, and for its end, where its text stands.
fn places_in_string(raw: &str) -> Vec<usize> {
    let mut places = Vec::with_capacity(raw.len() + 1);
    let mut at = 0;
    while let Some(character) = raw[at..].chars().next() {
        let (length, meaning) = match (character, raw.as_bytes().get(at + 1)) {
            ('\\', Some(b'u')) => {
                let unit =
                    |from: usize| raw.get(from..from + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                match unit(at + 2) {
                    // The first half of a character outside of the basic plane; the second follows.
                    Some(0xd800..=0xdbff) => (12, 4),
                    code => (6, code.and_then(char::from_u32).map_or(1, char::len_utf8)),
                }
            }
            ('\\', Some(_)) => (2, 1),
            _ => (character.len_utf8(), character.len_utf8()),
        };
        // A character's bytes all stand where it starts, but for those that are written as they are.
        places.extend((0..meaning).map(|byte| if length == meaning { at + byte } else { at }));
        at += length;
    }
    places.push(raw.len());
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_string_has_its_place() {
        let raw = r#"a\"é\u00e9\ud83d\ude00b\n"#;
        let meaning: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
        let places = places_in_string(raw);
        assert_eq!(places.len(), meaning.len() + 1);
        for (character, text) in [("a", "a"), ("\"", "\\\""), ("b", "b"), ("\n", "\\n"), ("😀", "\\ud83d")]
        {
            let place = places[meaning.find(character).unwrap()];
            assert!(raw[place..].starts_with(text), "{character}");
        }
    }
}
