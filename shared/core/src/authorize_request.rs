//! `authorize-request`: whether a request may come in, and as whom. Deny by default.
//!
//! Must never let a request in because something could not be read, and never write a key, or a part of one, anywhere.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::key::{Caller, KeyDigest, KeyRecord, Presented, Scope};
use crate::ports::{Clock, Keys, PortError, Secret, Secrets};
use crate::routes::{self, Access};

/// A first admin key that is shorter is none: somebody has put something else there.
const ADMIN_KEY_CHARACTERS: usize = 20;

/// What it needs.
pub struct Deps {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is kept of keys.
    pub keys: Arc<dyn Keys>,
    /// Where the first admin key is.
    pub secrets: Arc<dyn Secrets>,
    /// The first admin key.
    pub admin_key: AdminKey,
}

/// The first admin key, which is read where it is kept and remembered for a while.
pub struct AdminKey {
    name: String,
    remembered_for: SignedDuration,
    remembered: Mutex<Option<(Timestamp, Option<Secret>)>>,
}

impl AdminKey {
    /// The secret with this name. One that was replaced is taken for as long as it is remembered.
    pub fn new(name: impl Into<String>, remembered_for: SignedDuration) -> Self {
        Self { name: name.into(), remembered_for, remembered: Mutex::default() }
    }

    async fn read(&self, secrets: &dyn Secrets, now: Timestamp) -> Result<Option<Secret>, PortError> {
        if let Some(secret) = self.recall(now) {
            return Ok(secret);
        }
        let secret = secrets.secret(&self.name).await?;
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, secret.clone()));
        Ok(secret)
    }

    fn recall(&self, now: Timestamp) -> Option<Option<Secret>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, secret) = remembered.as_ref()?;
        // A clock that was put back must not make it last.
        let age = now.duration_since(*at);
        (!age.is_negative() && age < self.remembered_for).then(|| secret.clone())
    }
}

/// A request at the door.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The route that it takes: `METHOD /path`, or `$default`.
    pub route_key: String,
    /// The value of its `Authorization` header.
    pub authorization: Option<String>,
}

/// What the stack knows of what was presented.
#[derive(Debug, Clone)]
pub enum Known {
    /// What is kept of the key with the presented id.
    Key(Option<KeyRecord>),
    /// The first admin key.
    AdminKey(Option<Secret>),
    /// Nothing was looked for.
    Nothing,
}

/// Why a request may not come in. For the log: whoever asks is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The route is not in the table of routes.
    UnknownRoute,
    /// There is no header, or what it holds is not in the form of a key.
    NoKey,
    /// There is no key with this id.
    UnknownKey,
    /// There is a key with this id, and this is not it; or this is not the first admin key.
    WrongKey,
    /// The key's time is over.
    Expired,
    /// The key does not have this scope.
    ScopeMissing(Scope),
    /// The stack has no first admin key, or one that is too short.
    NoAdminKey,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoute => f.write_str("the route is not in the table of routes"),
            Self::NoKey => f.write_str("nothing in the form of a key was presented"),
            Self::UnknownKey => f.write_str("there is no key with this id"),
            Self::WrongKey => f.write_str("it is not the key that is known"),
            Self::Expired => f.write_str("the key has expired"),
            Self::ScopeMissing(scope) => write!(f, "the key lacks the scope {scope}"),
            Self::NoAdminKey => {
                write!(
                    f,
                    "there is no first admin key, or it has fewer than {ADMIN_KEY_CHARACTERS} characters"
                )
            }
        }
    }
}

/// Whether a request on this route, with what it presents and what is known of that, may come in now, and as whom.
///
/// # Errors
/// Why not.
pub fn decide(
    route_key: &str,
    presented: &Presented,
    known: &Known,
    now: Timestamp,
) -> Result<Caller, Denial> {
    let access = routes::access(route_key).ok_or(Denial::UnknownRoute)?;
    let caller = match (presented, known) {
        (Presented::Key { id, digest }, Known::Key(Some(key))) if key.key_id == *id => {
            if !key.digest.is(digest) {
                return Err(Denial::WrongKey);
            }
            if key.has_expired(now) {
                return Err(Denial::Expired);
            }
            key.caller()
        }
        (Presented::Other { digest }, Known::AdminKey(Some(secret)))
            if secret.expose().chars().count() >= ADMIN_KEY_CHARACTERS =>
        {
            if !KeyDigest::of(secret.expose()).is(digest) {
                return Err(Denial::WrongKey);
            }
            Caller::admin()
        }
        (Presented::Nothing, _) => return Err(Denial::NoKey),
        (Presented::Key { .. }, _) => return Err(Denial::UnknownKey),
        (Presented::Other { .. }, _) => return Err(Denial::NoAdminKey),
    };
    match access {
        Access::Scope(scope) if !caller.has(scope) => Err(Denial::ScopeMissing(scope)),
        Access::Open | Access::AnyKey | Access::Scope(_) => Ok(caller),
    }
}

