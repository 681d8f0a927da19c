//! A build's variables: those the caller gives, checked against what the template declares, and those we add.
//!
//! Must never put a variable's value into an error: it may be a secret.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::List;
use crate::summary::DeclaredVariable;
use crate::variable_type::VariableType;

/// The variables that every template gets where it declares them.
pub const STANDARD_VARIABLES: [&str; 6] =
    ["provider", "region", "instance_type", "subnet_id", "ciab_build_id", "ciab_template_digest"];

/// What a build knows by itself, for the variables of [`STANDARD_VARIABLES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StandardValues {
    /// `provider`
    pub provider: String,
    /// `region`
    pub region: String,
    /// `instance_type`
    pub instance_type: String,
    /// `subnet_id`; not passed where there is none.
    pub subnet_id: Option<String>,
    /// `ciab_build_id`
    pub build_id: String,
    /// `ciab_template_digest`
    pub template_digest: String,
}

/// All that is wrong with the variables given, at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct VariableError {
    /// Given, but not declared.
    pub unknown: Vec<String>,
    /// Declared without a default, and not given.
    pub missing: Vec<String>,
    /// Given with a value of the wrong type, each as `name (what it takes)`.
    pub wrong_type: Vec<String>,
    /// All that the template takes.
    pub takes: Vec<String>,
}

impl VariableError {
    fn sentence(&self) -> String {
        let mut parts = Vec::new();
        if !self.unknown.is_empty() {
            parts.push(format!("unknown variables: {}", List(&self.unknown)));
        }
        if !self.missing.is_empty() {
            parts.push(format!("required variables that are missing: {}", List(&self.missing)));
        }
        if !self.wrong_type.is_empty() {
            parts.push(format!("variables of the wrong type: {}", List(&self.wrong_type)));
        }
        format!("{}; the template takes: {}", parts.join("; "), List(&self.takes))
    }
}

/// Checks what a caller gave against what the template declares. [`STANDARD_VARIABLES`] are never missing: the build
/// supplies them.
///
/// # Errors
///
/// One error with everything that is wrong.
pub fn check_variables(
    declared: &[DeclaredVariable],
    given: &BTreeMap<String, Value>,
) -> Result<(), VariableError> {
    let by_name: BTreeMap<&str, &DeclaredVariable> =
        declared.iter().map(|variable| (variable.name.as_str(), variable)).collect();
    let mut error = VariableError::default();
    for (name, value) in given {
        match by_name.get(name.as_str()) {
            None => error.unknown.push(name.clone()),
            Some(variable) => error.wrong_type.extend(wrong_type(variable, value)),
        }
    }
    let missing = by_name.values().filter(|variable| {
        let name = variable.name.as_str();
        !variable.has_default && !given.contains_key(name) && !STANDARD_VARIABLES.contains(&name)
    });
    error.missing = missing.map(|variable| variable.name.clone()).collect();
    if error == VariableError::default() {
        return Ok(());
    }
    error.takes = by_name.into_keys().map(str::to_owned).collect();
    Err(error)
}

/// `given`, and those of the standard values that the template declares and the caller did not give. That is what goes
/// into the variables file.
#[must_use]
pub fn standard_values(
    declared: &[DeclaredVariable],
    given: &BTreeMap<String, Value>,
    values: &StandardValues,
) -> BTreeMap<String, Value> {
    let mut standard = BTreeMap::from([
        ("provider", &values.provider),
        ("region", &values.region),
        ("instance_type", &values.instance_type),
        ("ciab_build_id", &values.build_id),
        ("ciab_template_digest", &values.template_digest),
    ]);
    if let Some(subnet_id) = &values.subnet_id {
        standard.insert("subnet_id", subnet_id);
    }
    let standard = standard.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value.as_str())));
    as_declared(declared, fill_in(declared, given, &standard.collect()))
}

/// Numbers and booleans as text where the template takes text: Packer would convert them itself, but for legacy templates
/// it refuses a file with anything but strings.
fn as_declared(
    declared: &[DeclaredVariable],
    mut values: BTreeMap<String, Value>,
) -> BTreeMap<String, Value> {
    for variable in declared.iter().filter(|variable| variable.type_text.as_deref() == Some("string")) {
        if let Some(value) = values.get_mut(&variable.name)
            && (value.is_number() || value.is_boolean())
        {
            *value = Value::from(value.to_string());
        }
    }
    values
}

