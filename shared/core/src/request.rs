//! What a caller asks for when it starts a build, in both of the contract's shapes.
//!
//! Reads and checks; must never start or write anything. Unknown fields are refused by name, so that a typing error
//! never builds something else than was meant.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::ApiError;
use crate::build::RunnerKind;
use crate::ids::{Provider, Region, shown};
use crate::resolve_template::TEMPLATES_FOLDER;
use crate::settings::Settings;
use crate::template_hosts::TemplateHosts;
use ciab_template::{SubmittedTemplate, TemplateSource, TemplateSourceError};

/// Seconds that a build may be given: CodeBuild ends every build after eight hours.
pub const TIMEOUT_SECS: RangeInclusive<u32> = 30..=28_800;
/// Bytes that an inline template may have.
pub const INLINE_TEMPLATE_BYTES: usize = 256 * 1024;
/// Bytes that a request may have.
pub const REQUEST_BYTES: usize = 1024 * 1024;
/// Tags that a caller may add: AWS takes 50, of which six are ours and `Name` is often the template's.
pub const TAGS: usize = 40;

const FIELDS: [&str; 12] = [
    "provider",
    "agent_provider",
    "region",
    "instance_type",
    "template_source",
    "template",
    "variables",
    "tags",
    "timeout_secs",
    "subnet_id",
    "runner",
    "force",
];

/// The template of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedTemplate {
    /// Where it comes from.
    pub source: TemplateSource,
    /// Its text where it came with the request.
    pub inline: Option<String>,
}

/// A request that was checked, with the operator's defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BuildRequest {
    /// The agent.
    pub provider: Provider,
    /// The region.
    pub region: Region,
    /// The build instance's type.
    pub instance_type: String,
    /// The build instance's subnet.
    pub subnet_id: Option<String>,
    /// The template.
    pub template: RequestedTemplate,
    /// Packer variables.
    pub variables: BTreeMap<String, Value>,
    /// Tags for the AMI.
    pub tags: BTreeMap<String, String>,
    /// Seconds that it may take.
    pub timeout_secs: u32,
    /// What runs Packer.
    pub runner: RunnerKind,
}

impl BuildRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// `invalid_request`, `config_validation_error` or `template_source_not_found`, naming what was given and what is
    /// allowed.
    pub fn read(body: &[u8], settings: &Settings) -> Result<Self, ApiError> {
        if body.len() > REQUEST_BYTES {
            return Err(ApiError::PayloadTooLarge(format!(
                "the request has {} bytes: at most {REQUEST_BYTES} are allowed",
                body.len()
            )));
        }
        let document: Value = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("the body is not JSON: {error}")))?;
        let Value::Object(fields) = document else {
            return Err(invalid("the body must be a JSON object"));
        };
        refuse_unknown("field", &fields, &FIELDS)?;
        let fields = Fields(&fields);

        let region = match fields.text("region")? {
            None => settings.default_region.clone(),
            Some(text) => allowed_region(text, settings)?,
        };
        let instance_type = fields.text("instance_type")?.unwrap_or(&settings.build_instance_type).to_owned();
        if !valid_instance_type(&instance_type) {
            return Err(invalid(format!(
                "`{}` is not an instance type: a name such as t3.medium is expected",
                shown(&instance_type)
            )));
        }
        let subnet_id = match fields.text("subnet_id")?.filter(|text| !text.is_empty()) {
            None => settings.build_subnet_id.clone(),
            Some(text) if valid_subnet_id(text) => Some(text.to_owned()),
            Some(text) => {
                return Err(invalid(format!(
                    "`{}` is not a subnet id: one such as subnet-0123456789abcdef0 is expected",
                    shown(text)
                )));
            }
        };
        let runner = match fields.text("runner")? {
            None => settings.runner,
            Some(given) => RunnerKind::parse(given).ok_or_else(|| {
                invalid(format!("`{}` is not a runner: allowed are {}", shown(given), RunnerKind::NAMES))
            })?,
        };
        fields.boolean("force")?;

        Ok(Self {
            provider: fields.provider()?,
            region,
            instance_type,
            subnet_id,
            template: fields.template(settings)?,
            variables: fields.variables()?,
            tags: fields.tags()?,
            timeout_secs: fields.timeout(settings)?,
            runner,
        })
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::InvalidRequest(message.into())
}

