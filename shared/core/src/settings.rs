//! What the operator has set, checked once at the start.
//!
//! Takes the settings as pairs, so that it needs no environment. An impossible value stops the start with a message that
//! names it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::build::RunnerKind;
use crate::ids::Region;
use crate::request::{TIMEOUT_SECS, check_source, valid_instance_type, valid_subnet_id};
use crate::template_hosts::{HostPattern, TemplateHosts};
use ciab_template::{PackerVersion, TemplateSource, TemplateSourceError};

/// How many builds run at once where nothing is set.
const CONCURRENT_BUILDS: u32 = 10;

/// Seconds for which a fetched template may be taken as unchanged without asking its server: a week at most.
const TEMPLATE_CACHE_SECS: RangeInclusive<u32> = 0..=604_800;

/// Which templates may run programs on the runner itself, beside Packer and its Amazon plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalExecution {
    /// None but the builtin ones.
    None,
    /// Those whose text came from somebody with a key: inline, uploaded, from the stack's bucket.
    #[default]
    Submitted,
    /// All, fetched ones too.
    All,
}

impl LocalExecution {
    /// What an operator may write.
    pub const NAMES: &str = "none, submitted, all";

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "submitted" => Some(Self::Submitted),
            "all" => Some(Self::All),
            _ => None,
        }
    }

    /// Whether a template from there may.
    pub fn allows(self, source: &TemplateSource) -> bool {
        match self {
            Self::None => matches!(source, TemplateSource::Builtin { .. }),
            Self::Submitted => !source.is_fetched(),
            Self::All => true,
        }
    }
}

/// The settings of the functions.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The stack's name; part of every ownership tag.
    pub stack: String,
    /// The region where none is asked for.
    pub default_region: Region,
    /// The regions that builds may run in, in the operator's order.
    pub allowed_regions: Vec<Region>,
    /// The build instance's type where none is asked for.
    pub build_instance_type: String,
    /// The build instance's subnet where none is asked for; none for the default VPC's.
    pub build_subnet_id: Option<String>,
    /// Seconds for a build where none are asked for.
    pub build_timeout_secs: u32,
    /// What runs Packer where nothing is asked for.
    pub runner: RunnerKind,
    /// How many builds run at once; the others wait.
    pub concurrent_builds: u32,
    /// The template where none is asked for.
    pub template_source: TemplateSource,
    /// The stack's bucket, the only one that `s3://` sources may name.
    pub bucket: String,
    /// Which hosts templates may be fetched from.
    pub template_hosts: TemplateHosts,
    /// The names of the tokens for hosts that want one, in Secrets Manager or SSM.
    pub template_credentials: Vec<(HostPattern, String)>,
    /// Seconds for which a fetched template is taken as unchanged without asking its server.
    pub template_cache_secs: u32,
    /// Which templates may run programs on the runner.
    pub local_execution: LocalExecution,
    /// Packer's version on the runner.
    pub packer_version: PackerVersion,
    /// Where Packer finds EC2, where it is not AWS's own address.
    pub aws_endpoint: Option<String>,
    /// Variables that the operator sets for builtin templates, under the caller's.
    pub template_variables: BTreeMap<String, serde_json::Value>,
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// It must be set.
    #[error("{name} is not set")]
    Missing {
        /// The setting.
        name: &'static str,
    },
    /// It has a value that cannot be.
    #[error("{name} is `{given}`: {allowed}")]
    Impossible {
        /// The setting.
        name: &'static str,
        /// What was given.
        given: String,
        /// What is allowed.
        allowed: String,
    },
}

impl Settings {
    /// Reads the settings from what `get` answers for their names (`CIAB_…`).
    ///
    /// # Errors
    /// Names the first setting that is missing or impossible.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidSetting> {
        let optional = |name: &str| get(name).filter(|value| !value.is_empty());
        let required = |name: &'static str| optional(name).ok_or(InvalidSetting::Missing { name });
        let impossible = |name, given: &str, allowed: &str| InvalidSetting::Impossible {
            name,
            given: given.to_owned(),
            allowed: allowed.to_owned(),
        };

        let default_region = parse_region("CIAB_DEFAULT_REGION", &required("CIAB_DEFAULT_REGION")?)?;
        let allowed_regions = match optional("CIAB_ALLOWED_REGIONS") {
            None => vec![default_region.clone()],
            Some(list) => list
                .split(',')
                .map(|region| parse_region("CIAB_ALLOWED_REGIONS", region.trim()))
                .collect::<Result<Vec<_>, _>>()?,
        };
        if !allowed_regions.contains(&default_region) {
            return Err(impossible(
                "CIAB_DEFAULT_REGION",
                default_region.as_str(),
                "it must be one of CIAB_ALLOWED_REGIONS",
            ));
        }

