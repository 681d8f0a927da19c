//! What the operator has set, checked once at the start.
//!
//! Takes the settings as pairs, so that it needs no environment. An impossible value stops the start with a message that
//! names it.

use std::collections::BTreeMap;

use crate::build::RunnerKind;
use crate::ids::Region;
use crate::request::{TIMEOUT_SECS, valid_instance_type, valid_subnet_id};
use ciab_template::{PackerVersion, TemplateSource, TemplateSourceError};

/// How many builds run at once where nothing is set.
const CONCURRENT_BUILDS: u32 = 10;

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
        let build_timeout_secs =
            timeout.parse().ok().filter(|secs| TIMEOUT_SECS.contains(secs)).ok_or_else(|| {
                let (least, most) = (TIMEOUT_SECS.start(), TIMEOUT_SECS.end());
                let allowed = format!("a whole number of seconds from {least} to {most} is expected");
                impossible("CIAB_BUILD_TIMEOUT_SECS", &timeout, &allowed)
            })?;

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

        Ok(Self {
            stack: required("CIAB_STACK")?,
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

fn parse_region(name: &'static str, given: &str) -> Result<Region, InvalidSetting> {
    given.parse().map_err(|_| InvalidSetting::Impossible {
        name,
        given: given.to_owned(),
        allowed: "a region's name such as us-east-1 is expected".into(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn pairs() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("CIAB_STACK", "prod"),
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
        ] {
            let mut pairs = pairs();
            pairs.insert(name, value);
            let message = read(&pairs).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn a_missing_setting_is_named() {
        let mut pairs = pairs();
        pairs.remove("CIAB_STACK");
        assert_eq!(read(&pairs), Err(InvalidSetting::Missing { name: "CIAB_STACK" }));
    }
}
