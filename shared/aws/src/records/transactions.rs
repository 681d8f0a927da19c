//! All-or-nothing writes.
//!
//! Must never say that a condition failed when it was only another transaction in the way: that one is waited for.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{Delete, Put, TransactWriteItem};
use ciab_core::ports::PortError;

use super::call;
use super::items::Key;

/// What DynamoDB takes in one transaction.
const MAX_WRITES: usize = 100;
/// How often a transaction is tried that others are in the way of.
const TRIES: u32 = 5;
/// How long the first wait for them is; each one doubles.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is written.
    Written,
    /// None of it is written: a condition did not hold.
    ConditionFailed,
}

pub(super) fn put(put: Put) -> TransactWriteItem {
    TransactWriteItem::builder().put(put).build()
}

pub(super) fn delete(table: &str, key: Key) -> Result<TransactWriteItem, PortError> {
    let delete = Delete::builder()
        .table_name(table)
        .set_key(Some(key.into_item()))
        .build()
        .map_err(|error| call("TransactWriteItems").refused("RequestNotBuilt", error))?;
    Ok(TransactWriteItem::builder().delete(delete).build())
}

pub(super) async fn write(client: &Client, writes: Vec<TransactWriteItem>) -> Result<Outcome, PortError> {
    let call = call("TransactWriteItems");
    if writes.len() > MAX_WRITES {
        let why = format!("{} writes are more than one transaction takes", writes.len());
        return Err(call.refused("TooManyWrites", why));
    }
    let mut wait = FIRST_WAIT;
    for tries_left in (0..TRIES).rev() {
        let Err(error) = client.transact_write_items().set_transact_items(Some(writes.clone())).send().await
        else {
            return Ok(Outcome::Written);
        };
        let reasons = reasons(&error);
        if reasons.contains(&"ConditionalCheckFailed") {
            return Ok(Outcome::ConditionFailed);
        }
        let in_the_way = |reason: &&str| {
            matches!(*reason, "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded")
        };
        if !reasons.iter().any(in_the_way) {
            return Err(call.failed(error));
        }
        if tries_left == 0 {
            return Err(call.unavailable(error));
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    Err(call.unavailable("the transaction was never tried"))
}

fn reasons<R>(error: &SdkError<TransactWriteItemsError, R>) -> Vec<&str> {
    let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) = error.as_service_error()
    else {
        return Vec::new();
    };
    canceled.cancellation_reasons().iter().filter_map(|reason| reason.code()).collect()
}
