//! IAM on one machine: every call to AWS of functions, runner and Packer is judged by the role that its access key stands for, as
//! `infra/template.yaml` has it, conditions included.
//!
//! Must never allow what it cannot judge. Only the operator's key, by which the stack itself and those that look at it from outside
//! call, is not asked. Signatures are not checked: this finds out what a role lacks or has too much of, and keeps nobody out.

mod call;
mod condition;
mod denial;
mod pattern;
mod policy;
mod record;
mod request;
mod session;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, Uri};
use bytes::Bytes;
use ciab_local_ec2::{Ec2, Query};
use serde_json::Value as Json;

use crate::template::StackTemplate;
use call::Check;
use denial::Denial;
use record::Record;
use request::{Asked, Launch, Surroundings, TableKeys};
use session::{Role, Session, Trust};
pub(crate) use usage::compare as compare_usage;

/// The key that moto's Step Functions interpreter signs its calls with.
const INTERPRETER_KEY: &str = "ak";

/// A request as far as it is judged by.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Empty where only method and address are needed.
    pub(crate) body: Bytes,
}

/// Who signed a request, and for what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Signature {
    pub(crate) key: String,
    pub(crate) region: String,
    pub(crate) service: String,
}

impl Signature {
    /// Of the header, of the address, or of an upload's form. None for a request that nobody signed.
    pub(crate) fn of(incoming: &Incoming) -> Option<Self> {
        let header = incoming.headers.get("authorization").and_then(|value| value.to_str().ok());
        let in_header = header.and_then(|header| {
            Some(header.split_once("Credential=")?.1.split([',', ' ']).next()?.to_owned())
        });
        let in_address = || {
            let query = incoming.uri.query().unwrap_or_default();
            let mut parameters = form_urlencoded::parse(query.as_bytes());
            parameters
                .find(|(name, _)| name.eq_ignore_ascii_case("x-amz-credential"))
                .map(|(_, value)| value.into_owned())
        };
        let in_form = || request::form_field(&incoming.body, "x-amz-credential");
        let credential = in_header.or_else(in_address).or_else(in_form)?;
        let mut parts = credential.split('/');
        let key = parts.next()?.to_owned();
        let (region, service) = (parts.nth(1)?.to_owned(), parts.next()?.to_owned());
        Some(Self { key, region, service })
    }

    /// Whether whoever signed is not asked.
    pub(crate) fn is_operators(&self) -> bool {
        self.key == crate::ACCESS_KEY_ID
    }
}

/// What EC2 knows that a call does not say.
pub(crate) trait Facts: Sync {
    /// A RunInstances call with what its launch template adds, and the template's id if it names one.
    fn launched(&self, region: &str, call: Query) -> impl Future<Output = (Query, Option<String>)> + Send;
    /// The tags of a thing; none for what does not exist.
    fn tags(
        &self,
        region: &str,
        kind: &str,
        id: &str,
    ) -> impl Future<Output = BTreeMap<String, String>> + Send;
}

impl Facts for Ec2 {
    async fn launched(&self, region: &str, call: Query) -> (Query, Option<String>) {
        Self::launched(self, region, call).await
    }

    async fn tags(&self, region: &str, kind: &str, id: &str) -> BTreeMap<String, String> {
        Self::tags(self, region, kind, id).await
    }
}

/// Who it is that may.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    Operator,
    Role(Session),
}

/// All roles of the stack, and who has them.
pub(crate) struct Permissions {
    surroundings: Surroundings,
    /// By their logical names, which are their access keys too.
    roles: RwLock<BTreeMap<String, Role>>,
    /// The role that the interpreter's calls are made with.
    interpreters: Option<String>,
    sessions: Mutex<HashMap<String, Session>>,
    record: Record,
}

