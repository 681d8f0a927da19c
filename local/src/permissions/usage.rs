//! Compares what roles may do with what they did while all tests ran: `ciab-local permissions`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::record::Called;
use super::session::Role;
use crate::template::StackTemplate;

/// Why an action is allowed that the tests do not call: by role and action.
type Reasons = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("{path} cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} holds a line that is no call")]
    NoCall { path: PathBuf, source: serde_json::Error },
    #[error("{path} is no list of roles, actions and reasons")]
    NoReasons { path: PathBuf, source: serde_norway::Error },
    #[error("a role cannot be read: {0}")]
    Role(String),
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
    let mut granted = BTreeMap::new();
    for spec in &template.roles {
        let role = Role::read(spec).map_err(UsageError::Role)?;
        let actions: BTreeSet<String> =
            role.statements.iter().flat_map(|statement| statement.actions().to_vec()).collect();
        granted.insert(spec.logical.clone(), actions);
    }
    Ok(differences(&granted, &calls, &reasons))
}

fn differences(
    granted: &BTreeMap<String, BTreeSet<String>>,
    calls: &[Called],
    reasons: &Reasons,
) -> Vec<String> {
    let mut found = Vec::new();
    for Called { role, action, .. } in calls.iter().filter(|call| !call.allowed) {
        found.push(format!("{role} was denied {action}"));
    }
    for (role, actions) in granted {
        let called: BTreeSet<String> = calls
            .iter()
            .filter(|call| call.allowed && call.role == *role)
            .map(|call| call.action.to_ascii_lowercase())
            .collect();
        let reason = |action: &String| reasons.get(role).and_then(|reasons| reasons.get(action));
        for action in actions {
            let is_called = called.contains(&action.to_ascii_lowercase());
            match reason(action).map(|reason| reason.trim()) {
                None if !is_called => found.push(format!("{role} may {action}, and no test has it do that")),
                Some("") => found.push(format!("{role}: the reason for {action} is empty")),
                Some(_) if is_called => {
                    found.push(format!("{role} does {action}: there is nothing to give a reason for"))
                }
                _ => {}
            }
        }
    }
    for (role, reasons) in reasons {
        let none = BTreeSet::new();
        let actions = granted.get(role).unwrap_or(&none);
        found.extend(
            reasons
                .keys()
                .filter(|action| !actions.contains(*action))
                .map(|action| format!("{role} may not {action}: there is nothing to give a reason for")),
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

    fn between(granted: &[&str], calls: &[Called], reasons: &[(&str, &str)]) -> Vec<String> {
        let set = granted.iter().map(|action| (*action).to_owned()).collect();
        let reasons =
            reasons.iter().map(|(action, reason)| ((*action).to_owned(), (*reason).to_owned())).collect();
        differences(
            &BTreeMap::from([("R".to_owned(), set)]),
            calls,
            &BTreeMap::from([("R".to_owned(), reasons)]),
        )
    }

    #[test]
    fn what_is_called_or_has_a_reason_is_in_order() {
        let calls = [call("s3:GetObject", true), call("logs:PutLogEvents", true)];
        assert_eq!(
            between(&["s3:GetObject", "s3:PutObject"], &calls, &[("s3:PutObject", "only in a storm")]),
            [""; 0]
        );
    }

    #[test]
    fn each_way_of_disagreeing_is_told() {
        assert_eq!(between(&["s3:GetObject"], &[], &[]), ["R may s3:GetObject, and no test has it do that"]);
        let needless = between(&["s3:GetObject"], &[call("s3:GetObject", true)], &[("s3:GetObject", "rare")]);
        assert_eq!(needless, ["R does s3:GetObject: there is nothing to give a reason for"]);
        assert_eq!(
            between(&["s3:GetObject"], &[], &[("s3:GetObject", " ")]),
            ["R: the reason for s3:GetObject is empty"]
        );
        assert_eq!(
            between(&[], &[], &[("s3:Got", "x")]),
            ["R may not s3:Got: there is nothing to give a reason for"]
        );
        assert_eq!(between(&[], &[call("s3:GetObject", false)], &[]), ["R was denied s3:GetObject"]);
    }
}
