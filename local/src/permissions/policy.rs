//! Policy documents and what they come to (IAM User Guide, "Policy evaluation logic"): nothing is allowed that no statement allows,
//! and a statement that denies wins over all.
//!
//! Must never pass over an element that it does not know.

use serde_json::Value as Json;

use super::call::{Check, Keys};
use super::condition::{self, Condition};
use super::pattern::Pattern;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    pub(crate) effect: Effect,
    actions: Actions,
    resources: Resources,
    pub(crate) conditions: Vec<Condition>,
    /// What it allows or denies, as it is written.
    written: Vec<String>,
    /// For messages: its place in the document, or what it calls itself.
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Actions {
    These(Vec<Pattern>),
    AllBut(Vec<Pattern>),
}

#[derive(Clone, Debug, PartialEq)]
enum Resources {
    These(Vec<Pattern>),
    AllBut(Vec<Pattern>),
    /// Of a trust policy, which belongs to one resource.
    TheOne,
}

/// Whom a statement of a trust policy is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Principals {
    pub(crate) services: Vec<String>,
    /// ARNs of roles, and of accounts (`arn:aws:iam::123456789012:root`).
    pub(crate) arns: Vec<String>,
}

/// Reads a policy of an identity.
pub(crate) fn parse(document: &Json) -> Result<Vec<Statement>, String> {
    let statements = statements(document)?;
    statements
        .map(|(number, statement)| Statement::parse(number, statement, false).map(|(read, _)| read))
        .collect()
}

/// Reads a role's trust policy.
pub(crate) fn parse_trust(document: &Json) -> Result<Vec<(Statement, Principals)>, String> {
    statements(document)?.map(|(number, statement)| Statement::parse(number, statement, true)).collect()
}

fn statements(document: &Json) -> Result<impl Iterator<Item = (usize, &Json)>, String> {
    let object = document.as_object().ok_or("a policy is no object")?;
    if let Some(unknown) = object.keys().find(|key| !["Version", "Id", "Statement"].contains(&key.as_str())) {
        return Err(format!("the policy element {unknown} is not known"));
    }
    // The older version reads no variables.
    if object.get("Version").and_then(Json::as_str) != Some("2012-10-17") {
        return Err("a policy's Version is not 2012-10-17".to_owned());
    }
    let statement = object.get("Statement").ok_or("a policy has no Statement")?;
    let statements = match statement {
        Json::Array(several) => several.as_slice(),
        one => std::slice::from_ref(one),
    };
    Ok((1..).zip(statements))
}

impl Statement {
    fn parse(number: usize, statement: &Json, is_trust: bool) -> Result<(Self, Principals), String> {
        let object = statement.as_object().ok_or("a statement is no object")?;
        let known = ["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"];
        let unknown =
            object.keys().find(|key| !(known.contains(&key.as_str()) || is_trust && *key == "Principal"));
        if let Some(unknown) = unknown {
            return Err(format!("the statement element {unknown} is not known"));
        }
        let name = object
            .get("Sid")
            .and_then(Json::as_str)
            .map_or_else(|| format!("statement {number}"), str::to_owned);
        let in_this = |error: String| format!("{name}: {error}");
        let effect = match object.get("Effect").and_then(Json::as_str) {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            _ => return Err(in_this("Effect is neither Allow nor Deny".to_owned())),
        };
        let list = |key: &str| object.get(key).map(patterns).transpose().map_err(in_this);
        let lower = |key: &str| {
            object.get(key).map(|value| patterns(&lower_case(value))).transpose().map_err(in_this)
        };
        let actions = match (lower("Action")?, lower("NotAction")?) {
            (Some(actions), None) => Actions::These(actions),
            (None, Some(actions)) => Actions::AllBut(actions),
            _ => return Err(in_this("one of Action and NotAction is needed".to_owned())),
        };
        let resources = match (list("Resource")?, list("NotResource")?) {
            (Some(resources), None) if !is_trust => Resources::These(resources),
            (None, Some(resources)) if !is_trust => Resources::AllBut(resources),
            (None, None) if is_trust => Resources::TheOne,
            _ => return Err(in_this("one of Resource and NotResource is needed".to_owned())),
        };
        let written = match object.get("Action").or_else(|| object.get("NotAction")) {
            Some(Json::Array(actions)) => {
                actions.iter().filter_map(Json::as_str).map(str::to_owned).collect()
            }
            one => one.and_then(Json::as_str).map(str::to_owned).into_iter().collect(),
        };
        let conditions = object.get("Condition").map(condition::parse_all).transpose().map_err(in_this)?;
        let principals = if is_trust {
            principals(object.get("Principal")).map_err(in_this)?
        } else {
            Principals::default()
        };
        Ok((
            Self { effect, actions, resources, conditions: conditions.unwrap_or_default(), written, name },
            principals,
        ))
    }

