//! IAM and STS ("Actions, resources, and condition keys for AWS Identity and Access Management", "… for AWS Security Token Service").

use ciab_local_ec2::Query;

use super::super::call::Check;
use super::Surroundings;

const OF_ROLES: [&str; 17] = [
    "AttachRolePolicy",
    "CreateRole",
    "DeleteRole",
    "DeleteRolePermissionsBoundary",
    "DeleteRolePolicy",
    "DetachRolePolicy",
    "GetRole",
    "GetRolePolicy",
    "ListAttachedRolePolicies",
    "ListInstanceProfilesForRole",
    "ListRolePolicies",
    "ListRoleTags",
    "PutRolePermissionsBoundary",
    "PutRolePolicy",
    "TagRole",
    "UntagRole",
    "UpdateAssumeRolePolicy",
];

const OF_INSTANCE_PROFILES: [&str; 6] = [
    "AddRoleToInstanceProfile",
    "CreateInstanceProfile",
    "DeleteInstanceProfile",
    "GetInstanceProfile",
    "RemoveRoleFromInstanceProfile",
    "TagInstanceProfile",
];

pub(super) fn checks(form: &Query, surroundings: &Surroundings) -> Result<Vec<Check>, String> {
    let action = form.action();
    let arn = |kind: &str, parameter: &str| {
        let name = form.get(parameter).ok_or_else(|| format!("iam:{action} has no {parameter}"))?;
        let path = form.get("Path").filter(|_| action.starts_with("Create")).unwrap_or("/");
        Ok::<_, String>(format!("arn:aws:iam::{}:{kind}{path}{name}", surroundings.account))
    };
    let mut checks = if OF_ROLES.contains(&action) {
        vec![Check::new(format!("iam:{action}"), arn("role", "RoleName")?)]
    } else if OF_INSTANCE_PROFILES.contains(&action) {
        vec![Check::new(format!("iam:{action}"), arn("instance-profile", "InstanceProfileName")?)]
    } else {
        return Err(format!("iam:{action} is in no table"));
    };
    if action == "AddRoleToInstanceProfile" {
        let passed = Check::new("iam:PassRole", arn("role", "RoleName")?);
        checks.push(passed.with("iam:PassedToService", "ec2.amazonaws.com"));
    }
    let tags = member_tags(form);
    let keys = [("iam:PolicyARN", "PolicyArn"), ("iam:PermissionsBoundary", "PermissionsBoundary")];
    Ok(checks
        .into_iter()
        .map(|check| {
            let given = keys.iter().filter_map(|(key, parameter)| Some((key, form.get(parameter)?)));
            given.fold(check.tagging(&tags), |check, (key, value)| check.with(key, value))
        })
        .collect())
}

/// The tags that a call of IAM or STS brings.
pub(in crate::permissions) fn member_tags(form: &Query) -> Vec<(String, String)> {
    let tag = |prefix: &String| {
        let key = form.get(&format!("{prefix}.Key"))?.to_owned();
        Some((key, form.get(&format!("{prefix}.Value")).unwrap_or_default().to_owned()))
    };
    form.structures("Tags.member").iter().filter_map(tag).collect()
}

pub(super) fn sts_checks(form: &Query) -> Result<Vec<Check>, String> {
    match form.action() {
        // "No permissions are required to perform this operation" (STS's API reference).
        "GetCallerIdentity" => Ok(Vec::new()),
        "AssumeRole" => {
            let role = form.get("RoleArn").ok_or("sts:AssumeRole has no RoleArn")?;
            let mut check = Check::new("sts:AssumeRole", role);
            for (key, parameter) in
                [("sts:ExternalId", "ExternalId"), ("sts:RoleSessionName", "RoleSessionName")]
            {
                if let Some(value) = form.get(parameter) {
                    check = check.with(key, value);
                }
            }
            let unknown = ["PolicyArns.", "TransitiveTagKeys.", "SourceIdentity", "ProvidedContexts."];
            if form.names().any(|name| unknown.iter().any(|unknown| name.starts_with(unknown))) {
                return Err(
                    "managed policies, transitive tags and sources of a session are in no table".to_owned()
                );
            }
            let tags = member_tags(form);
            let check = check.tagging(&tags);
            // "Pass session tags in AWS STS": whoever passes tags needs leave for that too.
            let tagging = Check { action: "sts:TagSession".to_owned(), ..check.clone() };
            Ok(if tags.is_empty() { vec![check] } else { vec![check, tagging] })
        }
        action => Err(format!("sts:{action} is in no table")),
    }
}
