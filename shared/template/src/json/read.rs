//! What an HCL2 template in JSON declares.

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged as _;

use super::{Body, JsonFile, as_text, range};
use crate::error::TemplateError;
use crate::summary::{DeclaredSource, DeclaredVariable, RequiredPlugin, TemplateSummary};
use crate::tagging::AmazonBuilder;

/// Adds what one file declares.
pub(crate) fn declarations(file: &JsonFile<'_>, summary: &mut TemplateSummary) -> Result<(), TemplateError> {
    for body in file.bodies()? {
        for block in body.blocks("source", 2)? {
            let [kind, name] = block.labels.as_slice() else { continue };
            summary.sources.push(DeclaredSource {
                kind: (*kind).to_owned(),
                name: (*name).to_owned(),
                file: file.path.to_owned(),
                line: block.body.line(),
                is_amazon: AmazonBuilder::of(kind).is_some(),
            });
        }
        for block in body.blocks("variable", 1)? {
            let Some(name) = block.labels.first() else { continue };
            summary.variables.push(declared_variable(name, block.body));
        }
        for block in body.blocks("variables", 0)? {
            summary.variables.extend(shorthand_variables(block.body));
        }
        for block in body.blocks("packer", 0)? {
            read_packer_block(block.body, summary)?;
        }
    }
    Ok(())
}

fn declared_variable(name: &str, body: Body<'_>) -> DeclaredVariable {
    let author_text = |value: &Value<'_>| {
        as_text(value).map_or_else(|| body.file.text[range(value)].to_owned(), str::to_owned)
    };
    DeclaredVariable {
        name: name.to_owned(),
        type_text: body.value("type").map(author_text),
        has_default: body.value("default").is_some(),
        // A value that only Packer can work out could be `true`.
        sensitive: body.value("sensitive").is_some_and(|value| match value {
            Value::BooleanLit(sensitive) => sensitive.value,
            Value::NullKeyword(_) => false,
            other => as_text(other) != Some("false"),
        }),
        description: body.text("description").map(str::to_owned),
        file: body.file.path.to_owned(),
        line: body.line(),
    }
}

/// `"variables": {"name": "default"}`, the short form.
fn shorthand_variables(body: Body<'_>) -> impl Iterator<Item = DeclaredVariable> {
    let named = body.object.properties.iter().filter(|property| property.name.as_str() != "//");
    named.map(move |property| DeclaredVariable {
        name: property.name.as_str().to_owned(),
        type_text: None,
        has_default: true,
        sensitive: false,
        description: None,
        file: body.file.path.to_owned(),
        line: body.file.line_at(property.start()),
    })
}

fn read_packer_block(body: Body<'_>, summary: &mut TemplateSummary) -> Result<(), TemplateError> {
    summary.required_versions.extend(body.text("required_version").map(str::to_owned));
    for plugins in body.blocks("required_plugins", 0)? {
        for plugin in &plugins.body.object.properties {
            let field = |name: &str| {
                let object = plugin.value.as_object()?;
                body.file.body(object, object.start()).text(name).map(str::to_owned)
            };
            summary.required_plugins.push(RequiredPlugin {
                name: plugin.name.as_str().to_owned(),
                source: field("source"),
                version: field("version").or_else(|| as_text(&plugin.value).map(str::to_owned)),
            });
        }
    }
    Ok(())
}
