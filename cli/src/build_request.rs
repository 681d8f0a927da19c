//! From a command line to the body of a build request.
//!
//! What is not given is left out, so that the service's own default holds. No error repeats a variable's value: it may
//! be a secret.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::args::BuildOptions;
use crate::config::BuildDefaults;

#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("{option} takes key=value, and number {position} given has no key or no `=`")]
    NotKeyValue { option: &'static str, position: usize },
    #[error("can't read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not a JSON object of variables ({reason})", path.display())]
    VariableFile { path: PathBuf, reason: String },
    #[error("{}: the variable `{name}` must be a string, a number, true or false", path.display())]
    VariableType { path: PathBuf, name: String },
    #[error("the template {} is a folder", path.display())]
    TemplateFolder { path: PathBuf },
    #[error("the template {} is not a .pkr.hcl file", path.display())]
    TemplateKind { path: PathBuf },
    #[error("the template {} is neither a file nor a source that the service knows", path.display())]
    TemplateMissing { path: PathBuf },
}

impl Error {
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotKeyValue { .. } => Some("for example: --var node_version=22"),
            Self::VariableFile { .. } => {
                Some("write the variables as JSON, for example {\"node_version\": \"22\"}")
            }
            Self::TemplateFolder { .. } | Self::TemplateKind { .. } => {
                Some("give one .pkr.hcl file, or a source the service fetches, such as builtin://default-ec2")
            }
            Self::TemplateMissing { .. } => Some(
                "sources look like builtin://default-ec2, https://… or git::https://…; a path needs an existing file",
            ),
            Self::Read { .. } | Self::VariableType { .. } => None,
        }
    }
}

/// The body of `POST /api/v1/images/build`, in its documented shape. Reads the files that the options name.
pub(crate) fn compose(options: &BuildOptions, defaults: &BuildDefaults) -> Result<Value, Error> {
    let mut body = Map::new();
    body.insert("provider".to_owned(), json!(options.provider));
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(field.to_owned(), value);
        }
    };
    let text = |given: &Option<String>, default: &Option<String>| {
        given.as_ref().or(default.as_ref()).map(|text| json!(text))
    };
    set("region", text(&options.region, &defaults.region));
    set("instance_type", text(&options.instance_type, &defaults.instance_type));
    set("subnet_id", defaults.subnet_id.as_ref().map(|subnet| json!(subnet)));
    set("timeout_secs", timeout_secs(options, defaults).map(|seconds| json!(seconds)));
    match options
        .template
        .as_ref()
        .or(defaults.template.as_ref())
        .map(|source| template(source))
        .transpose()?
    {
        Some(Template::Source(source)) => set("template_source", Some(json!(source))),
        Some(Template::Inline(content)) => {
            set("template", Some(json!({"type": "inline", "content": content})))
        }
        None => {}
    }
    let variables = variables(options)?;
    set("variables", Some(Value::Object(variables)).filter(|variables| *variables != json!({})));
    let tags = key_values("--tag", &options.tags)?;
    set("tags", Some(Value::Object(tags)).filter(|tags| *tags != json!({})));
    set("force", options.force.then_some(json!(true)));
    Ok(Value::Object(body))
}

/// The build's time limit, if it is this side that sets it.
pub(crate) fn timeout_secs(options: &BuildOptions, defaults: &BuildDefaults) -> Option<u64> {
    options.timeout.or(defaults.timeout_secs)
}

#[derive(Debug, PartialEq, Eq)]
enum Template {
    Source(String),
    Inline(String),
}

fn template(source: &str) -> Result<Template, Error> {
    if source.contains("://") || source.starts_with("git::") {
        return Ok(Template::Source(source.to_owned()));
    }
    let path = PathBuf::from(source);
    if path.is_dir() {
        return Err(Error::TemplateFolder { path });
    }
    if !path.exists() {
        return Err(Error::TemplateMissing { path });
    }
    if !source.ends_with(".pkr.hcl") {
        return Err(Error::TemplateKind { path });
    }
    read(&path).map(Template::Inline)
}

fn variables(options: &BuildOptions) -> Result<Map<String, Value>, Error> {
    let mut variables = Map::new();
    for path in &options.variable_files {
        variables.append(&mut variable_file(path, &read(path)?)?);
    }
    variables.append(&mut key_values("--var", &options.variables)?);
    Ok(variables)
}

fn variable_file(path: &Path, text: &str) -> Result<Map<String, Value>, Error> {
    let refused = |reason: String| Error::VariableFile { path: path.to_owned(), reason };
    if path.extension().is_some_and(|extension| extension == "hcl") {
        return Err(refused("variable files in HCL are not read yet".to_owned()));
    }
    // Syntax errors name a line and a column, never what stands there.
    let document: Value = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    let Value::Object(variables) = document else {
        return Err(refused("it is JSON, but no object".to_owned()));
    };
    match variables.iter().find(|(_, value)| value.is_null() || value.is_array() || value.is_object()) {
        Some((name, _)) => Err(Error::VariableType { path: path.to_owned(), name: name.clone() }),
        None => Ok(variables),
    }
}

