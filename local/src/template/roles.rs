//! Who may do what, as the template has it: its own roles, and those that SAM makes of a function's or a state machine's `Policies`.
//!
//! Must never leave out a policy: one that cannot be read here is an error.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use serde_norway::Value as Yaml;

use super::resolve::{Resolver, scalar_text};
use super::{TemplateError, required};

/// One role.
#[derive(Clone, Debug)]
pub(crate) struct RoleSpec {
    /// Its logical name, as CloudFormation shows it.
    pub(crate) logical: String,
    pub(crate) arn: String,
    /// The policies that the template writes down for it alone.
    pub(crate) policies: Vec<Json>,
    /// Those that it shares with others, by their logical names.
    pub(crate) shared: Vec<(String, Json)>,
    /// Those that SAM adds, for what Lambda itself does in the function's name.
    pub(crate) implied: Vec<Json>,
    pub(crate) boundary: Option<Json>,
    pub(crate) trust: Json,
}

/// The template's own policies with their logical names, by their ARNs.
pub(super) struct Managed(BTreeMap<String, (String, Json)>);

impl Managed {
    pub(super) fn read(
        resolver: &Resolver<'_>,
        resources: &serde_norway::Mapping,
    ) -> Result<Self, TemplateError> {
        let mut policies = BTreeMap::new();
        for (name, body) in resources {
            let (name, properties) = (scalar_text(name)?, body.get("Properties").unwrap_or(&Yaml::Null));
            match body.get("Type").and_then(Yaml::as_str).unwrap_or_default() {
                "AWS::IAM::ManagedPolicy" => {
                    if let Some(attached) =
                        ["Roles", "Users", "Groups"].iter().find(|key| properties.get(**key).is_some())
                    {
                        return Err(TemplateError::Unsupported(format!("{attached} of the policy {name}")));
                    }
                    let document = resolver.resolve(required(properties, "PolicyDocument")?)?;
                    policies.insert(resolver.text(&reference(&name))?, (name, document));
                }
                "AWS::IAM::Policy" | "AWS::IAM::RolePolicy" => {
                    return Err(TemplateError::Unsupported(format!("{name}, a policy beside its role")));
                }
                _ => {}
            }
        }
        Ok(Self(policies))
    }

    /// With its logical name, or AWS's.
    fn named(&self, arn: &str) -> Result<(String, Json), TemplateError> {
        if let Some(policy) = self.0.get(arn) {
            return Ok(policy.clone());
        }
        Ok((arn.rsplit('/').next().unwrap_or_default().to_owned(), self.find(arn)?))
    }

    fn find(&self, name: &str) -> Result<Json, TemplateError> {
        if let Some((_, document)) = self.0.get(name) {
            return Ok(document.clone());
        }
        // SAM takes a managed policy of AWS by its name alone.
        let short = name.rsplit('/').next().unwrap_or_default();
        of_aws(short).ok_or_else(|| TemplateError::Unsupported(format!("the managed policy {name}")))
    }
}

/// `!Ref name`
pub(super) fn reference(name: &str) -> Yaml {
    let tag = serde_norway::value::Tag::new("Ref");
    Yaml::Tagged(Box::new(serde_norway::value::TaggedValue { tag, value: Yaml::String(name.to_owned()) }))
}

/// What AWS's own policies allow (AWS Managed Policy Reference).
fn of_aws(name: &str) -> Option<Json> {
    let logs = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"];
    let actions: Vec<&str> = match name {
        "AWSLambdaBasicExecutionRole" => logs.to_vec(),
        "AWSLambdaDynamoDBExecutionRole" => {
            let stream = [
                "dynamodb:DescribeStream",
                "dynamodb:GetRecords",
                "dynamodb:GetShardIterator",
                "dynamodb:ListStreams",
            ];
            [stream.as_slice(), &logs].concat()
        }
        "AWSXRayDaemonWriteAccess" => vec![
            "xray:GetSamplingRules",
            "xray:GetSamplingStatisticSummaries",
            "xray:GetSamplingTargets",
            "xray:PutTelemetryRecords",
            "xray:PutTraceSegments",
        ],
        _ => return None,
    };
    Some(
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}),
    )
}

