//! What a request to AWS asks leave for, by the tables of the Service Authorization Reference ("Actions, resources, and condition keys
//! for AWS services"): which actions, on which resources, with which condition keys.
//!
//! Must never let through what it does not know: a call that is in none of the tables here is an error.

mod ec2;
mod iam;
mod json;
mod s3;

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method};
use ciab_local_ec2::Query;

use super::call::Check;
pub(super) use iam::member_tags;
pub(super) use s3::{form_field, telling_absence};

/// A request, taken apart as far as every service needs.
pub(crate) struct Asked<'a> {
    /// As it is signed: `ec2`, `s3`, `states`, …
    pub(crate) service: &'a str,
    pub(crate) region: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// What of the stack the tables need to name resources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) account: String,
    /// ARNs. A task token does not tell whose it is, so there may be one at most where tokens are used.
    pub(crate) state_machines: Vec<String>,
    /// The partition keys of each table and, by their names, of its indexes.
    pub(crate) tables: BTreeMap<String, TableKeys>,
    /// The role of each instance profile, by the profile's name.
    pub(crate) profile_roles: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TableKeys {
    pub(crate) partition: String,
    pub(crate) indexes: BTreeMap<String, String>,
}

/// A launch, with what its launch template adds.
pub(crate) struct Launch {
    pub(crate) call: Query,
    pub(crate) launch_template: Option<String>,
}

/// The call's form, for the services that are asked by one.
pub(crate) fn form(asked: &Asked<'_>) -> Query {
    Query::parse(Some(asked.query), asked.body)
}

/// All that the request asks for; none for what everybody may. An error says why it cannot be told.
pub(crate) fn checks(
    asked: &Asked<'_>,
    launch: Option<&Launch>,
    surroundings: &Surroundings,
) -> Result<Vec<Check>, String> {
    match asked.service {
        "s3" => s3::checks(asked),
        "ec2" => ec2::checks(&form(asked), asked.region, launch, surroundings),
        "iam" => iam::checks(&form(asked), surroundings),
        "sts" => iam::sts_checks(&form(asked)),
        "lambda" => lambda(asked, surroundings),
        "sns" => sns(&form(asked)),
        _ => json::checks(asked, surroundings),
    }
}

fn lambda(asked: &Asked<'_>, surroundings: &Surroundings) -> Result<Vec<Check>, String> {
    let name = crate::edge::invoked_function(asked.path)
        .filter(|_| asked.method == Method::POST)
        .ok_or_else(|| format!("{} {} of Lambda is in no table", asked.method, asked.path))?;
    let arn = format!("arn:aws:lambda:{}:{}:function:{name}", asked.region, surroundings.account);
    Ok(vec![Check::new("lambda:InvokeFunction", arn)])
}

fn sns(form: &Query) -> Result<Vec<Check>, String> {
    match (form.action(), form.get("TopicArn")) {
        ("Publish", Some(topic)) => Ok(vec![Check::new("sns:Publish", topic)]),
        (action, _) => Err(format!("sns:{action} is in no table")),
    }
}
