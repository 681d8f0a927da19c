//! Roles, and sessions of them: a function, a runner, or whoever took a role on by AssumeRole.
//!
//! A session may do what its role's policies allow, within the role's boundary and within the policy that the session was begun with
//! (IAM User Guide, "Policy evaluation logic").

use std::sync::Arc;

use serde_json::Value as Json;

use super::call::Check;
use super::policy::{self, Effect, Principals, Statement, Verdict};
use crate::template::RoleSpec;

/// A role, read.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) logical: String,
    pub(crate) arn: String,
    pub(crate) statements: Vec<Statement>,
    pub(crate) implied: Vec<Statement>,
    pub(crate) boundary: Option<Vec<Statement>>,
    trust: Vec<(Statement, Principals)>,
}

/// How a role's trust policy speaks of somebody.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trust {
    /// By the ARN of their role: that is enough within an account.
    Named,
    /// By the account, whose own policies decide then.
    Account,
}

impl Role {
    pub(crate) fn read(spec: &RoleSpec) -> Result<Self, String> {
        let all = |policies: &[Json]| -> Result<Vec<Statement>, String> {
            let read: Result<Vec<_>, _> = policies.iter().map(policy::parse).collect();
            Ok(read?.concat())
        };
        let shared: Vec<Json> = spec.shared.iter().map(|(_, policy)| policy.clone()).collect();
        let shared = all(&shared)?;
        Ok(Self {
            logical: spec.logical.clone(),
            arn: spec.arn.clone(),
            statements: [all(&spec.policies)?, shared].concat(),
            implied: all(&spec.implied)?,
            boundary: spec.boundary.as_ref().map(policy::parse).transpose()?,
            trust: policy::parse_trust(&spec.trust)?,
        })
    }

    pub(crate) fn replace(&mut self, from: &str, to: &str) {
        let boundary = self.boundary.iter_mut().flatten();
        for statement in self.statements.iter_mut().chain(&mut self.implied).chain(boundary) {
            statement.replace(from, to);
        }
    }

    /// Whether the role lets this caller take it on.
    pub(crate) fn trusts(&self, caller: &Session, check: &Check) -> Option<Trust> {
        let account = caller.role.arn.split(':').nth(4).unwrap_or_default();
        let root = format!("arn:aws:iam::{account}:root");
        let mut trust = None;
        for (statement, principals) in &self.trust {
            let named = principals.arns.iter().any(|arn| *arn == caller.role.arn || *arn == caller.arn);
            let by_account = principals.arns.iter().any(|arn| *arn == root || arn == account || arn == "*");
            if !(named || by_account) || !statement.applies(check) {
                continue;
            }
            match statement.effect {
                Effect::Deny => return None,
                Effect::Allow if named => trust = Some(Trust::Named),
                Effect::Allow => trust = trust.or(Some(Trust::Account)),
            }
        }
        trust
    }
}

/// Somebody with a role.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) role: Arc<Role>,
    /// Of the session itself: `arn:aws:sts::123456789012:assumed-role/…`.
    pub(crate) arn: String,
    /// The policies that it was begun with; each must allow what it does.
    policies: Vec<Vec<Statement>>,
    /// What it was begun with, and `${aws:PrincipalTag/…}` stands for.
    tags: Vec<(String, String)>,
}

impl Session {
    /// What a service of AWS begins for a function, a project or an instance.
    pub(crate) fn of_role(role: Arc<Role>) -> Self {
        let arn = session_arn(&role.arn, "local");
        Self { role, arn, policies: Vec::new(), tags: Vec::new() }
    }

    /// What AssumeRole begins.
    pub(crate) fn assumed(
        role: Arc<Role>,
        name: &str,
        policy: Option<Vec<Statement>>,
        tags: Vec<(String, String)>,
    ) -> Self {
        let arn = session_arn(&role.arn, name);
        Self { role, arn, policies: policy.into_iter().collect(), tags }
    }

    /// The check with what conditions may ask of the caller.
    pub(crate) fn introduce(&self, check: Check) -> Check {
        let account = self.role.arn.split(':').nth(4).unwrap_or_default().to_owned();
        let tag = |check: Check, (key, value): &(String, String)| {
            check.with(&format!("aws:PrincipalTag/{key}"), value)
        };
        self.tags
            .iter()
            .fold(check, tag)
            .with("aws:PrincipalArn", &self.role.arn)
            .with("aws:PrincipalAccount", &account)
            .with("aws:ResourceAccount", account)
            // In AWS, where all calls are made over TLS.
            .with("aws:SecureTransport", "true")
            .with("aws:CurrentTime", jiff::Timestamp::now().to_string())
    }

    /// Says why not, if it may not.
    pub(crate) fn judge(&self, check: &Check) -> Result<(), String> {
        let identity = self.role.statements.iter().chain(&self.role.implied);
        match policy::judge(identity, check) {
            Verdict::Allowed => self.judge_leniently(check),
            Verdict::Silent => Err("no identity-based policy allows it".to_owned()),
            Verdict::Forbidden => Err("an identity-based policy denies it".to_owned()),
        }
    }

    /// Without asking that the role's own policies allow it: somebody else's policy already has.
    pub(crate) fn judge_leniently(&self, check: &Check) -> Result<(), String> {
        if policy::judge(&self.role.statements, check) == Verdict::Forbidden {
            return Err("an identity-based policy denies it".to_owned());
        }
        let boundary = self.role.boundary.iter().map(|boundary| (boundary, "the permissions boundary"));
        let policies = self.policies.iter().map(|policy| (policy, "the session's policy"));
        for (statements, whose) in boundary.chain(policies) {
            if policy::judge(statements, check) != Verdict::Allowed {
                return Err(format!("{whose} does not allow it"));
            }
        }
        Ok(())
    }

    /// Whether any statement on this action depends on the resource's tags.
    pub(crate) fn looks_at_tags(&self, check: &Check) -> bool {
        let all = self.role.statements.iter().chain(self.role.boundary.iter().flatten());
        let mut all = all.chain(self.policies.iter().flatten());
        all.any(|statement| {
            statement.names_action(&check.action)
                && statement.conditions.iter().any(|condition| condition.key.contains(":resourcetag/"))
        })
    }
}

fn session_arn(role_arn: &str, name: &str) -> String {
    let role = role_arn.rsplit('/').next().unwrap_or_default();
    let account = role_arn.split(':').nth(4).unwrap_or_default();
    format!("arn:aws:sts::{account}:assumed-role/{role}/{name}")
}

/// STS's answer to AssumeRole. Nobody checks the secret here, but it must look like one: a runner masks it in its build's log, and a word
/// would be masked wherever it stands.
pub(crate) fn credentials(session: &Session, key: &str, expires: &str) -> String {
    let [secret, token, request] = std::array::from_fn(|_| uuid::Uuid::new_v4().simple());
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser><AssumedRoleId>\
         {key}:session</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser><Credentials><AccessKeyId>{key}</AccessKeyId>\
         <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken><Expiration>{expires}</Expiration></Credentials>\
         </AssumeRoleResult><ResponseMetadata><RequestId>{request}</RequestId></ResponseMetadata></AssumeRoleResponse>",
        arn = session.arn
    )
}
