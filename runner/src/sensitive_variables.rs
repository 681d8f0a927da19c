//! Finds the values of the variables that a template marks as sensitive, so that they can be masked.
//!
//! Reads what Packer would read: `variable` blocks of HCL and HCL-JSON templates, `sensitive-variables` of the old JSON
//! templates, and values from defaults, from `*.auto.pkrvars.*`, and from the bundle's own variables. Values that only
//! Packer can work out (a sensitive local, a value from Vault) are out of its reach.
//!
//! Must never fail: a template that cannot be read is Packer's to complain about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ciab_template::parse_hcl;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Structure};
use serde_json::{Map, Value};

/// A template file larger than this is no template.
const LARGEST_FILE: u64 = 4 << 20;

/// The sensitive values of the template in `folder` with the variables of the file `variables`.
pub fn values(folder: &Path, variables: &Path) -> Vec<String> {
    let mut found = Variables::default();
    for path in files(folder) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(text) = read(&path) else { continue };
        if name.ends_with(".pkr.hcl") {
            found.read_hcl(&text);
        } else if name.ends_with(".auto.pkrvars.hcl") {
            found.read_hcl_values(&text);
        } else if name.ends_with(".auto.pkrvars.json") {
            found.read_json_values(&text);
        } else if name.ends_with(".json") {
            found.read_json(&text);
        }
    }
    if let Some(text) = read(variables) {
        found.read_json_values(&text);
    }
    found.sensitive_values()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

fn read(path: &Path) -> Option<String> {
    let size = std::fs::metadata(path).ok()?.len();
    (size <= LARGEST_FILE).then(|| std::fs::read_to_string(path).ok()).flatten()
}

#[derive(Default)]
struct Variables {
    sensitive: BTreeSet<String>,
    values: BTreeMap<String, Vec<String>>,
}

impl Variables {
    fn read_hcl(&mut self, text: &str) {
        let Some(body) = parse_hcl(text) else { return };
        for block in body.blocks().filter(|block| block.ident.as_str() == "variable") {
            let Some(name) = block.labels.first().map(|label| label.as_str().to_owned()) else { continue };
            for attribute in block.body.attributes() {
                match attribute.key.as_str() {
                    "sensitive" if matches!(&attribute.value, Expression::Bool(yes) if *yes.value()) => {
                        self.sensitive.insert(name.clone());
                    }
                    "default" => self.add_hcl(&name, attribute),
                    _ => {}
                }
            }
        }
        // The older form: `variables { name = "default" }`. None of these can be sensitive, so there is nothing to read.
    }

    fn read_hcl_values(&mut self, text: &str) {
        let Some(body) = parse_hcl(text) else { return };
        for structure in &body {
            if let Structure::Attribute(attribute) = structure {
                self.add_hcl(attribute.key.as_str(), attribute);
            }
        }
    }

    fn add_hcl(&mut self, name: &str, attribute: &Attribute) {
        let values = self.values.entry(name.to_owned()).or_default();
        hcl_leaves(&attribute.value, values);
    }

    fn read_json_values(&mut self, text: &str) {
        let Ok(Value::Object(variables)) = serde_json::from_str(text) else { return };
        self.add_json(&variables);
    }

    fn add_json(&mut self, variables: &Map<String, Value>) {
        for (name, value) in variables {
            json_leaves(value, self.values.entry(name.clone()).or_default());
        }
    }

    fn read_json(&mut self, text: &str) {
        let Ok(Value::Object(template)) = serde_json::from_str(text.trim_start_matches('\u{feff}')) else {
            return;
        };
        // Legacy Packer takes its names in any case.
        for (key, value) in &template {
            match key.to_ascii_lowercase().as_str() {
                "sensitive-variables" => {
                    let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                    self.sensitive.extend(names.map(str::to_owned));
                }
                "variables" => objects(value).for_each(|variables| self.add_json(variables)),
                "variable" => self.read_json_variables(value),
                _ => {}
            }
        }
    }

    /// HCL2's JSON takes an array of objects wherever it takes an object.
    fn read_json_variables(&mut self, variables: &Value) {
        for (name, variable) in objects(variables).flatten() {
            for (key, value) in objects(variable).flatten() {
                match key.as_str() {
                    "sensitive" if value.as_bool() == Some(true) => {
                        self.sensitive.insert(name.clone());
                    }
                    "default" => json_leaves(value, self.values.entry(name.clone()).or_default()),
                    _ => {}
                }
            }
        }
    }

    fn sensitive_values(self) -> Vec<String> {
        let Self { sensitive, values } = self;
        values
            .into_iter()
            .filter(|(name, _)| sensitive.contains(name))
            .flat_map(|(_, values)| values)
            .collect()
    }
}