        let build_instance_type = required("CIAB_BUILD_INSTANCE_TYPE")?;
        if !valid_instance_type(&build_instance_type) {
            let allowed = "an instance type such as t3.medium is expected";
            return Err(impossible("CIAB_BUILD_INSTANCE_TYPE", &build_instance_type, allowed));
        }
        let build_subnet_id = optional("CIAB_BUILD_SUBNET_ID");
        if let Some(subnet) = &build_subnet_id
            && !valid_subnet_id(subnet)
        {
            let allowed = "a subnet id such as subnet-0123456789abcdef0 is expected";
            return Err(impossible("CIAB_BUILD_SUBNET_ID", subnet, allowed));
        }

        let timeout = required("CIAB_BUILD_TIMEOUT_SECS")?;
        let build_timeout_secs = seconds("CIAB_BUILD_TIMEOUT_SECS", &timeout, TIMEOUT_SECS)?;

        let runner = match optional("CIAB_RUNNER") {
            None => RunnerKind::Codebuild,
            Some(given) => RunnerKind::parse(&given).ok_or_else(|| {
                impossible("CIAB_RUNNER", &given, &format!("one of {} is expected", RunnerKind::NAMES))
            })?,
        };
        let concurrent_builds = match optional("CIAB_CONCURRENT_BUILDS") {
            None => CONCURRENT_BUILDS,
            Some(given) => {
                given.parse().ok().filter(|builds| (1..=500).contains(builds)).ok_or_else(|| {
                    impossible("CIAB_CONCURRENT_BUILDS", &given, "a whole number from 1 to 500 is expected")
                })?
            }
        };

        let source = required("CIAB_TEMPLATE_SOURCE")?;
        let template_source = source.parse().map_err(|error: TemplateSourceError| {
            impossible("CIAB_TEMPLATE_SOURCE", &source, &error.to_string())
        })?;
        let version = required("CIAB_PACKER_VERSION")?;
        let packer_version = version.parse().map_err(|_| {
            impossible("CIAB_PACKER_VERSION", &version, "a version such as 1.11.2 is expected")
        })?;
        let template_variables = match optional("CIAB_TEMPLATE_VARIABLES") {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|_| impossible("CIAB_TEMPLATE_VARIABLES", &text, "a JSON object is expected"))?,
        };

        let template_hosts = TemplateHosts {
            allowed: hosts("CIAB_ALLOWED_TEMPLATE_HOSTS", optional("CIAB_ALLOWED_TEMPLATE_HOSTS"))?,
            trusted: hosts("CIAB_TRUSTED_TEMPLATE_HOSTS", optional("CIAB_TRUSTED_TEMPLATE_HOSTS"))?,
        };
        let bucket = required("CIAB_BUCKET")?;
        check_source(&template_source, &bucket, &template_hosts)
            .map_err(|error| impossible("CIAB_TEMPLATE_SOURCE", &source, &error.to_string()))?;
        let template_cache_secs = match optional("CIAB_TEMPLATE_CACHE_SECS") {
            None => 0,
            Some(given) => seconds("CIAB_TEMPLATE_CACHE_SECS", &given, TEMPLATE_CACHE_SECS)?,
        };
        let local_execution = match optional("CIAB_ALLOW_LOCAL_EXECUTION") {
            None => LocalExecution::default(),
            Some(given) => LocalExecution::parse(&given).ok_or_else(|| {
                let allowed = format!("one of {} is expected", LocalExecution::NAMES);
                impossible("CIAB_ALLOW_LOCAL_EXECUTION", &given, &allowed)
            })?,
        };

        Ok(Self {
            stack: required("CIAB_STACK")?,
            bucket,
            template_hosts,
            template_credentials: credentials(optional("CIAB_TEMPLATE_CREDENTIALS"))?,
            template_cache_secs,
            local_execution,
            default_region,
            allowed_regions,
            build_instance_type,
            build_subnet_id,
            build_timeout_secs,
            runner,
            concurrent_builds,
            template_source,
            packer_version,
            aws_endpoint: optional("AWS_ENDPOINT_URL"),
            template_variables,
        })
    }
}

fn seconds(name: &'static str, given: &str, allowed: RangeInclusive<u32>) -> Result<u32, InvalidSetting> {
    given.parse().ok().filter(|secs| allowed.contains(secs)).ok_or_else(|| InvalidSetting::Impossible {
        name,
        given: given.to_owned(),
        allowed: format!(
            "a whole number of seconds from {} to {} is expected",
            allowed.start(),
            allowed.end()
        ),
    })
}

fn parse_region(name: &'static str, given: &str) -> Result<Region, InvalidSetting> {
    given.parse().map_err(|_| InvalidSetting::Impossible {
        name,
        given: given.to_owned(),
        allowed: "a region's name such as us-east-1 is expected".into(),
    })
}

