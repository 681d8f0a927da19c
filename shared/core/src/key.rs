//! API keys: what one may do, how it is presented, and what is kept of it.
//!
//! Must never keep a key itself: the stack has its SHA-256, which is compared in a time that tells nothing of it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ids::{InvalidName, Provider, Region, shown};
use crate::ports::Secret;

/// What every key that the service makes begins with. The first admin key must not.
const PREFIX: &str = "ciab_";
/// Digits of a key's secret: 256 bits.
const SECRET_DIGITS: usize = 64;
/// What the first admin key, which is in no table, is called.
const ADMIN: &str = "admin";

/// What a key may do. Nothing implies anything else, but for `admin`, which implies all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything that only reads.
    Read,
    /// Builds and templates: to start, to upload, to cancel.
    Build,
    /// To delete images.
    Delete,
    /// Keys and rebuilds, and all of the others.
    Admin,
}

impl Scope {
    /// All of them, in the order that messages name them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Build, Self::Delete, Self::Admin];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Build => "build",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(InvalidName {
            what: "scope",
            given: shown(text),
            allowed: "one of read, build, delete, admin",
        })
    }
}

/// A key's id: 20 hexadecimal digits, of which the first twelve are the time at which it was made, so that ids sort by it.
/// No secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// The id of a key that is made now; `random` keeps those of one millisecond apart.
    pub fn new(now: Timestamp, random: [u8; 4]) -> Self {
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or_default() & 0xffff_ffff_ffff;
        Self(format!("{milliseconds:012x}{:08x}", u32::from_be_bytes(random)))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() == 20 && is_hexadecimal(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidName { what: "key id", given: shown(text), allowed: "an id of 20 hexadecimal digits" })
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The SHA-256 of a whole key; 64 hexadecimal digits where it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of this key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Whether both are of one key. Takes the same time whichever part differs.
    pub fn is(&self, other: &Self) -> bool {
        bool::from(self.0.ct_eq(&other.0))
    }
}

// Not derived: so that no comparison of two can take a shorter way.
impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.is(other)
    }
}

impl Eq for KeyDigest {}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

impl From<KeyDigest> for String {
    fn from(digest: KeyDigest) -> Self {
        digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A digest that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's digest must have 64 hexadecimal digits")]
pub struct InvalidDigest;

impl TryFrom<String> for KeyDigest {
    type Error = InvalidDigest;

    fn try_from(hex: String) -> Result<Self, InvalidDigest> {
        if hex.len() != 64 || !is_hexadecimal(&hex) {
            return Err(InvalidDigest);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| InvalidDigest)?;
        }
        Ok(Self(bytes))
    }
}

/// A key that was just made: the only moment at which it is known whole.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// What its holder presents: `ciab_<id>_<secret>`.
    pub text: Secret,
}

impl NewKey {
    /// The key with this id and these random bits.
    pub fn new(id: KeyId, secret: &[u8; 32]) -> Self {
        let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = Secret::new(format!("{PREFIX}{id}_{digits}"));
        Self { id, text }
    }
}

/// What a key's builds and images are limited to. Where a limit is not set there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The agents.
    pub providers: Option<BTreeSet<Provider>>,
    /// The regions.
    pub regions: Option<BTreeSet<Region>>,
}

impl Limits {
    /// Whether there are any.
    pub fn is_limited(&self) -> bool {
        self.providers.is_some() || self.regions.is_some()
    }

    /// Whether a build or image with this agent in this region lies within them.
    pub fn allow(&self, provider: Provider, region: &Region) -> bool {
        self.allow_provider(provider) && self.allow_region(region)
    }

    /// Whether this agent lies within them.
    pub fn allow_provider(&self, provider: Provider) -> bool {
        self.providers.as_ref().is_none_or(|providers| providers.contains(&provider))
    }

    /// Whether this region lies within them.
    pub fn allow_region(&self, region: &Region) -> bool {
        self.regions.as_ref().is_none_or(|regions| regions.contains(region))
    }

