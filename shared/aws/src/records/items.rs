//! How records stand in the table: keys, and attributes that can be read in the console.
//!
//! Must never ask the table. A build is one JSON document, beside the attributes that indexes, conditions and people look for
//! (why: docs/adr/0007); of everything else the fields are attributes of their own. `pk`, `sk`, `active` and the time-to-live come
//! on top.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use ciab_core::build::BuildRecord;
use ciab_core::ids::{BuildId, ImageId, Provider, Region};
use ciab_core::image::ImageRecord;
use ciab_core::key::{KeyId, KeyRecord};
use ciab_core::ports::{BuildFilter, IdempotencyKey, PortError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::Call;

pub(super) type Item = HashMap<String, AttributeValue>;

/// The value of `active` on a build that needs attention.
pub(super) const ACTIVE: &str = "1";
/// The attribute that holds a build's record.
const DOCUMENT: &str = "record";
/// The partition of API keys. Roles name it: whoever may read or write keys may do so here alone.
pub(super) const KEYS: &str = "KEYS";
/// How long an idempotency key is remembered, in seconds.
const KEY_LIFE: i64 = 24 * 60 * 60;

/// An item's primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    partition: String,
    sort: String,
}

impl Key {
    pub(super) fn build(id: BuildId) -> Self {
        Self { partition: format!("BUILD#{id}"), sort: "BUILD".into() }
    }

    /// By the key's digest: callers choose the key, and a table's key has a length limit.
    pub(super) fn idempotency(key: &str) -> Self {
        let digest: String =
            Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { partition: format!("IDEMPOTENCY#{digest}"), sort: "IDEMPOTENCY".into() }
    }

    pub(super) fn image(id: &ImageId) -> Self {
        Self { partition: format!("IMAGE#{id}"), sort: "IMAGE".into() }
    }

    /// The image's own item and its place in each of the four listings.
    pub(super) fn all_of_image(image: &ImageRecord) -> Vec<Self> {
        let place = place(image.created_at, &image.image_id);
        let filters = [
            (None, None),
            (Some(&image.region), None),
            (None, Some(image.provider)),
            (Some(&image.region), Some(image.provider)),
        ];
        let mut keys = vec![Self::image(&image.image_id)];
        keys.extend(
            filters
                .into_iter()
                .map(|(region, provider)| Self { partition: listing(region, provider), sort: place.clone() }),
        );
        keys
    }

    pub(super) fn api_key(id: &KeyId) -> Self {
        Self { partition: KEYS.into(), sort: id.to_string() }
    }

    pub(super) fn slots() -> Self {
        Self { partition: "SLOTS".into(), sort: "SLOTS".into() }
    }

    pub(super) fn lease(name: &str) -> Self {
        Self { partition: format!("LEASE#{name}"), sort: "LEASE".into() }
    }

    /// A key to ask for where only the answering matters.
    pub(super) fn never_written() -> Self {
        Self { partition: "READY".into(), sort: "READY".into() }
    }

    pub(super) fn in_listing(partition: &str, place: String) -> Self {
        Self { partition: partition.to_owned(), sort: place }
    }

    pub(super) fn into_item(self) -> Item {
        HashMap::from([
            ("pk".to_owned(), AttributeValue::S(self.partition)),
            ("sk".to_owned(), AttributeValue::S(self.sort)),
        ])
    }
}

/// The partition that holds the images of a filter.
pub(super) fn listing(region: Option<&Region>, provider: Option<Provider>) -> String {
    let mut partition = "IMAGES".to_owned();
    if let Some(region) = region {
        partition.push_str(&format!("#REGION#{region}"));
    }
    if let Some(provider) = provider {
        partition.push_str(&format!("#PROVIDER#{provider}"));
    }
    partition
}

/// One of the listings of builds, each an index with a partition for each value of its filter, sorted by time. Their
/// attributes stand on builds alone: an image's item has a `status` and a `provider` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuildListing {
    All,
    Status,
    Provider,
    StatusAndProvider,
}

impl BuildListing {
    const ALL: [Self; 4] = [Self::All, Self::Status, Self::Provider, Self::StatusAndProvider];

    /// The listing that a filter asks for.
    pub(super) fn of(filter: &BuildFilter) -> Self {
        match (filter.status, filter.provider) {
            (None, None) => Self::All,
            (Some(_), None) => Self::Status,
            (None, Some(_)) => Self::Provider,
            (Some(_), Some(_)) => Self::StatusAndProvider,
        }
    }

    /// Its index in the table.
    pub(super) fn index(self) -> &'static str {
        match self {
            Self::All => "builds",
            Self::Status => "builds-by-status",
            Self::Provider => "builds-by-provider",
            Self::StatusAndProvider => "builds-by-status-and-provider",
        }
    }

    /// The attribute that its index partitions by.
    pub(super) fn attribute(self) -> &'static str {
        match self {
            Self::All => "listed",
            Self::Status => "listed_by_status",
            Self::Provider => "listed_by_provider",
            Self::StatusAndProvider => "listed_by_status_and_provider",
        }
    }

    fn partition_of(self, record: &BuildRecord) -> String {
        let all = (Some(record.status), Some(record.provider));
        let (status, provider) = match self {
            Self::All => (None, None),
            Self::Status => (all.0, None),
            Self::Provider => (None, all.1),
            Self::StatusAndProvider => all,
        };
        build_listing(&BuildFilter { status, provider })
    }
}