/// Answers whether a request may come in: as whom, or not at all.
///
/// # Errors
/// Where what is known of the key cannot be read. Then nobody knows, and the request must not come in; but whoever asks
/// should not be told, for as long as that is remembered, that the key is wrong.
pub async fn run(deps: &Deps, question: &Question) -> Result<Option<Caller>, PortError> {
    let presented = Presented::read(question.authorization.as_deref());
    let now = deps.clock.now();
    let known = match &presented {
        Presented::Key { id, .. } => Known::Key(deps.keys.key(id).await?),
        Presented::Other { .. } => Known::AdminKey(deps.admin_key.read(&*deps.secrets, now).await?),
        Presented::Nothing => Known::Nothing,
    };
    match decide(&question.route_key, &presented, &known, now) {
        Ok(caller) => Ok(Some(caller)),
        Err(denial) => {
            let key_id = match &presented {
                Presented::Key { id, .. } => id.as_str(),
                Presented::Other { .. } | Presented::Nothing => "none",
            };
            tracing::info!(key_id, route = question.route_key, reason = %denial, "denied");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::key::KeyId;
    use crate::key::tests::key;
    use crate::ports::Page;
    use crate::routes::ROUTES;

    const BUILD: &str = "POST /api/v1/images/build";
    const ADMIN_SECRET: &str = "0123456789abcdefghij";

    fn now() -> Timestamp {
        "2026-03-25T15:00:00Z".parse().unwrap()
    }

    fn presented(key: &str) -> Presented {
        Presented::read(Some(&format!("Bearer {key}")))
    }

    fn admin_key() -> Known {
        Known::AdminKey(Some(Secret::new(ADMIN_SECRET)))
    }

    #[test]
    fn the_right_key_comes_in_as_itself() {
        let (new, mut record) = key();
        record.limits.regions = Some(["eu-west-1".parse().unwrap()].into());
        let known = Known::Key(Some(record.clone()));
        let caller = decide(BUILD, &presented(new.text.expose()), &known, now()).unwrap();
        assert_eq!(caller, record.caller());
        assert_eq!(caller.key_id, record.key_id.as_str());
    }

    #[test]
    fn a_key_that_is_unknown_wrong_or_expired_stays_out() {
        let (new, record) = key();
        let text = new.text.expose();
        let other = format!("{}0", &text[..text.len() - 1]);
        let at = |expires_at: &str| {
            let expires_at = Some(expires_at.parse().unwrap());
            Known::Key(Some(KeyRecord { expires_at, ..record.clone() }))
        };
        let known = Known::Key(Some(record.clone()));
        let mut another = record.clone();
        another.key_id = KeyId::new(now(), [1; 4]);
        for (given, known, denial) in [
            (text, Known::Key(None), Denial::UnknownKey),
            (text, Known::Nothing, Denial::UnknownKey),
            (text, admin_key(), Denial::UnknownKey),
            (text, Known::Key(Some(another)), Denial::UnknownKey),
            (other.as_str(), known.clone(), Denial::WrongKey),
            (text, at("2026-03-25T15:00:00Z"), Denial::Expired),
            (text, at("2020-01-01T00:00:00Z"), Denial::Expired),
        ] {
            assert_eq!(decide(BUILD, &presented(given), &known, now()), Err(denial));
        }
        assert!(decide(BUILD, &presented(text), &at("2026-03-25T15:00:00.000000001Z"), now()).is_ok());
    }

    #[test]
    fn whoever_presents_nothing_stays_out_of_every_route() {
        for (method, path, ..) in ROUTES {
            let route = format!("{method} {path}");
            for known in [Known::Nothing, Known::Key(Some(key().1)), admin_key()] {
                assert_eq!(decide(route.trim(), &Presented::Nothing, &known, now()), Err(Denial::NoKey));
            }
        }
    }

    #[test]
    fn a_route_that_is_not_in_the_table_is_nobodys_not_even_an_admins() {
        for route in ["", "GET /api/v1/images/nothing", "PUT /api/v1/images/build", "POST"] {
            let denied = decide(route, &presented(ADMIN_SECRET), &admin_key(), now());
            assert_eq!(denied, Err(Denial::UnknownRoute), "{route}");
        }
    }

    #[test]
    fn each_route_takes_the_keys_with_its_scope_and_no_others() {
        let (new, mut record) = key();
        for own in Scope::ALL {
            record.scopes = [own].into();
            let known = Known::Key(Some(record.clone()));
            for (method, path, _, access) in ROUTES {
                let route = if path.is_empty() { method.to_owned() } else { format!("{method} {path}") };
                let decision = decide(&route, &presented(new.text.expose()), &known, now());
                let expected = match access {
                    Access::Scope(scope) if own != scope && own != Scope::Admin => {
                        Err(Denial::ScopeMissing(scope))
                    }
                    _ => Ok(record.caller()),
                };
                assert_eq!(decision, expected, "{route} with {own}");
            }
        }
    }

    #[test]
    fn the_first_admin_key_opens_everything_and_must_be_a_key() {
        for (method, path, ..) in ROUTES {
            let route = if path.is_empty() { method.to_owned() } else { format!("{method} {path}") };
            assert_eq!(decide(&route, &presented(ADMIN_SECRET), &admin_key(), now()), Ok(Caller::admin()));
        }
        let wrong = format!("{ADMIN_SECRET}x");
        for (given, secret, denial) in [
            (wrong.as_str(), Some(ADMIN_SECRET), Denial::WrongKey),
            (ADMIN_SECRET, None, Denial::NoAdminKey),
            ("short", Some("short"), Denial::NoAdminKey),
            ("0123456789abcdefghi", Some("0123456789abcdefghi"), Denial::NoAdminKey),
        ] {
            let known = Known::AdminKey(secret.map(Secret::new));
            assert_eq!(decide(BUILD, &presented(given), &known, now()), Err(denial));
        }
    }

    /// A world in which every part can fail.
    struct World {
        now: Mutex<Timestamp>,
        keys: Option<Vec<KeyRecord>>,
        secret: Mutex<Result<Option<&'static str>, ()>>,
        asked: AtomicU32,
    }

    fn gone() -> PortError {
        PortError::Unavailable { service: "world", operation: "any", source: "as told".into() }
    }

    impl Clock for World {
        fn now(&self) -> Timestamp {
            *self.now.lock().unwrap()
        }
    }

    #[async_trait]
    impl Keys for World {
        async fn add_key(&self, _: &KeyRecord) -> Result<(), PortError> {
            Err(gone())
        }
        async fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, PortError> {
            let keys = self.keys.as_ref().ok_or_else(gone)?;
            Ok(keys.iter().find(|key| key.key_id == *id).cloned())
        }
        async fn keys(&self, _: u32, _: Option<&str>) -> Result<Page<KeyRecord>, PortError> {
            Err(gone())
        }
        async fn remove_key(&self, _: &KeyId) -> Result<bool, PortError> {
            Err(gone())
        }
    }

    #[async_trait]
    impl Secrets for World {
        async fn secret(&self, name: &str) -> Result<Option<Secret>, PortError> {
            assert_eq!(name, "the-admin-key");
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.secret.lock().unwrap().map(|secret| secret.map(Secret::new)).map_err(|()| gone())
        }
    }

    fn world(keys: Option<Vec<KeyRecord>>) -> (Arc<World>, Deps) {
        let world = Arc::new(World {
            now: Mutex::new(now()),
            keys,
            secret: Mutex::new(Ok(Some(ADMIN_SECRET))),
            asked: AtomicU32::new(0),
        });
        let deps = Deps {
            clock: world.clone(),
            keys: world.clone(),
            secrets: world.clone(),
            admin_key: AdminKey::new("the-admin-key", SignedDuration::from_secs(60)),
        };
        (world, deps)
    }

    async fn ask(deps: &Deps, key: &str) -> Result<Option<Caller>, PortError> {
        let question = Question { route_key: BUILD.into(), authorization: Some(format!("Bearer {key}")) };
        run(deps, &question).await
    }

    #[tokio::test]
    async fn where_the_table_cannot_be_read_nobody_comes_in_and_nobody_is_called_wrong() {
        let (new, record) = key();
        let (_, deps) = world(Some(vec![record.clone()]));
        assert_eq!(ask(&deps, new.text.expose()).await.unwrap(), Some(record.caller()));
        let (_, deps) = world(None);
        assert!(ask(&deps, new.text.expose()).await.is_err());
        let (_, deps) = world(Some(Vec::new()));
        assert_eq!(ask(&deps, new.text.expose()).await.unwrap(), None);
        assert_eq!(run(&deps, &Question::default()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_admin_key_is_remembered_for_a_while_and_then_read_anew() {
        let (world, deps) = world(None);
        let pass = |secs: i64| {
            let mut now = world.now.lock().unwrap();
            *now += SignedDuration::from_secs(secs);
        };
        assert_eq!(ask(&deps, ADMIN_SECRET).await.unwrap(), Some(Caller::admin()));
        *world.secret.lock().unwrap() = Ok(Some("another-key-of-enough-characters"));
        pass(59);
        assert_eq!(ask(&deps, ADMIN_SECRET).await.unwrap(), Some(Caller::admin()));
        assert_eq!(world.asked.load(Ordering::Relaxed), 1);
        pass(1);
        assert_eq!(ask(&deps, ADMIN_SECRET).await.unwrap(), None);
        assert_eq!(ask(&deps, "another-key-of-enough-characters").await.unwrap(), Some(Caller::admin()));
        assert_eq!(world.asked.load(Ordering::Relaxed), 2);
        *world.secret.lock().unwrap() = Err(());
        pass(-1);
        assert!(ask(&deps, ADMIN_SECRET).await.is_err(), "a clock that was put back makes nothing last");
        pass(100);
        assert!(
            ask(&deps, "another-key-of-enough-characters").await.is_err(),
            "what is too old opens nothing"
        );
    }
}
