//! Where a template comes from, in both of the contract's forms.
//!
//! This only reads and checks what a source says; it must never fetch one, and never show a secret: a URL's query may hold
//! one, so that it is never displayed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::builtin::{builtin, builtin_names};
use crate::bundle::{Bundle, normalise};

/// Characters that a source may have.
const LENGTH: usize = 2_048;

/// Where a template comes from, as a build's input keeps it.
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
    /// A file or an archive on a web server.
    Url(UrlSource),
    /// A file or folder of a git repository.
    Git(GitSource),
    /// An object of the stack's own bucket.
    S3 {
        /// The bucket, which must be the stack's.
        bucket: String,
        /// The object's key.
        key: String,
    },
    /// Uploaded before, or kept from an earlier build: named by what it holds.
    Stored {
        /// `sha256:<hex>`
        digest: String,
    },
}

/// A file or an archive on a web server.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UrlSource {
    /// `https` (or `http`, which only a trusted host is allowed), without credentials or fragment.
    pub url: Url,
}

/// A file or folder of a git repository.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GitSource {
    /// The repository, over `https` (or `http`, which only a trusted host is allowed), without credentials or query.
    pub url: Url,
    /// A file or folder in it; none for its root.
    pub path: Option<String>,
    /// A tag, branch or commit; none for what `HEAD` names.
    pub reference: Option<String>,
}

/// A source as submitted: where from, and the content where that came along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedTemplate {
    /// Where from.
    pub source: TemplateSource,
    /// The content of an inline template.
    pub content: Option<String>,
}

const ALLOWED: &str = "allowed are `builtin://<name>`, `https://…`, `git::https://<host>/<repository>//<path>?ref=<tag, \
    branch or commit>`, `s3://<the stack's bucket>/<key>`, `template://sha256:<digest>` and inline content";

/// Why a template source is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateSourceError {
    /// Not a source at all.
    #[error("`{given}` is not a template source: {ALLOWED}")]
    Unknown {
        /// As given, shortened.
        given: String,
    },
    /// Of a known kind, and not right.
    #[error("the template source is not valid: {message}")]
    Invalid {
        /// What is wrong with it, without repeating what may be a secret.
        message: String,
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
}

impl TemplateSource {
    /// The bundle of a builtin template; none for any other source, or one that is no longer there.
    #[must_use]
    pub fn builtin(&self) -> Option<Bundle> {
        match self {
            Self::Builtin { name } => builtin(name),
            _ => None,
        }
    }

    /// Whether it has to be fetched from somebody else's server.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Git(_))
    }

    /// The address that it is fetched from; none where it is not fetched.
    #[must_use]
    pub fn address(&self) -> Option<&Url> {
        match self {
            Self::Url(source) => Some(&source.url),
            Self::Git(source) => Some(&source.url),
            Self::Builtin { .. } | Self::Inline | Self::S3 { .. } | Self::Stored { .. } => None,
        }
    }

    /// The whole of it, query and all, as text that tells it from every other source. May hold a secret.
    #[must_use]
    pub fn identity(&self) -> String {
        match self {
            Self::Url(source) => source.url.to_string(),
            other => other.to_string(),
        }
    }
}

impl FromStr for TemplateSource {
    type Err = TemplateSourceError;

    /// Reads `template_source` as callers give it, and looks whether a builtin template of that name exists.
    fn from_str(given: &str) -> Result<Self, TemplateSourceError> {
        let unknown = || TemplateSourceError::Unknown { given: shown(given) };
        if given.len() > LENGTH {
            return Err(invalid(format!("it has {} bytes: at most {LENGTH} are allowed", given.len())));
        }
        if let Some(repository) = given.strip_prefix("git::") {
            return git(repository).map(Self::Git);
        }
        let (scheme, rest) = given.split_once("://").ok_or_else(unknown)?;
        match scheme {
            "builtin" => named(rest),
            "https" | "http" => web(given).map(|url| Self::Url(UrlSource { url })),
            "s3" => object(rest),
            "template" => stored(rest),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for TemplateSource {
    /// As a record may show it: without a URL's query.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin { name } => write!(formatter, "builtin://{name}"),
            Self::Inline => formatter.write_str("inline"),
            Self::Url(source) => write!(formatter, "{source}"),
            Self::Git(source) => write!(formatter, "{source}"),
            Self::S3 { bucket, key } => write!(formatter, "s3://{bucket}/{key}"),
            Self::Stored { digest } => write!(formatter, "template://{digest}"),
        }
    }
}

impl fmt::Display for UrlSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        shown.set_query(self.url.query().map(|_| "…"));
        write!(formatter, "{}", shown.as_str().replace("?%E2%80%A6", "?…"))
    }
}

