//! From a command line to the body of a build request.
//!
//! What is not given is left out, so that the service's own default holds. No error repeats a variable's value: it may
//! be a secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ciab_template::{VariableFileError, read_variable_file};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::args::BuildOptions;
use crate::config::BuildDefaults;
use crate::local_template::{self, PackedTemplate};

#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("{option} takes key=value, and number {position} given has no key or no `=`")]
    NotKeyValue { option: &'static str, position: usize },
    #[error("can't read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    VariableFile(#[from] VariableFileError),
    #[error("{}: the variable `{name}` is null, and has to have a value", path.display())]
    NullVariable { path: PathBuf, name: String },
    #[error(transparent)]
    Template(#[from] local_template::Error),
}

impl Error {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NotKeyValue { .. } => Some("for example: --var node_version=22".to_owned()),
            Self::Template(error) => error.hint(),
            Self::Read { .. } | Self::VariableFile(_) | Self::NullVariable { .. } => None,
        }
    }
}

/// Bytes of one template that still travels inside of the request.
const INLINE_LIMIT: u64 = 256 * 1024;

/// A build request, ready but for what has to be uploaded before it.
#[derive(Debug)]
pub(crate) struct BuildRequest {
    /// The body of `POST /api/v1/images/build`, in its documented shape.
    pub(crate) body: Map<String, Value>,
    /// Becomes the body's `template_source` once the service has it.
    pub(crate) upload: Option<PackedTemplate>,
}

/// Reads the files that the options name.
pub(crate) fn compose(options: &BuildOptions, defaults: &BuildDefaults) -> Result<BuildRequest, Error> {
    let mut body = Map::new();
    let mut upload = None;
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
        Some(Template::Upload(packed)) => upload = Some(packed),
        None => {}
    }
    let variables = variables(&options.variable_files, &options.variables)?;
    set("variables", Some(Value::Object(variables)).filter(|variables| *variables != json!({})));
    let tags = key_values("--tag", &options.tags)?;
    set("tags", Some(Value::Object(tags)).filter(|tags| *tags != json!({})));
    set("force", options.force.then_some(json!(true)));
    Ok(BuildRequest { body, upload })
}

/// The build's time limit, if it is this side that sets it.
pub(crate) fn timeout_secs(options: &BuildOptions, defaults: &BuildDefaults) -> Option<u64> {
    options.timeout.or(defaults.timeout_secs)
}

#[derive(Debug, PartialEq, Eq)]
enum Template {
    Source(String),
    Inline(String),
    Upload(PackedTemplate),
}

fn template(source: &str) -> Result<Template, Error> {
    if source.contains("://") || source.starts_with("git::") {
        return Ok(Template::Source(source.to_owned()));
    }
    let path = Path::new(source);
    let is_template = source.ends_with(".pkr.hcl") || source.ends_with(".json");
    let is_small = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= INLINE_LIMIT);
    if is_template && is_small {
        return read(path).map(Template::Inline);
    }
    let bundle = local_template::read(path)?;
    Ok(Template::Upload(local_template::pack(path, &bundle)?))
}

/// Packer variables from files, and over them those of the command line.
pub(crate) fn variables(files: &[PathBuf], given: &[String]) -> Result<Map<String, Value>, Error> {
    let mut variables = Map::new();
    for path in files {
        variables.extend(variable_file(path, &read(path)?)?);
    }
    variables.append(&mut key_values("--var", given)?);
    Ok(variables)
}

/// Lists and maps pass: whether they are taken is for whoever knows the variables' types to say.
fn variable_file(path: &Path, text: &str) -> Result<BTreeMap<String, Value>, Error> {
    let variables = read_variable_file(&path.display().to_string(), text.as_bytes())?;
    match variables.iter().find(|(_, value)| value.is_null()) {
        Some((name, _)) => Err(Error::NullVariable { path: path.to_owned(), name: name.clone() }),
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
            Command::Key(_)
            | Command::Template(_)
            | Command::Schedule(_)
            | Command::Stack(_)
            | Command::Completions { .. } => panic!("not a build"),
        }
    }

    fn body(arguments: &[&str]) -> Value {
        Value::Object(compose(&options(arguments), &BuildDefaults::default()).unwrap().body)
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
        let request = compose(&options(&["--region", "us-west-2", "--timeout", "60"]), &defaults).unwrap();
        assert_eq!(
            Value::Object(request.body),
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
    fn one_small_template_is_sent_inline_and_all_else_is_packed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        for name in ["image.pkr.hcl", "image.pkr.json", "image.json"] {
            assert_eq!(template(&write(name, "{}")).unwrap(), Template::Inline("{}".to_owned()));
        }
        let packed = |path: &str| match template(path) {
            Ok(Template::Upload(packed)) => packed.files,
            other => panic!("{other:?}"),
        };
        assert_eq!(packed(&write("large.pkr.hcl", &"#".repeat(256 * 1024 + 1))), 1);
        assert_eq!(packed(folder.path().to_str().unwrap()), 4);
        let missing = folder.path().join("no.pkr.hcl");
        assert!(matches!(
            template(missing.to_str().unwrap()),
            Err(Error::Template(local_template::Error::Missing { .. }))
        ));
    }

    #[test]
    fn variable_files_keep_their_types_in_both_forms() {
        let read = |name: &str, text: &str| {
            variable_file(Path::new(name), text)
                .map(|variables| Value::Object(variables.into_iter().collect()))
        };
        let expected = json!({"a": "x", "b": 2, "c": true, "d": ["e"]});
        assert_eq!(read("v.json", r#"{"a": "x", "b": 2, "c": true, "d": ["e"]}"#).unwrap(), expected);
        assert_eq!(read("v.pkrvars.hcl", "a = \"x\"\nb = 2\nc = true\nd = [\"e\"]\n").unwrap(), expected);
        assert!(
            matches!(read("v.json", r#"{"a": null}"#), Err(Error::NullVariable { name, .. }) if name == "a")
        );
        let error = read("v.pkrvars.hcl", "a = 1\nb = env(\"X\")\n").unwrap_err().to_string();
        assert!(error.starts_with("v.pkrvars.hcl:2: a variable file takes values"), "{error}");
    }

    #[test]
    fn no_error_repeats_a_value() {
        for text in ["\"hunter2\"", "{\"a\": hunter2}", "{\"a\": \"hunter2\" \"b\"}", "[\"hunter2\"]"] {
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
