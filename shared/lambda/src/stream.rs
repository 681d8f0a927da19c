//! Batches of a table's stream: to changes of builds, and how far they were handled to what Lambda goes on by.
//!
//! Must never report a later record than the first that was not handled: Lambda begins anew with the one that is named.

use aws_lambda_events::event::dynamodb::{Event, EventRecord};
use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use ciab_core::event::Change;
use ciab_core::ports::PortError;
use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use tracing::Instrument as _;

use crate::invocation;

/// Answers batches until the function is shut down. `handle` takes the changes of builds in their order, and says how many of
/// them, from the first one on, need not come again.
///
/// # Errors
/// Where the Lambda runtime itself fails.
pub async fn serve_changes<Deps, Handle>(deps: Deps, handle: Handle) -> Result<(), Error>
where
    Handle: AsyncFn(&Deps, &[Change]) -> usize,
{
    let (deps, handle) = (&deps, &handle);
    Runtime::new(service_fn(async move |event: LambdaEvent<Event>| {
        let span = invocation::span(&event.context);
        let handled = async {
            let batch = Batch::read(event.payload.records);
            let handled = handle(deps, &batch.changes).await;
            answer(batch.again_from(handled))
        };
        Ok::<_, Error>(handled.instrument(span).await)
    }))
    .run()
    .await
}

/// The changes of a batch up to the first record that cannot be read.
struct Batch {
    changes: Vec<Change>,
    /// Of each change's record, the sequence number.
    numbers: Vec<String>,
    unreadable: Option<String>,
}

impl Batch {
    fn read(records: Vec<EventRecord>) -> Self {
        let mut batch = Self { changes: Vec::new(), numbers: Vec::new(), unreadable: None };
        for record in records {
            let number = record.change.sequence_number.clone().unwrap_or_default();
            let item = item(&record);
            match change(record) {
                Ok(Some(change)) => {
                    batch.changes.push(change);
                    batch.numbers.push(number);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        number,
                        item,
                        "a record cannot be read"
                    );
                    batch.unreadable = Some(number);
                    break;
                }
            }
        }
        batch
    }

    /// The record that Lambda must begin anew with, after so many changes that were handled.
    fn again_from(self, handled: usize) -> Option<String> {
        self.numbers.into_iter().nth(handled).or(self.unreadable)
    }
}

/// The partition of what was written: `BUILD#` and the build's id.
fn item(record: &EventRecord) -> Option<String> {
    let keys = serde_json::to_value(&record.change.keys).ok()?;
    keys["pk"]["S"].as_str().map(str::to_owned)
}

fn change(record: EventRecord) -> Result<Option<Change>, PortError> {
    let time = record.change.approximate_creation_date_time;
    let at = Timestamp::from_millisecond(time.timestamp_millis()).unwrap_or(Timestamp::UNIX_EPOCH);
    ciab_aws::read_change(record.change.old_image, record.change.new_image, at)
}

fn answer(again_from: Option<String>) -> DynamoDbEventResponse {
    let mut answer = DynamoDbEventResponse::default();
    if let Some(number) = again_from {
        let mut failure = DynamoDbBatchItemFailure::default();
        failure.item_identifier = Some(number);
        answer.batch_item_failures.push(failure);
    }
    answer
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(number: &str, new: Value) -> Value {
        json!({
            "awsRegion": "us-east-1",
            "eventID": number,
            "eventName": "INSERT",
            "dynamodb": {
                "ApproximateCreationDateTime": 1_774_449_000.0,
                "Keys": {"pk": {"S": "BUILD#1"}, "sk": {"S": "BUILD"}},
                "NewImage": new,
                "SequenceNumber": number,
                "SizeBytes": 1,
                "StreamViewType": "NEW_AND_OLD_IMAGES"
            }
        })
    }

    fn build(number: &str) -> Value {
        let document = json!({
            "build_id": "550e8400-e29b-41d4-a716-446655440000", "revision": 0, "provider": "codex", "region": "us-east-1",
            "instance_type": "t3.medium", "subnet_id": null, "runner": "ec2",
            "template": {"source": "inline", "digest": null}, "tags": {}, "timeout_secs": 60,
            "created_at": "2026-03-25T14:30:00Z", "started_at": null, "deadline": null, "completed_at": null,
            "status": "queued", "phase": "queued", "image_id": null, "runner_id": null, "failure": null,
        });
        record(number, json!({"pk": {"S": "BUILD#1"}, "record": {"S": document.to_string()}}))
    }

    fn batch(records: &[Value]) -> Batch {
        let event: Event = serde_json::from_value(json!({"Records": records})).unwrap();
        Batch::read(event.records)
    }

    fn again_from(records: &[Value], handled: usize) -> Value {
        serde_json::to_value(answer(batch(records).again_from(handled))).unwrap()
    }

    #[test]
    fn what_lambda_hands_over_is_read() {
        let batch = batch(&[build("7")]);
        let [change] = &batch.changes[..] else { panic!("one change") };
        assert_eq!(change.at.to_string(), "2026-03-25T14:30:00Z");
        assert_eq!((change.old.is_none(), change.new.revision), (true, 0));
    }

    #[test]
    fn lambda_begins_anew_with_the_first_record_that_was_not_handled() {
        let records = [build("7"), build("8")];
        assert_eq!(again_from(&records, 2), json!({"batchItemFailures": []}));
        assert_eq!(again_from(&records, 1), json!({"batchItemFailures": [{"itemIdentifier": "8"}]}));
        assert_eq!(again_from(&records, 0), json!({"batchItemFailures": [{"itemIdentifier": "7"}]}));
    }

    #[test]
    fn a_record_that_cannot_be_read_keeps_none_before_it_from_being_handled() {
        let records = [build("7"), record("8", json!({"pk": {"S": "BUILD#2"}})), build("9")];
        assert_eq!(batch(&records).changes.len(), 1);
        assert_eq!(again_from(&records, 1), json!({"batchItemFailures": [{"itemIdentifier": "8"}]}));
        assert_eq!(again_from(&records, 0), json!({"batchItemFailures": [{"itemIdentifier": "7"}]}));
    }
}