    /// Whether the statement is about this check, as far as its conditions hold.
    pub(crate) fn applies(&self, check: &Check) -> bool {
        self.names(check) && self.conditions.iter().all(|condition| condition.holds(&check.keys))
    }

    /// Whether it is about the check's action and resource, whatever its conditions say.
    pub(crate) fn names(&self, check: &Check) -> bool {
        let resource = |pattern: &Pattern| pattern.matches_arn(&check.resource, &check.keys);
        self.names_action(&check.action)
            && match &self.resources {
                Resources::These(patterns) => patterns.iter().any(resource),
                Resources::AllBut(patterns) => !patterns.iter().any(resource),
                Resources::TheOne => true,
            }
    }

    pub(crate) fn names_action(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        let is = |pattern: &Pattern| pattern.matches(&action, &Keys::new());
        match &self.actions {
            Actions::These(patterns) => patterns.iter().any(is),
            Actions::AllBut(patterns) => !patterns.iter().any(is),
        }
    }

    /// Its actions, as they are written.
    pub(crate) fn actions(&self) -> &[String] {
        &self.written
    }

    /// What EC2 calls by an id stands in the template by its name: puts the id in its place.
    pub(crate) fn replace(&mut self, from: &str, to: &str) {
        if let Resources::These(patterns) | Resources::AllBut(patterns) = &mut self.resources {
            patterns.iter_mut().for_each(|pattern| pattern.replace(from, to));
        }
        self.conditions.iter_mut().for_each(|condition| condition.replace(from, to));
    }
}

/// What some policies, taken together, say to a check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Allowed,
    /// No statement allows it.
    Silent,
    /// A statement denies it.
    Forbidden,
}

pub(crate) fn judge<'a>(statements: impl IntoIterator<Item = &'a Statement>, check: &Check) -> Verdict {
    let mut verdict = Verdict::Silent;
    for statement in statements {
        if statement.applies(check) {
            match statement.effect {
                Effect::Deny => return Verdict::Forbidden,
                Effect::Allow => verdict = Verdict::Allowed,
            }
        }
    }
    verdict
}

fn patterns(value: &Json) -> Result<Vec<Pattern>, String> {
    let texts: Vec<&Json> = match value {
        Json::Array(items) => items.iter().collect(),
        one => vec![one],
    };
    let read = |text: &&Json| Pattern::parse(text.as_str().ok_or_else(|| format!("{text} is no text"))?);
    texts.iter().map(read).collect()
}

fn lower_case(value: &Json) -> Json {
    match value {
        Json::String(text) => Json::String(text.to_ascii_lowercase()),
        Json::Array(items) => Json::Array(items.iter().map(lower_case).collect()),
        other => other.clone(),
    }
}

