//! Event source mappings: reads the table's stream as Lambda does, with the permissions of the function's role, and invokes the function
//! with what its filter lets through.
//!
//! Must never hand over what moto takes back: it undoes a transaction that fails only after having written, and so the edge lets no
//! record be read meanwhile.

mod delivery;
mod filter;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::lambda_host::{Invoked, LambdaHost};
use crate::provision::authorization;
use crate::template::{EventSourceSpec, FunctionSpec};
use delivery::{GivenUp, Target, deliver};
pub(crate) use filter::Filter;

/// Lambda looks at a shard four times a second (AWS Lambda Developer Guide, "Using Lambda with DynamoDB"). Here it is looked at so often
/// at most, and only where something was written meanwhile: many stacks may run on one small machine.
const BASE_RATE: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("{target} got no answer")]
    Unreachable { target: &'static str, source: reqwest::Error },
    #[error("{target} was refused: {answer}")]
    Refused { target: &'static str, answer: String },
    #[error("{target} answered without {what}")]
    Unexpected { target: &'static str, what: &'static str },
}

/// Where AWS is, for those who call it with a function's role.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) edge: std::net::SocketAddr,
    pub(crate) region: String,
    pub(crate) client: reqwest::Client,
    /// Changes with every write to a table.
    pub(crate) written: watch::Receiver<u64>,
}

/// Runs until it is dropped.
pub(crate) async fn run(functions: Vec<FunctionSpec>, host: Arc<LambdaHost>, caller: Caller) {
    let mappings = functions.into_iter().flat_map(|function| {
        let sources = function.event_sources.clone();
        let (host, caller) = (Arc::clone(&host), caller.clone());
        sources.into_iter().map(move |source| {
            let (host, caller) = (Arc::clone(&host), caller.clone());
            Mapping { source, function: function.name.clone(), role: function.role.clone(), host, caller }
                .follow()
        })
    });
    futures::future::join_all(mappings).await;
}

struct Mapping {
    source: EventSourceSpec,
    function: String,
    role: String,
    host: Arc<LambdaHost>,
    caller: Caller,
}

/// A stream's one shard: moto's has no other, and never closes.
struct Shard {
    stream: String,
    id: String,
}

