//! Files with values for variables, `.pkrvars.hcl` and `.pkrvars.json`.
//!
//! Reads values that are written out, and must never evaluate anything. No error repeats a value: it may be a secret.

use std::collections::BTreeMap;

use hcl_edit::Span;
use hcl_edit::expr::{Expression, ObjectKey, UnaryOperator};
use hcl_edit::structure::{Body, Structure};
use hcl_edit::template::Element;
use serde_json::{Number, Value};

use crate::stack::with_room;

/// Why a variable file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct VariableFileError {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: String,
}

/// The values in a variable file: HCL where its name ends with `.hcl`, else JSON.
///
/// # Errors
///
/// Where it is not that, holds anything but values, or gives one twice.
pub fn read_variable_file(file: &str, bytes: &[u8]) -> Result<BTreeMap<String, Value>, VariableFileError> {
    let error = |line: usize, problem: &str| VariableFileError {
        file: file.to_owned(),
        line,
        problem: problem.to_owned(),
    };
    let text = std::str::from_utf8(bytes).map_err(|_| error(1, "not UTF-8 text"))?;
    if file.ends_with(".hcl") { with_room(|| of_hcl(text, &error)) } else { of_json(text, &error) }
}

type MakeError<'a> = &'a dyn Fn(usize, &str) -> VariableFileError;

fn of_json(text: &str, error: MakeError<'_>) -> Result<BTreeMap<String, Value>, VariableFileError> {
    // Its message names what was expected, and a key that comes twice; never what stands in a value.
    match serde_json::from_str(text) {
        Ok(Value::Object(values)) => Ok(values.into_iter().collect()),
        Ok(_) => Err(error(1, "it is JSON, but not an object of variables")),
        Err(wrong) => {
            let reason = match wrong.classify() {
                serde_json::error::Category::Eof => "it ends before the JSON does",
                _ => "not JSON; write the variables as an object, such as {\"node_version\": \"22\"}",
            };
            Err(error(wrong.line().max(1), reason))
        }
    }
}

fn of_hcl(text: &str, error: MakeError<'_>) -> Result<BTreeMap<String, Value>, VariableFileError> {
    // The parser's own message may quote the text, and so a value.
    let body: Body = text.parse().map_err(|wrong: hcl_edit::parser::Error| {
        error(wrong.location().line(), "not HCL; write each variable as name = value")
    })?;
    let reader = Reader { text, error };
    let mut values = BTreeMap::new();
    for structure in body.iter() {
        match structure {
            Structure::Attribute(attribute) => {
                let name = attribute.key.to_string();
                let value = reader.value(&attribute.value)?;
                if values.insert(name.clone(), value).is_some() {
                    return Err(reader.error_at(attribute, &format!("`{name}` is given twice")));
                }
            }
            Structure::Block(block) => {
                let problem = format!(
                    "the block `{}`: a variable file holds only values, as name = value",
                    block.ident.as_str()
                );
                return Err(reader.error_at(block, &problem));
            }
        }
    }
    Ok(values)
}

struct Reader<'a> {
    text: &'a str,
    error: MakeError<'a>,
}

