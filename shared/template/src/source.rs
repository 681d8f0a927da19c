//! Where a template comes from: `builtin://<name>`, or content that came inline.
//!
//! This only says what a source is; it must never fetch one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::builtin::{builtin, builtin_names};
use crate::bundle::Bundle;

/// Where a template comes from, as records keep it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TemplateSource {
    /// One that comes with the product.
    Builtin {
        /// Its folder's name under `templates/`.
        name: String,
    },
    /// Came with the request; its content is carried apart.
    Inline,
}

/// A source as submitted: where from, and the content where that came along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedTemplate {
    /// Where from.
    pub source: TemplateSource,
    /// The content of an inline template.
    pub content: Option<String>,
}

const ALLOWED: &str = "allowed are `builtin://<name>` and inline content";

/// Why a template source is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateSourceError {
    /// Not a source at all.
    #[error("`{given}` is not a template source: {ALLOWED}")]
    Unknown {
        /// As given, shortened.
        given: String,
    },
    /// A source of a kind that is planned for.
    #[error("template sources of the kind `{kind}` are not supported yet: {ALLOWED}")]
    NotSupportedYet {
        /// Such as `https` or `git`.
        kind: String,
    },
    /// The object form, with something missing, too much, or of the wrong type.
    #[error("`template` is not valid: {message}")]
    Object {
        /// What is wrong with it.
        message: String,
    },
    /// The caller's own disk.
    #[error(
        "a template of the type `file_path` can't be read by a remote service: send its text as \
         {{\"type\": \"inline\", \"content\": …}}, or let the command line client upload it"
    )]
    FilePath,
    /// A builtin template that there is none of. Answered with 404 `template_source_not_found`.
    #[error("there is no builtin template `{name}`; there is {}", known.join(", "))]
    NotFound {
        /// As given.
        name: String,
        /// Those there are.
        known: Vec<&'static str>,
    },
    /// A record says inline, but the content is not there.
    #[error("the content of the inline template is missing")]
    ContentMissing,
}

impl TemplateSource {
    /// The bundle of this source; `content` is that of an inline one.
    ///
    /// # Errors
    ///
    /// Where there is no such builtin template (any more), or the content is missing.
    pub fn resolve(&self, content: Option<&str>) -> Result<Bundle, TemplateSourceError> {
        match self {
            Self::Builtin { name } => builtin(name).ok_or_else(|| not_found(name)),
            Self::Inline => content.map(Bundle::from_inline).ok_or(TemplateSourceError::ContentMissing),
        }
    }
}

impl FromStr for TemplateSource {
    type Err = TemplateSourceError;

