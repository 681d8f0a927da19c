//! What the runner is told through its environment, checked once at the start.

use std::path::PathBuf;
use std::time::Duration;

use ciab_core::ids::BuildId;
use jiff::Timestamp;

use crate::install::{Product, Release, Wanted};

/// How long Packer may clean up after the deadline where nothing else is said. Deadline, grace and report together must
/// stay within one poll (60 s).
const STOP_GRACE: Duration = Duration::from_secs(40);

/// The runner's settings. Holds the task token, so it has no `Debug`.
#[derive(Clone)]
pub struct Configuration {
    /// The build that this runner runs.
    pub build_id: BuildId,
    /// What the state machine knows this build's task by. A secret.
    pub task_token: String,
    /// The stack's bucket.
    pub bucket: String,
    /// When Packer is stopped.
    pub deadline: Timestamp,
    /// The build's time-out, for the message only.
    pub timeout_secs: u32,
    /// Which Packer, and where it comes from.
    pub packer: Wanted,
    /// Below which the build gets a folder of its own; the system's temporary one where nothing is said.
    pub work_dir: Option<PathBuf>,
    /// The function that gives the build's credentials.
    pub credentials_function: String,
    /// How long Packer may clean up once it is stopped.
    pub stop_grace: Duration,
}

/// A setting that is missing or cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfiguration {
    /// It must be set.
    #[error("{name} is not set: it must hold {what}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it must hold.
        what: &'static str,
    },
    /// It holds something else than it must.
    #[error("{name} is `{given}`: it must hold {what}")]
    Impossible {
        /// The variable.
        name: &'static str,
        /// What it holds.
        given: String,
        /// What it must hold.
        what: &'static str,
    },
}

impl Configuration {
    /// Reads the settings from what `get` answers for their names.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidConfiguration> {
        let optional = |name: &'static str| get(name).filter(|value| !value.is_empty());
        let required =
            |name: &'static str, what| optional(name).ok_or(InvalidConfiguration::Missing { name, what });

        let build_id = ("CIAB_BUILD_ID", "the build's id, a UUID");
        let deadline = ("CIAB_DEADLINE", "the time when Packer is stopped, RFC 3339");
        let timeout = ("CIAB_TIMEOUT_SECS", "the build's time-out in whole seconds");
        let auto_install = ("CIAB_PACKER_AUTO_INSTALL", "true or false");
        let mirror = ("CIAB_PACKER_MIRROR", "an address that begins with https://");
        let plugin_mirror = ("CIAB_PACKER_PLUGIN_MIRROR", mirror.1);
        let grace = ("CIAB_STOP_GRACE_SECS", "the time for Packer to clean up, in whole seconds");
        Ok(Self {
            build_id: parsed(build_id, required(build_id.0, build_id.1)?)?,
            task_token: required("CIAB_TASK_TOKEN", "the state machine's task token")?,
            bucket: required("CIAB_BUCKET", "the stack's bucket")?,
            deadline: parsed(deadline, required(deadline.0, deadline.1)?)?,
            timeout_secs: parsed(timeout, required(timeout.0, timeout.1)?)?,
            packer: Wanted {
                binary: optional("CIAB_PACKER_BINARY").map(PathBuf::from),
                auto_install: match optional(auto_install.0) {
                    Some(given) => parsed(auto_install, given)?,
                    None => true,
                },
                packer: Release {
                    product: Product::Packer,
                    version: required("CIAB_PACKER_VERSION", "the version of Packer that is wanted")?,
                    sha256: optional("CIAB_PACKER_SHA256"),
                    mirror: parsed(mirror, required(mirror.0, mirror.1)?)?,
                },
                amazon_plugin: Release {
                    product: Product::AmazonPlugin,
                    version: required("CIAB_PACKER_PLUGIN_VERSION", "the version of Packer's Amazon plugin")?,
                    sha256: optional("CIAB_PACKER_PLUGIN_SHA256"),
                    mirror: parsed(plugin_mirror, required(plugin_mirror.0, plugin_mirror.1)?)?,
                },
            },
            work_dir: optional("CIAB_PACKER_WORK_DIR").map(PathBuf::from),
            credentials_function: required(
                "CIAB_CREDENTIALS_FUNCTION",
                "the name of the function that gives the build's credentials",
            )?,
            stop_grace: match optional(grace.0) {
                Some(given) => Duration::from_secs(parsed(grace, given)?),
                None => STOP_GRACE,
            },
        })
    }
}

