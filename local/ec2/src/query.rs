//! EC2's Query protocol, the request side: a form (`Action=RunInstances&ImageId=…&InstanceId.1=…`), read and changed.
//!
//! Pure. Lists come as `Name.1`, `Name.2`, …; the region comes from the credential scope of the signature.

use std::collections::BTreeMap;

use http::{HeaderMap, header::AUTHORIZATION};

/// Where a request is meant for when its signature names no region, as moto sees it too.
const REGION_WITHOUT_SIGNATURE: &str = "us-east-1";

/// The parameters of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    parameters: BTreeMap<String, String>,
}

impl Query {
    /// A call of our own.
    pub(crate) fn new(action: &str) -> Self {
        Self { parameters: BTreeMap::new() }.with("Action", action).with("Version", "2016-11-15")
    }

    /// Reads the form in a request's body, and what stands in its address (`GET /?Action=…`).
    pub fn parse(query: Option<&str>, body: &[u8]) -> Self {
        let parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
            .chain(form_urlencoded::parse(body))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        Self { parameters }
    }

    /// Sets one parameter.
    pub(crate) fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets one parameter.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.parameters.insert(name.into(), value.into());
    }

    /// The name of the call; empty for a request that is none.
    pub fn action(&self) -> &str {
        self.get("Action").unwrap_or_default()
    }

    /// One parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Every parameter's name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.keys().map(String::as_str)
    }

    /// Every parameter.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Takes a structure over from another call, under a prefix of its own.
    pub(crate) fn copy(&mut self, other: &Self, from: &str, to: &str) {
        let inside = format!("{from}.");
        for (name, value) in other.iter().filter(|(name, _)| name.starts_with(&inside)) {
            self.set(format!("{to}.{}", &name[inside.len()..]), value);
        }
    }

    /// One boolean parameter; absent is false.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A list of plain values: `InstanceId.1`, `InstanceId.2`, … in the order of their numbers.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.numbers(name).into_iter().filter_map(|number| self.get(&format!("{name}.{number}"))).collect()
    }

    /// The prefixes of a list of structures: `Filter.1`, `Filter.2`, …
    pub fn structures(&self, name: &str) -> Vec<String> {
        self.numbers(name).into_iter().map(|number| format!("{name}.{number}")).collect()
    }

    fn numbers(&self, name: &str) -> Vec<u32> {
        let prefix = format!("{name}.");
        let mut numbers: Vec<u32> = self
            .parameters
            .range(prefix.clone()..)
            .take_while(|(parameter, _)| parameter.starts_with(&prefix))
            .filter_map(|(parameter, _)| parameter[prefix.len()..].split('.').next()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Takes a filter out of the call and gives its values; `None` when the call has no such filter.
    pub(crate) fn take_filter(&mut self, name: &str) -> Option<Vec<String>> {
        let prefix = self
            .structures("Filter")
            .into_iter()
            .find(|prefix| self.get(&format!("{prefix}.Name")) == Some(name))?;
        let values = self.list(&format!("{prefix}.Value")).into_iter().map(str::to_owned).collect();
        self.remove_structures("Filter", &[prefix]);
        Some(values)
    }

    /// Takes the tags for one kind of resource out of `TagSpecification.N`.
    pub(crate) fn take_tags(&mut self, resource_type: &str) -> Vec<(String, String)> {
        let (mut tags, mut taken) = (Vec::new(), Vec::new());
        for prefix in self.structures("TagSpecification") {
            if self.get(&format!("{prefix}.ResourceType")) != Some(resource_type) {
                continue;
            }
            for tag in self.structures(&format!("{prefix}.Tag")) {
                let key = self.get(&format!("{tag}.Key")).unwrap_or_default();
                let value = self.get(&format!("{tag}.Value")).unwrap_or_default();
                tags.push((key.to_owned(), value.to_owned()));
            }
            taken.push(prefix);
        }
        self.remove_structures("TagSpecification", &taken);
        tags
    }

    /// Takes structures out of a list and closes the gaps: moto reads a list only up to the first number that is missing.
    fn remove_structures(&mut self, list: &str, taken: &[String]) {
        let kept: Vec<String> =
            self.structures(list).into_iter().filter(|prefix| !taken.contains(prefix)).collect();
        let of_list = format!("{list}.");
        let (inside, mut rest): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.parameters)
            .into_iter()
            .partition(|(name, _)| name.starts_with(&of_list));
        for (number, prefix) in (1..).zip(kept) {
            let prefix = format!("{prefix}.");
            let of_this =
                inside.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?, value)));
            rest.extend(of_this.map(|(name, value)| (format!("{list}.{number}.{name}"), value.clone())));
        }
        self.parameters = rest;
    }

    /// The form, for sending on.
    pub(crate) fn encode(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.parameters).finish()
    }
}

/// The region a request is signed for: `Credential=<key>/<date>/<region>/<service>/aws4_request`.
pub(crate) fn region_of(headers: &HeaderMap) -> String {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split("Credential=").nth(1))
        .and_then(|scope| scope.split([',', ' ']).next())
        .and_then(|scope| scope.split('/').nth(2))
        .filter(|region| !region.is_empty())
        .unwrap_or(REGION_WITHOUT_SIGNATURE)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_the_order_of_their_numbers() {
        let query = Query::parse(None, b"Action=X&InstanceId.10=c&InstanceId.2=b&InstanceId.1=a");
        assert_eq!(query.list("InstanceId"), ["a", "b", "c"]);
    }

    #[test]
    fn a_filter_is_taken_out_whole_and_leaves_no_gap() {
        let mut query = Query::parse(
            None,
            b"Filter.1.Name=root-device-type&Filter.1.Value.1=ebs&Filter.2.Name=name&Filter.2.Value.1=x",
        );
        assert_eq!(query.take_filter("root-device-type"), Some(vec!["ebs".to_owned()]));
        assert_eq!(query.take_filter("root-device-type"), None);
        assert_eq!(query.get("Filter.1.Name"), Some("name"));
        assert_eq!(query.get("Filter.1.Value.1"), Some("x"));
        assert_eq!(query.structures("Filter"), ["Filter.1"]);
    }

    #[test]
    fn tags_of_one_kind_are_taken_and_the_other_kinds_stay() {
        let mut query = Query::parse(
            None,
            b"TagSpecification.1.ResourceType=snapshot&TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=b\
              &TagSpecification.2.ResourceType=image&TagSpecification.2.Tag.1.Key=c&TagSpecification.2.Tag.1.Value=d",
        );
        assert_eq!(query.take_tags("snapshot"), [("a".to_owned(), "b".to_owned())]);
        assert_eq!(query.get("TagSpecification.1.ResourceType"), Some("image"));
        assert_eq!(query.get("TagSpecification.2.ResourceType"), None);
    }

    #[test]
    fn the_region_is_the_one_the_signature_was_made_for() {
        let mut headers = HeaderMap::new();
        let value = "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0";
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        assert_eq!(region_of(&headers), "eu-west-1");
        assert_eq!(region_of(&HeaderMap::new()), "us-east-1");
    }
}
