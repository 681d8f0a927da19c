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
            // All values of the header, as the function sees them: an answer about one of them is none about several.
            let values =
                parts.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            let value = values.collect::<Vec<_>>().join(",");
            if value.is_empty() {
                return Verdict::NotIdentified;
            }
            identity.push(value);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn authorizer(seconds: u64) -> Authorizer {
        Authorizer::new(AuthorizerSpec {
            function: "f".into(),
            identity_headers: vec!["Authorization".into()],
            identity_context: vec!["routeKey".into()],
            reauthorize_every: Duration::from_secs(seconds),
        })
    }

    fn identity(key: &str, route: &str) -> Vec<String> {
        vec![format!("Bearer {key}"), route.to_owned()]
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_remembered_with_its_context_for_one_key_and_route_and_for_a_while() {
        let authorizer = authorizer(60);
        authorizer.remember(identity("a", "GET /x"), Verdict::Allowed(Some(json!({"key_id": "a"}))));
        authorizer.remember(identity("b", "GET /x"), Verdict::Denied);
        tokio::time::advance(Duration::from_secs(59)).await;
        let Some(Verdict::Allowed(Some(context))) = authorizer.recall(&identity("a", "GET /x")) else {
            panic!("it is forgotten too early")
        };
        assert_eq!(context["key_id"], "a");
        assert!(matches!(authorizer.recall(&identity("b", "GET /x")), Some(Verdict::Denied)));
        assert!(authorizer.recall(&identity("a", "POST /x")).is_none());
        assert!(authorizer.recall(&identity("a,Bearer b", "GET /x")).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(authorizer.recall(&identity("a", "GET /x")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn with_no_time_to_remember_every_request_is_asked_about() {
        let authorizer = authorizer(0);
        authorizer.remember(identity("a", "GET /x"), Verdict::Allowed(None));
        assert!(authorizer.recall(&identity("a", "GET /x")).is_none());
    }
}
