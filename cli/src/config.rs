//! Settings: flag over environment over file over default.
//!
//! A file with an unknown key or an impossible value stops the run, and the message names the key. No message repeats a
//! value: one of them is the API key.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use thiserror::Error;
use toml::{Table, Value};

use crate::args::{Format, GlobalOptions};
use crate::secret::Secret;
use crate::server_url::{self, ServerUrl};

/// All a command needs to know beside its own options.
pub(crate) struct Settings {
    pub(crate) server_url: ServerUrl,
    pub(crate) api_key: Option<Secret>,
    pub(crate) output: Format,
    pub(crate) build: BuildDefaults,
}

/// What the file says about builds; what it leaves out, the service decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BuildDefaults {
    pub(crate) region: Option<String>,
    pub(crate) instance_type: Option<String>,
    pub(crate) subnet_id: Option<String>,
    pub(crate) timeout_secs: Option<u64>,
    pub(crate) template: Option<String>,
}

#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("can't read the configuration {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {}: {problem}", path.display())]
    File { path: PathBuf, problem: Problem },
    #[error("{0}")]
    ServerUrl(#[from] server_url::Error),
}

/// What is wrong inside a file.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Problem {
    #[error("line {line} is not TOML: {message}")]
    Syntax { line: usize, message: String },
    #[error("unknown key {}; known are {}", quoted(keys), quoted(&known_keys()))]
    UnknownKeys { keys: Vec<String> },
    #[error("`{key}` must be {expected}")]
    Value { key: String, expected: &'static str },
    #[error("`server_url`: {0}")]
    ServerUrl(server_url::Error),
}

const CLIENT_KEYS: [&str; 3] = ["server_url", "api_key", "output"];
/// All of the `[packer]` table's keys. The client uses some; the others steer the service where it reads the same file.
const PACKER_KEYS: [&str; 8] = [
    "binary_path",
    "auto_install",
    "work_dir",
    "default_region",
    "build_instance_type",
    "build_subnet_id",
    "build_timeout_secs",
    "template_source",
];

/// A file's content, checked.
#[derive(Debug, Default, PartialEq, Eq)]
struct FileSettings {
    server_url: Option<ServerUrl>,
    api_key: Option<Secret>,
    output: Option<Format>,
    build: BuildDefaults,
}

/// Reads the file the options name, or the user's own if there is one, and settles what holds.
pub(crate) fn load(options: &GlobalOptions) -> Result<Settings, Error> {
    let file = match &options.config {
        Some(path) => read(path)?,
        None => match default_path(std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME")) {
            Some(path) if path.exists() => read(&path)?,
            _ => FileSettings::default(),
        },
    };
    settle(options, file)
}

fn settle(options: &GlobalOptions, file: FileSettings) -> Result<Settings, Error> {
    // An empty environment variable is the usual way to switch one off.
    let server_url = match options.server_url.as_deref().filter(|url| !url.is_empty()) {
        Some(url) => ServerUrl::parse(url)?,
        None => file.server_url.map_or_else(|| ServerUrl::parse(server_url::DEFAULT), Ok)?,
    };
    let api_key = options.api_key.clone().filter(|key| !key.is_empty()).or(file.api_key);
    let output = options.output.or(file.output).unwrap_or(Format::Table);
    Ok(Settings { server_url, api_key, output, build: file.build })
}

/// `$XDG_CONFIG_HOME/ciab/config.toml`; that variable counts only if absolute, as its specification asks.
fn default_path(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let configured = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = configured
        .or_else(|| home.filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(".config")));
    Some(folder?.join("ciab").join("config.toml"))
}

fn read(path: &Path) -> Result<FileSettings, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|problem| Error::File { path: path.to_owned(), problem })
}