fn hcl_leaves(expression: &Expression, leaves: &mut Vec<String>) {
    match expression {
        Expression::String(text) => leaves.push(text.value().clone()),
        Expression::Number(number) => leaves.push(number.value().to_string()),
        Expression::HeredocTemplate(heredoc) => leaves.push(heredoc.template.to_string()),
        Expression::StringTemplate(template) => {
            leaves.push(template.to_string().trim_matches('"').to_owned())
        }
        Expression::Array(array) => array.iter().for_each(|value| hcl_leaves(value, leaves)),
        Expression::Object(object) => object.iter().for_each(|(_, value)| hcl_leaves(value.expr(), leaves)),
        // Null and booleans are no secrets; defaults and variable files cannot hold anything else.
        _ => {}
    }
}

/// The object, or those of the array.
fn objects(value: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    let of_array = value.as_array().into_iter().flatten().filter_map(Value::as_object);
    value.as_object().into_iter().chain(of_array)
}

fn json_leaves(value: &Value, leaves: &mut Vec<String>) {
    match value {
        Value::String(text) => leaves.push(text.clone()),
        Value::Number(number) => leaves.push(number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| json_leaves(value, leaves)),
        Value::Object(values) => values.values().for_each(|value| json_leaves(value, leaves)),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values_of(files: &[(&str, &str)], variables: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("template");
        std::fs::create_dir(&template).unwrap();
        for (name, text) in files {
            std::fs::write(template.join(name), text).unwrap();
        }
        let variables_file = folder.path().join("variables.pkrvars.json");
        std::fs::write(&variables_file, variables).unwrap();
        let mut values = values(&template, &variables_file);
        values.sort();
        values
    }

    #[test]
    fn given_and_default_values_of_sensitive_variables_are_found() {
        let template = r#"
            variable "token" {
              type      = string
              sensitive = true
              default   = "fallback-token"
            }
            variable "name" { default = "harmless" }
            variable "open" {
              sensitive = false
              default   = "also harmless"
            }
        "#;
        let found = values_of(
            &[("build.pkr.hcl", template)],
            r#"{"token": "given-token", "name": "n", "open": "o"}"#,
        );
        assert_eq!(found, ["fallback-token", "given-token"]);
    }

    #[test]
    fn values_within_lists_and_objects_are_found() {
        let template = r#"
            variable "tokens" {
              sensitive = true
              default   = ["one-token", { inner = "two-token" }]
            }
        "#;
        let found =
            values_of(&[("a.pkr.hcl", template)], r#"{"tokens": {"x": ["three-token", true, null, 4711]}}"#);
        assert_eq!(found, ["4711", "one-token", "three-token", "two-token"]);
    }

    #[test]
    fn automatic_variable_files_are_read() {
        let template = "variable \"a\" {\n sensitive = true\n}\nvariable \"b\" {\n sensitive = true\n}\n";
        let found = values_of(
            &[
                ("t.pkr.hcl", template),
                ("x.auto.pkrvars.hcl", "a = \"from-hcl\"\n"),
                ("y.auto.pkrvars.json", r#"{"b": "from-json"}"#),
            ],
            "{}",
        );
        assert_eq!(found, ["from-hcl", "from-json"]);
    }

    #[test]
    fn json_templates_of_both_kinds_are_read() {
        let old = r#"{"variables": {"password": "old-default"}, "sensitive-variables": ["password"]}"#;
        let new = r#"{"variable": {"pin": {"sensitive": true, "default": "new-default"}}}"#;
        let found = values_of(&[("template.json", old), ("t.pkr.json", new)], r#"{"password": "given"}"#);
        assert_eq!(found, ["given", "new-default", "old-default"]);
    }

    #[test]
    fn json_in_its_other_spellings_is_read() {
        let old = r#"{"Variables": {"password": "old-default"}, "Sensitive-Variables": ["password"]}"#;
        let new = r#"{"variable": [{"pin": [{"sensitive": true}, {"default": "new-default"}]}]}"#;
        let found = values_of(&[("template.json", old), ("t.pkr.json", new)], "{}");
        assert_eq!(found, ["new-default", "old-default"]);
    }

    #[test]
    fn values_behind_a_byte_order_mark_and_deep_in_a_template_are_found() {
        let deep = format!("{}1{}", "[for a in b : ".repeat(60), "]".repeat(60));
        let template = format!(
            "\u{feff}variable \"a\" {{\n  sensitive = true\n  default = \"secret-a\"\n}}\nlocals {{\n  x = {deep}\n}}\n"
        );
        assert_eq!(values_of(&[("t.pkr.hcl", &template)], "{}"), ["secret-a"]);
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let found = values_of(&[("a.pkr.hcl", "variable {{{"), ("b.json", "{")], "[");
        assert!(found.is_empty());
    }
}