impl fmt::Debug for UrlSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UrlSource({self})")
    }
}

impl fmt::Display for GitSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "git::{}", self.url)?;
        if let Some(path) = &self.path {
            write!(formatter, "//{path}")?;
        }
        match &self.reference {
            // These mean something else in a query.
            Some(reference) => {
                let reference = reference.replace('%', "%25").replace('+', "%2B").replace('&', "%26");
                write!(formatter, "?ref={reference}")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for GitSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GitSource({self})")
    }
}

impl SubmittedTemplate {
    /// Reads the object form: `{"type": "builtin", "name"}`, `{"type": "url", "url"}`, `{"type": "git", "url", "path", "ref"}`,
    /// `{"type": "inline", "content"}`.
    ///
    /// # Errors
    ///
    /// As for the string form, and where a field is missing, unknown, or not a string.
    pub fn from_object(given: &Value) -> Result<Self, TemplateSourceError> {
        let wrong = |message: String| TemplateSourceError::Object { message };
        let object = given.as_object().ok_or_else(|| wrong("it must be an object".into()))?;
        let optional = |field: &str| match object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(wrong(format!("`{field}` must be a string"))),
        };
        let text = |field: &str| optional(field)?.ok_or_else(|| wrong(format!("`{field}` is missing")));
        let only = |fields: &[&str]| {
            let unknown = object.keys().find(|key| *key != "type" && !fields.contains(&key.as_str()));
            unknown.map_or(Ok(()), |key| {
                let key = shown(key);
                let takes = fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ");
                Err(wrong(format!("`{key}` is unknown; beside `type` it takes {takes}")))
            })
        };
        let fetched = |source| Ok(Self { source, content: None });
        match text("type")? {
            "builtin" => {
                only(&["name"])?;
                fetched(named(text("name")?)?)
            }
            "inline" => {
                only(&["content"])?;
                let content = text("content")?;
                if content.trim().is_empty() {
                    return Err(wrong("`content` is empty".into()));
                }
                Ok(Self { source: TemplateSource::Inline, content: Some(content.to_owned()) })
            }
            "url" => {
                only(&["url"])?;
                let url = web(text("url")?)?;
                fetched(TemplateSource::Url(UrlSource { url }))
            }
            "git" => {
                only(&["url", "path", "ref"])?;
                let url = text("url")?;
                let mut source = git(url.strip_prefix("git::").unwrap_or(url))?;
                for (field, slot) in [("path", &mut source.path), ("ref", &mut source.reference)] {
                    let Some(given) = optional(field)?.filter(|given| !given.is_empty()) else { continue };
                    let read = if field == "path" { git_path(given)? } else { Some(git_reference(given)?) };
                    if slot.is_some() && *slot != read {
                        return Err(wrong(format!("`{field}` and `url` name different ones: give it once")));
                    }
                    *slot = read;
                }
                fetched(TemplateSource::Git(source))
            }
            "file_path" => Err(TemplateSourceError::FilePath),
            other => Err(wrong(format!(
                "the type `{}` is unknown; there are `builtin`, `url`, `git` and `inline`",
                shown(other)
            ))),
        }
    }
}

fn invalid(message: impl Into<String>) -> TemplateSourceError {
    TemplateSourceError::Invalid { message: message.into() }
}

