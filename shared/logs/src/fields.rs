//! The fields of an event or a span as JSON values, and the line that they make.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use jiff::Timestamp;
use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::Value;
use tracing::Metadata;
use tracing::field::{Field, Visit};

/// What every line begins with, in this order. A field of an event by such a name gives way.
const FIXED: [&str; 4] = ["time", "level", "message", "target"];

/// Fields by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields(BTreeMap<&'static str, Value>);

impl Fields {
    /// Adds another's; where both have a field, the other's counts.
    pub(crate) fn extend(&mut self, inner: &Self) {
        self.0.extend(inner.0.iter().map(|(name, value)| (*name, value.clone())));
    }

    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name(), value.into());
    }

    /// The line for an event with these fields, with the newline at its end.
    pub(crate) fn line(
        &self,
        time: Timestamp,
        metadata: &Metadata<'_>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut line);
        let mut map = serializer.serialize_map(None)?;
        // To the millisecond, always three digits of it: so texts sort as times do.
        map.serialize_entry("time", &format!("{time:.3}"))?;
        map.serialize_entry("level", metadata.level().as_str())?;
        map.serialize_entry("message", self.0.get("message").unwrap_or(&Value::from("")))?;
        map.serialize_entry("target", metadata.target())?;
        for (name, value) in self.0.iter().filter(|(name, _)| !FIXED.contains(name)) {
            map.serialize_entry(name, value)?;
        }
        map.end()?;
        line.push(b'\n');
        Ok(line)
    }
}

impl FromIterator<(&'static str, String)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'static str, String)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name, Value::String(value))).collect())
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    /// With what it comes from: errors here do not repeat that in their own words.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let causes = std::iter::successors(Some(value), |error: &&(dyn Error + 'static)| (*error).source());
        let told: Vec<String> = causes.map(ToString::to_string).collect();
        self.insert(field, told.join(": "));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}
