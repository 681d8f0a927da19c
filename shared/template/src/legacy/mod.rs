//! Packer's legacy JSON templates: one file with `builders` in place of `source` and `build`.
//!
//! There are no expressions in them; `{{…}}` in a string is Packer's to render, and must never be evaluated here.

use std::collections::BTreeSet;

use jsonc_parser::ast::{Object, Value};
use jsonc_parser::common::Ranged as _;

use crate::error::TemplateError;
use crate::json::{Body, JsonFile, as_text, elements};
use crate::summary::{DeclaredSource, DeclaredVariable, TemplateSummary};
use crate::tagging::AmazonBuilder;

/// What makes a JSON file a legacy template.
const BUILDERS: &str = "builders";

/// One builder.
pub(crate) struct Builder<'a> {
    /// Its `type`, such as `amazon-ebs`.
    pub(crate) kind: &'a str,
    /// Its `name`, or its type where it has none, as in Packer.
    pub(crate) name: &'a str,
    pub(crate) body: Body<'a>,
}

/// Whether a parsed JSON file is a legacy template.
pub(crate) fn is_template(file: &JsonFile<'_>) -> bool {
    root(file).is_some_and(|body| body.property(BUILDERS).is_some())
}

/// Refuses a name that comes twice in one object, as Packer does: which of the two counts would be a guess.
pub(crate) fn check_names(file: &JsonFile<'_>) -> Result<(), TemplateError> {
    match twice(&file.root) {
        Some((at, name)) => Err(file.error(at, format!("`{name}` stands twice in one object"))),
        None => Ok(()),
    }
}

/// All builders, in order.
pub(crate) fn builders<'a>(file: &'a JsonFile<'a>) -> Result<Vec<Builder<'a>>, TemplateError> {
    let Some(value) = root(file).and_then(|body| body.value(BUILDERS)) else { return Ok(Vec::new()) };
    if value.as_array().is_none() {
        return Err(file.error(value.start(), "`builders` takes an array of objects".to_owned()));
    }
    elements(value)
        .iter()
        .map(|element| {
            let object = element.as_object().ok_or_else(|| {
                file.error(element.start(), "`builders` takes an array of objects".to_owned())
            })?;
            let body = file.body(object, object.start());
            let kind = body
                .text("type")
                .ok_or_else(|| file.error(object.start(), "this builder has no `type`".to_owned()))?;
            let name = body.text("name").filter(|name| !name.is_empty()).unwrap_or(kind);
            Ok(Builder { kind, name, body })
        })
        .collect()
}

/// Adds what the template declares.
pub(crate) fn read_declarations(
    file: &JsonFile<'_>,
    summary: &mut TemplateSummary,
) -> Result<(), TemplateError> {
    for builder in builders(file)? {
        summary.sources.push(DeclaredSource {
            kind: builder.kind.to_owned(),
            name: builder.name.to_owned(),
            file: file.path.to_owned(),
            line: builder.body.line(),
            is_amazon: AmazonBuilder::of(builder.kind).is_some(),
        });
    }
    let Some(root) = root(file) else { return Ok(()) };
    summary.required_versions.extend(root.text("min_packer_version").map(|version| format!(">= {version}")));

    let sensitive: BTreeSet<&str> =
        root.value("sensitive-variables").map_or(&[] as &[_], elements).iter().filter_map(as_text).collect();
    let Some(variables) = root.value("variables") else { return Ok(()) };
    let Some(variables) = variables.as_object() else {
        return Err(file.error(variables.start(), "`variables` takes an object".to_owned()));
    };
    for variable in &variables.properties {
        let name = variable.name.as_str();
        summary.variables.push(DeclaredVariable {
            name: name.to_owned(),
            type_text: Some("string".to_owned()),
            // `null` is how a legacy template says that a value must be given.
            has_default: variable.value.as_null_keyword().is_none(),
            sensitive: sensitive.contains(name),
            description: None,
            file: file.path.to_owned(),
            line: file.line_at(variable.start()),
        });
    }
    Ok(())
}

fn root<'a>(file: &'a JsonFile<'a>) -> Option<Body<'a>> {
    file.root.as_object().map(|object| file.body(object, object.start()))
}

/// Where a name stands that its object has already.
fn twice<'a>(value: &'a Value<'a>) -> Option<(usize, &'a str)> {
    match value {
        Value::Array(array) => array.elements.iter().find_map(twice),
        Value::Object(Object { properties, .. }) => {
            let mut seen = BTreeSet::new();
            properties.iter().find_map(|property| {
                let name = property.name.as_str();
                if seen.insert(name) { twice(&property.value) } else { Some((property.start(), name)) }
            })
        }
        _ => None,
    }
}