impl Permissions {
    /// Reads every role of the template. What is called is appended to the file, where there is one.
    pub(crate) fn new(template: &StackTemplate, record: Option<&Path>) -> Result<Self, String> {
        let mut roles = BTreeMap::new();
        for spec in &template.roles {
            let role = Role::read(spec).map_err(|error| format!("{}: {error}", spec.logical))?;
            roles.insert(spec.logical.clone(), role);
        }
        let interpreters = match template.state_machines.as_slice() {
            [] => None,
            [machine] => Some(machine.role.clone()),
            _ => return Err("the calls of several state machines cannot be told apart".to_owned()),
        };
        let tables = template.tables.iter().filter_map(table_keys).collect();
        let profile_role = |profile: &crate::template::InstanceProfileSpec| {
            Some((profile.name.clone(), roles.get(&profile.role)?.arn.clone()))
        };
        let surroundings = Surroundings {
            account: crate::ACCOUNT.to_owned(),
            state_machines: template.state_machines.iter().map(|machine| machine.arn.clone()).collect(),
            tables,
            profile_roles: template.instance_profiles.iter().filter_map(profile_role).collect(),
        };
        let record =
            Record::open(record).map_err(|error| format!("the record of calls cannot be opened: {error}"))?;
        Ok(Self { surroundings, roles: RwLock::new(roles), interpreters, sessions: Mutex::default(), record })
    }

    /// Puts ids in the place of names, for what EC2 names when it makes it: pairs such as `launch-template/name` and
    /// `launch-template/lt-1`.
    pub(crate) fn learn(&self, ids: &[(String, String)]) {
        let mut roles = self.roles.write().unwrap_or_else(PoisonError::into_inner);
        for role in roles.values_mut() {
            ids.iter().for_each(|(name, id)| role.replace(name, id));
        }
    }

    /// Whether the request's body is needed to judge it. Objects are judged by their addresses, so that they can be streamed.
    pub(crate) fn needs_body(method: &Method, signature: Option<&Signature>) -> bool {
        match signature {
            Some(signature) => signature.service != "s3",
            // An upload by a form.
            None => *method == Method::POST,
        }
    }

    /// Whether the request is one that is answered here.
    pub(crate) fn is_assume_role(incoming: &Incoming, signature: Option<&Signature>) -> bool {
        signature.is_some_and(|signature| signature.service == "sts")
            && Query::parse(incoming.uri.query(), &incoming.body).action() == "AssumeRole"
    }

    /// Allows the request, or answers it as AWS would a caller who may not. `ec2` is where tags and launch templates are asked for.
    pub(crate) async fn judge(
        &self,
        incoming: &Incoming,
        ec2: Option<&impl Facts>,
    ) -> Result<Allowed, Denial> {
        let Some(signature) = Signature::of(incoming) else { return Err(Denial::unsigned(incoming)) };
        if signature.is_operators() {
            return Ok(Allowed::Operator);
        }
        let denied = |reason: String| Denial::new(&signature, incoming, reason);
        let session =
            self.session(&signature.key).ok_or_else(|| denied("its access key is not known".to_owned()))?;
        let asked = asked(incoming, &signature);
        let launch = match ec2 {
            Some(ec2) if signature.service == "ec2" => {
                let form = request::form(&asked);
                if form.action() == "RunInstances" {
                    let (call, launch_template) = ec2.launched(&signature.region, form).await;
                    Some(Launch { call, launch_template })
                } else {
                    None
                }
            }
            _ => None,
        };
        let checks = request::checks(&asked, launch.as_ref(), &self.surroundings).map_err(|reason| {
            self.record.note(&session.role.logical, &reason, false);
            denied(reason)
        })?;
        for check in checks {
            let check = match (&check.tagged, ec2) {
                (Some(tagged), Some(ec2)) if session.looks_at_tags(&check) => {
                    let tags = ec2.tags(&signature.region, tagged.kind, &tagged.id).await;
                    check.with_resource_tags(&tags)
                }
                _ => check,
            };
            let check = check.with("aws:RequestedRegion", &signature.region);
            self.judge_check(&session, check).map_err(denied)?;
        }
        Ok(Allowed::Role(session))
    }

    /// Whether a role may learn that an object is not there, by a request for it that was allowed.
    pub(crate) fn may_tell_absence(&self, session: &Session, incoming: &Incoming) -> Result<(), Denial> {
        let path = crate::gateway::decoded(incoming.uri.path().trim_start_matches('/'));
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        self.judge_check(session, request::telling_absence(bucket, key)).map_err(|reason| {
            let Some(signature) = Signature::of(incoming) else { return Denial::unsigned(incoming) };
            Denial::new(&signature, incoming, reason)
        })
    }