    /// Reads `template_source` as callers give it, and looks whether a builtin template of that name exists.
    fn from_str(given: &str) -> Result<Self, TemplateSourceError> {
        let unknown = || TemplateSourceError::Unknown { given: given.chars().take(200).collect() };
        let (scheme, rest) = given.split_once("://").ok_or_else(unknown)?;
        match scheme {
            "builtin" => named(rest),
            "https" | "http" | "s3" | "template" => {
                Err(TemplateSourceError::NotSupportedYet { kind: scheme.to_owned() })
            }
            _ if scheme.starts_with("git::") => {
                Err(TemplateSourceError::NotSupportedYet { kind: "git".to_owned() })
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for TemplateSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin { name } => write!(formatter, "builtin://{name}"),
            Self::Inline => formatter.write_str("inline"),
        }
    }
}

impl SubmittedTemplate {
    /// Reads the object form (`{"type": "builtin", "name": …}`, `{"type": "inline", "content": …}`).
    ///
    /// # Errors
    ///
    /// As for the string form, and where a field is missing, unknown, or not a string.
    pub fn from_object(given: &Value) -> Result<Self, TemplateSourceError> {
        let invalid = |message: String| TemplateSourceError::Object { message };
        let object = given.as_object().ok_or_else(|| invalid("it must be an object".into()))?;
        let text = |field: &str| {
            let value = object.get(field).ok_or_else(|| invalid(format!("`{field}` is missing")))?;
            value.as_str().ok_or_else(|| invalid(format!("`{field}` must be a string")))
        };
        let only = |field: &str| match object.keys().find(|key| *key != "type" && *key != field) {
            Some(key) => Err(invalid(format!("`{key}` is unknown; beside `type` it takes `{field}`"))),
            None => Ok(()),
        };
        match text("type")? {
            "builtin" => {
                only("name")?;
                Ok(Self { source: named(text("name")?)?, content: None })
            }
            "inline" => {
                only("content")?;
                let content = text("content")?;
                if content.trim().is_empty() {
                    return Err(invalid("`content` is empty".into()));
                }
                Ok(Self { source: TemplateSource::Inline, content: Some(content.to_owned()) })
            }
            "file_path" => Err(TemplateSourceError::FilePath),
            kind @ ("url" | "git" | "s3" | "uploaded") => {
                Err(TemplateSourceError::NotSupportedYet { kind: kind.to_owned() })
            }
            other => Err(invalid(format!("the type `{other}` is unknown; it takes `builtin` and `inline`"))),
        }
    }
}

fn named(name: &str) -> Result<TemplateSource, TemplateSourceError> {
    if builtin_names().contains(&name) {
        Ok(TemplateSource::Builtin { name: name.to_owned() })
    } else {
        Err(not_found(name))
    }
}

fn not_found(name: &str) -> TemplateSourceError {
    TemplateSourceError::NotFound { name: name.chars().take(200).collect(), known: builtin_names() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_builtin_template_is_found_by_both_forms() {
        let source: TemplateSource = "builtin://default-ec2".parse().unwrap();
        let object =
            SubmittedTemplate::from_object(&json!({"type": "builtin", "name": "default-ec2"})).unwrap();
        assert_eq!(object.source, source);
        assert_eq!(source.to_string(), "builtin://default-ec2");
    }

    #[test]
    fn a_builtin_template_that_there_is_none_of_names_those_there_are() {
        let error = "builtin://nope".parse::<TemplateSource>().unwrap_err();
        assert!(matches!(error, TemplateSourceError::NotFound { .. }));
        assert_eq!(error.to_string(), "there is no builtin template `nope`; there is default-ec2");
    }

    #[test]
    fn a_kind_that_is_planned_for_says_so_and_what_is_allowed() {
        for (given, kind) in [
            ("https://example.com/a.pkr.hcl", "https"),
            ("git::https://example.com/a.git//x?ref=main", "git"),
            ("s3://bucket/key", "s3"),
            ("template://sha256:00", "template"),
        ] {
            let error = given.parse::<TemplateSource>().unwrap_err();
            assert_eq!(error, TemplateSourceError::NotSupportedYet { kind: kind.into() });
            assert!(error.to_string().contains("`builtin://<name>` and inline content"));
        }
    }

    #[test]
    fn anything_else_is_unknown_and_says_what_is_allowed() {
        for given in ["", "default-ec2", "./template", "ftp://x/y", "inline", "BUILTIN://default-ec2"] {
            let error = given.parse::<TemplateSource>().unwrap_err();
            assert!(matches!(error, TemplateSourceError::Unknown { .. }), "{given}");
            assert!(error.to_string().contains("`builtin://<name>`"));
        }
    }

    #[test]
    fn the_object_form_names_what_is_wrong_with_it() {
        let message = |given: Value| SubmittedTemplate::from_object(&given).unwrap_err().to_string();
        assert_eq!(message(json!({})), "`template` is not valid: `type` is missing");
        assert_eq!(
            message(json!({"type": "inline", "contents": "x"})),
            "`template` is not valid: `contents` is unknown; beside `type` it takes `content`"
        );
        assert!(message(json!({"type": "inline", "content": " "})).contains("empty"));
        assert!(message(json!({"type": "file_path", "path": "/x"})).contains("upload"));
        assert!(message(json!({"type": "git", "url": "x"})).contains("not supported yet"));
    }

    #[test]
    fn a_record_keeps_it_and_gives_it_back() {
        for source in [TemplateSource::Builtin { name: "a".into() }, TemplateSource::Inline] {
            let text = serde_json::to_string(&source).unwrap();
            assert_eq!(serde_json::from_str::<TemplateSource>(&text).unwrap(), source);
        }
        assert_eq!(serde_json::to_string(&TemplateSource::Inline).unwrap(), r#"{"type":"inline"}"#);
    }

    #[test]
    fn inline_content_becomes_a_bundle_of_one_file() {
        let bundle = TemplateSource::Inline.resolve(Some("locals {}")).unwrap();
        assert_eq!(bundle.get("template.pkr.hcl"), Some(&b"locals {}"[..]));
        assert_eq!(TemplateSource::Inline.resolve(None), Err(TemplateSourceError::ContentMissing));
    }
}
