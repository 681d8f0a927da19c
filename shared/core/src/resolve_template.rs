//! From a template's source to its files: what is at hand, what the bucket keeps, what has to be fetched.
//!
//! Whatever a build is made of is kept in the bucket under its digest, so that the build can be repeated byte for byte. A
//! fetched template is fetched again only where its source may have changed. Must never read what another build put into
//! the bucket, and never tell a credential to anybody but the host that it is for.

use ciab_template::{Bundle, TemplateSource, UnpackLimits};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;
use crate::ports::{FetchError, Fetched, ObjectStore, PortError, Secret, Secrets, TemplateFetcher};
use crate::request::RequestedTemplate;
use crate::settings::Settings;

/// The one folder of the bucket that `s3://` sources may name.
pub const TEMPLATES_FOLDER: &str = "templates/";

/// Bytes that an uploaded file or archive may have.
pub const UPLOAD_BYTES: u64 = 16 * 1024 * 1024;

/// A template was not found out.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no such template.
    #[error("{0}")]
    NotFound(String),
    /// It is there, and can't be taken; the message is for whoever named it.
    #[error("{0}")]
    Rejected(String),
    /// Its server did not answer; asking again may help.
    #[error("{0}")]
    Unavailable(String),
    /// A service of our own did not do what was asked.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// What resolving needs.
pub struct Resolver<'a> {
    /// The operator's settings.
    pub settings: &'a Settings,
    /// The bucket.
    pub objects: &'a dyn ObjectStore,
}

/// What fetching needs beside that.
pub struct Fetching<'a> {
    /// Fetches from other people's servers.
    pub fetcher: &'a dyn TemplateFetcher,
    /// Where the operator keeps tokens.
    pub secrets: &'a dyn Secrets,
    /// Now.
    pub now: Timestamp,
}

/// What is known of a source that was fetched before: `templates/fetched/<digest of the source>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The kept bundle.
    digest: String,
    /// What to ask its server with, whether it has changed.
    validator: Option<String>,
    /// When its server last said that this is it.
    fetched_at: Timestamp,
}