/// What was given, short enough to be repeated, and without what may be a secret.
fn shown(given: &str) -> String {
    let public = given.split(['?', '#']).next().unwrap_or_default();
    let public = match (public.find("://"), public.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}…{}", &public[..scheme + 3], &public[at..]),
        _ => public.to_owned(),
    };
    public.chars().take(200).collect()
}

fn named(name: &str) -> Result<TemplateSource, TemplateSourceError> {
    if builtin_names().contains(&name) {
        Ok(TemplateSource::Builtin { name: name.to_owned() })
    } else {
        let name = name.chars().take(200).collect();
        Err(TemplateSourceError::NotFound { name, known: builtin_names() })
    }
}

fn web(given: &str) -> Result<Url, TemplateSourceError> {
    let url = Url::parse(given).map_err(|error| invalid(format!("`{}`: {error}", shown(given))))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(invalid(format!("`{}`: only https is fetched", shown(given))));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "a URL with a user name or password is not taken: the operator puts a token for the host into Secrets Manager or SSM",
        ));
    }
    if url.fragment().is_some() {
        return Err(invalid(format!("`{}`: a fragment (`#…`) means nothing here", shown(given))));
    }
    Ok(url)
}

fn git(repository: &str) -> Result<GitSource, TemplateSourceError> {
    if !repository.starts_with("https://") && !repository.starts_with("http://") {
        return Err(invalid(format!(
            "`git::{}`: a git source is `git::https://<host>/<repository>//<path>?ref=<tag, branch or commit>`; \
             ssh and other transports are not supported",
            shown(repository)
        )));
    }
    let (location, query) = match repository.split_once('?') {
        Some((location, query)) => (location, Some(query)),
        None => (repository, None),
    };
    let scheme_ends = location.find("://").map_or(0, |at| at + 3);
    let (repository, path) = match location[scheme_ends..].split_once("//") {
        Some((repository, path)) => (&location[..scheme_ends + repository.len()], Some(path)),
        None => (location, None),
    };
    let mut url = web(repository)?;
    let repository_path = url.path().trim_end_matches('/').to_owned();
    if repository_path.is_empty() {
        return Err(invalid(format!("`git::{}`: the repository's path is missing", shown(repository))));
    }
    // A backslash is a slash to a URL, and a tab nothing: what looked like one part may be two, and `//` what divides the
    // repository from a path in it.
    if repository_path.contains("//") {
        return Err(invalid(format!(
            "`git::{}`: a part of the repository's path is empty, or has a backslash or a line break in it",
            shown(repository)
        )));
    }
    url.set_path(&repository_path);
    let mut reference = None;
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match name.as_ref() {
            "ref" if reference.is_none() => reference = Some(git_reference(&value)?),
            "ref" => return Err(invalid("`ref` is given twice")),
            other => {
                return Err(invalid(format!(
                    "a git source takes the parameter `ref` alone, not `{}`",
                    shown(other)
                )));
            }
        }
    }
    Ok(GitSource { url, path: path.map(git_path).transpose()?.flatten(), reference })
}

fn git_path(given: &str) -> Result<Option<String>, TemplateSourceError> {
    if given.trim_matches('/').is_empty() {
        return Ok(None);
    }
    let path = normalise(given.trim_start_matches('/'))
        .map_err(|_| invalid("a path in a git repository must be relative, without `..`"))?;
    if path.contains('?') {
        return Err(invalid(
            "a path in a git repository can't have a `?` in it, where the `ref` would begin",
        ));
    }
    if path.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
        return Err(invalid("a path in a git repository can't lead into `.git`"));
    }
    Ok(Some(path))
}

/// What git allows as a reference or a commit, and nothing that could mean anything else to anybody.
fn git_reference(given: &str) -> Result<String, TemplateSourceError> {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let right = given.len() <= 255
        && given.bytes().all(|b| b.is_ascii_graphic() && !b"~^:?*[\\".contains(&b))
        && !given.contains("..")
        && !given.contains("@{")
        && !given.starts_with('-')
        && !given.ends_with('.')
        && given.split('/').all(part);
    if right {
        Ok(given.to_owned())
    } else {
        Err(invalid(format!("`{}` is not the name of a tag, branch or commit", shown(given))))
    }
}

