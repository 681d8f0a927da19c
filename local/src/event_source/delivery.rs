//! What Lambda does with a batch of records until the function has handled it or it is given up (AWS Lambda Developer Guide,
//! "Using Lambda with DynamoDB": error handling, partial batch responses).
//!
//! Must never hand over a record before all records before it are handled or given up.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use crate::lambda_host::Invoked;
use crate::template::EventSourceSpec;

/// Before the first try again; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Records that were given up, and why.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub(super) records: Vec<Json>,
    /// Lambda's own word for it.
    pub(super) condition: &'static str,
    pub(super) invocations: u32,
}

struct Batch {
    records: Vec<Json>,
    invocations: u32,
}

/// How an invocation went.
#[derive(Debug, PartialEq)]
enum Verdict {
    Handled,
    /// What comes before this record is handled.
    AgainFrom(usize),
    Failed,
}

/// The function, and what becomes of what it does not handle.
pub(super) trait Target: Sync {
    /// Invokes the function with a document of records.
    fn invoke(&self, payload: Bytes) -> impl Future<Output = Invoked> + Send;
    /// Is told what is not tried any more.
    fn give_up(&self, given: GivenUp) -> impl Future<Output = ()> + Send;
    /// The time of day, in seconds since 1970.
    fn now(&self) -> f64;
}

/// Has the function handle the records, in their order.
pub(super) async fn deliver(source: &EventSourceSpec, records: Vec<Json>, target: &impl Target) {
    let mut batches = VecDeque::from([Batch { records, invocations: 0 }]);
    while let Some(Batch { mut records, invocations }) = batches.pop_front() {
        if records.is_empty() {
            continue;
        }
        if let Some(condition) = condition_to_give_up(source, &records, invocations, target.now()) {
            target.give_up(GivenUp { records, condition, invocations }).await;
            continue;
        }
        if invocations > 0 {
            let doubled = FIRST_PAUSE.saturating_mul(1 << (invocations - 1).min(10));
            sleep(doubled.min(LONGEST_PAUSE)).await;
        }
        let payload = json!({"Records": records}).to_string();
        let invocations = invocations + 1;
        match verdict(source, &records, &target.invoke(Bytes::from(payload)).await) {
            Verdict::Handled => {}
            // The first of a batch was tried as often as the batch; those after one that was handled are a batch of their own.
            Verdict::AgainFrom(0) => batches.push_front(Batch { records, invocations }),
            Verdict::AgainFrom(at) => {
                batches.push_front(Batch { records: records.split_off(at), invocations: 1 });
            }
            Verdict::Failed if source.bisects && records.len() > 1 => {
                let second = records.split_off(records.len() / 2);
                batches.push_front(Batch { records: second, invocations: 1 });
                batches.push_front(Batch { records, invocations: 1 });
            }
            Verdict::Failed => batches.push_front(Batch { records, invocations }),
        }
    }
}

fn condition_to_give_up(
    source: &EventSourceSpec,
    records: &[Json],
    invocations: u32,
    now: f64,
) -> Option<&'static str> {
    let written =
        records.first().and_then(|record| record["dynamodb"]["ApproximateCreationDateTime"].as_f64());
    let age = written.map_or(0.0, |written| now - written);
    if source.maximum_record_age.is_some_and(|most| age > most.as_secs_f64()) {
        return Some("RecordAgeExceeded");
    }
    let is_tried = source.maximum_retry_attempts.is_some_and(|most| invocations > most);
    is_tried.then_some("RetryAttemptsExhausted")
}