pub(crate) fn refuse_unknown(
    what: &str,
    fields: &Map<String, Value>,
    allowed: &[&str],
) -> Result<(), ApiError> {
    let unknown: Vec<String> = fields
        .keys()
        .filter(|name| !allowed.contains(&name.as_str()))
        .map(|name| format!("`{}`", shown(name)))
        .collect();
    match unknown.len() {
        0 => Ok(()),
        1 => Err(invalid(format!("unknown {what} {}: allowed are {}", unknown[0], allowed.join(", ")))),
        _ => Err(invalid(format!(
            "unknown {what}s {}: allowed are {}",
            unknown.join(", "),
            allowed.join(", ")
        ))),
    }
}

/// The region with this name, if builds may run in it.
///
/// # Errors
/// `invalid_request` for what is no region; `config_validation_error` for one that this stack may not build in.
pub fn allowed_region(text: &str, settings: &Settings) -> Result<Region, ApiError> {
    let region: Region = text.parse()?;
    if settings.allowed_regions.contains(&region) {
        return Ok(region);
    }
    let allowed: Vec<&str> = settings.allowed_regions.iter().map(Region::as_str).collect();
    Err(ApiError::ConfigValidation(format!(
        "this stack does not build in `{region}`: allowed are {}",
        allowed.join(", ")
    )))
}

/// Whether this looks like an EC2 instance type: `t3.medium`, `u-6tb1.56xlarge`.
pub fn valid_instance_type(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && part.as_bytes()[0].is_ascii_alphanumeric()
    };
    text.len() <= 32 && text.split_once('.').is_some_and(|(family, size)| word(family) && word(size))
}

/// Whether this looks like a subnet's id.
pub fn valid_subnet_id(text: &str) -> bool {
    text.strip_prefix("subnet-").is_some_and(|digits| {
        matches!(digits.len(), 8 | 17)
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// A request's fields, read one by one. `null` counts as not given.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(format!("`{name}` must be a string"))),
        }
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(invalid(format!("`{name}` must be true or false"))),
        }
    }

    fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(invalid(format!("`{name}` must be a JSON object"))),
        }
    }

    fn provider(&self) -> Result<Provider, ApiError> {
        let name = match (self.text("provider")?, self.text("agent_provider")?) {
            (Some(one), Some(other)) if one != other => {
                return Err(invalid(format!(
                    "`provider` is `{}` and `agent_provider` is `{}`: they are two names of one field, send one",
                    shown(one),
                    shown(other)
                )));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => {
                return Err(invalid(
                    "`provider` is missing: one of claude-code, codex, gemini, cursor is expected",
                ));
            }
        };
        Ok(name.parse()?)
    }

    fn timeout(&self, settings: &Settings) -> Result<u32, ApiError> {
        let Some(value) = self.get("timeout_secs") else {
            return Ok(settings.build_timeout_secs);
        };
        value
            .as_u64()
            .and_then(|secs| u32::try_from(secs).ok())
            .filter(|secs| TIMEOUT_SECS.contains(secs))
            .ok_or_else(|| {
                let (least, most) = (TIMEOUT_SECS.start(), TIMEOUT_SECS.end());
                invalid(format!(
                    "`timeout_secs` is {}: a whole number of seconds from {least} to {most} is expected",
                    shown(&value.to_string())
                ))
            })
    }

    fn variables(&self) -> Result<BTreeMap<String, Value>, ApiError> {
        let mut variables = BTreeMap::new();
        for (name, value) in self.object("variables")?.into_iter().flatten() {
            if !valid_variable_name(name) {
                return Err(invalid(format!(
                    "`{}` is not a variable's name: letters, digits, `_` and `-` are allowed, a letter or `_` first",
                    shown(name)
                )));
            }
            // Whether a value is of the variable's type is for whoever reads the template.
            if value.is_null() {
                return Err(invalid(format!("the variable `{name}` must have a value, and not null")));
            }
            variables.insert(name.clone(), value.clone());
        }
        Ok(variables)
    }

    fn tags(&self) -> Result<BTreeMap<String, String>, ApiError> {
        let mut tags = BTreeMap::new();
        for (key, value) in self.object("tags")?.into_iter().flatten() {
            let Value::String(value) = value else {
                return Err(invalid(format!("the tag `{}` must be a string", shown(key))));
            };
            let lower = key.to_ascii_lowercase();
            if lower.starts_with("ciab:") || lower.starts_with("aws:") {
                return Err(invalid(format!(
                    "the tag `{}` is reserved: keys that begin with ciab: or aws: are not allowed",
                    shown(key)
                )));
            }
            if key.is_empty() || key.chars().count() > 128 || key.chars().any(char::is_control) {
                return Err(invalid(format!(
                    "the tag key `{}` must have 1 to 128 printable characters",
                    shown(key)
                )));
            }
            if value.chars().count() > 256 || value.chars().any(char::is_control) {
                return Err(invalid(format!(
                    "the value of the tag `{}` must have at most 256 printable characters",
                    shown(key)
                )));
            }
            tags.insert(key.clone(), value.clone());
        }
        if tags.len() > TAGS {
            return Err(invalid(format!("{} tags were given: at most {TAGS} are allowed", tags.len())));
        }
        Ok(tags)
    }

    fn template(&self, settings: &Settings) -> Result<RequestedTemplate, ApiError> {
        let by_source = match self.text("template_source")? {
            None => None,
            Some(text) => {
                let source: TemplateSource = text.parse().map_err(source_error)?;
                Some(RequestedTemplate { source, inline: None })
            }
        };
        let by_object = self.get("template").map(template_object).transpose()?;
        match (by_source, by_object) {
            (Some(one), Some(other)) if one != other => Err(invalid(
                "`template_source` and `template` name different templates: they are two forms of one field, send one",
            )),
            (Some(template), _) | (None, Some(template)) => {
                check_source(&template.source, &settings.bucket, &settings.template_hosts)
                    .map_err(ApiError::ConfigValidation)?;
                Ok(template)
            }
            (None, None) => Ok(RequestedTemplate { source: settings.template_source.clone(), inline: None }),
        }
    }
}

