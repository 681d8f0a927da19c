//! A template in the one shape that the rules look at, whatever it was written in: HCL2's own mapping of blocks to JSON, in
//! which `provisioner "shell" {}` is a field `provisioner` with a field `shell`.

use std::ops::Range;

use hcl_edit::Span;
use hcl_edit::expr::{Expression, ObjectKey, TraversalOperator};
use hcl_edit::structure::{Body, Structure};
use hcl_edit::template::{Element, Strip, Template};
use jsonc_parser::ast::Value as Json;
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::calls::{Call, calls_in, calls_in_template};
use crate::error::TemplateError;
use crate::{hcl, heredocs};

pub(super) struct Document {
    pub(super) file: String,
    pub(super) fields: Vec<Field>,
    /// Every function call in it.
    pub(super) calls: Vec<Call>,
    /// Every string in it, where strings are plain text with `{{…}}` in them.
    pub(super) plain_strings: Vec<(usize, String)>,
    /// The lines of strings with expressions that can't be read.
    pub(super) unreadable: Vec<usize>,
}

pub(super) struct Field {
    /// None where only Packer can work it out.
    pub(super) name: Option<String>,
    pub(super) line: usize,
    pub(super) value: Value,
}

pub(super) enum Value {
    /// Known text; `path.root` and `path.cwd` at its beginning are `.`, as Packer runs in the template's folder.
    Text(String),
    List(Vec<(usize, Value)>),
    Map(Vec<Field>),
    /// A number, a boolean, or null.
    Plain,
    /// Only Packer can work it out.
    Computed,
}

/// A `.pkr.hcl` file.
pub(super) fn of_hcl(path: &str, bytes: &[u8]) -> Result<Document, TemplateError> {
    let file = hcl::parse(path, bytes)?;
    let reader = HclReader { lines: Lines::of(file.text) };
    let calls =
        calls_in(&file.body).into_iter().map(|call| Call { line: reader.lines.at(call.line), ..call });
    Ok(Document {
        file: path.to_owned(),
        fields: reader.body(&file.body),
        calls: calls.collect(),
        plain_strings: Vec::new(),
        unreadable: Vec::new(),
    })
}

/// A `.pkr.json` file, whose strings are templates of HCL.
pub(super) fn of_json(path: &str, bytes: &[u8]) -> Result<Document, TemplateError> {
    of_json_with(path, bytes, true)
}

/// A template of the form before HCL2; names in it count whatever their case. A file that is none is an empty document.
pub(super) fn of_legacy(path: &str, bytes: &[u8]) -> Result<Document, TemplateError> {
    let mut document = of_json_with(path, bytes, false)?;
    let is_template = document.fields.iter().any(|field| field.name.as_deref() == Some("builders"));
    if !is_template {
        document.fields.clear();
        document.plain_strings.clear();
    }
    Ok(document)
}

fn of_json_with(path: &str, bytes: &[u8], hcl2: bool) -> Result<Document, TemplateError> {
    let text = std::str::from_utf8(bytes).map_err(|_| TemplateError::NotText { file: path.to_owned() })?;
    let error = |line, column, message: String| TemplateError::Syntax {
        file: path.to_owned(),
        line,
        column,
        message,
    };
    // Strict, and bounded in depth, as the other parser is not; that one knows places.
    serde_json::from_str::<serde_json::Value>(text).map_err(|wrong| {
        let message = wrong.to_string();
        let place = format!(" at line {} column {}", wrong.line(), wrong.column());
        error(wrong.line(), wrong.column(), message.trim_end_matches(&place).to_owned())
    })?;
    let parsed = parse_to_ast(text, &CollectOptions::default(), &ParseOptions::default())
        .map_err(|wrong| error(wrong.line_display(), wrong.column_display(), wrong.kind().to_string()))?;
    let mut reader = JsonReader {
        lines: Lines::of(text),
        hcl2,
        calls: Vec::new(),
        plain_strings: Vec::new(),
        unreadable: Vec::new(),
    };
    let root = parsed.value.map_or(Value::Plain, |value| reader.value(&value));
    let fields = match root {
        Value::Map(fields) => fields,
        Value::List(items) => items.into_iter().flat_map(|(_, item)| fields_of(item)).collect(),
        _ => Vec::new(),
    };
    let JsonReader { calls, plain_strings, unreadable, .. } = reader;
    Ok(Document { file: path.to_owned(), fields, calls, plain_strings, unreadable })
}