fn object(rest: &str) -> Result<TemplateSource, TemplateSourceError> {
    let wrong = || invalid("an S3 source is `s3://<bucket>/<key>`");
    let (bucket, key) = rest.split_once('/').ok_or_else(wrong)?;
    let named = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    if !named || normalise(key).ok().as_deref() != Some(key) {
        return Err(wrong());
    }
    Ok(TemplateSource::S3 { bucket: bucket.to_owned(), key: key.to_owned() })
}

fn stored(digest: &str) -> Result<TemplateSource, TemplateSourceError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(TemplateSource::Stored { digest: digest.to_owned() });
    }
    Err(invalid("a stored template is `template://sha256:` and 64 hexadecimal digits in lower case"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(given: &str) -> TemplateSource {
        given.parse().unwrap_or_else(|error| panic!("{given}: {error}"))
    }

    fn refused(given: &str) -> String {
        given.parse::<TemplateSource>().unwrap_err().to_string()
    }

    fn object(given: Value) -> TemplateSource {
        SubmittedTemplate::from_object(&given).unwrap().source
    }

    #[test]
    fn both_forms_mean_the_same() {
        for (text, form) in [
            ("builtin://default-ec2", json!({"type": "builtin", "name": "default-ec2"})),
            ("https://example.com/a.zip", json!({"type": "url", "url": "https://example.com/a.zip"})),
            (
                "git::https://example.com/a.git//x/y?ref=v1",
                json!({"type": "git", "url": "https://example.com/a.git", "path": "x/y", "ref": "v1"}),
            ),
            (
                "git::https://example.com/a.git",
                json!({"type": "git", "url": "https://example.com/a.git", "path": null}),
            ),
            (
                "git::https://example.com/a.git//x",
                json!({"type": "git", "url": "git::https://example.com/a.git//x", "path": "/x/"}),
            ),
        ] {
            assert_eq!(parsed(text), object(form));
            assert_eq!(parsed(text).to_string(), text);
        }
    }

    #[test]
    fn a_builtin_template_that_there_is_none_of_names_those_there_are() {
        let error = "builtin://nope".parse::<TemplateSource>().unwrap_err();
        assert!(matches!(error, TemplateSourceError::NotFound { .. }));
        assert_eq!(error.to_string(), "there is no builtin template `nope`; there is default-ec2");
    }

    #[test]
    fn a_git_source_is_taken_apart() {
        let TemplateSource::Git(source) =
            parsed("git::https://h.example/o/r.git//packer/a.pkr.hcl?ref=feature/x")
        else {
            panic!("not git")
        };
        assert_eq!(source.url.as_str(), "https://h.example/o/r.git");
        assert_eq!(source.path.as_deref(), Some("packer/a.pkr.hcl"));
        assert_eq!(source.reference.as_deref(), Some("feature/x"));
    }

    /// Found by the fuzz target `source`: a URL makes slashes of backslashes, and what was shown named another repository.
    #[test]
    fn a_repository_whose_url_gets_an_empty_part_is_refused() {
        for location in ["a\\\\b", "a/\\b", "a/\t/b", "a\\\\b//path"] {
            let given = format!("git::https://h.example/{location}");
            assert!(refused(&given).contains("a part of the repository's path is empty"), "{given:?}");
        }
    }

    /// Found by the fuzz target `source`.
    #[test]
    fn what_is_shown_of_a_git_source_names_the_same_one() {
        for form in [
            json!({"type": "git", "url": "https://h.example/r.git", "ref": "v1.0+build&x%41#y=z"}),
            json!({"type": "git", "url": "https://h.example/r.git/", "path": "a/b", "ref": "v1"}),
            json!({"type": "git", "url": "https://h.example/o\\r.git//", "path": "a b#c%20d"}),
        ] {
            let source = object(form);
            assert_eq!(parsed(&source.to_string()), source);
        }
        let path = json!({"type": "git", "url": "https://h.example/r.git", "path": "a?ref=b"});
        let error = SubmittedTemplate::from_object(&path).unwrap_err().to_string();
        assert!(error.contains("can't have a `?` in it"), "{error}");
    }

    #[test]
    fn what_a_url_has_after_the_question_mark_is_kept_and_never_shown() {
        let source = parsed("https://h.example/a.zip?X-Amz-Signature=s3cret");
        assert_eq!(source.to_string(), "https://h.example/a.zip?…");
        assert!(!format!("{source:?}").contains("s3cret"));
        assert!(source.identity().ends_with("s3cret"));
        let kept = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<TemplateSource>(&kept).unwrap(), source);
    }

    #[test]
    fn no_credential_is_taken_or_repeated() {
        for given in [
            "https://user:s3cret@h.example/a.zip",
            "https://s3cret@h.example/a.zip",
            "git::https://s3cret@h.example/a.git",
            "git::ssh://git:s3cret@h.example/a.git",
            "https://h.example:s3cret/a.zip?s3cret",
            "ftp://s3cret@h.example/?s3cret",
        ] {
            let message = refused(given);
            assert!(given.contains(":s3cret/") || !message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn whatever_is_wrong_is_said_with_what_is_allowed() {
        for (given, says) in [
            ("", "`builtin://<name>`"),
            ("default-ec2", "`builtin://<name>`"),
            ("./template", "`builtin://<name>`"),
            ("ftp://x/y", "`builtin://<name>`"),
            ("inline", "`builtin://<name>`"),
            ("BUILTIN://default-ec2", "`builtin://<name>`"),
            ("https://", "empty host"),
            ("https://h.example/a#b", "fragment"),
            ("git::git@h.example:a/b.git", "ssh and other transports"),
            ("git::file:///etc", "ssh and other transports"),
            ("git::https://h.example", "path is missing"),
            ("git::https://h.example/a//../b", "without `..`"),
            ("git::https://h.example/a//.git/config", ".git"),
            ("git::https://h.example/a?ref=--upload-pack=x", "not the name of a tag"),
            ("git::https://h.example/a?ref=a..b", "not the name of a tag"),
            ("git::https://h.example/a?ref=a&ref=b", "twice"),
            ("git::https://h.example/a?depth=1", "`ref` alone"),
            ("s3://bucket", "`s3://<bucket>/<key>`"),
            ("s3://bucket/../x", "`s3://<bucket>/<key>`"),
            ("s3://Bu/x", "`s3://<bucket>/<key>`"),
            ("template://sha256:00", "64 hexadecimal digits"),
            ("template://md5:00", "64 hexadecimal digits"),
        ] {
            let message = refused(given);
            assert!(message.contains(says), "{given}: {message}");
        }
        assert!(refused(&format!("https://h.example/{}", "x".repeat(3_000))).contains("at most 2048"));
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
        assert!(message(json!({"type": "git", "url": "x"})).contains("git::https://"));
        assert!(
            message(json!({"type": "git", "url": "https://h/a//x", "path": "y"})).contains("give it once")
        );
        assert!(message(json!({"type": "svn"})).contains("`git`"));
        assert!(message(json!({"type": "url", "url": 5})).contains("must be a string"));
    }

    #[test]
    fn an_input_keeps_it_and_gives_it_back() {
        for source in [
            TemplateSource::Builtin { name: "a".into() },
            TemplateSource::Inline,
            parsed("git::https://h.example/a//b?ref=c"),
            parsed("s3://bucket/templates/x.zip"),
            parsed(&format!("template://sha256:{}", "0".repeat(64))),
        ] {
            let text = serde_json::to_string(&source).unwrap();
            assert_eq!(serde_json::from_str::<TemplateSource>(&text).unwrap(), source);
        }
        assert_eq!(serde_json::to_string(&TemplateSource::Inline).unwrap(), r#"{"type":"inline"}"#);
    }
}