fn valid_variable_name(name: &str) -> bool {
    name.len() <= 128
        && name.bytes().enumerate().all(|(at, b)| {
            b.is_ascii_alphabetic() || b == b'_' || (at > 0 && (b.is_ascii_digit() || b == b'-'))
        })
        && !name.is_empty()
}

fn source_error(error: TemplateSourceError) -> ApiError {
    match error {
        TemplateSourceError::NotFound { .. } => ApiError::TemplateSourceNotFound(error.to_string()),
        TemplateSourceError::Unknown { .. }
        | TemplateSourceError::Invalid { .. }
        | TemplateSourceError::Object { .. }
        | TemplateSourceError::FilePath => invalid(error.to_string()),
    }
}

/// Whether this stack takes templates from there, as far as can be told without looking.
///
/// # Errors
/// Why not, for whoever named the source.
pub fn check_source(source: &TemplateSource, bucket: &str, hosts: &TemplateHosts) -> Result<(), String> {
    if let TemplateSource::S3 { bucket: given, key } = source {
        if given != bucket {
            return Err(format!("`{source}`: only the stack's own bucket is read, `{bucket}`"));
        }
        if !key.starts_with(TEMPLATES_FOLDER) {
            return Err(format!("`{source}`: templates stand in `s3://{bucket}/{TEMPLATES_FOLDER}`"));
        }
    }
    match source.address() {
        Some(address) => hosts.check(address).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// The form in which CIAB's own client sends a template.
fn template_object(object: &Value) -> Result<RequestedTemplate, ApiError> {
    let submitted = SubmittedTemplate::from_object(object).map_err(source_error)?;
    if let Some(content) = &submitted.content
        && content.len() > INLINE_TEMPLATE_BYTES
    {
        return Err(ApiError::PayloadTooLarge(format!(
            "the inline template has {} bytes: at most {INLINE_TEMPLATE_BYTES} are allowed",
            content.len()
        )));
    }
    Ok(RequestedTemplate { source: submitted.source, inline: submitted.content })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::tests::settings;

    fn read(body: &Value) -> Result<BuildRequest, ApiError> {
        BuildRequest::read(body.to_string().as_bytes(), &settings())
    }

    fn refused(body: &Value) -> (String, String) {
        let error = read(body).unwrap_err();
        (error.code().to_owned(), error.to_string())
    }

    #[test]
    fn the_least_request_takes_the_operators_defaults() {
        let request = read(&json!({"provider": "codex"})).unwrap();
        assert_eq!(request.region.as_str(), "us-east-1");
        assert_eq!(request.instance_type, "t3.medium");
        assert_eq!(request.timeout_secs, 1800);
        assert_eq!(request.template.source.to_string(), "builtin://default-ec2");
    }

    #[test]
    fn both_shapes_mean_the_same() {
        let documented =
            json!({"provider": "gemini", "template_source": "builtin://default-ec2", "region": null});
        let clients = json!({
            "agent_provider": "gemini", "template": {"type": "builtin", "name": "default-ec2"}, "template_source": null
        });
        assert_eq!(read(&documented).unwrap(), read(&clients).unwrap());
    }

    #[test]
    fn two_names_of_a_field_must_agree() {
        assert!(read(&json!({"provider": "codex", "agent_provider": "codex"})).is_ok());
        let (code, message) = refused(&json!({"provider": "codex", "agent_provider": "gemini"}));
        assert_eq!(code, "invalid_request");
        assert!(message.contains("codex") && message.contains("gemini"), "{message}");
    }

    #[test]
    fn each_bad_value_is_named_with_what_is_allowed() {
        for (body, code, part) in [
            (json!({}), "invalid_request", "`provider` is missing"),
            (json!({"provider": "emacs"}), "invalid_request", "one of claude-code"),
            (json!({"provider": 3}), "invalid_request", "`provider` must be a string"),
            (json!({"provider": "codex", "colour": 1, "x": 2}), "invalid_request", "`colour`, `x`"),
            (json!({"provider": "codex", "region": "moon"}), "invalid_request", "`moon`"),
            (json!({"provider": "codex", "region": "ap-south-1"}), "config_validation_error", "eu-west-1"),
            (json!({"provider": "codex", "instance_type": "t3; rm"}), "invalid_request", "t3.medium"),
            (json!({"provider": "codex", "subnet_id": "vpc-1"}), "invalid_request", "subnet-"),
            (json!({"provider": "codex", "timeout_secs": 5}), "invalid_request", "30 to 28800"),
            (json!({"provider": "codex", "timeout_secs": "60"}), "invalid_request", "whole number"),
            (json!({"provider": "codex", "runner": "laptop"}), "invalid_request", "codebuild"),
            (json!({"provider": "codex", "force": "yes"}), "invalid_request", "true or false"),
            (json!({"provider": "codex", "variables": {"a b": "c"}}), "invalid_request", "`a b`"),
            (json!({"provider": "codex", "variables": {"a": null}}), "invalid_request", "`a`"),
            (json!({"provider": "codex", "tags": {"ciab:stack": "x"}}), "invalid_request", "reserved"),
            (json!({"provider": "codex", "tags": {"AWS:x": "x"}}), "invalid_request", "reserved"),
            (json!({"provider": "codex", "tags": {"a": 1}}), "invalid_request", "must be a string"),
            (
                json!({"provider": "codex", "template_source": "builtin://nope"}),
                "template_source_not_found",
                "default-ec2",
            ),
            (json!({"provider": "codex", "template_source": "ftp://x"}), "invalid_request", "builtin://"),
            (
                json!({"provider": "codex", "template": {"type": "builtin"}}),
                "invalid_request",
                "`name` is missing",
            ),
            (
                json!({"provider": "codex", "template": {"type": "file_path", "path": "/x"}}),
                "invalid_request",
                "inline",
            ),
            (
                json!({"provider": "codex", "template_source": "builtin://default-ec2",
                       "template": {"type": "inline", "content": "locals {}"}}),
                "invalid_request",
                "different templates",
            ),
        ] {
            let (given_code, message) = refused(&body);
            assert_eq!(given_code, code, "{body}: {message}");
            assert!(message.contains(part), "{body}: {message}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_object_is_refused() {
        for body in ["", "not json", "[]", "\"x\"", "{\"provider\": \"codex\""] {
            assert_eq!(
                BuildRequest::read(body.as_bytes(), &settings()).unwrap_err().code(),
                "invalid_request"
            );
        }
    }

    #[test]
    fn a_request_that_is_too_large_is_refused_before_it_is_read() {
        let body = vec![b' '; REQUEST_BYTES + 1];
        assert_eq!(BuildRequest::read(&body, &settings()).unwrap_err().code(), "payload_too_large");
    }
}