    fn judge_check(&self, session: &Session, check: Check) -> Result<(), String> {
        let check = session.introduce(check);
        let outcome = if ["sts:AssumeRole", "sts:TagSession"].contains(&check.action.as_str()) {
            let role = self.role_of_arn(&check.resource);
            match role.and_then(|role| role.trusts(session, &check)) {
                None => Err("the role does not trust the caller".to_owned()),
                Some(Trust::Named) => session.judge_leniently(&check),
                Some(Trust::Account) => session.judge(&check),
            }
        } else {
            session.judge(&check)
        };
        self.record.note(&session.role.logical, &check.action, outcome.is_ok());
        outcome.map_err(|reason| {
            let Check { action, resource, .. } = &check;
            tracing::warn!(role = session.role.logical, action, resource, "denied: {reason}");
            format!(
                "User: {} is not authorized to perform: {action} on resource: {resource} because {reason}",
                session.arn
            )
        })
    }

    fn role_of_arn(&self, arn: &str) -> Option<Arc<Role>> {
        let roles = self.roles.read().unwrap_or_else(PoisonError::into_inner);
        roles.values().find(|role| role.arn == arn).map(|role| Arc::new(role.clone()))
    }

    /// Answers an AssumeRole that was allowed: credentials whose key stands for the role, within the policy that came along.
    pub(crate) fn assume(&self, incoming: &Incoming) -> Response<Body> {
        let form = Query::parse(incoming.uri.query(), &incoming.body);
        let Some(signature) = Signature::of(incoming) else {
            return Denial::unsigned(incoming).into_response();
        };
        let refused = |reason: String| Denial::new(&signature, incoming, reason).into_response();
        let Some(role) = form.get("RoleArn").and_then(|arn| self.role_of_arn(arn)) else {
            return refused("the role does not exist".to_owned());
        };
        let policy = form.get("Policy").map(|text| {
            let document = serde_json::from_str::<Json>(text).map_err(|error| error.to_string())?;
            policy::parse(&document)
        });
        let policy = match policy.transpose() {
            Ok(policy) => policy,
            Err(reason) => return refused(format!("the session's policy cannot be read: {reason}")),
        };
        let name = form.get("RoleSessionName").unwrap_or_default();
        let session = Session::assumed(role, name, policy, request::member_tags(&form));
        let seconds =
            form.get("DurationSeconds").and_then(|seconds| seconds.parse::<i64>().ok()).unwrap_or(3600);
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds.clamp(900, 43_200));
        let key = format!("ASIA{}", uuid::Uuid::new_v4().simple());
        let body = session::credentials(&session, &key, &expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        lock(&self.sessions).insert(key, session);
        let mut response = Response::new(Body::from(body));
        let xml = axum::http::HeaderValue::from_static("text/xml");
        response.headers_mut().insert(axum::http::header::CONTENT_TYPE, xml);
        response
    }

    fn session(&self, key: &str) -> Option<Session> {
        let key = if key == INTERPRETER_KEY { self.interpreters.as_deref()? } else { key };
        if let Some(role) = self.roles.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(Session::of_role(Arc::new(role.clone())));
        }
        lock(&self.sessions).get(key).cloned()
    }
}

fn asked<'a>(incoming: &'a Incoming, signature: &'a Signature) -> Asked<'a> {
    Asked {
        service: &signature.service,
        region: &signature.region,
        method: &incoming.method,
        path: incoming.uri.path(),
        query: incoming.uri.query().unwrap_or_default(),
        headers: &incoming.headers,
        body: &incoming.body,
    }
}

fn table_keys(properties: &Json) -> Option<(String, TableKeys)> {
    let partition = |schema: &Json| {
        let mut keys = schema.as_array()?.iter();
        Some(keys.find(|key| key["KeyType"] == "HASH")?["AttributeName"].as_str()?.to_owned())
    };
    let indexes = properties["GlobalSecondaryIndexes"].as_array().into_iter().flatten();
    let indexes = indexes
        .filter_map(|index| Some((index["IndexName"].as_str()?.to_owned(), partition(&index["KeySchema"])?)));
    let keys = TableKeys { partition: partition(&properties["KeySchema"])?, indexes: indexes.collect() };
    Some((properties["TableName"].as_str()?.to_owned(), keys))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
