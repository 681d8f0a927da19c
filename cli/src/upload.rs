//! Putting a packed template where the service says: a form that the store takes without any key of ours.
//!
//! Must never send the API key: the address belongs to the store, not to the service.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use url::Url;

use crate::local_template::PackedTemplate;
use crate::pace;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest template over a slow line.
const TIMEOUT: Duration = Duration::from_secs(600);
const ATTEMPTS: u32 = 4;

/// What the service answers to whoever has a template for it.
#[derive(Deserialize)]
pub(crate) struct UploadAnswer {
    pub(crate) template_source: String,
    /// None where the service has these bytes already.
    pub(crate) upload: Option<UploadForm>,
}

/// A form that takes one upload.
#[derive(Deserialize)]
pub(crate) struct UploadForm {
    pub(crate) url: Url,
    fields: Fields,
}

/// In the order in which they came, which the store wants kept. They are as good as a key for as long as they are valid:
/// nothing prints them.
struct Fields(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("can't set up the connection to {store}")]
    Setup { store: String, source: reqwest::Error },
    #[error("the service wants the template sent to {store} without encryption")]
    Unencrypted { store: String },
    #[error("the template could not be sent to {store}")]
    Broken { store: String, source: reqwest::Error },
    #[error("{store} did not take the template: it answered {status}{}", detail(said.as_deref()))]
    Refused { store: String, status: u16, said: Option<String> },
}

fn detail(said: Option<&str>) -> String {
    said.map(|said| format!(" ({said})")).unwrap_or_default()
}

impl Error {
    fn is_transient(&self) -> bool {
        match self {
            Self::Broken { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Setup { .. } | Self::Unencrypted { .. } => false,
        }
    }
}

/// Sends the template; more than once where that may help, as the same bytes under the same name do no harm twice.
pub(crate) async fn send(
    form: &UploadForm,
    template: &PackedTemplate,
    may_be_plain: bool,
) -> Result<(), Error> {
    let store = form.url.origin().ascii_serialization();
    if form.url.scheme() != "https" && !may_be_plain {
        return Err(Error::Unencrypted { store });
    }
    let http = client(&form.url).map_err(|source| Error::Setup { store: store.clone(), source })?;
    let mut attempt = 1;
    loop {
        match once(&http, form, template, &store).await {
            Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                tokio::time::sleep(pace::retry_delay(attempt)).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn client(url: &Url) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("ciab/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT);
    if url.scheme() == "http" {
        // Plain is only ever a stack on this machine, which no proxy knows and no certificate is needed for.
        builder = builder.no_proxy().tls_certs_only([]);
    }
    builder.build()
}

async fn once(
    http: &reqwest::Client,
    form: &UploadForm,
    template: &PackedTemplate,
    store: &str,
) -> Result<(), Error> {
    let broken =
        |error: reqwest::Error| Error::Broken { store: store.to_owned(), source: error.without_url() };
    // The store ignores what comes after the file.
    let fields =
        form.fields.0.iter().cloned().fold(Form::new(), |form, (name, value)| form.text(name, value));
    let file = Part::bytes(template.bytes.clone()).file_name("template.tar.gz");
    let response =
        http.post(form.url.clone()).multipart(fields.part("file", file)).send().await.map_err(broken)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let body = response.bytes().await.map_err(broken)?;
    Err(Error::Refused { store: store.to_owned(), status: status.as_u16(), said: said(status, &body) })
}

/// Code and message of S3's error document.
fn said(status: StatusCode, body: &[u8]) -> Option<String> {
    let document = xmltree::Element::parse(body).ok().filter(|document| document.name == "Error")?;
    let text = |name: &str| document.get_child(name).and_then(xmltree::Element::get_text);
    let code = text("Code")?;
    let message = text("Message").unwrap_or_else(|| status.canonical_reason().unwrap_or_default().into());
    Some(format!("{code}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order() {
        let answer: UploadAnswer = serde_json::from_str(
            r#"{"template_source": "x", "upload": {"url": "https://store.example/", "expires_at": "2026-03-25T14:30:00Z",
                "fields": {"key": "1", "a": "2", "policy": "3", "Content-Type": "4"}}}"#,
        )
        .unwrap();
        let names: Vec<_> = answer.upload.unwrap().fields.0.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["key", "a", "policy", "Content-Type"]);
    }

    #[test]
    fn the_stores_error_is_read_and_anything_else_left_out() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>EntityTooLarge</Code><Message>Too large &amp; so on</Message></Error>";
        assert_eq!(said(StatusCode::BAD_REQUEST, xml).unwrap(), "EntityTooLarge: Too large & so on");
        assert_eq!(said(StatusCode::BAD_REQUEST, b"<html>no</html>"), None);
        assert_eq!(said(StatusCode::BAD_REQUEST, b""), None);
    }
}