/// `given`, and those of `defaults` that the template declares and that are not given.
#[must_use]
pub fn fill_in(
    declared: &[DeclaredVariable],
    given: &BTreeMap<String, Value>,
    defaults: &BTreeMap<String, Value>,
) -> BTreeMap<String, Value> {
    let names: BTreeSet<&str> = declared.iter().map(|variable| variable.name.as_str()).collect();
    let mut filled = given.clone();
    for (name, value) in defaults {
        if names.contains(name.as_str()) {
            filled.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    filled
}

/// The text of `variables.pkrvars.json`. Packer takes every string in it as it stands, `${…}` included.
#[must_use]
pub fn variables_file(values: &BTreeMap<String, Value>) -> Vec<u8> {
    serde_json::to_vec_pretty(values).expect("a map of JSON values is JSON")
}

/// `name (what it takes)`, where the value is none that Packer would convert.
fn wrong_type(variable: &DeclaredVariable, value: &Value) -> Option<String> {
    let declared = variable.type_text.as_deref().map(|text| text.trim_matches('"'));
    // Without a type Packer takes its default's, which is nearly always a string.
    let fits = match declared {
        None => matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_)),
        Some(declared) => VariableType::read(declared).takes(value),
    };
    let takes = match declared {
        None => "a string, number or boolean".to_owned(),
        Some("any") => "any value but null".to_owned(),
        Some(kind @ ("string" | "number" | "bool")) => format!("a {kind}"),
        Some(other) => other.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    (!fits).then(|| format!("{} ({takes})", variable.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bundle, read};
    use serde_json::json;

    const TEMPLATE: &str = r#"
        variable "needed"  { type = string }
        variable "count"   {
          type    = number
          default = 1
        }
        variable "on" {
          type    = bool
          default = true
        }
        variable "names" {
          type    = list(string)
          default = []
        }
        variable "region" {}
        variable "subnet_id" {}
        variables {
          short = "x"
        }
    "#;

    fn declared() -> Vec<DeclaredVariable> {
        read(&Bundle::from_inline(TEMPLATE)).unwrap().variables
    }

    fn given(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_the_template_declares_passes_and_standard_variables_are_never_missing() {
        let values = given(json!({"needed": "x", "count": 3, "on": false, "short": "y"}));
        assert_eq!(check_variables(&declared(), &values), Ok(()));
        let lists = given(json!({"needed": "x", "names": ["a", "b"]}));
        assert_eq!(check_variables(&declared(), &lists), Ok(()));
        let as_text = given(json!({"needed": 5, "count": "3", "on": "true"}));
        assert_eq!(check_variables(&declared(), &as_text), Ok(()));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_without_any_value() {
        let values = given(json!({
            "typo": "s3cret", "count": "s3cret", "on": 1, "names": "s3cret", "short": ["s3cret"]
        }));
        let error = check_variables(&declared(), &values).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown variables: typo; required variables that are missing: needed; variables of the wrong type: \
             count (a number), names (list(string)), on (a bool), \
             short (a string, number or boolean); \
             the template takes: count, names, needed, on, region, short, subnet_id"
        );
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[test]
    fn standard_values_go_only_where_declared_and_not_given() {
        let values = StandardValues {
            provider: "codex".into(),
            region: "us-east-1".into(),
            subnet_id: None,
            ..StandardValues::default()
        };
        let filled = standard_values(&declared(), &given(json!({"needed": "x"})), &values);
        assert_eq!(filled, given(json!({"needed": "x", "region": "us-east-1"})));
        let filled = standard_values(&declared(), &given(json!({"region": "eu-west-1"})), &values);
        assert_eq!(filled, given(json!({"region": "eu-west-1"})));
    }

    #[test]
    fn what_is_declared_as_text_is_passed_as_text() {
        let legacy = r#"{"variables": {"size": null, "on": "x"}, "builders": []}"#;
        let declared = read(&Bundle::from_inline(legacy)).unwrap().variables;
        let values = given(json!({"size": 8, "on": true}));
        assert_eq!(check_variables(&declared, &values), Ok(()));
        let passed = standard_values(&declared, &values, &StandardValues::default());
        assert_eq!(passed, given(json!({"size": "8", "on": "true"})));
    }

    #[test]
    fn a_value_from_the_bundles_own_variable_file_counts_as_a_default() {
        let bundle = Bundle::from_files([
            ("a.pkr.hcl", "variable \"needed\" {}\n"),
            ("x.auto.pkrvars.hcl", "needed = \"y\"\n"),
        ])
        .unwrap();
        assert_eq!(check_variables(&read(&bundle).unwrap().variables, &BTreeMap::new()), Ok(()));
        let bundle = Bundle::from_files([
            ("a.pkr.json", r#"{"variable": {"needed": {"type": "string"}}}"#),
            ("x.auto.pkrvars.json", r#"{"needed": "y"}"#),
        ])
        .unwrap();
        assert_eq!(check_variables(&read(&bundle).unwrap().variables, &BTreeMap::new()), Ok(()));
    }
}
