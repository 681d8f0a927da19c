//! Numbers for CloudWatch, as documents in a function's log that it reads metrics from:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! Needs no call and no right of its own. Must never carry more dimensions than the stack and, for the little that is worth it,
//! the agent: each value of a dimension is a metric that is paid for.

use std::io::Write as _;
use std::time::Duration;

use ciab_aws::SystemClock;
use ciab_core::ids::Provider;
use ciab_core::ports::Clock as _;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

/// What all of our metrics stand under. `infra/template.yaml` names it; a test holds the two together.
const NAMESPACE: &str = "ciab-images";
/// The dimension that all have: the stack's name.
const DIMENSION: &str = "Stack";
/// The dimension that some have on top.
const PROVIDER: &str = "Provider";

/// A number with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// So many.
    Count(usize),
    /// So long; milliseconds in CloudWatch.
    Duration(Duration),
}

impl Measure {
    fn unit(self) -> &'static str {
        match self {
            Self::Count(_) => "Count",
            Self::Duration(_) => "Milliseconds",
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Count(count) => json!(count),
            Self::Duration(duration) => json!(duration.as_secs_f64() * 1_000.0),
        }
    }
}

impl From<SignedDuration> for Measure {
    /// One below zero, as clocks that disagree give it, counts as none.
    fn from(duration: SignedDuration) -> Self {
        Self::Duration(Duration::try_from(duration).unwrap_or_default())
    }
}

/// Writes the numbers of one moment, each under its name, to stdout, where CloudWatch takes them from.
pub fn write_metrics(stack: &str, metrics: &[(&'static str, Measure)]) {
    write(&document(stack, None, SystemClock.now().as_millisecond(), metrics));
}

/// As [`write_metrics`], each number twice: for the stack, and for the agent in it.
pub fn write_metrics_by_provider(stack: &str, provider: Provider, metrics: &[(&'static str, Measure)]) {
    write(&document(stack, Some(provider), SystemClock.now().as_millisecond(), metrics));
}

fn write(document: &Value) {
    let line = format!("{document}\n");
    // In one piece, so that no line of the log comes between. Where stdout is closed there is nobody to tell.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// `at` is in milliseconds since 1970.
fn document(stack: &str, provider: Option<Provider>, at: i64, metrics: &[(&'static str, Measure)]) -> Value {
    let definitions: Vec<Value> =
        metrics.iter().map(|(name, measure)| json!({"Name": name, "Unit": measure.unit()})).collect();
    let mut document: Map<String, Value> =
        metrics.iter().map(|(name, measure)| ((*name).to_owned(), measure.value())).collect();
    document.insert(DIMENSION.to_owned(), json!(stack));
    let mut dimensions = vec![json!([DIMENSION])];
    if let Some(provider) = provider {
        document.insert(PROVIDER.to_owned(), json!(provider.as_str()));
        dimensions.push(json!([DIMENSION, PROVIDER]));
    }
    document.insert(
        "_aws".to_owned(),
        json!({
            "Timestamp": at,
            "CloudWatchMetrics": [
                {"Namespace": NAMESPACE, "Dimensions": dimensions, "Metrics": definitions}
            ],
        }),
    );
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_cloudwatch_reads_them() {
        let metrics = [
            ("BuildsWithLeftovers", Measure::Count(2)),
            ("PollDuration", Measure::Duration(Duration::from_micros(1_500))),
        ];
        assert_eq!(
            document("prod", None, 1_774_449_000_123, &metrics),
            json!({
                "_aws": {
                    "Timestamp": 1_774_449_000_123_i64,
                    "CloudWatchMetrics": [{
                        "Namespace": "ciab-images",
                        "Dimensions": [["Stack"]],
                        "Metrics": [
                            {"Name": "BuildsWithLeftovers", "Unit": "Count"},
                            {"Name": "PollDuration", "Unit": "Milliseconds"}
                        ]
                    }]
                },
                "Stack": "prod",
                "BuildsWithLeftovers": 2,
                "PollDuration": 1.5
            })
        );
    }

    #[test]
    fn a_document_is_one_line_whatever_the_stack_is_called() {
        let line = document("two\nlines", None, 0, &[("Polls", Measure::Count(0))]).to_string();
        assert!(!line.contains('\n'), "{line}");
    }

    #[test]
    fn every_metric_that_is_announced_has_a_number_and_every_dimension_a_text() {
        let metrics = [("A", Measure::Count(0)), ("B", Measure::Duration(Duration::ZERO))];
        let document = document("prod", Some(Provider::Codex), 0, &metrics);
        let directive = &document["_aws"]["CloudWatchMetrics"][0];
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(document[metric["Name"].as_str().unwrap()].is_number(), "{metric}");
        }
        assert_eq!(directive["Dimensions"], json!([["Stack"], ["Stack", "Provider"]]));
        for set in directive["Dimensions"].as_array().unwrap() {
            for dimension in set.as_array().unwrap() {
                assert!(document[dimension.as_str().unwrap()].is_string(), "{dimension}");
            }
        }
    }
    #[test]
    fn a_time_below_zero_is_none() {
        assert_eq!(Measure::from(SignedDuration::from_secs(-1)), Measure::Duration(Duration::ZERO));
        assert_eq!(
            Measure::from(SignedDuration::from_millis(1_500)),
            Measure::Duration(Duration::from_millis(1_500))
        );
    }
}
