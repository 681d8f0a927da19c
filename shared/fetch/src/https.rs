//! A file or an archive on a web server.
//!
//! Must never take anything for a template that the server did not call a success.

use ciab_core::ports::{FetchError, Fetched};
use ciab_core::template_hosts::host_and_port;
use http::header::{ACCEPT, CONTENT_DISPOSITION, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use url::Url;

use crate::client::Client;
use crate::download::{bundle, disposition_name, name_of};

/// Characters of an entity tag that is kept.
const TAG: usize = 512;

/// Fetches what is at a URL, unless it still is what the entity tag `known` stands for.
///
/// # Errors
///
/// As for [`Client::get`], and where what came is no template.
pub(crate) fn fetch(client: &Client, url: &Url, known: Option<&str>) -> Result<Fetched, FetchError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let known = known.filter(|tag| is_tag(tag)).and_then(|tag| HeaderValue::from_str(tag).ok());
    if let Some(tag) = &known {
        headers.insert(IF_NONE_MATCH, tag.clone());
    }
    let answer = client.get(url, &headers)?;
    if answer.status == StatusCode::NOT_MODIFIED {
        return match known {
            Some(_) => Ok(Fetched::Unchanged),
            None => Err(FetchError::Unavailable(format!(
                "`{}` answered 304 without reason",
                host_and_port(&answer.url)
            ))),
        };
    }
    let validator = answer.header(ETAG).filter(|tag| is_tag(tag)).map(ToOwned::to_owned);
    let disposition = answer.header(CONTENT_DISPOSITION).and_then(disposition_name).map(ToOwned::to_owned);
    let last = answer.url.clone();
    let bytes = answer.bytes(client.limits.download_bytes)?;
    let name = name_of([url.path(), disposition.as_deref().unwrap_or_default(), last.path()]);
    let bundle = bundle(name, &bytes, client.limits.unpacked).map_err(|error| {
        FetchError::Refused(format!("what `{}` sent is no template: {error}", host_and_port(&last)))
    })?;
    Ok(Fetched::Bundle { bundle, validator })
}

/// `"…"` or `W/"…"`. Whatever else a server says is not sent back to it.
fn is_tag(text: &str) -> bool {
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    text.len() <= TAG && inner.is_some_and(|inner| inner.bytes().all(|b| b != b'"' && b.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_entity_tag_is_kept_and_sent_back() {
        for tag in ["\"abc\"", "W/\"abc-1\"", "\"\""] {
            assert!(is_tag(tag), "{tag}");
        }
        for tag in [
            "abc",
            "\"",
            "\"a\"b\"",
            "\"a\", \"b\"",
            "*",
            "\"a\r\nX: y\"",
            &format!("\"{}\"", "x".repeat(600)),
        ] {
            assert!(!is_tag(tag), "{tag}");
        }
    }
}