fn trust_of(service: &str) -> Json {
    let statement = json!({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"});
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

/// The role that SAM makes for a function, and one that is the template's own where the function names it.
pub(super) fn of_function(
    resolver: &Resolver<'_>,
    managed: &Managed,
    resource: &str,
    globals: &Yaml,
    properties: &Yaml,
) -> Result<Option<RoleSpec>, TemplateError> {
    if properties.get("Role").is_some() {
        return Ok(None);
    }
    let mut implied = vec![managed.find("AWSLambdaBasicExecutionRole")?];
    let tracing = properties.get("Tracing").or_else(|| globals.get("Tracing"));
    if tracing.map(|tracing| resolver.text(tracing)).transpose()?.as_deref() == Some("Active") {
        implied.push(managed.find("AWSXRayDaemonWriteAccess")?);
    }
    let events = properties.get("Events").and_then(Yaml::as_mapping).into_iter().flatten();
    for (_, event) in events.filter(|(_, event)| event.get("Type").and_then(Yaml::as_str) == Some("DynamoDB"))
    {
        let stream = managed.find("AWSLambdaDynamoDBExecutionRole")?;
        if !implied.contains(&stream) {
            implied.push(stream);
        }
        let destinations = event.get("Properties").and_then(|details| details.get("DestinationConfig"));
        if let Some(destinations) = destinations {
            let queue = super::required_text(resolver, required(destinations, "OnFailure")?, "Destination")?;
            let statement = json!({"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue});
            implied.push(json!({"Version": "2012-10-17", "Statement": [statement]}));
        }
    }
    made_by_sam(resolver, managed, resource, properties, "lambda.amazonaws.com", implied).map(Some)
}

pub(super) fn of_state_machine(
    resolver: &Resolver<'_>,
    managed: &Managed,
    resource: &str,
    properties: &Yaml,
) -> Result<RoleSpec, TemplateError> {
    made_by_sam(resolver, managed, resource, properties, "states.amazonaws.com", Vec::new())
}

fn made_by_sam(
    resolver: &Resolver<'_>,
    managed: &Managed,
    resource: &str,
    properties: &Yaml,
    service: &str,
    implied: Vec<Json>,
) -> Result<RoleSpec, TemplateError> {
    let logical = format!("{resource}Role");
    let written = properties.get("Policies").map(|policies| resolver.resolve(policies)).transpose()?;
    let written = match written {
        None => Vec::new(),
        Some(Json::Array(policies)) => policies,
        Some(one) => vec![one],
    };
    let (mut policies, mut shared) = (Vec::new(), Vec::new());
    for policy in written {
        match policy {
            Json::String(name) => shared.push(managed.named(&name)?),
            Json::Object(ref entries) if entries.contains_key("Statement") => policies.push(policy),
            other => return Err(TemplateError::Unsupported(format!("the policy {other} of {resource}"))),
        }
    }
    Ok(RoleSpec {
        arn: resolver.role_arn(&logical),
        policies,
        shared,
        implied,
        boundary: boundary(resolver, managed, properties)?,
        trust: trust_of(service),
        logical,
    })
}

/// An `AWS::IAM::Role`.
pub(super) fn own(
    resolver: &Resolver<'_>,
    managed: &Managed,
    logical: &str,
    properties: &Yaml,
) -> Result<RoleSpec, TemplateError> {
    let list = |key: &str| -> Result<Vec<Json>, TemplateError> {
        match properties.get(key).map(|value| resolver.resolve(value)).transpose()? {
            None => Ok(Vec::new()),
            Some(Json::Array(items)) => Ok(items),
            Some(other) => Err(TemplateError::Malformed(format!("{key} of {logical} is no list: {other}"))),
        }
    };
    let mut policies = Vec::new();
    for policy in list("Policies")? {
        let document = policy.get("PolicyDocument").cloned();
        policies.push(
            document
                .ok_or_else(|| TemplateError::Malformed(format!("a policy of {logical} has no document")))?,
        );
    }
    let shared = list("ManagedPolicyArns")?;
    let shared: Result<_, _> =
        shared.iter().map(|name| managed.named(name.as_str().unwrap_or_default())).collect();
    Ok(RoleSpec {
        logical: logical.to_owned(),
        arn: format!("arn:aws:iam::{}:role/{}", crate::ACCOUNT, resolver.physical_name(logical)?),
        policies,
        shared: shared?,
        implied: Vec::new(),
        boundary: boundary(resolver, managed, properties)?,
        trust: resolver.resolve(required(properties, "AssumeRolePolicyDocument")?)?,
    })
}

fn boundary(
    resolver: &Resolver<'_>,
    managed: &Managed,
    properties: &Yaml,
) -> Result<Option<Json>, TemplateError> {
    let Some(boundary) = properties.get("PermissionsBoundary") else { return Ok(None) };
    managed.find(&resolver.text(boundary)?).map(Some)
}
