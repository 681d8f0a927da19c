//! Events of builds, on the account's default bus of EventBridge.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_smithy_types::DateTime;
use ciab_core::event::BuildEvent;
use ciab_core::ports::{Events, PortError};

use crate::failure::Call;

/// Who tells. Rules name it, and the function's role may tell under no other name.
const SOURCE: &str = "ciab.images";
const CALL: Call = Call { service: "events", operation: "PutEvents" };

/// The default bus.
#[derive(Debug, Clone)]
pub struct EventBridgeEvents {
    client: Client,
}

impl EventBridgeEvents {
    /// The default bus of the region.
    pub fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(config) }
    }
}

#[async_trait]
impl Events for EventBridgeEvents {
    async fn publish(&self, events: &[BuildEvent]) -> Result<usize, PortError> {
        let entries = events.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let answer = self.client.put_events().set_entries(Some(entries)).send().await;
        let answer = answer.map_err(|error| CALL.failed(error))?;
        // One entry for each event, in their order: of those that were not taken it has an error in place of an id.
        let refused = answer.entries().iter().position(|entry| entry.error_code().is_some());
        let first = refused.and_then(|at| Some((answer.entries().get(at)?, events.get(at)?)));
        if let Some((entry, event)) = first {
            tracing::warn!(
                build_id = %event.build_id(),
                event_id = event.event_id(),
                code = entry.error_code(),
                reason = entry.error_message(),
                "an event was not taken"
            );
        }
        Ok(refused.unwrap_or(answer.entries().len()))
    }
}

fn entry(event: &BuildEvent) -> Result<PutEventsRequestEntry, PortError> {
    let detail = serde_json::to_string(event).map_err(|error| CALL.refused("RequestNotBuilt", error))?;
    Ok(PutEventsRequestEntry::builder()
        .source(SOURCE)
        .detail_type(event.kind.detail_type())
        .detail(detail)
        .time(DateTime::from_secs(event.at.as_second()))
        .build())
}
