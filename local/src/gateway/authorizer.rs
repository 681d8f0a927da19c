//! Asks the authorizer function and remembers its answers for as long as the template says.
//!
//! Must never allow what the function did not.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};

use axum::http::request::Parts;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::event::{self, Surroundings};
use super::routes::Matched;
use crate::lambda_host::LambdaHost;
use crate::template::AuthorizerSpec;

/// Answers past this number are forgotten all at once; a local stack sees a handful of keys.
const MOST_REMEMBERED: usize = 1000;

#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Allowed(Option<Json>),
    Denied,
    /// A header that identifies the caller is missing: the function is not even asked.
    NotIdentified,
    Failed,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    is_authorized: bool,
    context: Option<Json>,
}

pub(super) struct Authorizer {
    spec: AuthorizerSpec,
    remembered: Mutex<HashMap<Vec<String>, (Instant, Verdict)>>,
}

impl Authorizer {
    pub(super) fn new(spec: AuthorizerSpec) -> Self {
        Self { spec, remembered: Mutex::default() }
    }

    pub(super) async fn check(
        &self,
        host: &Arc<LambdaHost>,
        parts: &Parts,
        matched: &Matched<'_>,
        surroundings: &Surroundings<'_>,
        region: &str,
    ) -> Verdict {
        let mut identity = Vec::new();
        for name in &self.spec.identity_headers {
            match parts.headers.get(name).and_then(|value| value.to_str().ok()) {
                Some(value) if !value.is_empty() => identity.push(value.to_owned()),
                _ => return Verdict::NotIdentified,
            }
        }
        if !self.spec.identity_context.is_empty() {
            identity.push(matched.route.key.clone());
        }
        if let Some(verdict) = self.recall(&identity) {
            return verdict;
        }
        let (method, path) = (parts.method.as_str(), parts.uri.path());
        let arn = format!("arn:aws:execute-api:{region}:{}:local/$default/{method}{path}", crate::ACCOUNT);
        let event = event::authorizer_event(parts, matched, surroundings, &identity, &arn);
        let invoked = host.invoke(&self.spec.function, Bytes::from(event.to_string())).await;
        if invoked.failed {
            tracing::warn!("the authorizer failed: {}", String::from_utf8_lossy(&invoked.payload));
            return Verdict::Failed;
        }
        let verdict = match serde_json::from_slice::<Answer>(&invoked.payload) {
            Ok(answer) if answer.is_authorized => Verdict::Allowed(answer.context),
            Ok(_) => Verdict::Denied,
            Err(error) => {
                tracing::warn!("the authorizer's answer is not understood: {error}");
                return Verdict::Failed;
            }
        };
        self.remember(identity, verdict.clone());
        verdict
    }

    fn recall(&self, identity: &[String]) -> Option<Verdict> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, verdict) = remembered.get(identity)?;
        (at.elapsed() < self.spec.reauthorize_every).then(|| verdict.clone())
    }

    fn remember(&self, identity: Vec<String>, verdict: Verdict) {
        if self.spec.reauthorize_every.is_zero() {
            return;
        }
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(identity, (Instant::now(), verdict));
    }
}