impl Mapping {
    async fn follow(self) {
        let mut ticks = interval(BASE_RATE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = self.caller.written.clone();
        let (mut shard, mut handled) = (None, None);
        loop {
            ticks.tick().await;
            written.mark_unchanged();
            let nothing_there = match self.look(&mut shard, &mut handled).await {
                Ok(there_was_something) => !there_was_something,
                Err(error) => {
                    let error = crate::chain(&error);
                    tracing::warn!(function = self.function, "the stream cannot be read: {error}");
                    false
                }
            };
            // Nobody writes any more once nobody could say so.
            if nothing_there && written.changed().await.is_err() {
                return;
            }
        }
    }

    /// Handles one batch, and says whether there was one. `handled` is the number of the last record that is done with.
    async fn look(
        &self,
        shard: &mut Option<Shard>,
        handled: &mut Option<String>,
    ) -> Result<bool, StreamError> {
        if shard.is_none() {
            *shard = Some(self.shard().await?);
        }
        let Some(shard) = shard else { return Ok(false) };
        let records = self.records(shard, handled.as_deref()).await?;
        let Some(last) = records.last().and_then(|record| record["dynamodb"]["SequenceNumber"].as_str())
        else {
            return Ok(false);
        };
        let last = last.to_owned();
        let mut wanted: Vec<Json> =
            records.into_iter().filter(|record| self.source.filter.lets_through(record)).collect();
        for record in &mut wanted {
            record["eventSourceARN"] = json!(shard.stream);
        }
        if !wanted.is_empty() {
            deliver(&self.source, wanted, &OfShard { mapping: self, shard }).await;
        }
        *handled = Some(last);
        Ok(true)
    }

    async fn shard(&self) -> Result<Shard, StreamError> {
        let target = "DynamoDBStreams_20120810.ListStreams";
        let answer = self.call("dynamodb", target, &json!({"TableName": self.source.table})).await?;
        let stream = text(&answer["Streams"][0]["StreamArn"], target, "a stream")?;
        let target = "DynamoDBStreams_20120810.DescribeStream";
        let answer = self.call("dynamodb", target, &json!({"StreamArn": stream})).await?;
        let id = text(&answer["StreamDescription"]["Shards"][0]["ShardId"], target, "a shard")?;
        Ok(Shard { stream, id })
    }

    /// The records after that number, all that there are where there is none: the template asks for `TRIM_HORIZON`.
    async fn records(&self, shard: &Shard, after: Option<&str>) -> Result<Vec<Json>, StreamError> {
        let target = "DynamoDBStreams_20120810.GetShardIterator";
        let mut request =
            json!({"StreamArn": shard.stream, "ShardId": shard.id, "ShardIteratorType": "TRIM_HORIZON"});
        if let Some(after) = after {
            request["ShardIteratorType"] = json!("AFTER_SEQUENCE_NUMBER");
            request["SequenceNumber"] = json!(after);
        }
        let answer = self.call("dynamodb", target, &request).await?;
        let iterator = text(&answer["ShardIterator"], target, "an iterator")?;
        let target = "DynamoDBStreams_20120810.GetRecords";
        let request = json!({"ShardIterator": iterator, "Limit": self.source.batch_size});
        match self.call("dynamodb", target, &request).await?["Records"].take() {
            Json::Array(records) => Ok(records),
            _ => Err(StreamError::Unexpected { target, what: "records" }),
        }
    }

    /// Notes where the records are that are not tried any more, in the form of Lambda's ("on-failure destination").
    async fn give_up(&self, shard: &Shard, given: GivenUp) {
        let number =
            |record: Option<&Json>| record.map(|record| record["dynamodb"]["SequenceNumber"].clone());
        let numbers = (number(given.records.first()), number(given.records.last()));
        tracing::error!(
            function = self.function,
            condition = given.condition,
            ?numbers,
            "records were given up"
        );
        let Some(queue) = &self.source.on_failure else { return };
        let message = json!({
            "requestContext": {
                "functionArn": self.function,
                "condition": given.condition,
                "approximateInvokeCount": given.invocations,
            },
            "version": "1.0",
            "DDBStreamBatchInfo": {
                "shardId": shard.id,
                "startSequenceNumber": numbers.0,
                "endSequenceNumber": numbers.1,
                "batchSize": given.records.len(),
                "streamArn": shard.stream,
            },
        });
        let url = format!("http://{}/{}/{queue}", self.caller.edge, crate::ACCOUNT);
        let request = json!({"QueueUrl": url, "MessageBody": message.to_string()});
        if let Err(error) = self.call("sqs", "AmazonSQS.SendMessage", &request).await {
            tracing::error!(queue, "nor could that be noted: {}", crate::chain(&error));
        }
    }

    async fn call(&self, service: &str, target: &'static str, body: &Json) -> Result<Json, StreamError> {
        let Caller { edge, region, client, .. } = &self.caller;
        let unreachable = |source| StreamError::Unreachable { target, source };
        let request = client
            .post(format!("http://{edge}/"))
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.0")
            .header("authorization", authorization(&self.role, service, region))
            .body(body.to_string());
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let answer = answer.text().await.map_err(unreachable)?;
        if !status.is_success() {
            return Err(StreamError::Refused { target, answer });
        }
        serde_json::from_str(&answer).map_err(|_| StreamError::Unexpected { target, what: "a document" })
    }
}

fn text(value: &Json, target: &'static str, what: &'static str) -> Result<String, StreamError> {
    value.as_str().map(str::to_owned).ok_or(StreamError::Unexpected { target, what })
}

/// The mapping's function, for records of one shard.
struct OfShard<'a> {
    mapping: &'a Mapping,
    shard: &'a Shard,
}

impl Target for OfShard<'_> {
    async fn invoke(&self, payload: Bytes) -> Invoked {
        self.mapping.host.invoke(&self.mapping.function, payload).await
    }

    async fn give_up(&self, given: GivenUp) {
        self.mapping.give_up(self.shard, given).await;
    }

    fn now(&self) -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}