/// The partition that holds the builds of a filter.
pub(super) fn build_listing(filter: &BuildFilter) -> String {
    let mut partition = "BUILDS".to_owned();
    if let Some(status) = filter.status {
        partition.push_str(&format!("#STATUS#{status}"));
    }
    if let Some(provider) = filter.provider {
        partition.push_str(&format!("#PROVIDER#{provider}"));
    }
    partition
}

/// A time whose text sorts as the time does: always nine digits after the point.
pub(super) fn sortable(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// Where an image stands in a listing.
pub(super) fn place(created_at: Timestamp, id: &ImageId) -> String {
    format!("{}#{id}", sortable(created_at))
}

pub(super) fn build(record: &BuildRecord, call: Call) -> Result<Item, PortError> {
    let document = serde_json::to_string(record).map_err(|error| call.refused("RequestNotBuilt", error))?;
    let texts = [
        ("build_id", record.build_id.to_string()),
        // As the index's range key it must sort.
        ("created_at", sortable(record.created_at)),
        ("status", record.status.to_string()),
        ("provider", record.provider.to_string()),
        ("region", record.region.to_string()),
        (DOCUMENT, document),
    ];
    let mut item = Key::build(record.build_id).into_item();
    item.extend(texts.map(|(name, text)| (name.to_owned(), AttributeValue::S(text))));
    item.insert("revision".to_owned(), AttributeValue::N(record.revision.to_string()));
    let listings = BuildListing::ALL.map(|listing| (listing, listing.partition_of(record)));
    item.extend(listings.map(|(listing, of)| (listing.attribute().to_owned(), AttributeValue::S(of))));
    if record.is_active() {
        item.insert("active".to_owned(), AttributeValue::S(ACTIVE.to_owned()));
    }
    Ok(item)
}

/// The record in a build's item.
pub(super) fn read_build(item: &Item, call: Call) -> Result<BuildRecord, PortError> {
    let document = item.get(DOCUMENT).and_then(|value| value.as_s().ok());
    let document = document.ok_or_else(|| call.unreadable("the build's item has no record"))?;
    serde_json::from_str(document).map_err(|error| call.unreadable(error.to_string()))
}

/// The image's item once for each of its keys.
pub(super) fn image(image: &ImageRecord, call: Call) -> Result<Vec<Item>, PortError> {
    let attributes = encoded(image, call)?;
    Ok(Key::all_of_image(image)
        .into_iter()
        .map(|key| {
            let mut item = attributes.clone();
            item.extend(key.into_item());
            item
        })
        .collect())
}

pub(super) fn api_key(key: &KeyRecord, call: Call) -> Result<Item, PortError> {
    let mut item = encoded(key, call)?;
    item.extend(Key::api_key(&key.key_id).into_item());
    if let Some(expires_at) = key.expires_at {
        let seconds = AttributeValue::N(expires_at.as_second().to_string());
        item.insert("expires_at_epoch".to_owned(), seconds);
    }
    Ok(item)
}

/// What stands behind an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) request_digest: String,
    pub(super) build_id: BuildId,
    expires_at_epoch: i64,
}

impl Seen {
    pub(super) fn is_alive_at(&self, now: Timestamp) -> bool {
        self.expires_at_epoch > now.as_second()
    }
}

pub(super) fn idempotency(key: &IdempotencyKey, record: &BuildRecord, call: Call) -> Result<Item, PortError> {
    let seen = Seen {
        request_digest: key.request_digest.clone(),
        build_id: record.build_id,
        expires_at_epoch: record.created_at.as_second() + KEY_LIFE,
    };
    let mut item = encoded(&seen, call)?;
    item.extend(Key::idempotency(&key.key).into_item());
    Ok(item)
}

fn encoded<T: Serialize>(value: &T, call: Call) -> Result<Item, PortError> {
    serde_dynamo::to_item(value).map_err(|error| call.refused("RequestNotBuilt", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text() {
        let times = ["2026-03-25T14:30:00Z", "2026-03-25T14:30:00.000000001Z", "2026-03-25T14:30:00.5Z"];
        let texts: Vec<String> = times.iter().map(|time| sortable(time.parse().unwrap())).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts[0], "2026-03-25T14:30:00.000000000Z");
    }

    #[test]
    fn each_filter_has_a_partition_of_its_own() {
        let region = "eu-west-1".parse().unwrap();
        assert_eq!(listing(None, None), "IMAGES");
        assert_eq!(listing(Some(&region), None), "IMAGES#REGION#eu-west-1");
        assert_eq!(listing(None, Some(Provider::Codex)), "IMAGES#PROVIDER#codex");
        assert_eq!(listing(Some(&region), Some(Provider::Codex)), "IMAGES#REGION#eu-west-1#PROVIDER#codex");
    }

    #[test]
    fn a_callers_key_of_any_length_fits_and_is_not_readable_in_the_table() {
        let long = Key::idempotency(&"k".repeat(5000)).partition;
        assert_eq!(long.len(), "IDEMPOTENCY#".len() + 64);
        assert_ne!(Key::idempotency("a"), Key::idempotency("b"));
    }
}