/// Values stay strings, as Packer reads `-var`; a key given twice keeps its last value.
fn key_values(option: &'static str, given: &[String]) -> Result<Map<String, Value>, Error> {
    let mut pairs = Map::new();
    for (index, text) in given.iter().enumerate() {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => pairs.insert(key.to_owned(), json!(value)),
            _ => return Err(Error::NotKeyValue { option, position: index + 1 }),
        };
    }
    Ok(pairs)
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command, ImageCommand};

    fn options(arguments: &[&str]) -> BuildOptions {
        let arguments = ["ciab", "image", "build"].iter().chain(arguments);
        match Args::parse_from(arguments).command {
            Command::Image(command) => match *command {
                ImageCommand::Build(options) => options,
                _ => panic!("not a build"),
            },
            Command::Completions { .. } => panic!("not a build"),
        }
    }

    fn body(arguments: &[&str]) -> Value {
        compose(&options(arguments), &BuildDefaults::default()).unwrap()
    }

    #[test]
    fn what_is_not_given_is_left_to_the_service() {
        assert_eq!(body(&[]), json!({"provider": "claude-code"}));
    }

    #[test]
    fn every_option_reaches_its_documented_field() {
        let body = body(&[
            "--agent",
            "codex",
            "--region",
            "eu-west-1",
            "--instance-type",
            "t3.large",
            "--template",
            "builtin://default-ec2",
            "--var",
            "node_version=22",
            "--var",
            "empty=",
            "--tag",
            "team=a=b",
            "--force",
            "--timeout",
            "90",
        ]);
        assert_eq!(
            body,
            json!({
                "provider": "codex", "region": "eu-west-1", "instance_type": "t3.large",
                "template_source": "builtin://default-ec2", "variables": {"node_version": "22", "empty": ""},
                "tags": {"team": "a=b"}, "force": true, "timeout_secs": 90
            })
        );
    }

    #[test]
    fn the_configuration_fills_in_what_the_command_line_leaves_out() {
        let defaults = BuildDefaults {
            region: Some("eu-west-1".to_owned()),
            instance_type: Some("t3.medium".to_owned()),
            subnet_id: Some("subnet-1".to_owned()),
            timeout_secs: Some(600),
            template: Some("builtin://mine".to_owned()),
        };
        let body = compose(&options(&["--region", "us-west-2", "--timeout", "60"]), &defaults).unwrap();
        assert_eq!(
            body,
            json!({
                "provider": "claude-code", "region": "us-west-2", "instance_type": "t3.medium",
                "subnet_id": "subnet-1", "timeout_secs": 60, "template_source": "builtin://mine"
            })
        );
    }

    #[test]
    fn sources_that_only_the_service_can_judge_are_passed_on() {
        for source in [
            "https://a/b.pkr.hcl",
            "git::https://a//b?ref=c",
            "git::ssh@a:b",
            "s3://a/b",
            "template://sha256:1",
        ] {
            assert_eq!(template(source).unwrap(), Template::Source(source.to_owned()));
        }
    }

    #[test]
    fn one_local_template_is_sent_inline_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image.pkr.hcl");
        std::fs::write(&file, "source {}").unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        assert_eq!(template(&path(&file)).unwrap(), Template::Inline("source {}".to_owned()));
        assert!(matches!(template(&path(folder.path())), Err(Error::TemplateFolder { .. })));
        assert!(matches!(
            template(&path(&folder.path().join("no.pkr.hcl"))),
            Err(Error::TemplateMissing { .. })
        ));
        let other = folder.path().join("image.json");
        std::fs::write(&other, "{}").unwrap();
        assert!(matches!(template(&path(&other)), Err(Error::TemplateKind { .. })));
    }

    #[test]
    fn variable_files_keep_their_types_and_refuse_what_packer_variables_cannot_be_here() {
        let read = |text: &str| variable_file(Path::new("v.json"), text);
        let variables = read(r#"{"a": "x", "b": 2, "c": true}"#).unwrap();
        assert_eq!(Value::Object(variables), json!({"a": "x", "b": 2, "c": true}));
        assert!(matches!(read(r#"{"a": ["x"]}"#), Err(Error::VariableType { name, .. }) if name == "a"));
        assert!(matches!(
            variable_file(Path::new("v.pkrvars.hcl"), "a = 1"),
            Err(Error::VariableFile { .. })
        ));
    }

    #[test]
    fn no_error_repeats_a_value() {
        for text in [
            "\"hunter2\"",
            "{\"a\": hunter2}",
            "{\"a\": \"hunter2\" \"b\"}",
            "[\"hunter2\"]",
            "{\"a\":[\"hunter2\"]}",
        ] {
            let error = variable_file(Path::new("v.json"), text).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let error = key_values("--var", &["hunter2".to_owned()]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_variable_on_the_command_line_wins_over_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("v.json");
        std::fs::write(&file, r#"{"a": 1, "b": 2}"#).unwrap();
        let body = body(&["--var", "b=3", "--var-file", file.to_str().unwrap()]);
        assert_eq!(body["variables"], json!({"a": 1, "b": "3"}));
    }
}