impl Resolver<'_> {
    /// The template where it needs no fetching; none where it does.
    ///
    /// # Errors
    /// `NotFound`, `Rejected`, and what the bucket answers.
    pub async fn at_hand(&self, template: &RequestedTemplate) -> Result<Option<Bundle>, ResolveError> {
        match &template.source {
            TemplateSource::Builtin { name } => template.source.builtin().map(Some).ok_or_else(|| {
                ResolveError::NotFound(format!("there is no builtin template `{name}` any more"))
            }),
            TemplateSource::Inline => match &template.inline {
                Some(content) => Ok(Some(Bundle::from_inline(content))),
                None => Err(ResolveError::NotFound("the content of the inline template is missing".into())),
            },
            TemplateSource::S3 { key, .. } => {
                let bytes = self.objects.get(key).await?;
                let bytes = bytes.ok_or_else(|| not_in_bucket(&template.source))?;
                unpacked(key, &bytes).map(Some)
            }
            TemplateSource::Stored { digest } => self.stored(digest).await.map(Some),
            TemplateSource::Url(_) | TemplateSource::Git(_) => Ok(None),
        }
    }

    /// The template, fetched where needed, and kept under its digest.
    ///
    /// # Errors
    /// Every one of [`ResolveError`].
    pub async fn resolve(
        &self,
        template: &RequestedTemplate,
        fetching: &Fetching<'_>,
    ) -> Result<Bundle, ResolveError> {
        if let Some(bundle) = self.at_hand(template).await? {
            self.keep(&bundle).await?;
            return Ok(bundle);
        }
        self.fetched(&template.source, fetching).await
    }

    /// The bundle that is kept under a digest; none where it is not there (any more).
    ///
    /// # Errors
    /// What the bucket answers.
    pub async fn kept(&self, digest: &str) -> Result<Option<Bundle>, PortError> {
        let Some(bytes) = self.objects.get(&kept_key(digest)).await? else { return Ok(None) };
        let bundle = Bundle::from_download("template.tar.gz", &bytes, UnpackLimits::default()).ok();
        // Whatever is there under another digest than its own is nothing that was kept.
        Ok(bundle.filter(|bundle| bundle.digest() == digest))
    }

    async fn keep(&self, bundle: &Bundle) -> Result<(), ResolveError> {
        let archive = bundle.to_tar_gz("", &[]).map_err(|error| ResolveError::Rejected(error.to_string()))?;
        Ok(self.objects.put(&kept_key(&bundle.digest()), archive).await?)
    }

    /// What was kept from an earlier build, or else what was uploaded.
    async fn stored(&self, digest: &str) -> Result<Bundle, ResolveError> {
        if let Some(bundle) = self.kept(digest).await? {
            return Ok(bundle);
        }
        let source = TemplateSource::Stored { digest: digest.to_owned() };
        let bytes = self.objects.get(&upload_key(digest)).await?.ok_or_else(|| not_in_bucket(&source))?;
        // The bucket was told what to take; what it took is looked at all the same.
        if format!("sha256:{}", sha256_hex(&bytes)) != digest {
            return Err(ResolveError::Rejected(format!("what was uploaded as {source} is something else")));
        }
        unpacked("upload", &bytes)
    }

    async fn fetched(
        &self,
        source: &TemplateSource,
        fetching: &Fetching<'_>,
    ) -> Result<Bundle, ResolveError> {
        let key = known_key(source);
        let known: Option<Known> =
            self.objects.get(&key).await?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let known = match known {
            Some(known) => self.kept(&known.digest).await?.map(|bundle| (known, bundle)),
            None => None,
        };
        if let Some((known, bundle)) = &known
            && self.is_fresh(source, known, fetching.now)
        {
            return Ok(bundle.clone());
        }
        let credential = self.credential(source, fetching.secrets).await?;
        let validator = known.as_ref().and_then(|(known, _)| known.validator.as_deref());
        let fetched = fetching.fetcher.fetch(source, validator, credential.as_ref()).await;
        let (bundle, validator) = match (fetched, known) {
            (Ok(Fetched::Bundle { bundle, validator }), _) => {
                self.keep(&bundle).await?;
                (bundle, validator)
            }
            (Ok(Fetched::Unchanged), Some((known, bundle))) => (bundle, known.validator),
            (Ok(Fetched::Unchanged), None) => {
                return Err(ResolveError::Unavailable(format!("the server of {source} sent no template")));
            }
            (Err(FetchError::Refused(message)), _) => return Err(ResolveError::Rejected(message)),
            (Err(FetchError::Unavailable(message)), _) => return Err(ResolveError::Unavailable(message)),
        };
        let known = Known { digest: bundle.digest(), validator, fetched_at: fetching.now };
        let document = serde_json::to_vec(&known).map_err(|error| PortError::Unreadable {
            service: "s3",
            operation: "PutObject",
            what: error.to_string(),
        })?;
        self.objects.put(&key, document).await?;
        Ok(bundle)
    }

    /// A commit is what it is; anything else may have changed once its time is over.
    fn is_fresh(&self, source: &TemplateSource, known: &Known, now: Timestamp) -> bool {
        if let TemplateSource::Git(source) = source
            && source.reference.as_deref().is_some_and(is_commit)
        {
            return true;
        }
        let age = now.duration_since(known.fetched_at);
        age >= SignedDuration::ZERO
            && age < SignedDuration::from_secs(self.settings.template_cache_secs.into())
    }

    async fn credential(
        &self,
        source: &TemplateSource,
        secrets: &dyn Secrets,
    ) -> Result<Option<Secret>, ResolveError> {
        let Some(address) = source.address() else { return Ok(None) };
        let mut credentials = self.settings.template_credentials.iter();
        let Some((host, name)) = credentials.find(|(host, _)| host.matches(address)) else {
            return Ok(None);
        };
        match secrets.secret(name).await? {
            Some(secret) => Ok(Some(secret)),
            None => Err(ResolveError::Rejected(format!(
                "the operator has named a token for {host}, and there is none under that name"
            ))),
        }
    }
}

/// Where an upload with these bytes stands in the bucket.
pub fn upload_key(digest: &str) -> String {
    format!("{TEMPLATES_FOLDER}uploads/{}", bare(digest))
}

fn kept_key(digest: &str) -> String {
    format!("{TEMPLATES_FOLDER}kept/{}.tar.gz", bare(digest))
}

fn known_key(source: &TemplateSource) -> String {
    format!("{TEMPLATES_FOLDER}fetched/{}.json", sha256_hex(source.identity()))
}

fn bare(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64) && reference.bytes().all(|b| b.is_ascii_hexdigit())
}

fn unpacked(name: &str, bytes: &[u8]) -> Result<Bundle, ResolveError> {
    Bundle::from_download(name, bytes, UnpackLimits::default())
        .map_err(|error| ResolveError::Rejected(error.to_string()))
}

fn not_in_bucket(source: &TemplateSource) -> ResolveError {
    ResolveError::NotFound(format!(
        "there is no template {source}: it was never uploaded, or is kept no longer"
    ))
}
