//! Event source mappings, as a function's event of type `DynamoDB` declares them.
//!
//! Must never leave out a property: one that nothing here keeps is an error.

use std::time::Duration;

use serde_norway::Value as Yaml;

use super::resolve::{Resolver, scalar_text};
use super::{TemplateError, required, required_text};
use crate::event_source::Filter;

/// How records of a table's stream get to a function.
#[derive(Clone, Debug)]
pub(crate) struct EventSourceSpec {
    pub(crate) table: String,
    pub(crate) batch_size: u64,
    pub(crate) filter: Filter,
    /// Whether the function says which records it did not handle.
    pub(crate) reports_item_failures: bool,
    /// Whether a batch is halved when the function fails.
    pub(crate) bisects: bool,
    /// None where it is tried for as long as the stream keeps the record.
    pub(crate) maximum_retry_attempts: Option<u32>,
    pub(crate) maximum_record_age: Option<Duration>,
    /// The name of the queue for what is given up.
    pub(crate) on_failure: Option<String>,
}

pub(super) fn read(resolver: &Resolver<'_>, details: &Yaml) -> Result<EventSourceSpec, TemplateError> {
    let stream = required_text(resolver, details, "Stream")?;
    let table = stream.split('/').nth(1);
    let table = table.ok_or_else(|| TemplateError::Malformed(format!("{stream} is no table's stream")))?;
    let mut source = EventSourceSpec {
        table: table.to_owned(),
        batch_size: 100,
        filter: Filter::default(),
        reports_item_failures: false,
        bisects: false,
        maximum_retry_attempts: None,
        maximum_record_age: None,
        on_failure: None,
    };
    for (key, value) in details.as_mapping().into_iter().flatten() {
        let key = scalar_text(key)?;
        match key.as_str() {
            "Stream" => {}
            "StartingPosition" if value.as_str() == Some("TRIM_HORIZON") => {}
            "BatchSize" => source.batch_size = number(resolver, &key, value)?,
            "FilterCriteria" => source.filter = filter(resolver, value)?,
            "FunctionResponseTypes" => source.reports_item_failures = is_item_failures(value)?,
            "BisectBatchOnFunctionError" => source.bisects = resolver.text(value)? == "true",
            "MaximumRetryAttempts" => source.maximum_retry_attempts = Some(number(resolver, &key, value)?),
            "MaximumRecordAgeInSeconds" => {
                source.maximum_record_age = Some(Duration::from_secs(number(resolver, &key, value)?));
            }
            "DestinationConfig" => {
                let queue = required_text(resolver, required(value, "OnFailure")?, "Destination")?;
                source.on_failure = queue.rsplit(':').next().map(str::to_owned);
            }
            _ => return Err(TemplateError::Unsupported(format!("{key} of a stream, as it stands there"))),
        }
    }
    Ok(source)
}

fn number<T: std::str::FromStr>(
    resolver: &Resolver<'_>,
    key: &str,
    value: &Yaml,
) -> Result<T, TemplateError> {
    let text = resolver.text(value)?;
    text.parse().map_err(|_| TemplateError::Malformed(format!("{key} is no number that can be: {text}")))
}

fn filter(resolver: &Resolver<'_>, criteria: &Yaml) -> Result<Filter, TemplateError> {
    let filters = required(criteria, "Filters")?.as_sequence().into_iter().flatten();
    let patterns: Result<Vec<String>, _> =
        filters.map(|filter| required_text(resolver, filter, "Pattern")).collect();
    Filter::read(&patterns?).map_err(TemplateError::Unsupported)
}

fn is_item_failures(types: &Yaml) -> Result<bool, TemplateError> {
    match types.as_sequence().map(Vec::as_slice) {
        Some([]) => Ok(false),
        Some([one]) if one.as_str() == Some("ReportBatchItemFailures") => Ok(true),
        _ => Err(TemplateError::Unsupported("other FunctionResponseTypes".to_owned())),
    }
}
