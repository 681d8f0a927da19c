//! Numbers for CloudWatch, as documents in a function's log that it reads metrics from:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! Needs no call and no right of its own. Must never carry more dimensions than the stack: each value of a dimension is a
//! metric that is paid for.

use std::io::Write as _;
use std::time::Duration;

use ciab_aws::SystemClock;
use ciab_core::ports::Clock as _;
use serde_json::{Map, Value, json};

/// What all of our metrics stand under. `infra/template.yaml` names it; a test holds the two together.
const NAMESPACE: &str = "ciab-images";
/// The one dimension: the stack's name.
const DIMENSION: &str = "Stack";

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

/// Writes the numbers of one moment, each under its name, to stdout, where CloudWatch takes them from.
pub fn write_metrics(stack: &str, metrics: &[(&'static str, Measure)]) {
    let line = format!("{}\n", document(stack, SystemClock.now().as_millisecond(), metrics));
    // In one piece, so that no line of the log comes between. Where stdout is closed there is nobody to tell.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// `at` is in milliseconds since 1970.
fn document(stack: &str, at: i64, metrics: &[(&'static str, Measure)]) -> Value {
    let definitions: Vec<Value> =
        metrics.iter().map(|(name, measure)| json!({"Name": name, "Unit": measure.unit()})).collect();
    let mut document: Map<String, Value> =
        metrics.iter().map(|(name, measure)| ((*name).to_owned(), measure.value())).collect();
    document.insert(DIMENSION.to_owned(), json!(stack));
    document.insert(
        "_aws".to_owned(),
        json!({
            "Timestamp": at,
            "CloudWatchMetrics": [
                {"Namespace": NAMESPACE, "Dimensions": [[DIMENSION]], "Metrics": definitions}
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
            document("prod", 1_774_449_000_123, &metrics),
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
        let line = document("two\nlines", 0, &[("Polls", Measure::Count(0))]).to_string();
        assert!(!line.contains('\n'), "{line}");
    }

    #[test]
    fn every_metric_that_is_announced_has_a_number_and_every_dimension_a_text() {
        let document =
            document("prod", 0, &[("A", Measure::Count(0)), ("B", Measure::Duration(Duration::ZERO))]);
        let directive = &document["_aws"]["CloudWatchMetrics"][0];
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(document[metric["Name"].as_str().unwrap()].is_number(), "{metric}");
        }
        for dimension in directive["Dimensions"][0].as_array().unwrap() {
            assert!(document[dimension.as_str().unwrap()].is_string(), "{dimension}");
        }
    }
}