fn hosts(name: &'static str, given: Option<String>) -> Result<Vec<HostPattern>, InvalidSetting> {
    let given = given.unwrap_or_default();
    let one = |text: &str| {
        text.parse().map_err(|allowed| InvalidSetting::Impossible { name, given: text.to_owned(), allowed })
    };
    given.split(',').map(str::trim).filter(|text| !text.is_empty()).map(one).collect()
}

/// A JSON object of hosts and the names of their tokens. A token written there in place of its name is not repeated.
fn credentials(given: Option<String>) -> Result<Vec<(HostPattern, String)>, InvalidSetting> {
    let name = "CIAB_TEMPLATE_CREDENTIALS";
    let impossible = |allowed: &str| InvalidSetting::Impossible {
        name,
        given: "…".to_owned(),
        allowed: allowed.to_owned(),
    };
    let Some(given) = given else { return Ok(Vec::new()) };
    let pairs: BTreeMap<String, String> = serde_json::from_str(&given).map_err(|_| {
        impossible("a JSON object is expected, with a host and the name of an SSM parameter or secret each")
    })?;
    let one = |(host, parameter): (String, String)| {
        let host = host.parse().map_err(|allowed: String| impossible(&allowed))?;
        let named = parameter.starts_with('/')
            && parameter.len() <= 1_011
            && parameter.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-+=@!".contains(&b));
        if named {
            return Ok((host, parameter));
        }
        Err(impossible(
            "a token is named by an SSM parameter such as /ciab/github-token, or by /aws/reference/secretsmanager/<secret>",
        ))
    };
    pairs.into_iter().map(one).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pairs() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("CIAB_STACK", "prod"),
            ("CIAB_BUCKET", "prod-bucket"),
            ("CIAB_DEFAULT_REGION", "us-east-1"),
            ("CIAB_ALLOWED_REGIONS", "us-east-1, eu-west-1"),
            ("CIAB_BUILD_INSTANCE_TYPE", "t3.medium"),
            ("CIAB_BUILD_SUBNET_ID", ""),
            ("CIAB_BUILD_TIMEOUT_SECS", "1800"),
            ("CIAB_TEMPLATE_SOURCE", "builtin://default-ec2"),
            ("CIAB_PACKER_VERSION", "1.11.2"),
        ])
    }

    pub(crate) fn settings() -> Settings {
        read(&pairs()).unwrap()
    }

    fn read(pairs: &BTreeMap<&str, &str>) -> Result<Settings, InvalidSetting> {
        Settings::read(|name| pairs.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn the_seeds_defaults_are_read() {
        let settings = settings();
        assert_eq!(settings.build_timeout_secs, 1800);
        assert_eq!(settings.allowed_regions.len(), 2);
        assert_eq!(settings.build_subnet_id, None);
    }

    #[test]
    fn an_impossible_value_is_named_with_what_is_allowed() {
        for (name, value) in [
            ("CIAB_DEFAULT_REGION", "mars-north-1"),
            ("CIAB_ALLOWED_REGIONS", "us-east-1,moon"),
            ("CIAB_BUILD_TIMEOUT_SECS", "0"),
            ("CIAB_BUILD_TIMEOUT_SECS", "soon"),
            ("CIAB_BUILD_INSTANCE_TYPE", "big"),
            ("CIAB_BUILD_SUBNET_ID", "vpc-1"),
            ("CIAB_TEMPLATE_SOURCE", "ftp://x"),
            ("CIAB_RUNNER", "laptop"),
            ("CIAB_CONCURRENT_BUILDS", "0"),
            ("CIAB_CONCURRENT_BUILDS", "many"),
            ("CIAB_PACKER_VERSION", "new"),
            ("CIAB_TEMPLATE_VARIABLES", "[1]"),
            ("CIAB_TEMPLATE_SOURCE", "http://h.example/a.zip"),
            ("CIAB_TEMPLATE_SOURCE", "s3://another-bucket/templates/a.zip"),
            ("CIAB_ALLOWED_TEMPLATE_HOSTS", "a.example,https://b.example"),
            ("CIAB_TRUSTED_TEMPLATE_HOSTS", "*"),
            ("CIAB_TEMPLATE_CREDENTIALS", "token"),
            ("CIAB_TEMPLATE_CREDENTIALS", r#"{"h.example": "ghp_s3cret"}"#),
            ("CIAB_TEMPLATE_CACHE_SECS", "1000000"),
            ("CIAB_ALLOW_LOCAL_EXECUTION", "yes"),
        ] {
            let mut pairs = pairs();
            pairs.insert(name, value);
            let message = read(&pairs).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn a_missing_setting_is_named() {
        let mut pairs = pairs();
        pairs.remove("CIAB_STACK");
        assert_eq!(read(&pairs), Err(InvalidSetting::Missing { name: "CIAB_STACK" }));
    }
}