impl Reader<'_> {
    fn error_at(&self, spanned: &impl Span, problem: &str) -> VariableFileError {
        let start = spanned.span().map_or(0, |span| span.start);
        let line = self.text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        (self.error)(line, problem)
    }

    fn value(&self, expression: &Expression) -> Result<Value, VariableFileError> {
        Ok(match expression {
            Expression::Null(_) => Value::Null,
            Expression::Bool(value) => Value::Bool(*value.value()),
            Expression::String(text) => Value::String(text.as_str().to_owned()),
            Expression::Number(number) => return self.number(number, number.value(), false),
            Expression::UnaryOp(operation) => match (operation.operator.value(), &operation.expr) {
                (UnaryOperator::Neg, Expression::Number(number)) => {
                    return self.number(operation.as_ref(), number.value(), true);
                }
                _ => return Err(self.not_literal(expression)),
            },
            Expression::Parenthesis(inner) => self.value(inner.inner())?,
            Expression::Array(items) => {
                Value::Array(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Expression::Object(object) => {
                let mut values = serde_json::Map::new();
                for (key, value) in object.iter() {
                    let name = match key {
                        ObjectKey::Ident(ident) => ident.to_string(),
                        ObjectKey::Expression(Expression::String(text)) => text.as_str().to_owned(),
                        ObjectKey::Expression(other) => return Err(self.not_literal(other)),
                    };
                    values.insert(name, self.value(value.expr())?);
                }
                Value::Object(values)
            }
            Expression::StringTemplate(template) => self.literal(expression, template.iter())?,
            Expression::HeredocTemplate(heredoc) => self.literal(expression, heredoc.template.iter())?,
            other => return Err(self.not_literal(other)),
        })
    }

    fn literal<'a>(
        &self,
        whole: &Expression,
        elements: impl Iterator<Item = &'a Element>,
    ) -> Result<Value, VariableFileError> {
        let mut text = String::new();
        for element in elements {
            match element {
                Element::Literal(literal) => text.push_str(literal),
                _ => return Err(self.not_literal(whole)),
            }
        }
        Ok(Value::String(text))
    }

    fn number(
        &self,
        spanned: &impl Span,
        number: &hcl_edit::Number,
        negative: bool,
    ) -> Result<Value, VariableFileError> {
        let whole = number.as_i64().map(|value| if negative { value.checked_neg() } else { Some(value) });
        let json = match (whole.flatten(), number.as_u64()) {
            (Some(value), _) => Some(Number::from(value)),
            (None, Some(value)) if !negative => Some(Number::from(value)),
            _ => number.as_f64().and_then(|value| Number::from_f64(if negative { -value } else { value })),
        };
        json.map(Value::Number).ok_or_else(|| self.error_at(spanned, "a number that is too large"))
    }

    fn not_literal(&self, expression: &Expression) -> VariableFileError {
        self.error_at(
            expression,
            "a variable file takes values that are written out: strings, numbers, booleans, lists and maps, and no expressions",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(file: &str, text: &str) -> Result<Value, String> {
        read_variable_file(file, text.as_bytes())
            .map(|values| values.into_iter().collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let text = r#"
            # A comment.
            text   = "a \"b\" $${c}"
            empty  = ""
            whole  = 22
            less   = -3
            part   = 1.5
            large  = 9007199254740993
            on     = true
            none   = null
            inner  = ("x")
            list   = ["a", 1, false, ["b"]]
            map    = { a = "b", "c d" = { e = [1] } }
            block  = <<-EOT
              one
                two
              EOT
        "#;
        assert_eq!(
            read("x.pkrvars.hcl", text).unwrap(),
            json!({
                "text": "a \"b\" ${c}", "empty": "", "whole": 22, "less": -3, "part": 1.5, "large": 9_007_199_254_740_993_u64,
                "on": true, "none": null, "inner": "x", "list": ["a", 1, false, ["b"]],
                "map": {"a": "b", "c d": {"e": [1]}}, "block": "one\n  two\n"
            })
        );
        assert_eq!(read("x.json", r#"{"a": [1, {"b": null}]}"#).unwrap(), json!({"a": [1, {"b": null}]}));
        assert_eq!(read("x.pkrvars.hcl", "").unwrap(), json!({}));
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_line_and_without_any_value() {
        let expression = "a variable file takes values that are written out: strings, numbers, booleans, lists and maps, and \
                          no expressions";
        for (text, problem) in [
            ("a = 1\nb = env(\"s3cret\")", format!("x.hcl:2: {expression}")),
            ("a = \"s3cret ${b}\"", format!("x.hcl:1: {expression}")),
            ("a = [\n  1,\n  s3cret,\n]", format!("x.hcl:3: {expression}")),
            ("a = { (b) = \"s3cret\" }", format!("x.hcl:1: {expression}")),
            ("a = <<E\ns3cret ${b}\nE\n", format!("x.hcl:1: {expression}")),
            ("a = 1 + 1", format!("x.hcl:1: {expression}")),
            ("a = !true", format!("x.hcl:1: {expression}")),
            ("a = b ? \"s3cret\" : 1", format!("x.hcl:1: {expression}")),
            (
                "\nvariable \"a\" {\n  default = \"s3cret\"\n}",
                "x.hcl:2: the block `variable`: a variable file holds only values, as name = value"
                    .to_owned(),
            ),
            ("a = \"s3cret", "x.hcl:1: not HCL; write each variable as name = value".to_owned()),
        ] {
            assert_eq!(read("x.hcl", text).unwrap_err(), problem);
        }
        for (text, problem) in [
            ("[\"s3cret\"]", "x.json:1: it is JSON, but not an object of variables"),
            ("{\"a\":\n\"s3cret\"", "x.json:2: it ends before the JSON does"),
            (
                "{\"a\":\n\"s3cret\" 1}",
                "x.json:2: not JSON; write the variables as an object, such as {\"node_version\": \"22\"}",
            ),
        ] {
            assert_eq!(read("x.json", text).unwrap_err(), problem);
        }
    }

    #[test]
    fn a_name_that_is_given_twice_is_refused() {
        let error = read("x.hcl", "a = 1\na = 2\n").unwrap_err();
        assert!(error.starts_with("x.hcl:2: "), "{error}");
    }
}
