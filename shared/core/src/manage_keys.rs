//! `manage-keys`: POST, GET and DELETE /api/v1/images/keys. Makes keys, lists them, revokes them.
//!
//! A key is told once, to whoever has it made. If that answer is lost the key is known to nobody: it can be revoked, and the
//! next try makes another. Must never tell a key again, nor make one that can do more than who asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::{ApiError, HttpRequest, HttpResponse};
use crate::build_image::require_json;
use crate::ids::{InvalidName, Provider, Region, shown};
use crate::key::{Caller, KeyDigest, KeyId, KeyRecord, Limits, Scope};
use crate::ports::{Clock, KeyMaker, Keys};

/// The longest label, in characters.
const LABEL_CHARACTERS: usize = 100;
/// The longest that a key may last: ten years.
const EXPIRES_IN_DAYS: std::ops::RangeInclusive<u32> = 1..=3_650;
/// Pages that are read for one answer at most.
const PAGES: usize = 20;

/// What it needs.
pub struct Deps {
    /// The regions that images may be built in.
    pub allowed_regions: Vec<Region>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes keys.
    pub maker: Arc<dyn KeyMaker>,
    /// What is kept of keys.
    pub keys: Arc<dyn Keys>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    label: String,
    scopes: Vec<String>,
    providers: Option<Vec<String>>,
    regions: Option<Vec<String>>,
    expires_in_days: Option<u32>,
}

/// A key as callers see it.
#[derive(Debug, Serialize)]
struct KeyView<'a> {
    key_id: &'a KeyId,
    /// The key itself, in the answer to who had it made and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    label: &'a str,
    scopes: &'a BTreeSet<Scope>,
    providers: Option<&'a BTreeSet<Provider>>,
    regions: Option<&'a BTreeSet<Region>>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl<'a> KeyView<'a> {
    fn of(record: &'a KeyRecord, key: Option<&'a str>) -> Self {
        Self {
            key_id: &record.key_id,
            key,
            label: &record.label,
            scopes: &record.scopes,
            providers: record.limits.providers.as_ref(),
            regions: record.limits.regions.as_ref(),
            created_at: record.created_at,
            expires_at: record.expires_at,
        }
    }
}

#[derive(Debug, Serialize)]
struct Listing<'a> {
    keys: Vec<KeyView<'a>>,
    next_token: Option<String>,
}

/// Answers the three routes.
///
/// # Errors
/// Those of the contract.
pub async fn handle(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    match (request.method.as_str(), request.path_parameters.get("key_id")) {
        ("POST", None) => create(deps, request).await,
        ("GET", None) => list(deps, request).await,
        ("DELETE", Some(id)) => revoke(deps, request, id).await,
        _ => Err(ApiError::NotFound(shown(&request.path))),
    }
}

async fn create(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&[])?;
    require_json(request)?;
    let asked: Asked = serde_json::from_slice(&request.body).map_err(|error| {
        ApiError::InvalidRequest(format!(
            "the body must be {{\"label\": …, \"scopes\": […], \"providers\": […], \"regions\": […], \
             \"expires_in_days\": …}}, the last three optional: {error}"
        ))
    })?;
    let creator =
        request.caller.as_ref().ok_or_else(|| ApiError::Internal("nobody asks for the key".into()))?;
    let now = deps.clock.now();
    let wanted = Wanted::read(&asked, creator, &deps.allowed_regions, now)?;
    let new = deps.maker.new_key(now)?;
    let record = KeyRecord {
        key_id: new.id,
        digest: KeyDigest::of(new.text.expose()),
        label: wanted.label,
        scopes: wanted.scopes,
        limits: wanted.limits,
        created_at: now,
        expires_at: wanted.expires_at,
    };
    deps.keys.add_key(&record).await?;
    tracing::info!(key_id = %record.key_id, by = creator.key_id, "a key was made");
    HttpResponse::json(201, &KeyView::of(&record, Some(new.text.expose())))
}

/// What of a key its creator decides.
#[derive(Debug)]
struct Wanted {
    label: String,
    scopes: BTreeSet<Scope>,
    limits: Limits,
    expires_at: Option<Timestamp>,
}