fn principals(value: Option<&Json>) -> Result<Principals, String> {
    let object = value.and_then(Json::as_object).ok_or("a trust policy's Principal is no object")?;
    let mut principals = Principals::default();
    for (kind, names) in object {
        let list = match kind.as_str() {
            "Service" => &mut principals.services,
            "AWS" => &mut principals.arns,
            other => return Err(format!("the kind of principal {other} is not known")),
        };
        match names {
            Json::String(name) => list.push(name.clone()),
            Json::Array(names) => {
                for name in names {
                    list.push(name.as_str().ok_or("a principal is no text")?.to_owned());
                }
            }
            other => return Err(format!("{other} is no principal")),
        }
    }
    Ok(principals)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(statements: Json) -> Vec<Statement> {
        parse(&json!({"Version": "2012-10-17", "Statement": statements})).unwrap()
    }

    fn get(key: &str) -> Check {
        Check::new("s3:GetObject", format!("arn:aws:s3:::bucket/{key}"))
    }

    #[test]
    fn nothing_is_allowed_that_no_statement_allows() {
        let policy =
            policy(json!({"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::bucket/a/*"}));
        assert_eq!(judge(&policy, &get("a/b")), Verdict::Allowed);
        assert_eq!(judge(&policy, &get("b")), Verdict::Silent);
        let put = Check::new("s3:PutObject", "arn:aws:s3:::bucket/a/b");
        assert_eq!(judge(&policy, &put), Verdict::Silent);
        assert_eq!(judge(&[], &get("a/b")), Verdict::Silent);
    }

    #[test]
    fn a_denial_wins_wherever_it_stands() {
        let policy = policy(json!([
            {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/secret/*"},
            {"Effect": "Allow", "Action": "*", "Resource": "*"},
        ]));
        assert_eq!(judge(&policy, &get("a")), Verdict::Allowed);
        assert_eq!(judge(&policy, &get("secret/a")), Verdict::Forbidden);
    }

    #[test]
    fn what_is_excepted_is_all_but_what_is_named() {
        let policy = policy(json!([
            {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"},
            {"Effect": "Deny", "Action": "*", "NotResource": "arn:aws:s3:::bucket/*"},
        ]));
        assert_eq!(judge(&policy, &get("a")), Verdict::Allowed);
        assert_eq!(judge(&policy, &Check::new("s3:GetObject", "arn:aws:s3:::other/a")), Verdict::Forbidden);
        assert_eq!(judge(&policy, &Check::new("iam:GetRole", "arn:aws:s3:::bucket/a")), Verdict::Silent);
    }

    #[test]
    fn actions_are_the_same_in_any_case_and_resources_are_not() {
        let policy =
            policy(json!({"Effect": "Allow", "Action": "S3:getobject", "Resource": "arn:aws:s3:::bucket/A"}));
        assert_eq!(judge(&policy, &get("A")), Verdict::Allowed);
        assert_eq!(judge(&policy, &get("a")), Verdict::Silent);
    }

    #[test]
    fn a_statement_applies_only_where_all_of_its_conditions_hold() {
        let policy = policy(json!({
            "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::bucket",
            "Condition": {"StringLike": {"s3:prefix": "a/*"}, "StringEquals": {"s3:delimiter": "/"}},
        }));
        let list = Check::new("s3:ListBucket", "arn:aws:s3:::bucket");
        assert_eq!(
            judge(&policy, &list.clone().with("s3:prefix", "a/b").with("s3:delimiter", "/")),
            Verdict::Allowed
        );
        assert_eq!(judge(&policy, &list.clone().with("s3:prefix", "a/b")), Verdict::Silent);
        assert_eq!(judge(&policy, &list), Verdict::Silent);
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let good = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
        for (key, value) in [
            ("Effect", json!("allow")),
            ("Principal", json!("*")),
            ("Resources", json!("*")),
            ("NotAction", json!("s3:*")),
            ("Resource", json!(1)),
            ("Condition", json!({"Equals": {"s3:prefix": "a"}})),
        ] {
            let mut statement = good.clone();
            statement[key] = value;
            assert!(parse(&json!({"Version": "2012-10-17", "Statement": statement})).is_err(), "{statement}");
        }
        assert!(parse(&json!({"Version": "2008-10-17", "Statement": good})).is_err());
        assert!(parse(&json!({"Version": "2012-10-17", "Statement": good, "More": 1})).is_err());
    }
}