fn parse(text: &str) -> Result<FileSettings, Problem> {
    // The error's own text quotes the line it stumbled over, which may hold the key: only its message is kept.
    let table: Table = text.parse().map_err(|error: toml::de::Error| Problem::Syntax {
        line: error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1),
        message: error.message().to_owned(),
    })?;
    let empty = Table::new();
    let packer = match table.get("packer") {
        None => &empty,
        Some(Value::Table(packer)) => packer,
        Some(_) => return Err(Problem::Value { key: "packer".to_owned(), expected: "a table" }),
    };
    refuse_unknown(&table, packer)?;
    check_unused(packer)?;
    Ok(FileSettings {
        server_url: text_of(&table, "", "server_url")?
            .map(|url| ServerUrl::parse(&url).map_err(Problem::ServerUrl))
            .transpose()?,
        api_key: text_of(&table, "", "api_key")?.map(Secret::new),
        output: text_of(&table, "", "output")?.map(|format| format_named(&format)).transpose()?,
        build: BuildDefaults {
            region: text_of(packer, "packer.", "default_region")?,
            instance_type: text_of(packer, "packer.", "build_instance_type")?,
            subnet_id: subnet_of(packer)?,
            timeout_secs: timeout_of(packer)?,
            template: text_of(packer, "packer.", "template_source")?,
        },
    })
}

fn refuse_unknown(table: &Table, packer: &Table) -> Result<(), Problem> {
    let of_client =
        table.keys().filter(|key| *key != "packer" && !CLIENT_KEYS.contains(&key.as_str())).cloned();
    let of_packer = packer.keys().filter(|key| !PACKER_KEYS.contains(&key.as_str()));
    let keys: Vec<String> = of_client.chain(of_packer.map(|key| format!("packer.{key}"))).collect();
    if keys.is_empty() { Ok(()) } else { Err(Problem::UnknownKeys { keys }) }
}

/// Keys that the client has no use for are still held to their type, so that a slip shows where it was made.
fn check_unused(packer: &Table) -> Result<(), Problem> {
    text_of(packer, "packer.", "binary_path")?;
    text_of(packer, "packer.", "work_dir")?;
    match packer.get("auto_install") {
        None | Some(Value::Boolean(_)) => Ok(()),
        Some(_) => Err(Problem::Value { key: "packer.auto_install".to_owned(), expected: "true or false" }),
    }
}

fn text_of(table: &Table, prefix: &str, key: &str) -> Result<Option<String>, Problem> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
        Some(_) => {
            Err(Problem::Value { key: format!("{prefix}{key}"), expected: "a string that is not empty" })
        }
    }
}

/// An empty subnet is the documented way to say: the default network.
fn subnet_of(packer: &Table) -> Result<Option<String>, Problem> {
    match packer.get("build_subnet_id") {
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        _ => text_of(packer, "packer.", "build_subnet_id"),
    }
}

fn timeout_of(packer: &Table) -> Result<Option<u64>, Problem> {
    let Some(value) = packer.get("build_timeout_secs") else { return Ok(None) };
    match value.as_integer().and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Problem::Value {
            key: "packer.build_timeout_secs".to_owned(),
            expected: "a whole number of seconds, 1 or more",
        }),
    }
}

fn format_named(name: &str) -> Result<Format, Problem> {
    Format::from_str(name, false)
        .map_err(|_| Problem::Value { key: "output".to_owned(), expected: "\"table\", \"json\" or \"yaml\"" })
}

fn known_keys() -> Vec<String> {
    let packer = PACKER_KEYS.iter().map(|key| format!("packer.{key}"));
    CLIENT_KEYS.iter().map(|key| (*key).to_owned()).chain(packer).collect()
}

