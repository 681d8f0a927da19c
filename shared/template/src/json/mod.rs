//! JSON with the place of every value in its text, for both of Packer's JSON forms.
//!
//! Reads and must never print: the author's text is changed by what stands where in it, and not written anew.

mod blocks;
mod parse;
pub(crate) mod read;

use std::ops::Range;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;

pub(crate) use parse::parse;

use crate::error::TemplateError;
use crate::text::{column_at, line_at};

/// How Packer reads the strings and names of a JSON file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// HCL2's JSON syntax: a string is a template with `${…}`, and an object or array of objects stands for blocks.
    Hcl2,
    /// What Packer read before HCL2: strings are plain but for `{{…}}`, names are matched whatever their case.
    Legacy,
}

/// One JSON template of a bundle, parsed.
pub(crate) struct JsonFile<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    pub(crate) root: Value<'a>,
    pub(crate) dialect: Dialect,
}

impl<'a> JsonFile<'a> {
    pub(crate) fn line_at(&self, offset: usize) -> usize {
        line_at(self.text, offset)
    }

    /// An error at a place in the text.
    pub(crate) fn error(&self, offset: usize, message: String) -> TemplateError {
        TemplateError::Syntax {
            file: self.path.to_owned(),
            line: line_at(self.text, offset),
            column: column_at(self.text, offset),
            message,
        }
    }

    /// The file's own body: its root object, or objects where it is an array of them.
    pub(crate) fn bodies(&self) -> Result<Vec<Body<'_>>, TemplateError> {
        let objects = objects(&self.root)
            .map_err(|at| self.error(at, "a template is a JSON object or an array of objects".to_owned()))?;
        Ok(objects.into_iter().map(|object| self.body(object, object.range.start)).collect())
    }

    pub(crate) fn body<'f>(&'f self, object: &'f Object<'a>, at: usize) -> Body<'f> {
        Body { file: self, object, at }
    }
}

/// The content of a block, of a legacy builder, or of a whole file.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a> {
    pub(crate) file: &'a JsonFile<'a>,
    pub(crate) object: &'a Object<'a>,
    /// Where it, or the name it goes by, stands.
    pub(crate) at: usize,
}

impl<'a> Body<'a> {
    /// The first property of this name.
    pub(crate) fn property(self, name: &str) -> Option<&'a ObjectProp<'a>> {
        self.object.properties.iter().find(|property| self.is_named(property, name))
    }

    pub(crate) fn value(self, name: &str) -> Option<&'a Value<'a>> {
        self.property(name).map(|property| &property.value)
    }

    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        self.value(name).and_then(as_text)
    }

    pub(crate) fn is_named(self, property: &ObjectProp<'_>, name: &str) -> bool {
        match self.file.dialect {
            Dialect::Hcl2 => property.name.as_str() == name,
            Dialect::Legacy => property.name.as_str().eq_ignore_ascii_case(name),
        }
    }

    pub(crate) fn line(self) -> usize {
        self.file.line_at(self.at)
    }
}

pub(crate) fn as_text<'a>(value: &'a Value<'_>) -> Option<&'a str> {
    value.as_string_lit().map(|text| text.value.as_ref())
}

/// What an array holds; nothing where it is none.
pub(crate) fn elements<'a>(value: &'a Value<'a>) -> &'a [Value<'a>] {
    value.as_array().map_or(&[], |array| array.elements.as_slice())
}

/// Where a value stands.
pub(crate) fn range(value: &impl Ranged) -> Range<usize> {
    value.start()..value.end()
}

/// An object, or the objects of an array; else where the first value stands that is neither.
fn objects<'a>(value: &'a Value<'a>) -> Result<Vec<&'a Object<'a>>, usize> {
    match value {
        Value::Object(object) => Ok(vec![object]),
        Value::Array(array) => {
            array.elements.iter().map(|element| element.as_object().ok_or_else(|| element.start())).collect()
        }
        other => Err(other.start()),
    }
}