impl Wanted {
    fn read(
        asked: &Asked,
        creator: &Caller,
        allowed_regions: &[Region],
        now: Timestamp,
    ) -> Result<Self, ApiError> {
        let label = asked.label.trim();
        let characters = label.chars().count();
        if characters == 0 || characters > LABEL_CHARACTERS || label.chars().any(char::is_control) {
            return Err(ApiError::InvalidRequest(format!(
                "`label` is `{}`: from 1 to {LABEL_CHARACTERS} characters are expected, and no control characters",
                shown(label)
            )));
        }
        let scopes: BTreeSet<Scope> = names("scopes", &asked.scopes)?;
        let limits = Limits {
            providers: asked.providers.as_deref().map(|all| names("providers", all)).transpose()?,
            regions: asked.regions.as_deref().map(|all| names("regions", all)).transpose()?,
        };
        let unknown = limits.regions.iter().flatten().find(|region| !allowed_regions.contains(region));
        if let Some(region) = unknown {
            let allowed: Vec<&str> = allowed_regions.iter().map(Region::as_str).collect();
            return Err(ApiError::InvalidRequest(format!(
                "`regions` has `{region}`, in which this service builds nothing: allowed are {}",
                allowed.join(", ")
            )));
        }
        if scopes.contains(&Scope::Admin) && limits.is_limited() {
            return Err(ApiError::InvalidRequest(
                "`providers` and `regions` cannot limit a key with the scope admin, which may make itself another key: \
                 leave them out, or give other scopes"
                    .into(),
            ));
        }
        if !creator.may_grant(&scopes, &limits) {
            return Err(ApiError::Forbidden("a key may make none that can do more than itself".into()));
        }
        let expires_at = match asked.expires_in_days {
            None => None,
            Some(days) if EXPIRES_IN_DAYS.contains(&days) => {
                Some(now + SignedDuration::from_hours(24 * i64::from(days)))
            }
            Some(days) => {
                return Err(ApiError::InvalidRequest(format!(
                    "`expires_in_days` is {days}: a number from {} to {} is expected, or none for a key that does not expire",
                    EXPIRES_IN_DAYS.start(),
                    EXPIRES_IN_DAYS.end()
                )));
            }
        };
        Ok(Self { label: label.to_owned(), scopes, limits, expires_at })
    }
}

