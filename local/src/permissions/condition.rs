//! The conditions of policies (IAM User Guide, "IAM JSON policy elements: Condition operators", "Conditions with multiple context keys
//! or values").
//!
//! Must never pass over what it does not know: an operator, or a key that requests are not read for, is an error.

use serde_json::Value as Json;

use super::call::Keys;
use super::pattern::Pattern;

/// Keys that requests are read for; those that end in `/` have a tag's key after it. A condition on any other would hold or fail
/// for want of a value, whatever the request says.
const KNOWN: [&str; 42] = [
    "aws:currenttime",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principaltag/",
    "aws:requestedregion",
    "aws:requesttag/",
    "aws:resourceaccount",
    "aws:resourcetag/",
    "aws:securetransport",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:tagkeys",
    "codebuild:projectarn",
    "dynamodb:leadingkeys",
    "ec2:add/group",
    "ec2:add/userid",
    "ec2:createaction",
    "ec2:imageid",
    "ec2:instancemarkettype",
    "ec2:instanceprofile",
    "ec2:instancetype",
    "ec2:keypairname",
    "ec2:launchtemplate",
    "ec2:metadatahttptokens",
    "ec2:owner",
    "ec2:region",
    "ec2:resourcetag/",
    "events:detail-type",
    "events:source",
    "iam:passedtoservice",
    "iam:permissionsboundary",
    "iam:policyarn",
    "kms:grantisforawsresource",
    "kms:viaservice",
    "lambda:functionarn",
    "s3:delimiter",
    "s3:prefix",
    "secretsmanager:versionstage",
    "ssm:overwrite",
    "sts:externalid",
    "sts:rolesessionname",
    "cloudwatch:namespace",
];

/// Keys of which a request has several values: they need `ForAllValues` or `ForAnyValue`.
const SEVERAL: [&str; 4] = ["aws:tagkeys", "dynamodb:leadingkeys", "ec2:add/group", "ec2:add/userid"];

/// The key in lower case, if requests are read for it.
pub(crate) fn known_key(key: &str) -> Result<String, String> {
    let key = key.to_ascii_lowercase();
    let known = KNOWN.iter().any(|known| {
        if known.ends_with('/') { key.len() > known.len() && key.starts_with(known) } else { key == *known }
    });
    if known { Ok(key) } else { Err(format!("the condition key {key} is not known")) }
}