fn fields_of(value: Value) -> Vec<Field> {
    match value {
        Value::Map(fields) => fields,
        _ => Vec::new(),
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
}

fn start(spanned: &impl Span) -> usize {
    spanned.span().unwrap_or(Range { start: 0, end: 0 }).start
}

struct HclReader {
    lines: Lines,
}

impl HclReader {
    fn body(&self, body: &Body) -> Vec<Field> {
        let field = |structure: &Structure| match structure {
            Structure::Attribute(attribute) => Field {
                name: Some(attribute.key.to_string()),
                line: self.lines.at(start(attribute)),
                value: self.value(&attribute.value),
            },
            Structure::Block(block) => {
                let line = self.lines.at(start(block));
                let content = Value::Map(self.body(&block.body));
                let value = block.labels.iter().rev().fold(content, |value, label| {
                    Value::Map(vec![Field { name: Some(label.as_str().to_owned()), line, value }])
                });
                Field { name: Some(block.ident.to_string()), line, value }
            }
        };
        body.iter().map(field).collect()
    }

    fn value(&self, expression: &Expression) -> Value {
        match expression {
            Expression::Null(_) | Expression::Bool(_) | Expression::Number(_) => Value::Plain,
            Expression::Array(array) => {
                Value::List(array.iter().map(|item| (self.lines.at(start(item)), self.value(item))).collect())
            }
            Expression::Object(object) => Value::Map(
                object
                    .iter()
                    .map(|(key, value)| Field {
                        name: match key {
                            ObjectKey::Ident(ident) => Some(ident.to_string()),
                            ObjectKey::Expression(key) => text_of(key),
                        },
                        line: self.lines.at(start(value.expr())),
                        value: self.value(value.expr()),
                    })
                    .collect(),
            ),
            Expression::Parenthesis(inner) => self.value(inner.inner()),
            // Either may come of it.
            Expression::Conditional(conditional) => Value::List(
                [&conditional.true_expr, &conditional.false_expr]
                    .map(|item| (self.lines.at(start(item)), self.value(item)))
                    .into(),
            ),
            other => text_of(other).map_or(Value::Computed, Value::Text),
        }
    }
}

/// A text as Packer would read it in a place where templates stand; none where that isn't sure.
pub(super) fn template_of(text: &str) -> Option<Template> {
    let template = text.parse::<Template>().ok()?;
    heredocs::unclear_in_template(text, &template).is_none().then_some(template)
}

/// The text that an expression is, where that is known without evaluating it.
pub(super) fn text_of(expression: &Expression) -> Option<String> {
    match expression {
        Expression::String(text) => Some(text.as_str().to_owned()),
        Expression::StringTemplate(template) => text_of_elements(template.iter()),
        Expression::HeredocTemplate(heredoc) => text_of_elements(heredoc.template.iter()),
        Expression::Parenthesis(inner) => text_of(inner.inner()),
        Expression::Traversal(traversal) => {
            let is_path = matches!(&traversal.expr, Expression::Variable(name) if name.as_str() == "path");
            let folder = match traversal.operators.as_slice() {
                [operator] if is_path => match operator.value() {
                    TraversalOperator::GetAttr(attribute) => attribute.as_str(),
                    _ => return None,
                },
                _ => return None,
            };
            matches!(folder, "root" | "cwd").then(|| ".".to_owned())
        }
        _ => None,
    }
}

fn text_of_elements<'a>(elements: impl Iterator<Item = &'a Element>) -> Option<String> {
    let mut text = String::new();
    for element in elements {
        match element {
            Element::Literal(literal) => text.push_str(literal),
            // `~` takes white space away on its side.
            Element::Interpolation(interpolation) if interpolation.strip != Strip::None => return None,
            Element::Interpolation(interpolation) => text.push_str(&text_of(&interpolation.expr)?),
            Element::Directive(_) => return None,
        }
    }
    Some(text)
}

struct JsonReader {
    lines: Lines,
    hcl2: bool,
    calls: Vec<Call>,
    plain_strings: Vec<(usize, String)>,
    unreadable: Vec<usize>,
}

impl JsonReader {
    fn value(&mut self, json: &Json<'_>) -> Value {
        match json {
            Json::BooleanLit(_) | Json::NumberLit(_) | Json::NullKeyword(_) => Value::Plain,
            Json::StringLit(text) => {
                let line = self.lines.at(json.start());
                self.text(&text.value, line)
            }
            Json::Array(array) => Value::List(
                array.elements.iter().map(|item| (self.lines.at(item.start()), self.value(item))).collect(),
            ),
            Json::Object(object) => Value::Map(
                object
                    .properties
                    .iter()
                    .map(|property| {
                        let line = self.lines.at(property.start());
                        Field {
                            name: self.name(property.name.as_str(), line),
                            line,
                            value: self.value(&property.value),
                        }
                    })
                    .collect(),
            ),
        }
    }

    fn name(&mut self, name: &str, line: usize) -> Option<String> {
        if !self.hcl2 {
            // Packer compares names as Go's `EqualFold` does, to which these two are an `s` and a `k`.
            return Some(name.replace('\u{17f}', "s").replace('\u{212a}', "k").to_ascii_lowercase());
        }
        match self.text(name, line) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn text(&mut self, text: &str, line: usize) -> Value {
        if !self.hcl2 {
            self.plain_strings.push((line, text.to_owned()));
            return Value::Text(text.to_owned());
        }
        let Some(template) = template_of(text) else {
            // Packer could not read it either; should it, nothing is known of it.
            if text.contains("${") || text.contains("%{") {
                self.unreadable.push(line);
            }
            return Value::Computed;
        };
        self.calls.extend(calls_in_template(&template).into_iter().map(|call| Call { line, ..call }));
        text_of_elements(template.iter()).map_or(Value::Computed, Value::Text)
    }
}