fn verdict(source: &EventSourceSpec, records: &[Json], invoked: &Invoked) -> Verdict {
    if invoked.failed {
        return Verdict::Failed;
    }
    if !source.reports_item_failures {
        return Verdict::Handled;
    }
    let answer: Json = serde_json::from_slice(&invoked.payload).unwrap_or_default();
    let Some(failures) = answer["batchItemFailures"].as_array() else { return Verdict::Handled };
    let at = |failure: &Json| {
        let number = failure["itemIdentifier"].as_str()?;
        records.iter().position(|record| record["dynamodb"]["SequenceNumber"].as_str() == Some(number))
    };
    let failures: Option<Vec<usize>> = failures.iter().map(at).collect();
    match failures {
        // One that is named and not among the records fails all of them.
        None => Verdict::Failed,
        Some(failures) => failures.into_iter().min().map_or(Verdict::Handled, Verdict::AgainFrom),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn source() -> EventSourceSpec {
        EventSourceSpec {
            table: "t".into(),
            batch_size: 10,
            filter: Default::default(),
            reports_item_failures: true,
            bisects: true,
            maximum_retry_attempts: Some(2),
            maximum_record_age: Some(Duration::from_secs(60)),
            on_failure: None,
        }
    }

    fn records(numbers: &[&str]) -> Vec<Json> {
        let record = |number: &&str| json!({"dynamodb": {"SequenceNumber": number, "ApproximateCreationDateTime": 1000.0}});
        numbers.iter().map(record).collect()
    }

    fn numbers(records: &[Json]) -> String {
        let number = |record: &Json| record["dynamodb"]["SequenceNumber"].as_str().unwrap().to_owned();
        records.iter().map(number).collect::<Vec<_>>().join(",")
    }

    /// A function that takes records as `answer` says, by their numbers and how often it was called before.
    struct Answering<Answer> {
        answer: Answer,
        now: f64,
        calls: Mutex<Vec<String>>,
        given_up: Mutex<Vec<String>>,
    }

    impl<Answer: Fn(&str, usize) -> Json + Sync> Target for Answering<Answer> {
        async fn invoke(&self, payload: Bytes) -> Invoked {
            let payload: Json = serde_json::from_slice(&payload).unwrap();
            let numbers = numbers(payload["Records"].as_array().unwrap());
            let mut calls = self.calls.lock().unwrap();
            let answer = (self.answer)(&numbers, calls.len());
            calls.push(numbers);
            Invoked { failed: answer.get("errorType").is_some(), payload: answer.to_string().into() }
        }

        async fn give_up(&self, given: GivenUp) {
            let what = format!("{} {} {}", numbers(&given.records), given.condition, given.invocations);
            self.given_up.lock().unwrap().push(what);
        }

        fn now(&self) -> f64 {
            self.now
        }
    }

    /// What was handed over, and what was given up.
    async fn delivered(
        source: &EventSourceSpec,
        given: &[&str],
        now: f64,
        answer: impl Fn(&str, usize) -> Json + Sync,
    ) -> (Vec<String>, Vec<String>) {
        let target = Answering { answer, now, calls: Mutex::default(), given_up: Mutex::default() };
        deliver(source, records(given), &target).await;
        (target.calls.into_inner().unwrap(), target.given_up.into_inner().unwrap())
    }

    fn again_from(number: &str) -> Json {
        json!({"batchItemFailures": [{"itemIdentifier": number}]})
    }

    fn handled() -> Json {
        json!({"batchItemFailures": []})
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_handled_does_not_come_again() {
        let (calls, given_up) = delivered(&source(), &["1", "2"], 1000.0, |_, _| handled()).await;
        assert_eq!((calls, given_up), (vec!["1,2".to_owned()], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn from_the_first_that_was_not_handled_on_all_come_again() {
        let answer = |_: &str, call| if call == 0 { again_from("2") } else { handled() };
        let (calls, given_up) = delivered(&source(), &["1", "2", "3"], 1000.0, answer).await;
        assert_eq!((calls, given_up), (vec!["1,2,3".to_owned(), "2,3".to_owned()], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_error_the_halves_come_in_their_order() {
        let answer = |given: &str, _| {
            if given.contains(',') && given.contains('1') { json!({"errorType": "E"}) } else { handled() }
        };
        let (calls, _) = delivered(&source(), &["1", "2", "3", "4"], 1000.0, answer).await;
        assert_eq!(calls, ["1,2,3,4", "1,2", "1", "2", "3,4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_tried_often_enough_is_given_up_and_the_others_go_on() {
        let answer = |given: &str, _| {
            if given.contains('2') { again_from("2") } else { handled() }
        };
        let (calls, given_up) = delivered(&source(), &["1", "2"], 1000.0, answer).await;
        assert_eq!(calls, ["1,2", "2", "2"]);
        assert_eq!(given_up, ["2 RetryAttemptsExhausted 3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_is_given_up() {
        let (calls, given_up) = delivered(&source(), &["1"], 1061.0, |_, _| handled()).await;
        assert_eq!((calls.len(), given_up), (0, vec!["1 RecordAgeExceeded 0".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_a_record_that_was_not_given_fails_all() {
        let one = EventSourceSpec { bisects: false, ..source() };
        let answer = |_: &str, call| if call == 0 { again_from("9") } else { handled() };
        let (calls, _) = delivered(&one, &["1", "2"], 1000.0, answer).await;
        assert_eq!(calls, ["1,2", "1,2"]);
    }
}