/// One operator on one key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    /// As the policy has them, for messages.
    pub(crate) operator: String,
    pub(crate) key: String,
    set: Set,
    if_exists: bool,
    negated: bool,
    test: Test,
    values: Vec<Pattern>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Set {
    One,
    All,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Test {
    Equals,
    EqualsIgnoreCase,
    Like,
    Arn,
    Bool,
    Null,
    Number(Order),
    Date(Order),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A statement's `Condition`: all of them must hold.
pub(crate) fn parse_all(block: &Json) -> Result<Vec<Condition>, String> {
    let operators = block.as_object().ok_or("Condition is no object")?;
    let mut conditions = Vec::new();
    for (operator, keys) in operators {
        let keys = keys.as_object().ok_or_else(|| format!("{operator} is no object"))?;
        for (key, values) in keys {
            conditions.push(Condition::parse(operator, key, values)?);
        }
    }
    Ok(conditions)
}

impl Condition {
    fn parse(operator: &str, key: &str, values: &Json) -> Result<Self, String> {
        let (set, rest) = match operator.split_once(':') {
            None => (Set::One, operator),
            Some(("ForAllValues", rest)) => (Set::All, rest),
            Some(("ForAnyValue", rest)) => (Set::Any, rest),
            Some(_) => return Err(format!("the condition operator {operator} is not known")),
        };
        let (rest, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |rest| (rest, true));
        let (test, negated) = match rest {
            "StringEquals" => (Test::Equals, false),
            "StringNotEquals" => (Test::Equals, true),
            "StringEqualsIgnoreCase" => (Test::EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Test::EqualsIgnoreCase, true),
            "StringLike" => (Test::Like, false),
            "StringNotLike" => (Test::Like, true),
            // The two are the same ("ArnEquals and ArnLike behave identically").
            "ArnEquals" | "ArnLike" => (Test::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
            "Bool" => (Test::Bool, false),
            "Null" if !if_exists && set == Set::One => (Test::Null, false),
            other => {
                ordered(other).ok_or_else(|| format!("the condition operator {operator} is not known"))?
            }
        };
        let known = known_key(key)?;
        if set == Set::One && SEVERAL.contains(&known.as_str()) && test != Test::Null {
            return Err(format!(
                "{key} has several values, and {operator} does not say whether all or any is meant"
            ));
        }
        let values = match values {
            Json::Array(items) => items.iter().map(value_text).collect::<Result<Vec<_>, _>>()?,
            one => vec![value_text(one)?],
        };
        let values = values.iter().map(|value| Pattern::parse(value)).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() {
            return Err(format!("{operator} of {key} has no value"));
        }
        Ok(Self { operator: operator.to_owned(), key: known, set, if_exists, negated, test, values })
    }

    /// Whether it holds for a request with these keys.
    pub(crate) fn holds(&self, keys: &Keys) -> bool {
        let given = keys.get(&self.key).map(Vec::as_slice).unwrap_or_default();
        if self.test == Test::Null {
            let wanted = self.values.iter().filter_map(|value| value.text(keys)).any(|value| value == "true");
            return given.is_empty() == wanted;
        }
        if given.is_empty() {
            // A negated operator holds for a key that is not there, except where any value is asked for.
            return self.if_exists || self.set == Set::All || (self.negated && self.set == Set::One);
        }
        let satisfies =
            |value: &String| self.values.iter().any(|wanted| self.test(value, wanted, keys)) != self.negated;
        match self.set {
            Set::One | Set::All => given.iter().all(satisfies),
            Set::Any => given.iter().any(satisfies),
        }
    }

    /// Puts another text in the place of one that stands in its values.
    pub(crate) fn replace(&mut self, from: &str, to: &str) {
        self.values.iter_mut().for_each(|value| value.replace(from, to));
    }

    fn test(&self, given: &str, wanted: &Pattern, keys: &Keys) -> bool {
        match self.test {
            Test::Like => wanted.matches(given, keys),
            Test::Arn => wanted.matches_arn(given, keys),
            Test::Equals => wanted.text(keys).is_some_and(|wanted| wanted == given),
            Test::EqualsIgnoreCase | Test::Bool => {
                wanted.text(keys).is_some_and(|wanted| wanted.eq_ignore_ascii_case(given))
            }
            Test::Number(order) => {
                let number = |text: &str| text.parse::<f64>().ok();
                wanted.text(keys).is_some_and(|wanted| compare(order, number(given), number(&wanted)))
            }
            Test::Date(order) => {
                let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
                wanted.text(keys).is_some_and(|wanted| compare(order, time(given), time(&wanted)))
            }
            Test::Null => false,
        }
    }
}

fn ordered(operator: &str) -> Option<(Test, bool)> {
    let (make, order): (fn(Order) -> Test, &str) = match operator.strip_prefix("Numeric") {
        Some(order) => (Test::Number, order),
        None => (Test::Date, operator.strip_prefix("Date")?),
    };
    let (order, negated) = match order {
        "Equals" => (Order::Equal, false),
        "NotEquals" => (Order::Equal, true),
        "LessThan" => (Order::Less, false),
        "LessThanEquals" => (Order::LessOrEqual, false),
        "GreaterThan" => (Order::Greater, false),
        "GreaterThanEquals" => (Order::GreaterOrEqual, false),
        _ => return None,
    };
    Some((make(order), negated))
}

fn compare<T: PartialOrd>(order: Order, given: Option<T>, wanted: Option<T>) -> bool {
    let (Some(given), Some(wanted)) = (given, wanted) else { return false };
    match order {
        Order::Equal => given == wanted,
        Order::Less => given < wanted,
        Order::LessOrEqual => given <= wanted,
        Order::Greater => given > wanted,
        Order::GreaterOrEqual => given >= wanted,
    }
}

fn value_text(value: &Json) -> Result<String, String> {
    match value {
        Json::String(text) => Ok(text.clone()),
        Json::Bool(flag) => Ok(flag.to_string()),
        Json::Number(number) => Ok(number.to_string()),
        other => Err(format!("{other} is no value of a condition")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(of: &[(&str, &[&str])]) -> Keys {
        of.iter()
            .map(|(key, values)| ((*key).to_owned(), values.iter().map(|v| (*v).to_owned()).collect()))
            .collect()
    }

    fn holds(operator: &str, key: &str, values: Json, given: &[(&str, &[&str])]) -> bool {
        let conditions = parse_all(&json!({operator: {key: values}})).unwrap();
        conditions.iter().all(|condition| condition.holds(&keys(given)))
    }

    #[test]
    fn texts_are_compared_as_the_operator_says() {
        let given: &[(&str, &[&str])] = &[("s3:prefix", &["builds/a"])];
        assert!(holds("StringLike", "s3:prefix", json!("builds/*"), given));
        assert!(!holds("StringEquals", "s3:prefix", json!("builds/*"), given));
        assert!(holds("StringEquals", "S3:Prefix", json!(["x", "builds/a"]), given));
        assert!(holds("StringEqualsIgnoreCase", "s3:prefix", json!("BUILDS/A"), given));
        assert!(!holds("StringNotLike", "s3:prefix", json!(["x", "builds/*"]), given));
        assert!(holds("StringNotEquals", "s3:prefix", json!(["x", "y"]), given));
    }

    #[test]
    fn a_key_that_is_not_there_fails_what_asks_for_it() {
        assert!(!holds("StringEquals", "s3:prefix", json!("a"), &[]));
        assert!(holds("StringEqualsIfExists", "s3:prefix", json!("a"), &[]));
        assert!(!holds("StringEqualsIfExists", "s3:prefix", json!("a"), &[("s3:prefix", &["b"])]));
        assert!(holds("StringNotEquals", "s3:prefix", json!("a"), &[]));
        assert!(!holds("ForAnyValue:StringNotEquals", "s3:prefix", json!("a"), &[]));
        assert!(holds("Null", "s3:prefix", json!(true), &[]));
        assert!(!holds("Null", "s3:prefix", json!("false"), &[]));
        assert!(holds("Null", "s3:prefix", json!("false"), &[("s3:prefix", &["b"])]));
    }

    #[test]
    fn of_several_values_all_or_any_must_match() {
        let given: &[(&str, &[&str])] = &[("aws:tagkeys", &["a", "b"])];
        assert!(holds("ForAllValues:StringEquals", "aws:TagKeys", json!(["a", "b", "c"]), given));
        assert!(!holds("ForAllValues:StringEquals", "aws:TagKeys", json!(["a"]), given));
        assert!(holds("ForAnyValue:StringEquals", "aws:TagKeys", json!(["a"]), given));
        assert!(!holds("ForAnyValue:StringEquals", "aws:TagKeys", json!(["c"]), given));
        assert!(holds("ForAllValues:StringEquals", "aws:TagKeys", json!(["a"]), &[]));
        assert!(!holds("ForAnyValue:StringEquals", "aws:TagKeys", json!(["a"]), &[]));
        assert!(parse_all(&json!({"StringEquals": {"aws:TagKeys": "a"}})).is_err());
    }

    #[test]
    fn arns_flags_numbers_and_times_are_compared_as_such() {
        let arn: &[(&str, &[&str])] = &[("ec2:launchtemplate", &["arn:aws:ec2:r:1:launch-template/lt-1"])];
        assert!(holds("ArnLike", "ec2:LaunchTemplate", json!("arn:aws:ec2:*:1:launch-template/lt-1"), arn));
        assert!(!holds(
            "ArnEquals",
            "ec2:LaunchTemplate",
            json!("arn:aws:ec2:r:1:launch-template/lt-2"),
            arn
        ));
        assert!(holds(
            "ArnNotEquals",
            "ec2:LaunchTemplate",
            json!("arn:aws:ec2:r:1:launch-template/lt-2"),
            arn
        ));
        assert!(holds("Bool", "aws:SecureTransport", json!(true), &[("aws:securetransport", &["true"])]));
        assert!(!holds("Bool", "aws:SecureTransport", json!("false"), &[("aws:securetransport", &["true"])]));
        let now: &[(&str, &[&str])] = &[("aws:currenttime", &["2026-01-02T00:00:00Z"])];
        assert!(holds("DateGreaterThan", "aws:CurrentTime", json!("2026-01-01T00:00:00Z"), now));
        assert!(!holds("DateLessThan", "aws:CurrentTime", json!("2026-01-01T00:00:00Z"), now));
        assert!(holds("NumericLessThanEquals", "s3:prefix", json!(10), &[("s3:prefix", &["10"])]));
        assert!(!holds("NumericGreaterThan", "s3:prefix", json!(10), &[("s3:prefix", &["no number"])]));
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for block in [
            json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),
            json!({"StringEquals": {"aws:SourceIp": "10.0.0.1"}}),
            json!({"Stringequals": {"s3:prefix": "a"}}),
            json!({"ForSomeValues:StringEquals": {"aws:TagKeys": "a"}}),
            json!({"NullIfExists": {"s3:prefix": "true"}}),
            json!({"StringEquals": {"s3:prefix": []}}),
            json!({"StringEquals": {"aws:RequestTag/": "a"}}),
        ] {
            assert!(parse_all(&block).is_err(), "{block}");
        }
    }
}
