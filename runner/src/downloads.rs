//! Releases over https, with the same care that templates are fetched with.
//!
//! The mirror is the operator's choice and may stand at a private address; whatever it redirects to must be public.

use std::time::Duration;

use async_trait::async_trait;
use ciab_core::ports::FetchError;
use ciab_core::template_hosts::TemplateHosts;
use ciab_fetch::{Limits, Roots, WebFetcher};

use crate::install::{DownloadFailed, Downloads, Mirror};

/// Releases have some 20 MB; the bucket gives back no more than this.
const MOST_BYTES: u64 = 64 << 20;
const TIME: Duration = Duration::from_secs(120);

/// The network.
#[derive(Debug, Clone, Copy, Default)]
pub struct WebDownloads;

#[async_trait]
impl Downloads for WebDownloads {
    async fn download(&self, mirror: &Mirror, path: &str) -> Result<Vec<u8>, DownloadFailed> {
        let refused = |why: &str| DownloadFailed::Refused(format!("the mirror's address {why}"));
        let url = mirror.url(path).ok_or_else(|| refused("cannot be completed"))?;
        let trusted = mirror.host().parse().map_err(|error: String| refused(&error))?;
        let hosts = TemplateHosts { allowed: Vec::new(), trusted: vec![trusted] };
        let limits = Limits { download_time: TIME, ..Limits::default() };
        let fetcher = WebFetcher::new(hosts, Roots::of_the_machine()).with_limits(limits);
        fetcher.download(&url, MOST_BYTES).await.map_err(|error| match error {
            FetchError::Unavailable(why) => DownloadFailed::Unavailable(why),
            other => DownloadFailed::Refused(other.to_string()),
        })
    }
}
