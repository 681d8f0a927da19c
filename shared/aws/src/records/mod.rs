//! Build and image records in one DynamoDB table.
//!
//! Must never scan, and must never rely on a request being sent once: what makes a write happen once is its condition,
//! and a condition that fails is answered by reading what stands there.

mod claims;
mod items;
mod keys;
mod pages;
mod stream;
mod transactions;

use std::collections::BTreeSet;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, Put};
use ciab_core::build::BuildRecord;
use ciab_core::ids::{BuildId, ImageId};
use ciab_core::image::ImageRecord;
use ciab_core::ports::{
    BuildFilter, IdempotencyKey, ImageFilter, Lease, Page, PortError, Records, Slot, Submission, Write,
};
use serde::de::DeserializeOwned;

use crate::failure::{Call, answered};
use items::{BuildListing, Item, Key};
pub use stream::read_change;
use transactions::Outcome;

const SERVICE: &str = "dynamodb";
/// The sparse index of builds that need attention.
const ACTIVE_BUILDS: &str = "active-builds";
/// How many builds one page of the active ones holds.
const ACTIVE_PAGE: u32 = 100;

const fn call(operation: &'static str) -> Call {
    Call { service: SERVICE, operation }
}

/// One table.
#[derive(Debug, Clone)]
pub struct DynamoRecords {
    client: Client,
    table: String,
}

/// The condition of a write that makes an item.
const ABSENT: &str = "attribute_not_exists(pk)";

impl DynamoRecords {
    /// The table with this name.
    pub fn new(config: &SdkConfig, table: impl Into<String>) -> Self {
        Self::with_client(Client::new(config), table)
    }

    /// As [`DynamoRecords::new`], with a client that the caller has prepared, such as one that counts its calls.
    pub fn with_client(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    async fn get(&self, key: Key) -> Result<Option<Item>, PortError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key.into_item()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| call("GetItem").failed(error))?;
        Ok(answer.item)
    }

    /// What a failed condition means for a record that should have become `wanted`.
    async fn judge(&self, wanted: &BuildRecord) -> Result<Write, PortError> {
        let stored = self.build(wanted.build_id).await?;
        Ok(if stored.as_ref() == Some(wanted) { Write::Done } else { Write::Conflict })
    }

    /// What was refused: the build's item, the key's, or both. Either may be our own, from a try whose answer was lost.
    async fn judge_submission(
        &self,
        record: &BuildRecord,
        key: Option<&IdempotencyKey>,
    ) -> Result<Submission, PortError> {
        if let Some(key) = key
            && let Some(item) = self.get(Key::idempotency(&key.key)).await?
        {
            let seen: items::Seen = decoded(item, "GetItem")?;
            if seen.is_alive_at(record.created_at) {
                return self.judge_key(record, key, &seen).await;
            }
        }
        match self.build(record.build_id).await? {
            Some(stored) if is_same_submission(&stored, record) => Ok(Submission::Accepted),
            Some(_) => Err(call("TransactWriteItems")
                .refused("BuildIdTaken", format!("another build has the id {}", record.build_id))),
            None => Err(call("TransactWriteItems").unavailable("a condition failed and then held")),
        }
    }

    /// One item needs no transaction, which costs twice as much.
    async fn submit_alone(&self, record: &BuildRecord) -> Result<Submission, PortError> {
        let call = call("PutItem");
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(items::build(record, call)?))
            .condition_expression(ABSENT)
            .send()
            .await;
        match put {
            Ok(_) => Ok(Submission::Accepted),
            Err(error) if answered(&error, &["ConditionalCheckFailedException"]) => {
                self.judge_submission(record, None).await
            }
            Err(error) => Err(call.failed(error)),
        }
    }

    async fn judge_key(
        &self,
        record: &BuildRecord,
        key: &IdempotencyKey,
        seen: &items::Seen,
    ) -> Result<Submission, PortError> {
        if seen.request_digest != key.request_digest {
            return Ok(Submission::KeyReused);
        }
        if seen.build_id == record.build_id {
            return Ok(Submission::Accepted);
        }
        let earlier = self.build(seen.build_id).await?;
        earlier.map(|earlier| Submission::Repeated(Box::new(earlier))).ok_or_else(|| {
            call("GetItem").unreadable(format!("the key's build {} does not exist", seen.build_id))
        })
    }

    fn put_build(&self, record: &BuildRecord, expected: u64) -> Result<Put, PortError> {
        Put::builder()
            .table_name(&self.table)
            .set_item(Some(items::build(record, call("TransactWriteItems"))?))
            .condition_expression("revision = :expected")
            .expression_attribute_values(":expected", AttributeValue::N(expected.to_string()))
            .build()
            .map_err(|error| call("TransactWriteItems").refused("RequestNotBuilt", error))
    }

    fn put(&self, item: Item) -> Result<Put, PortError> {
        Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .build()
            .map_err(|error| call("TransactWriteItems").refused("RequestNotBuilt", error))
    }
}