    /// Whether whatever the others allow is allowed by these.
    pub fn cover(&self, others: &Self) -> bool {
        fn covers<T: Ord>(these: Option<&BTreeSet<T>>, others: Option<&BTreeSet<T>>) -> bool {
            match (these, others) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(these), Some(others)) => others.is_subset(these),
            }
        }
        covers(self.providers.as_ref(), others.providers.as_ref())
            && covers(self.regions.as_ref(), others.regions.as_ref())
    }
}

/// `providers codex, gemini and regions eu-west-1`, for messages.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(providers) = &self.providers {
            parts.push(format!("providers {}", joined(providers, ", ")));
        }
        if let Some(regions) = &self.regions {
            parts.push(format!("regions {}", joined(regions, ", ")));
        }
        if parts.is_empty() {
            return f.write_str("nothing");
        }
        f.write_str(&parts.join(" and "))
    }
}

fn joined<T: fmt::Display>(items: &BTreeSet<T>, separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its id.
    pub key_id: KeyId,
    /// The SHA-256 of the whole key.
    pub digest: KeyDigest,
    /// What people know it by.
    pub label: String,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// What it is limited to.
    #[serde(flatten)]
    pub limits: Limits,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it opens nothing.
    pub expires_at: Option<Timestamp>,
}

impl KeyRecord {
    /// Whether its time is over. The clock decides, not whether the record is still there.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }

    /// Who it is that presents it.
    pub fn caller(&self) -> Caller {
        Caller { key_id: self.key_id.to_string(), scopes: self.scopes.clone(), limits: self.limits.clone() }
    }
}

/// Who asks: a key that was found good, as the authorizer tells the functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key's id; `admin` for the first admin key.
    pub key_id: String,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// What it is limited to.
    pub limits: Limits,
}

/// What the authorizer told of a caller cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the authorizer's answer has no readable {0}")]
pub struct UnreadableCaller(&'static str);

impl Caller {
    /// The first admin key.
    pub fn admin() -> Self {
        Self { key_id: ADMIN.to_owned(), scopes: [Scope::Admin].into(), limits: Limits::default() }
    }

    /// Whether it may do what this scope is for.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it may make a key with these scopes and limits: none that can do more than itself, unless it is an admin.
    pub fn may_grant(&self, scopes: &BTreeSet<Scope>, limits: &Limits) -> bool {
        self.scopes.contains(&Scope::Admin) || (scopes.is_subset(&self.scopes) && self.limits.cover(limits))
    }

    /// As the authorizer tells it: texts under names. A limit that is not set is left out.
    pub fn to_context(&self) -> Vec<(&'static str, String)> {
        let mut context = vec![("key_id", self.key_id.clone()), ("scopes", joined(&self.scopes, ","))];
        context.extend(self.limits.providers.as_ref().map(|all| ("providers", joined(all, ","))));
        context.extend(self.limits.regions.as_ref().map(|all| ("regions", joined(all, ","))));
        context
    }

    /// Whom the authorizer told of; `text` gives what stands under a name. Must never take what it cannot read for no limit.
    ///
    /// # Errors
    /// Names what cannot be read.
    pub fn from_context<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Result<Self, UnreadableCaller> {
        fn read<T: FromStr + Ord>(name: &'static str, text: &str) -> Result<BTreeSet<T>, UnreadableCaller> {
            text.split(',').map(|item| item.parse().map_err(|_| UnreadableCaller(name))).collect()
        }
        let key_id = text("key_id").filter(|id| !id.is_empty()).ok_or(UnreadableCaller("key_id"))?;
        Ok(Self {
            key_id: key_id.to_owned(),
            scopes: read("scopes", text("scopes").ok_or(UnreadableCaller("scopes"))?)?,
            limits: Limits {
                providers: text("providers").map(|all| read("providers", all)).transpose()?,
                regions: text("regions").map(|all| read("regions", all)).transpose()?,
            },
        })
    }
}

/// What an `Authorization` header presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// No header, another scheme, or something that no key of ours looks like.
    Nothing,
    /// A key that the service would have made.
    Key {
        /// Its id.
        id: KeyId,
        /// The digest of all of it.
        digest: KeyDigest,
    },
    /// Something that only the first admin key can be.
    Other {
        /// The digest of all of it.
        digest: KeyDigest,
    },
}

