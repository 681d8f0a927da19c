//! Compares what roles may do with what they did while all tests ran: `ciab-local permissions`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::policy::{self, Effect};
use super::record::Called;
use crate::template::StackTemplate;

/// Why an action is allowed that the tests do not call: by role, or by the policy that several roles share, and action.
type Reasons = BTreeMap<String, BTreeMap<String, Reason>>;

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Reason {
    /// No test has it do that.
    Never(String),
    /// It depends on the order in which things happen to happen.
    Sometimes { sometimes: String },
}

impl Reason {
    fn text(&self) -> &str {
        let (Self::Never(text) | Self::Sometimes { sometimes: text }) = self;
        text.trim()
    }
}

/// The actions of a role's own policies, or of a policy that roles share, and the roles that have them by it.
#[derive(Clone, Debug, Default)]
struct Grant {
    actions: BTreeSet<String>,
    roles: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("{path} cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} holds a line that is no call")]
    NoCall { path: PathBuf, source: serde_json::Error },
    #[error("{path} is no list of roles, actions and reasons")]
    NoReasons { path: PathBuf, source: serde_norway::Error },
    #[error("a policy cannot be read: {0}")]
    Policy(String),
}

/// Whatever does not agree, a line each.
pub(crate) fn compare(
    template: &StackTemplate,
    called: &Path,
    reasons: &Path,
) -> Result<Vec<String>, UsageError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|source| UsageError::Unreadable { path: path.to_owned(), source })
    };
    let calls: Result<Vec<Called>, _> = read(called)?.lines().map(serde_json::from_str).collect();
    let calls = calls.map_err(|source| UsageError::NoCall { path: called.to_owned(), source })?;
    let reasons: Reasons = serde_norway::from_str(&read(reasons)?)
        .map_err(|source| UsageError::NoReasons { path: reasons.to_owned(), source })?;
    let mut grants: BTreeMap<String, Grant> = BTreeMap::new();
    for spec in &template.roles {
        let own = spec.policies.iter().map(|policy| (&spec.logical, policy));
        for (name, policy) in own.chain(spec.shared.iter().map(|(name, policy)| (name, policy))) {
            let statements = policy::parse(policy).map_err(UsageError::Policy)?;
            let grant = grants.entry(name.clone()).or_default();
            grant.roles.insert(spec.logical.clone());
            let allowing = statements.iter().filter(|statement| statement.effect == Effect::Allow);
            grant.actions.extend(allowing.flat_map(|statement| statement.actions().to_vec()));
        }
    }
    Ok(differences(&grants, &calls, &reasons))
}

fn differences(grants: &BTreeMap<String, Grant>, calls: &[Called], reasons: &Reasons) -> Vec<String> {
    let denied: BTreeSet<&Called> = calls.iter().filter(|call| !call.allowed).collect();
    let mut found: Vec<String> =
        denied.iter().map(|Called { role, action, .. }| format!("{role} was denied {action}")).collect();
    for (name, Grant { actions, roles }) in grants {
        let called: BTreeSet<String> = calls
            .iter()
            .filter(|call| call.allowed && roles.contains(&call.role))
            .map(|call| call.action.to_ascii_lowercase())
            .collect();
        for action in actions {
            let is_called = called.contains(&action.to_ascii_lowercase());
            match reasons.get(name).and_then(|reasons| reasons.get(action)) {
                None if !is_called => found.push(format!("{name} may {action}, and no test has it do that")),
                Some(reason) if reason.text().is_empty() => {
                    found.push(format!("{name}: the reason for {action} is empty"));
                }
                Some(Reason::Never(_)) if is_called => {
                    found.push(format!("{name} does {action}: there is nothing to give a reason for"));
                }
                _ => {}
            }
        }
    }
    for (name, reasons) in reasons {
        let none = Grant::default();
        let actions = &grants.get(name).unwrap_or(&none).actions;
        let idle = reasons.keys().filter(|action| !actions.contains(*action));
        found.extend(
            idle.map(|action| format!("{name} may not {action}: there is nothing to give a reason for")),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(action: &str, allowed: bool) -> Called {
        Called { role: "R".to_owned(), action: action.to_owned(), allowed }
    }

    fn between(granted: &[&str], calls: &[Called], reasons: &str) -> Vec<String> {
        let actions = granted.iter().map(|action| (*action).to_owned()).collect();
        let grant = Grant { actions, roles: BTreeSet::from(["R".to_owned()]) };
        differences(
            &BTreeMap::from([("P".to_owned(), grant)]),
            calls,
            &serde_norway::from_str(reasons).unwrap(),
        )
    }

    #[test]
    fn what_is_called_or_has_a_reason_is_in_order() {
        let calls = [call("s3:GetObject", true), call("logs:PutLogEvents", true)];
        let reasons = "P: {'s3:PutObject': only in a storm, 's3:GetObject': {sometimes: the weather}}";
        assert_eq!(between(&["s3:GetObject", "s3:PutObject"], &calls, reasons), [""; 0]);
    }

    #[test]
    fn each_way_of_disagreeing_is_told() {
        let get = &["s3:GetObject"];
        let called = [call("s3:GetObject", true)];
        assert_eq!(between(get, &[], "{}"), ["P may s3:GetObject, and no test has it do that"]);
        let of_another = [Called { role: "S".to_owned(), ..called[0].clone() }];
        assert_eq!(between(get, &of_another, "{}").len(), 1);
        let needless = between(get, &called, "P: {'s3:GetObject': rare}");
        assert_eq!(needless, ["P does s3:GetObject: there is nothing to give a reason for"]);
        let empty = between(get, &called, "P: {'s3:GetObject': ' '}");
        assert_eq!(empty, ["P: the reason for s3:GetObject is empty"]);
        let unknown = between(&[], &[], "P: {'s3:Got': x}");
        assert_eq!(unknown, ["P may not s3:Got: there is nothing to give a reason for"]);
        assert_eq!(between(&[], &[call("s3:GetObject", false)], "{}"), ["R was denied s3:GetObject"]);
    }
}