/// Ids are random, and the time of submission goes to the nanosecond: both equal is the same submission, however far the
/// build has come since.
fn is_same_submission(stored: &BuildRecord, record: &BuildRecord) -> bool {
    stored.build_id == record.build_id && stored.created_at == record.created_at
}

fn decoded<T: DeserializeOwned>(item: Item, operation: &'static str) -> Result<T, PortError> {
    serde_dynamo::from_item(item).map_err(|error| call(operation).unreadable(error.to_string()))
}

/// One record that nobody can read must not hide all the others, from the poller or from people.
fn page_of_builds(found: Vec<Item>, more: bool, limit: u32) -> Page<BuildRecord> {
    let page = pages::cut(found, more, limit);
    let next = page.last.as_ref().and_then(pages::token_of_build);
    let mut builds = Vec::with_capacity(page.items.len());
    for item in page.items {
        match items::read_build(&item, call("Query")) {
            Ok(record) => builds.push(record),
            Err(error) => tracing::error!(%error, "a build cannot be read and is left out of its listing"),
        }
    }
    Page { items: builds, next }
}

#[async_trait]
impl Records for DynamoRecords {
    async fn submit(
        &self,
        record: &BuildRecord,
        key: Option<&IdempotencyKey>,
    ) -> Result<Submission, PortError> {
        let Some(key) = key else { return self.submit_alone(record).await };
        let call = call("TransactWriteItems");
        let absent = Put::builder()
            .table_name(&self.table)
            .set_item(Some(items::build(record, call)?))
            .condition_expression(ABSENT)
            .build()
            .map_err(|error| call.refused("RequestNotBuilt", error))?;
        // TTL may be days late: what has expired counts as gone although it still stands there.
        let now = AttributeValue::N(record.created_at.as_second().to_string());
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(items::idempotency(key, record, call)?))
            .condition_expression("attribute_not_exists(pk) OR expires_at_epoch <= :now")
            .expression_attribute_values(":now", now)
            .build()
            .map_err(|error| call.refused("RequestNotBuilt", error))?;
        let writes = vec![transactions::put(absent), transactions::put(put)];
        match transactions::write(&self.client, writes).await? {
            Outcome::Written => Ok(Submission::Accepted),
            Outcome::ConditionFailed => self.judge_submission(record, Some(key)).await,
        }
    }

    async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, PortError> {
        self.get(Key::build(id)).await?.map(|item| items::read_build(&item, call("GetItem"))).transpose()
    }

    async fn replace(&self, record: &BuildRecord) -> Result<Write, PortError> {
        let call = call("PutItem");
        let wanted = BuildRecord { revision: record.revision + 1, ..record.clone() };
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(items::build(&wanted, call)?))
            .condition_expression("revision = :expected")
            .expression_attribute_values(":expected", AttributeValue::N(record.revision.to_string()))
            .send()
            .await;
        match put {
            Ok(_) => Ok(Write::Done),
            Err(error) if answered(&error, &["ConditionalCheckFailedException"]) => self.judge(&wanted).await,
            Err(error) => Err(call.failed(error)),
        }
    }

    async fn replace_with_images(
        &self,
        record: &BuildRecord,
        images: &[ImageRecord],
    ) -> Result<Write, PortError> {
        let wanted = BuildRecord { revision: record.revision + 1, ..record.clone() };
        let mut writes = vec![transactions::put(self.put_build(&wanted, record.revision)?)];
        for image in images {
            for item in items::image(image, call("TransactWriteItems"))? {
                writes.push(transactions::put(self.put(item)?));
            }
        }
        match transactions::write(&self.client, writes).await? {
            Outcome::Written => Ok(Write::Done),
            Outcome::ConditionFailed => self.judge(&wanted).await,
        }
    }

    async fn take_slot(&self, id: BuildId, slots: u32) -> Result<Slot, PortError> {
        self.take(id, slots).await
    }

    async fn release_slot(&self, id: BuildId) -> Result<(), PortError> {
        self.give_back(id).await
    }

    async fn slots_taken(&self) -> Result<BTreeSet<BuildId>, PortError> {
        self.taken().await
    }

    async fn take_lease(&self, lease: &Lease<'_>) -> Result<bool, PortError> {
        self.lease(lease).await
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<(), PortError> {
        self.end_lease(name, holder).await
    }

    async fn active_builds(&self, next: Option<&str>) -> Result<Page<BuildRecord>, PortError> {
        let start = next.map(|token| pages::position_in_active_builds(token, call("Query"))).transpose()?;
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(ACTIVE_BUILDS)
            .key_condition_expression("active = :active")
            .expression_attribute_values(":active", AttributeValue::S(items::ACTIVE.to_owned()))
            .limit(pages::one_more(ACTIVE_PAGE))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(|error| call("Query").failed(error))?;
        let more = answer.last_evaluated_key.is_some();
        Ok(page_of_builds(answer.items.unwrap_or_default(), more, ACTIVE_PAGE))
    }

    async fn builds(
        &self,
        filter: &BuildFilter,
        limit: u32,
        next: Option<&str>,
    ) -> Result<Page<BuildRecord>, PortError> {
        let (listing, partition) = (BuildListing::of(filter), items::build_listing(filter));
        let position =
            |token| pages::position_of_build(token, listing.attribute(), &partition, call("Query"));
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(listing.index())
            .key_condition_expression("#listing = :partition")
            .expression_attribute_names("#listing", listing.attribute())
            .set_exclusive_start_key(next.map(position).transpose()?)
            .expression_attribute_values(":partition", AttributeValue::S(partition))
            .scan_index_forward(false)
            .limit(pages::one_more(limit))
            .send()
            .await
            .map_err(|error| call("Query").failed(error))?;
        let more = answer.last_evaluated_key.is_some();
        Ok(page_of_builds(answer.items.unwrap_or_default(), more, limit))
    }

    async fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>, PortError> {
        self.get(Key::image(id)).await?.map(|item| decoded(item, "GetItem")).transpose()
    }

    async fn images(
        &self,
        filter: &ImageFilter,
        limit: u32,
        next: Option<&str>,
    ) -> Result<Page<ImageRecord>, PortError> {
        let partition = items::listing(filter.region.as_ref(), filter.provider);
        let start =
            next.map(|token| pages::position_in_images(token, &partition, call("Query"))).transpose()?;
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :partition")
            .expression_attribute_values(":partition", AttributeValue::S(partition))
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(pages::one_more(limit))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(|error| call("Query").failed(error))?;
        let more = answer.last_evaluated_key.is_some();
        let page = pages::cut(answer.items.unwrap_or_default(), more, limit);
        let next = page.last.as_ref().and_then(pages::token_of_image);
        let images = page.items.into_iter().map(|item| decoded(item, "Query")).collect::<Result<_, _>>()?;
        Ok(Page { items: images, next })
    }

    async fn remove_image(&self, image: &ImageRecord) -> Result<(), PortError> {
        let deletes = Key::all_of_image(image)
            .into_iter()
            .map(|key| transactions::delete(&self.table, key))
            .collect::<Result<Vec<_>, _>>()?;
        match transactions::write(&self.client, deletes).await? {
            // No delete has a condition.
            Outcome::Written | Outcome::ConditionFailed => Ok(()),
        }
    }

    async fn ready(&self) -> Result<(), PortError> {
        self.get(Key::never_written()).await?;
        Ok(())
    }
}