fn quoted(keys: &[String]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> GlobalOptions {
        GlobalOptions { server_url: None, api_key: None, output: None, config: None }
    }

    #[test]
    fn the_documented_packer_table_is_read_whole() {
        let file = parse(
            r#"
            server_url = "https://images.example"
            output = "json"
            [packer]
            binary_path = "packer"
            auto_install = true
            work_dir = "/tmp/ciab-packer"
            default_region = "us-east-1"
            build_instance_type = "t3.medium"
            build_subnet_id = ""
            build_timeout_secs = 1800
            template_source = "builtin://default-ec2"
            "#,
        )
        .unwrap();
        assert_eq!(file.output, Some(Format::Json));
        assert_eq!(
            file.build,
            BuildDefaults {
                region: Some("us-east-1".to_owned()),
                instance_type: Some("t3.medium".to_owned()),
                subnet_id: None,
                timeout_secs: Some(1800),
                template: Some("builtin://default-ec2".to_owned()),
            }
        );
    }

    #[test]
    fn all_unknown_keys_are_named_at_once() {
        let problem = parse("colour = 1\n[packer]\nregion = \"eu-west-1\"\n").unwrap_err();
        assert_eq!(
            problem,
            Problem::UnknownKeys { keys: vec!["colour".to_owned(), "packer.region".to_owned()] }
        );
        assert!(
            problem.to_string().starts_with("unknown key `colour`, `packer.region`; known are `server_url`")
        );
    }

    #[test]
    fn impossible_values_are_named_by_their_key() {
        for (text, key) in [
            ("output = \"xml\"", "output"),
            ("api_key = 5", "api_key"),
            ("packer = 1", "packer"),
            ("[packer]\nbuild_timeout_secs = 0", "packer.build_timeout_secs"),
            ("[packer]\nbuild_timeout_secs = \"1800\"", "packer.build_timeout_secs"),
            ("[packer]\nauto_install = \"yes\"", "packer.auto_install"),
            ("[packer]\ndefault_region = \"\"", "packer.default_region"),
        ] {
            let Problem::Value { key: named, .. } = parse(text).unwrap_err() else { panic!("{text}") };
            assert_eq!(named, key);
        }
    }

    #[test]
    fn a_key_written_without_quotes_is_not_repeated_in_the_error() {
        let problem = parse("output = \"json\"\napi_key = hunter2-is-secret\n").unwrap_err();
        assert!(matches!(problem, Problem::Syntax { line: 2, .. }), "{problem:?}");
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    }

    #[test]
    fn an_option_wins_over_the_file_and_the_file_over_the_default() {
        let file = || parse("server_url = \"http://file:1\"\napi_key = \"from-file\"").unwrap();
        let given = GlobalOptions {
            server_url: Some("http://option:1".to_owned()),
            api_key: Some(Secret::new("from-option")),
            output: Some(Format::Yaml),
            config: None,
        };
        let settings = settle(&given, file()).unwrap();
        assert_eq!(settings.server_url.to_string(), "http://option:1");
        assert_eq!(settings.api_key, Some(Secret::new("from-option")));
        assert_eq!(settings.output, Format::Yaml);

        let settings = settle(&options(), file()).unwrap();
        assert_eq!(settings.server_url.to_string(), "http://file:1");
        assert_eq!(settings.api_key, Some(Secret::new("from-file")));

        let settings = settle(&options(), FileSettings::default()).unwrap();
        assert_eq!(settings.server_url.to_string(), "http://localhost:9090");
        assert_eq!(settings.api_key, None);
        assert_eq!(settings.output, Format::Table);
    }

    #[test]
    fn an_empty_environment_variable_counts_as_unset() {
        let given = GlobalOptions {
            server_url: Some(String::new()),
            api_key: Some(Secret::new("")),
            output: None,
            config: None,
        };
        let settings = settle(&given, FileSettings::default()).unwrap();
        assert_eq!(settings.server_url.to_string(), "http://localhost:9090");
        assert_eq!(settings.api_key, None);
    }

    #[test]
    fn the_file_is_looked_for_where_the_desktop_specification_says() {
        let path = |text: &str| Some(OsString::from(text));
        assert_eq!(default_path(path("/x"), path("/h")), Some(PathBuf::from("/x/ciab/config.toml")));
        assert_eq!(
            default_path(path("relative"), path("/h")),
            Some(PathBuf::from("/h/.config/ciab/config.toml"))
        );
        assert_eq!(default_path(None, None), None);
    }
}
