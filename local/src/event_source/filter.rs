//! Which records of a stream invoke a function: the patterns of a mapping's `FilterCriteria` (AWS Lambda Developer Guide, "Control
//! which events Lambda sends to your function").
//!
//! Must never take a pattern that it does not understand whole: that is an error when the stack starts.

use serde_json::{Map, Value as Json};

/// A record goes through where one of the patterns fits it, or where there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter(Vec<Map<String, Json>>);

impl Filter {
    /// `patterns` are JSON documents, as the template has them.
    pub(crate) fn read(patterns: &[String]) -> Result<Self, String> {
        let read = |text: &String| {
            let pattern: Json =
                serde_json::from_str(text).map_err(|error| format!("the filter {text}: {error}"))?;
            check(&pattern).map_err(|why| format!("the filter {text}: {why}"))?;
            match pattern {
                Json::Object(pattern) => Ok(pattern),
                _ => Err(format!("the filter {text}: an object is expected")),
            }
        };
        patterns.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn lets_through(&self, record: &Json) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| fits(pattern, record))
    }
}

fn check(pattern: &Json) -> Result<(), String> {
    match pattern {
        Json::Object(fields) => fields.values().try_for_each(check),
        Json::Array(alternatives) if !alternatives.is_empty() => alternatives.iter().try_for_each(|one| {
            let is_prefix = one
                .as_object()
                .is_some_and(|rule| rule.len() == 1 && rule.get("prefix").is_some_and(Json::is_string));
            if one.is_string() || one.is_null() || is_prefix {
                return Ok(());
            }
            Err(format!("{one} is a rule that the local stack does not know"))
        }),
        other => Err(format!("{other} is neither an object nor a list of alternatives")),
    }
}

fn fits(pattern: &Map<String, Json>, record: &Json) -> bool {
    pattern.iter().all(|(key, wanted)| {
        let value = &record[key.as_str()];
        match wanted {
            Json::Object(inner) => fits(inner, value),
            Json::Array(alternatives) => alternatives.iter().any(|one| match one["prefix"].as_str() {
                Some(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
                None => value == one,
            }),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(pattern: &Json) -> Filter {
        Filter::read(&[pattern.to_string()]).unwrap()
    }

    #[test]
    fn every_field_must_have_one_of_its_alternatives() {
        let filter = filter(
            &json!({"eventName": ["INSERT", "MODIFY"], "dynamodb": {"Keys": {"sk": {"S": ["BUILD"]}}}}),
        );
        let record =
            |name: &str, sort: &str| json!({"eventName": name, "dynamodb": {"Keys": {"sk": {"S": sort}}}});
        assert!(filter.lets_through(&record("INSERT", "BUILD")));
        assert!(filter.lets_through(&record("MODIFY", "BUILD")));
        assert!(!filter.lets_through(&record("REMOVE", "BUILD")));
        assert!(!filter.lets_through(&record("INSERT", "LEASE")));
        assert!(!filter.lets_through(&json!({"eventName": "INSERT"})));
    }

    #[test]
    fn a_text_may_be_told_by_its_beginning() {
        let filter = filter(&json!({"pk": [{"prefix": "BUILD#"}]}));
        assert!(filter.lets_through(&json!({"pk": "BUILD#1"})));
        assert!(!filter.lets_through(&json!({"pk": "IMAGE#1"})));
        assert!(!filter.lets_through(&json!({"pk": 7})));
    }

    #[test]
    fn without_a_pattern_everything_goes_through_and_of_several_one_is_enough() {
        assert!(Filter::default().lets_through(&json!({})));
        let either = Filter::read(&[r#"{"a": ["1"]}"#.to_owned(), r#"{"a": ["2"]}"#.to_owned()]).unwrap();
        assert!(either.lets_through(&json!({"a": "2"})));
        assert!(!either.lets_through(&json!({"a": "3"})));
    }

    #[test]
    fn a_pattern_that_is_not_understood_is_an_error() {
        for pattern in [
            r#"{"a": [{"numeric": [">", 1]}]}"#,
            r#"{"a": [{"exists": true}]}"#,
            r#"{"a": []}"#,
            r#"{"a": "b"}"#,
            r#"["a"]"#,
            "{",
        ] {
            assert!(Filter::read(&[pattern.to_owned()]).is_err(), "{pattern}");
        }
    }
}
