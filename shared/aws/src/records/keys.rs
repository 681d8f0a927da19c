//! What is kept of API keys: one partition, in which a key's item is found by its id and listed by the time in it.
//!
//! Must never decide whether a key is good: an item that has expired is read like any other, until the time-to-live takes it.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use ciab_core::key::{KeyId, KeyRecord};
use ciab_core::ports::{Keys, Page, PortError};

use super::items::{self, Key};
use super::{ABSENT, DynamoRecords, call, decoded, pages};
use crate::failure::answered;

#[async_trait]
impl Keys for DynamoRecords {
    async fn add_key(&self, key: &KeyRecord) -> Result<(), PortError> {
        let call = call("PutItem");
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(items::api_key(key, call)?))
            .condition_expression(ABSENT)
            .send()
            .await;
        match put {
            Ok(_) => Ok(()),
            // What stands there may be our own, from a try whose answer was lost.
            Err(error) if answered(&error, &["ConditionalCheckFailedException"]) => {
                if self.key(&key.key_id).await?.as_ref() == Some(key) {
                    return Ok(());
                }
                Err(call.refused("KeyIdTaken", format!("another key has the id {}", key.key_id)))
            }
            Err(error) => Err(call.failed(error)),
        }
    }

    async fn key(&self, id: &KeyId) -> Result<Option<KeyRecord>, PortError> {
        self.get(Key::api_key(id)).await?.map(|item| decoded(item, "GetItem")).transpose()
    }

    async fn keys(&self, limit: u32, next: Option<&str>) -> Result<Page<KeyRecord>, PortError> {
        let start = next.map(|token| pages::position_in_keys(token, call("Query"))).transpose()?;
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :partition")
            .expression_attribute_values(":partition", AttributeValue::S(items::KEYS.to_owned()))
            .scan_index_forward(false)
            .consistent_read(true)
            .limit(pages::one_more(limit))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(|error| call("Query").failed(error))?;
        let more = answer.last_evaluated_key.is_some();
        let page = pages::cut(answer.items.unwrap_or_default(), more, limit);
        let next = page.last.as_ref().and_then(pages::token_of_key);
        let keys = page.items.into_iter().map(|item| decoded(item, "Query")).collect::<Result<_, _>>()?;
        Ok(Page { items: keys, next })
    }

    async fn remove_key(&self, id: &KeyId) -> Result<bool, PortError> {
        let answer = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(Key::api_key(id).into_item()))
            .return_values(ReturnValue::AllOld)
            .send()
            .await
            .map_err(|error| call("DeleteItem").failed(error))?;
        Ok(answer.attributes.is_some_and(|attributes| !attributes.is_empty()))
    }
}