fn names<T: std::str::FromStr<Err = InvalidName> + Ord>(
    field: &str,
    given: &[String],
) -> Result<BTreeSet<T>, ApiError> {
    if given.is_empty() {
        let or = if field == "scopes" { "" } else { ", or none of this field for no limit" };
        return Err(ApiError::InvalidRequest(format!("`{field}` is empty: at least one is expected{or}")));
    }
    Ok(given.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

async fn list(deps: &Deps, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    request.only_query(&["limit", "next_token"])?;
    let limit = request.limit()?;
    let now = deps.clock.now();
    let mut next_token = request.query.get("next_token").cloned();
    let mut keys: Vec<KeyRecord> = Vec::new();
    // What has expired may stay in the table for days; a page of nothing else would look like the end.
    for _ in 0..PAGES {
        let page = deps.keys.keys(limit, next_token.as_deref()).await?;
        next_token = page.next;
        keys.extend(page.items.into_iter().filter(|key| !key.has_expired(now)));
        if !keys.is_empty() || next_token.is_none() {
            break;
        }
    }
    let keys = keys.iter().map(|record| KeyView::of(record, None)).collect();
    HttpResponse::json(200, &Listing { keys, next_token })
}

async fn revoke(deps: &Deps, request: &HttpRequest, id: &str) -> Result<HttpResponse, ApiError> {
    request.only_query(&[])?;
    let id: KeyId = id.parse()?;
    if !deps.keys.remove_key(&id).await? {
        return Err(ApiError::KeyNotFound(id.to_string()));
    }
    tracing::info!(key_id = %id, by = request.requested_by(), "a key was revoked");
    Ok(HttpResponse::empty(204))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use serde_json::{Value, json};

    use super::*;
    use crate::key::{NewKey, Presented};
    use crate::ports::{Page, PortError};

    const NOW: &str = "2026-03-25T14:30:00Z";

    /// A table, a clock that stands, and secrets that count up.
    #[derive(Default)]
    struct World {
        keys: Mutex<BTreeMap<KeyId, KeyRecord>>,
        made: Mutex<u8>,
    }

    impl Clock for World {
        fn now(&self) -> Timestamp {
            NOW.parse().unwrap()
        }
    }

    impl KeyMaker for World {
        fn new_key(&self, now: Timestamp) -> Result<NewKey, PortError> {
            let mut made = self.made.lock().unwrap();
            *made += 1;
            Ok(NewKey::new(KeyId::new(now, [0, 0, 0, *made]), &[*made; 32]))
        }
    }

    #[async_trait]
    impl Keys for World {
        async fn add_key(&self, key: &KeyRecord) -> Result<(), PortError> {
            self.keys.lock().unwrap().insert(key.key_id.clone(), key.clone());
            Ok(())
        }
        async fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, PortError> {
            Ok(self.keys.lock().unwrap().get(id).cloned())
        }
        async fn keys(&self, limit: u32, next: Option<&str>) -> Result<Page<KeyRecord>, PortError> {
            let keys = self.keys.lock().unwrap();
            let mut after =
                keys.values().rev().filter(|key| next.is_none_or(|next| key.key_id.as_str() < next));
            let items: Vec<_> = after.by_ref().take(limit as usize).cloned().collect();
            let next = after.next().and(items.last()).map(|last| last.key_id.to_string());
            Ok(Page { items, next })
        }
        async fn remove_key(&self, id: &KeyId) -> Result<bool, PortError> {
            Ok(self.keys.lock().unwrap().remove(id).is_some())
        }
    }

    fn deps(world: &Arc<World>) -> Deps {
        Deps {
            allowed_regions: vec!["us-east-1".parse().unwrap(), "eu-west-1".parse().unwrap()],
            clock: world.clone(),
            maker: world.clone(),
            keys: world.clone(),
        }
    }

    fn request(method: &str, body: &Value) -> HttpRequest {
        HttpRequest {
            method: method.into(),
            body: body.to_string().into_bytes(),
            caller: Some(Caller::admin()),
            ..HttpRequest::default()
        }
    }

    async fn created(world: &Arc<World>, body: &Value) -> Value {
        let answer = handle(&deps(world), &request("POST", body)).await.unwrap();
        assert_eq!(answer.status, 201);
        answer.body.unwrap()
    }

    async fn revoked(world: &Arc<World>, id: &str) -> Result<HttpResponse, ApiError> {
        let mut request = request("DELETE", &Value::Null);
        request.path_parameters.insert("key_id".into(), id.into());
        handle(&deps(world), &request).await
    }

    #[tokio::test]
    async fn a_key_is_told_once_and_only_its_digest_is_kept() {
        let world = Arc::default();
        let asked = json!({
            "label": " ci ", "scopes": ["read", "build", "read"], "providers": ["codex"],
            "regions": ["eu-west-1"], "expires_in_days": 90,
        });
        let told = created(&world, &asked).await;
        let key = told["key"].as_str().unwrap().to_owned();
        assert_eq!(
            told,
            json!({
                "key_id": "019d2566fe4000000001", "key": key, "label": "ci", "scopes": ["read", "build"],
                "providers": ["codex"], "regions": ["eu-west-1"], "created_at": NOW,
                "expires_at": "2026-06-23T14:30:00Z",
            })
        );
        let Presented::Key { id, digest } = Presented::read(Some(&format!("Bearer {key}"))) else { panic!() };
        let kept = world.key(&id).await.unwrap().unwrap();
        assert!(kept.digest.is(&digest));
        assert!(!serde_json::to_string(&kept).unwrap().contains(&key));

        let listing = handle(&deps(&world), &request("GET", &Value::Null)).await.unwrap().body.unwrap();
        let mut listed = told;
        listed.as_object_mut().unwrap().remove("key");
        assert_eq!(listing, json!({"keys": [listed], "next_token": null}));
    }

    #[tokio::test]
    async fn a_second_try_after_a_lost_answer_makes_another_key() {
        let world = Arc::default();
        let asked = json!({"label": "ci", "scopes": ["read"]});
        let (lost, told) = (created(&world, &asked).await, created(&world, &asked).await);
        assert_ne!(lost["key"], told["key"]);
        assert_eq!(
            (&told["providers"], &told["regions"], &told["expires_at"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        assert_eq!(world.keys.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_key_is_revoked_once_and_then_not_found() {
        let world = Arc::default();
        let told = created(&world, &json!({"label": "ci", "scopes": ["read"]})).await;
        let id = told["key_id"].as_str().unwrap();
        assert_eq!(revoked(&world, id).await.unwrap(), HttpResponse::empty(204));
        assert_eq!(revoked(&world, id).await.unwrap_err().code(), "key_not_found");
        assert_eq!(revoked(&world, "admin").await.unwrap_err().code(), "invalid_request");
    }

    #[tokio::test]
    async fn what_has_expired_is_not_listed_even_where_it_fills_a_page() {
        let world: Arc<World> = Arc::default();
        for label in ["oldest", "expired", "expired too"] {
            created(&world, &json!({"label": label, "scopes": ["read"]})).await;
        }
        for key in world.keys.lock().unwrap().values_mut().skip(1) {
            key.expires_at = Some(NOW.parse().unwrap());
        }
        let mut request = request("GET", &Value::Null);
        request.query.insert("limit".into(), "1".into());
        let listing = handle(&deps(&world), &request).await.unwrap().body.unwrap();
        assert_eq!(listing["keys"][0]["label"], "oldest", "{listing:#}");
        assert_eq!((listing["keys"].as_array().unwrap().len(), &listing["next_token"]), (1, &Value::Null));
    }

    #[tokio::test]
    async fn bad_input_is_named_and_makes_no_key() {
        let world: Arc<World> = Arc::default();
        let with = |field: &str, value: Value| {
            let mut body = json!({"label": "ci", "scopes": ["build"]});
            body[field] = value;
            body
        };
        for (body, named) in [
            (json!({}), "label"),
            (json!({"label": "ci"}), "scopes"),
            (with("label", json!("")), "label"),
            (with("label", json!("x".repeat(101))), "label"),
            (with("label", json!("a\nb")), "label"),
            (with("scopes", json!([])), "scopes"),
            (with("scopes", json!(["write"])), "`write`"),
            (with("providers", json!([])), "providers"),
            (with("providers", json!(["emacs"])), "`emacs`"),
            (with("regions", json!(["moon"])), "`moon`"),
            (with("regions", json!(["us-west-2"])), "us-east-1, eu-west-1"),
            (with("expires_in_days", json!(0)), "expires_in_days"),
            (with("expires_in_days", json!(3651)), "3650"),
            (with("expires_in_days", json!("90d")), "expires_in_days"),
            (with("colour", json!("red")), "colour"),
            (json!({"label": "x", "scopes": ["admin"], "regions": ["eu-west-1"]}), "admin"),
        ] {
            let error = handle(&deps(&world), &request("POST", &body)).await.unwrap_err();
            assert_eq!(error.code(), "invalid_request", "{body}: {error}");
            assert!(error.to_string().contains(named), "{body}: {error}");
        }
        assert!(world.keys.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn nobody_makes_a_key_that_can_do_more_than_their_own() {
        let world: Arc<World> = Arc::default();
        let mut own = Caller::admin();
        own.scopes = [Scope::Build].into();
        let mut request = request("POST", &json!({"label": "more", "scopes": ["delete"]}));
        request.caller = Some(own);
        assert_eq!(handle(&deps(&world), &request).await.unwrap_err().code(), "forbidden");
        request.caller = None;
        assert_eq!(handle(&deps(&world), &request).await.unwrap_err().code(), "internal_error");
        assert!(world.keys.lock().unwrap().is_empty());
    }
}
