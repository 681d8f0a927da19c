//! What one of many may have at a time: slots for builds, and leases.
//!
//! Must never read before it writes: what decides is the write's own condition. A condition that fails is an answer, and
//! a write whose answer was lost holds again when it is repeated.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use ciab_core::ids::BuildId;
use ciab_core::ports::{Lease, PortError, Slot};
use jiff::Timestamp;

use super::items::{Key, sortable};
use super::{DynamoRecords, call};
use crate::failure::answered;

impl DynamoRecords {
    /// `size` of a set that is not there is no number, so that the first slot has a condition of its own.
    pub(super) async fn take(&self, id: BuildId, slots: u32) -> Result<Slot, PortError> {
        if slots == 0 {
            return Ok(Slot::Full);
        }
        let add = self.update(
            self.client
                .update_item()
                .set_key(Some(Key::slots().into_item()))
                .update_expression("ADD builds :builds")
                .condition_expression(
                    "attribute_not_exists(builds) OR (size(builds) < :slots AND NOT contains(builds, :build))",
                )
                .expression_attribute_values(":builds", AttributeValue::Ss(vec![id.to_string()]))
                .expression_attribute_values(":build", text(id))
                .expression_attribute_values(":slots", AttributeValue::N(slots.to_string())),
        );
        if add.await? {
            return Ok(Slot::Taken);
        }
        Ok(if self.taken().await?.contains(&id) { Slot::Held } else { Slot::Full })
    }

    pub(super) async fn give_back(&self, id: BuildId) -> Result<(), PortError> {
        self.update(
            self.client
                .update_item()
                .set_key(Some(Key::slots().into_item()))
                .update_expression("DELETE builds :builds")
                // Without it, an item would be made where there is none.
                .condition_expression("contains(builds, :build)")
                .expression_attribute_values(":builds", AttributeValue::Ss(vec![id.to_string()]))
                .expression_attribute_values(":build", text(id)),
        )
        .await?;
        Ok(())
    }

    pub(super) async fn taken(&self) -> Result<BTreeSet<BuildId>, PortError> {
        let item = self.get(Key::slots()).await?.unwrap_or_default();
        let Some(builds) = item.get("builds") else { return Ok(BTreeSet::new()) };
        let unreadable = || call("GetItem").unreadable("the slots are no set of build ids");
        let ids = builds.as_ss().map_err(|_| unreadable())?;
        ids.iter().map(|id| id.parse().map_err(|_| unreadable())).collect()
    }

    pub(super) async fn lease(&self, lease: &Lease<'_>) -> Result<bool, PortError> {
        self.update(
            self.client
                .update_item()
                .set_key(Some(Key::lease(lease.name).into_item()))
                .update_expression("SET holder = :holder, held_until = :until")
                .condition_expression(
                    "attribute_not_exists(holder) OR holder = :holder OR held_until <= :now",
                )
                .expression_attribute_values(":holder", text(lease.holder))
                .expression_attribute_values(":until", time(lease.until))
                .expression_attribute_values(":now", time(lease.now)),
        )
        .await
    }

    pub(super) async fn end_lease(&self, name: &str, holder: &str) -> Result<(), PortError> {
        let deleted = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(Key::lease(name).into_item()))
            .condition_expression("holder = :holder")
            .expression_attribute_values(":holder", text(holder))
            .send()
            .await;
        match deleted {
            Ok(_) => Ok(()),
            // It is somebody else's by now, or was given back before.
            Err(error) if answered(&error, &["ConditionalCheckFailedException"]) => Ok(()),
            Err(error) => Err(call("DeleteItem").failed(error)),
        }
    }

    /// Whether the update's condition held.
    async fn update(&self, update: UpdateItemFluentBuilder) -> Result<bool, PortError> {
        match update.table_name(&self.table).send().await {
            Ok(_) => Ok(true),
            Err(error) if answered(&error, &["ConditionalCheckFailedException"]) => Ok(false),
            Err(error) => Err(call("UpdateItem").failed(error)),
        }
    }
}

fn text(value: impl ToString) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

fn time(time: Timestamp) -> AttributeValue {
    AttributeValue::S(sortable(time))
}