/// What every line of the runner's log names: the build, and the request that asked for it. Read without a check, so that a line
/// about settings that are wrong has it too.
pub fn named_in_lines(get: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    [("build_id", "CIAB_BUILD_ID"), ("request_id", "CIAB_REQUEST_ID")]
        .into_iter()
        .filter_map(|(field, name)| Some((field, get(name).filter(|value| !value.is_empty())?)))
        .collect()
}

fn parsed<T: std::str::FromStr>(
    (name, what): (&'static str, &'static str),
    given: String,
) -> Result<T, InvalidConfiguration> {
    given.parse().map_err(|_| InvalidConfiguration::Impossible { name, given, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(changes: &[(&str, &str)]) -> Result<Configuration, InvalidConfiguration> {
        let mut pairs = vec![
            ("CIAB_BUILD_ID", "550e8400-e29b-41d4-a716-446655440000"),
            ("CIAB_TASK_TOKEN", "token"),
            ("CIAB_BUCKET", "bucket"),
            ("CIAB_DEADLINE", "2026-03-25T14:30:00Z"),
            ("CIAB_TIMEOUT_SECS", "1800"),
            ("CIAB_CREDENTIALS_FUNCTION", "prod-issue-credentials"),
            ("CIAB_PACKER_VERSION", "1.11.2"),
            ("CIAB_PACKER_MIRROR", "https://mirror.example/packer"),
            ("CIAB_PACKER_PLUGIN_VERSION", "1.3.9"),
            ("CIAB_PACKER_PLUGIN_MIRROR", "https://mirror.example/plugin"),
        ];
        for change in changes {
            pairs.retain(|pair| pair.0 != change.0);
            pairs.push(*change);
        }
        Configuration::read(|name| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned()))
    }

    #[test]
    fn the_rest_has_defaults() {
        let configuration = read(&[]).ok().unwrap();
        assert_eq!(configuration.packer.binary, None);
        assert_eq!(configuration.work_dir, None);
        assert!(configuration.packer.auto_install);
        assert_eq!(configuration.packer.packer.sha256, None);
        assert_eq!(configuration.stop_grace, Duration::from_secs(40));
        assert_eq!(configuration.timeout_secs, 1800);
    }

    #[test]
    fn what_is_missing_is_named() {
        for name in [
            "CIAB_BUILD_ID",
            "CIAB_TASK_TOKEN",
            "CIAB_BUCKET",
            "CIAB_DEADLINE",
            "CIAB_TIMEOUT_SECS",
            "CIAB_CREDENTIALS_FUNCTION",
            "CIAB_PACKER_VERSION",
            "CIAB_PACKER_MIRROR",
            "CIAB_PACKER_PLUGIN_VERSION",
            "CIAB_PACKER_PLUGIN_MIRROR",
        ] {
            let error = read(&[(name, "")]).err().unwrap().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn lines_name_the_build_and_its_request_and_nothing_else() {
        let get = |name: &str| match name {
            "CIAB_BUILD_ID" => Some("b".to_owned()),
            "CIAB_REQUEST_ID" => Some("r".to_owned()),
            _ => Some("a secret".to_owned()),
        };
        assert_eq!(named_in_lines(get), [("build_id", "b".to_owned()), ("request_id", "r".to_owned())]);
        // A build from before its request was noted.
        assert_eq!(named_in_lines(|_| Some(String::new())), []);
    }

    #[test]
    fn what_cannot_be_is_named_with_its_value() {
        for (name, value) in [
            ("CIAB_BUILD_ID", "7"),
            ("CIAB_DEADLINE", "tomorrow"),
            ("CIAB_TIMEOUT_SECS", "-1"),
            ("CIAB_STOP_GRACE_SECS", "long"),
            ("CIAB_PACKER_AUTO_INSTALL", "perhaps"),
            ("CIAB_PACKER_MIRROR", "http://mirror.example"),
        ] {
            let error = read(&[(name, value)]).err().unwrap().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
