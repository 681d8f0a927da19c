//! What a request asks leave for: actions, each on one resource, with what conditions may look at.

use std::collections::BTreeMap;

/// Condition keys in lower case, each with its values; a key that a request does not have is not there.
pub(crate) type Keys = BTreeMap<String, Vec<String>>;

/// One action on one resource. A call is allowed if all of its checks are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    /// Such as `ec2:RunInstances`.
    pub(crate) action: String,
    /// An ARN, or `*` for an action that knows no resource.
    pub(crate) resource: String,
    /// Whose tags conditions on `aws:ResourceTag/…` mean; none for what does not exist yet or has no tags.
    pub(crate) tagged: Option<Tagged>,
    pub(crate) keys: Keys,
}

/// A thing in EC2 that has tags.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tagged {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
}

impl Check {
    pub(crate) fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into(), tagged: None, keys: Keys::new() }
    }

    /// With one more condition key.
    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.keys.insert(key.to_ascii_lowercase(), vec![value.into()]);
        self
    }

    /// With one more condition key that has several values.
    pub(crate) fn with_all(mut self, key: &str, values: Vec<String>) -> Self {
        self.keys.insert(key.to_ascii_lowercase(), values);
        self
    }

    /// With the tags that the request gives the resource.
    pub(crate) fn tagging(mut self, tags: &[(String, String)]) -> Self {
        if tags.is_empty() {
            return self;
        }
        for (key, value) in tags {
            self = self.with(&format!("aws:RequestTag/{key}"), value);
        }
        self.with_all("aws:TagKeys", tags.iter().map(|(key, _)| key.clone()).collect())
    }

    /// With the tags that the resource has.
    pub(crate) fn with_resource_tags(mut self, tags: &BTreeMap<String, String>) -> Self {
        for (key, value) in tags {
            for service in ["aws", "ec2"] {
                self = self.with(&format!("{service}:ResourceTag/{key}"), value);
            }
        }
        self
    }
}