impl Presented {
    /// What this value of the header presents.
    pub fn read(header: Option<&str>) -> Self {
        let Some((scheme, token)) = header.and_then(|header| header.split_once(' ')) else {
            return Self::Nothing;
        };
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Self::Nothing;
        }
        let digest = KeyDigest::of(token);
        let Some(rest) = token.strip_prefix(PREFIX) else { return Self::Other { digest } };
        let parts = rest
            .split_once('_')
            .filter(|(_, secret)| secret.len() == SECRET_DIGITS && is_hexadecimal(secret));
        match parts.and_then(|(id, _)| id.parse().ok()) {
            Some(id) => Self::Key { id, digest },
            None => Self::Nothing,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn key() -> (NewKey, KeyRecord) {
        let created_at: Timestamp = "2026-03-25T14:30:00Z".parse().unwrap();
        let new = NewKey::new(KeyId::new(created_at, [0, 0, 0, 7]), &[0xab; 32]);
        let record = KeyRecord {
            key_id: new.id.clone(),
            digest: KeyDigest::of(new.text.expose()),
            label: "ci".into(),
            scopes: [Scope::Build].into(),
            limits: Limits::default(),
            created_at,
            expires_at: None,
        };
        (new, record)
    }

    fn limits(providers: &[Provider], regions: &[&str]) -> Limits {
        Limits {
            providers: (!providers.is_empty()).then(|| providers.iter().copied().collect()),
            regions: (!regions.is_empty()).then(|| regions.iter().map(|r| r.parse().unwrap()).collect()),
        }
    }

    #[test]
    fn a_key_is_read_back_from_its_text_and_never_shown() {
        let (new, record) = key();
        let text = new.text.expose();
        assert_eq!(text.len(), "ciab_".len() + 20 + 1 + 64);
        let presented = Presented::read(Some(&format!("Bearer {text}")));
        assert_eq!(presented, Presented::Key { id: record.key_id.clone(), digest: record.digest.clone() });
        for shown in [format!("{new:?}"), format!("{record:?}"), format!("{presented:?}")] {
            assert!(!shown.contains(&"ab".repeat(32)), "{shown}");
        }
    }

    #[test]
    fn what_is_no_key_of_ours_is_nothing_and_what_does_not_look_like_one_is_for_the_admin_key() {
        let good = key().0.text.expose().to_owned();
        let wrong = [
            "ciab_".to_owned(),
            "ciab__".to_owned(),
            good[..good.len() - 1].to_owned(),
            format!("{good}0"),
            good.to_uppercase().replace("CIAB_", "ciab_"),
            good.replace("ciab_0", "ciab_../"),
            format!("{good},Bearer {good}"),
        ];
        for token in wrong {
            assert_eq!(Presented::read(Some(&format!("Bearer {token}"))), Presented::Nothing, "{token}");
        }
        for header in ["", "Bearer", "Bearer ", "Bearer  ", "Basic abc", "abc"] {
            assert_eq!(Presented::read(Some(header)), Presented::Nothing, "{header:?}");
        }
        assert_eq!(Presented::read(None), Presented::Nothing);
        assert_eq!(Presented::read(Some("bearer abc ")), Presented::Other { digest: KeyDigest::of("abc") });
    }

    #[test]
    fn ids_sort_by_the_time_they_were_made_at() {
        let at = |time: &str, random| KeyId::new(time.parse().unwrap(), [random; 4]);
        let ids = [
            at("2026-03-25T14:30:00Z", 255),
            at("2026-03-25T14:30:00.001Z", 0),
            at("2036-01-01T00:00:00Z", 0),
        ];
        assert!(ids.is_sorted(), "{ids:?}");
        for id in &ids {
            assert_eq!(id.as_str().parse::<KeyId>().as_ref(), Ok(id));
        }
        for wrong in ["", "admin", "0123456789abcdef012G", "0123456789abcdef0123 "] {
            assert!(wrong.parse::<KeyId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_digest_is_that_of_the_whole_key_and_is_written_in_hexadecimal() {
        // From `printf key | sha256sum`.
        let hex = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
        assert_eq!(String::from(KeyDigest::of("key")), hex);
        assert!(KeyDigest::try_from(hex.to_owned()).unwrap().is(&KeyDigest::of("key")));
        assert!(!KeyDigest::of("key").is(&KeyDigest::of("Key")));
        for wrong in [String::new(), "g".repeat(64), "é".repeat(32)] {
            assert!(KeyDigest::try_from(wrong).is_err());
        }
    }

    #[test]
    fn a_caller_is_told_and_read_back_with_every_limit() {
        let mut caller = key().1.caller();
        for limits in [
            limits(&[], &[]),
            limits(&[Provider::Codex, Provider::Gemini], &[]),
            limits(&[], &["eu-west-1"]),
            limits(&[Provider::Cursor], &["eu-west-1", "us-east-1"]),
        ] {
            caller.limits = limits;
            let told = caller.to_context();
            let text = |name: &str| told.iter().find(|(key, _)| *key == name).map(|(_, text)| text.as_str());
            assert_eq!(Caller::from_context(text), Ok(caller.clone()));
        }
    }

    #[test]
    fn what_cannot_be_read_of_a_caller_is_not_taken_for_no_limit() {
        let good = [("key_id", "k"), ("scopes", "read"), ("providers", "codex"), ("regions", "us-east-1")];
        let read = |name: &str, value: Option<&'static str>| {
            Caller::from_context(|asked: &str| {
                if asked == name { value } else { good.iter().find(|(n, _)| *n == asked).map(|(_, v)| *v) }
            })
        };
        assert!(read("none", None).is_ok());
        for (name, value) in [
            ("key_id", None),
            ("key_id", Some("")),
            ("scopes", None),
            ("scopes", Some("")),
            ("scopes", Some("read,everything")),
            ("providers", Some("")),
            ("providers", Some("emacs")),
            ("regions", Some("")),
            ("regions", Some("us-east-1,")),
        ] {
            assert!(read(name, value).is_err(), "{name} {value:?}");
        }
    }

    #[test]
    fn nobody_but_an_admin_grants_more_than_they_have() {
        let mut caller = key().1.caller();
        caller.scopes = [Scope::Read, Scope::Build].into();
        caller.limits = limits(&[Provider::Codex], &["eu-west-1", "us-east-1"]);
        let own = caller.limits.clone();
        assert!(caller.may_grant(&[Scope::Build].into(), &own));
        assert!(caller.may_grant(&[Scope::Read].into(), &limits(&[Provider::Codex], &["us-east-1"])));
        assert!(!caller.may_grant(&[Scope::Delete].into(), &own));
        assert!(!caller.may_grant(&[Scope::Admin].into(), &own));
        assert!(!caller.may_grant(&[Scope::Read].into(), &limits(&[], &["us-east-1"])));
        assert!(!caller.may_grant(&[Scope::Read].into(), &limits(&[Provider::Codex], &["us-west-2"])));
        assert!(Caller::admin().may_grant(&Scope::ALL.into(), &Limits::default()));
    }

    #[test]
    fn no_scope_implies_another_but_admin() {
        let mut caller = key().1.caller();
        for own in Scope::ALL {
            caller.scopes = [own].into();
            for asked in Scope::ALL {
                assert_eq!(caller.has(asked), own == asked || own == Scope::Admin, "{own} {asked}");
            }
        }
    }

    #[test]
    fn limits_are_named_in_messages() {
        let limits = limits(&[Provider::Codex, Provider::Gemini], &["eu-west-1"]);
        assert_eq!(limits.to_string(), "providers codex, gemini and regions eu-west-1");
        assert!(limits.allow(Provider::Codex, &"eu-west-1".parse().unwrap()));
        assert!(!limits.allow(Provider::Codex, &"us-east-1".parse().unwrap()));
        assert!(!limits.allow(Provider::Cursor, &"eu-west-1".parse().unwrap()));
    }
}
