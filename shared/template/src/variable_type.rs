//! The type of a variable, as its template declares it, and which values Packer would convert to it.

use std::collections::BTreeMap;

use hcl_edit::expr::{Expression, FuncCall, ObjectKey};
use serde_json::Value;

use crate::stack::with_room;

/// A type constraint of HCL.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum VariableType {
    Any,
    String,
    Number,
    Bool,
    /// `list` or `set`.
    Sequence(Box<Self>),
    Tuple(Vec<Self>),
    Map(Box<Self>),
    /// Attributes by name, and whether each may be left out.
    Object(BTreeMap<String, (Self, bool)>),
}

impl VariableType {
    /// Reads what stands after `type =`. Whatever can't be understood is taken for `any`: Packer has the last word.
    pub(crate) fn read(text: &str) -> Self {
        // Old templates quote it.
        let text = text.trim().trim_matches('"');
        with_room(|| text.parse::<Expression>().map_or(Self::Any, |expression| Self::of(&expression)))
    }

    fn of(expression: &Expression) -> Self {
        match expression {
            Expression::Variable(name) => match name.as_str() {
                "string" => Self::String,
                "number" => Self::Number,
                "bool" => Self::Bool,
                "list" | "set" => Self::Sequence(Box::new(Self::Any)),
                "map" => Self::Map(Box::new(Self::Any)),
                _ => Self::Any,
            },
            Expression::FuncCall(call) => Self::of_call(call),
            _ => Self::Any,
        }
    }

    fn of_call(call: &FuncCall) -> Self {
        let Some(argument) = call.args.iter().next() else { return Self::Any };
        match (call.name.name.as_str(), argument) {
            ("list" | "set", element) => Self::Sequence(Box::new(Self::of(element))),
            ("map", element) => Self::Map(Box::new(Self::of(element))),
            ("tuple", Expression::Array(elements)) => Self::Tuple(elements.iter().map(Self::of).collect()),
            ("object", Expression::Object(object)) => {
                let attributes = object.iter().filter_map(|(key, value)| {
                    let name = match key {
                        ObjectKey::Ident(ident) => ident.to_string(),
                        ObjectKey::Expression(key) => key.as_str()?.to_owned(),
                    };
                    Some((name, Self::of_attribute(value.expr())))
                });
                Self::Object(attributes.collect())
            }
            _ => Self::Any,
        }
    }

    fn of_attribute(expression: &Expression) -> (Self, bool) {
        match expression {
            Expression::FuncCall(call) if call.name.name.as_str() == "optional" => {
                (call.args.iter().next().map_or(Self::Any, Self::of), true)
            }
            other => (Self::of(other), false),
        }
    }

    /// Whether Packer would take the value, given in a JSON variable file.
    pub(crate) fn takes(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => false,
            (Self::Any, _) | (Self::String, Value::String(_) | Value::Number(_) | Value::Bool(_)) => true,
            (Self::Number, Value::Number(_)) | (Self::Bool, Value::Bool(_)) => true,
            (Self::Number, Value::String(text)) => text.parse::<f64>().is_ok_and(f64::is_finite),
            (Self::Bool, Value::String(text)) => matches!(text.as_str(), "true" | "false"),
            (Self::Sequence(element), Value::Array(items)) => items.iter().all(|item| element.takes(item)),
            (Self::Tuple(elements), Value::Array(items)) => {
                elements.len() == items.len()
                    && elements.iter().zip(items).all(|(element, item)| element.takes(item))
            }
            (Self::Map(element), Value::Object(entries)) => {
                entries.values().all(|entry| element.takes(entry))
            }
            (Self::Object(attributes), Value::Object(entries)) => {
                attributes.iter().all(|(name, (of, optional))| match entries.get(name) {
                    None | Some(Value::Null) => *optional,
                    Some(entry) => of.takes(entry),
                })
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_type_takes_what_packer_converts_to_it_and_nothing_else() {
        for (of, taken, refused) in [
            ("string", vec![json!("x"), json!(1), json!(true)], vec![json!(null), json!(["x"]), json!({})]),
            ("\"string\"", vec![json!("x")], vec![json!([])]),
            ("number", vec![json!(1), json!("1.5")], vec![json!("x"), json!(true), json!("inf")]),
            ("bool", vec![json!(false), json!("true")], vec![json!(1), json!("yes")]),
            ("any", vec![json!("x"), json!([1]), json!({"a": 1})], vec![json!(null)]),
            (
                "list(string)",
                vec![json!([]), json!(["a", 1])],
                vec![json!("a"), json!([["a"]]), json!([null]), json!({})],
            ),
            ("set(number)", vec![json!([1, "2"])], vec![json!(["x"])]),
            ("list", vec![json!(["a", ["b"]])], vec![json!("a")]),
            ("map(string)", vec![json!({}), json!({"a": "b"})], vec![json!([]), json!({"a": ["b"]})]),
            ("map(list(number))", vec![json!({"a": [1]})], vec![json!({"a": 1})]),
            ("tuple([string, number])", vec![json!(["a", 1])], vec![json!(["a"]), json!(["a", "b"])]),
            (
                "object({\n  name = string\n  size = optional(number, 5)\n})",
                vec![json!({"name": "a"}), json!({"name": "a", "size": 1}), json!({"name": "a", "other": 1})],
                vec![json!({}), json!({"name": "a", "size": "x"}), json!("a")],
            ),
            ("something_new(string)", vec![json!("x"), json!([1])], vec![]),
        ] {
            let read = VariableType::read(of);
            assert!(taken.iter().all(|value| read.takes(value)), "{of} refuses one of {taken:?}");
            assert!(!refused.iter().any(|value| read.takes(value)), "{of} takes one of {refused:?}");
        }
    }
}
