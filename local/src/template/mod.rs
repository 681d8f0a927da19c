//! Reads what the local stack consists of from `infra/template.yaml`, the file that is deployed.
//!
//! Must never add anything of its own to the stack: what is missing in the template is missing locally too.

mod event_source;
mod resolve;
mod roles;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;
use serde_norway::Value as Yaml;

pub(crate) use event_source::EventSourceSpec;
pub(crate) use resolve::StackIdentity;
use resolve::{Resolver, scalar_text};
pub(crate) use roles::RoleSpec;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("{path} cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the template is no YAML")]
    NoYaml(#[from] serde_norway::Error),
    #[error("the template is malformed: {0}")]
    Malformed(String),
    #[error("the template uses {0}, which the local stack does not know")]
    Unsupported(String),
    #[error("the template refers to {0}, which the local stack cannot resolve")]
    Unresolved(String),
    #[error("the template has no parameter {name}; it has {known}")]
    UnknownParameter { name: String, known: String },
    #[error("parameter {name}: {reason}")]
    Parameter { name: String, reason: String },
    #[error("the parameters contradict each other: {0}")]
    Rule(String),
}

/// One Lambda function.
#[derive(Clone, Debug)]
pub(crate) struct FunctionSpec {
    pub(crate) name: String,
    /// The last part of its `CodeUri`; its binary has this name.
    pub(crate) folder: String,
    pub(crate) timeout: Duration,
    pub(crate) memory_mb: u64,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) routes: Vec<RouteSpec>,
    /// Whose permissions it has: the role's logical name.
    pub(crate) role: String,
    /// How often it is invoked by itself.
    pub(crate) every: Option<Duration>,
    /// A schedule by the time of day, which nothing here keeps: it is done on request.
    pub(crate) cron: Option<String>,
    /// The streams whose records it is invoked with.
    pub(crate) event_sources: Vec<EventSourceSpec>,
}

/// One route of the HTTP API.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RouteSpec {
    Path { method: String, path: String, open: bool },
    Default { open: bool },
}

/// What decides on a request before any function but its own sees it.
#[derive(Clone, Debug)]
pub(crate) struct AuthorizerSpec {
    pub(crate) function: String,
    pub(crate) identity_headers: Vec<String>,
    pub(crate) identity_context: Vec<String>,
    pub(crate) reauthorize_every: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct StateMachineSpec {
    pub(crate) name: String,
    pub(crate) arn: String,
    /// Whose permissions it has: the role's logical name.
    pub(crate) role: String,
    pub(crate) definition: String,
}

#[derive(Clone, Debug)]
pub(crate) struct RunnerProjectSpec {
    pub(crate) name: String,
    pub(crate) source_bucket: String,
    pub(crate) source_key: String,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) timeout_minutes: u64,
    /// Whose permissions its builds have: the role's logical name.
    pub(crate) role: String,
}

#[derive(Clone, Debug)]
pub(crate) struct InstanceProfileSpec {
    pub(crate) name: String,
    /// Its role's logical name.
    pub(crate) role: String,
}

#[derive(Clone, Debug)]
pub(crate) struct SecurityGroupSpec {
    pub(crate) name: String,
    pub(crate) description: String,
}

#[derive(Clone, Debug)]
pub(crate) struct LaunchTemplateSpec {
    pub(crate) name: String,
    /// `LaunchTemplateData`, in which a security group's name stands for its id.
    pub(crate) data: Json,
}

/// Everything of the template that the local stack brings to life.
#[derive(Clone, Debug)]
pub(crate) struct StackTemplate {
    pub(crate) functions: Vec<FunctionSpec>,
    pub(crate) authorizer: Option<AuthorizerSpec>,
    /// The properties of every `AWS::DynamoDB::Table`.
    pub(crate) tables: Vec<Json>,
    pub(crate) buckets: Vec<String>,
    /// The names of the queues that nothing but people reads.
    pub(crate) queues: Vec<String>,
    /// The names of the secrets that are made up when the stack is.
    pub(crate) generated_secrets: Vec<String>,
    pub(crate) state_machines: Vec<StateMachineSpec>,
    pub(crate) runner_projects: Vec<RunnerProjectSpec>,
    pub(crate) instance_profiles: Vec<InstanceProfileSpec>,
    pub(crate) roles: Vec<RoleSpec>,
    pub(crate) security_groups: Vec<SecurityGroupSpec>,
    pub(crate) launch_templates: Vec<LaunchTemplateSpec>,
}

/// Reads `template.yaml`, and what it refers to, in the folder.
pub(crate) fn read(
    folder: &Path,
    identity: &StackIdentity,
    overrides: &BTreeMap<String, String>,
) -> Result<StackTemplate, TemplateError> {
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).map_err(|source| TemplateError::Unreadable { path, source })
    };
    let text = read(folder.join("template.yaml"))?;
    parse(&text, identity, overrides, |name| read(folder.join(name)))
}

fn parse(
    text: &str,
    identity: &StackIdentity,
    overrides: &BTreeMap<String, String>,
    read: impl Fn(&str) -> Result<String, TemplateError>,
) -> Result<StackTemplate, TemplateError> {
    let document: Yaml = serde_norway::from_str(text)?;
    let resolver = Resolver::new(&document, identity, overrides)?;
    let mut template = StackTemplate {
        functions: Vec::new(),
        authorizer: None,
        tables: Vec::new(),
        buckets: Vec::new(),
        queues: Vec::new(),
        generated_secrets: Vec::new(),
        state_machines: Vec::new(),
        runner_projects: Vec::new(),
        instance_profiles: Vec::new(),
        roles: Vec::new(),
        security_groups: Vec::new(),
        launch_templates: Vec::new(),
    };
    let resources = document.get("Resources").and_then(Yaml::as_mapping).cloned().unwrap_or_default();
    let managed = roles::Managed::read(&resolver, &resources)?;
    let globals = document.get("Globals").and_then(|globals| globals.get("Function")).unwrap_or(&Yaml::Null);
    for (name, body) in &resources {
        let name = scalar_text(name)?;
        if let Some(condition) = body.get("Condition")
            && !resolver.condition(&scalar_text(condition)?)?
        {
            continue;
        }
        let properties = body.get("Properties").unwrap_or(&Yaml::Null);
        match body.get("Type").and_then(Yaml::as_str).unwrap_or_default() {
            "AWS::Serverless::Function" => {
                template.functions.push(function(&resolver, &name, globals, properties)?);
                template.roles.extend(roles::of_function(&resolver, &managed, &name, globals, properties)?);
            }
            "AWS::Serverless::HttpApi" => template.authorizer = authorizer(&resolver, properties)?,
            "AWS::DynamoDB::Table" => template.tables.push(resolver.resolve(properties)?),
            "AWS::S3::Bucket" => template.buckets.push(required_text(&resolver, properties, "BucketName")?),
            "AWS::SQS::Queue" => template.queues.push(required_text(&resolver, properties, "QueueName")?),
            "AWS::SecretsManager::Secret" => {
                required(properties, "GenerateSecretString")?;
                template.generated_secrets.push(required_text(&resolver, properties, "Name")?);
            }
            "AWS::Serverless::StateMachine" => {
                template.state_machines.push(state_machine(&resolver, &name, properties, &read)?);
                template.roles.push(roles::of_state_machine(&resolver, &managed, &name, properties)?);
            }
            "AWS::CodeBuild::Project" => {
                template.runner_projects.push(runner_project(&resolver, properties)?)
            }
            "AWS::IAM::Role" => template.roles.push(roles::own(&resolver, &managed, &name, properties)?),
            "AWS::IAM::InstanceProfile" => template.instance_profiles.push(InstanceProfileSpec {
                role: role_of_profile(required(properties, "Roles")?)?,
                name: resolver.physical_name(&name)?,
            }),
            "AWS::EC2::SecurityGroup" => template.security_groups.push(SecurityGroupSpec {
                name: resolver.physical_name(&name)?,
                description: required_text(&resolver, properties, "GroupDescription")?,
            }),
            "AWS::EC2::LaunchTemplate" => template.launch_templates.push(LaunchTemplateSpec {
                name: resolver.physical_name(&name)?,
                data: resolver.resolve(required(properties, "LaunchTemplateData")?)?,
            }),
            // Log groups, alarms and rules for events have no part in what runs on one machine.
            _ => {}
        }
    }
    Ok(template)
}

fn required<'y>(properties: &'y Yaml, key: &str) -> Result<&'y Yaml, TemplateError> {
    properties.get(key).ok_or_else(|| TemplateError::Malformed(format!("a resource lacks its {key}")))
}

fn required_text(resolver: &Resolver<'_>, properties: &Yaml, key: &str) -> Result<String, TemplateError> {
    resolver.text(required(properties, key)?)
}

fn function(
    resolver: &Resolver<'_>,
    resource: &str,
    globals: &Yaml,
    properties: &Yaml,
) -> Result<FunctionSpec, TemplateError> {
    let number = |key: &str, default: u64| -> Result<u64, TemplateError> {
        let Some(value) = properties.get(key).or_else(|| globals.get(key)) else { return Ok(default) };
        let text = resolver.text(value)?;
        text.parse()
            .map_err(|_| TemplateError::Malformed(format!("{key} of {resource} is no number: {text}")))
    };
    let mut environment = BTreeMap::new();
    for level in [globals, properties] {
        let variables = level.get("Environment").and_then(|environment| environment.get("Variables"));
        for (key, value) in variables.and_then(Yaml::as_mapping).into_iter().flatten() {
            environment.insert(scalar_text(key)?, resolver.text(value)?);
        }
    }
    let code = required_text(resolver, properties, "CodeUri")?;
    let folder = code.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let role = match properties.get("Role") {
        Some(role) => attribute_of(role)?,
        None => format!("{resource}Role"),
    };
    let mut routes = Vec::new();
    let (mut every, mut cron, mut event_sources) = (None, None, Vec::new());
    for event in
        properties.get("Events").and_then(Yaml::as_mapping).into_iter().flatten().map(|(_, event)| event)
    {
        let details = event.get("Properties").unwrap_or(&Yaml::Null);
        match event.get("Type").and_then(Yaml::as_str).unwrap_or_default() {
            "HttpApi" => routes.push(route(resolver, details)?),
            "DynamoDB" => event_sources.push(event_source::read(resolver, details)?),
            "ScheduleV2" | "Schedule" => {
                let expression = details.get("ScheduleExpression").or_else(|| details.get("Schedule"));
                let expression = resolver.text(expression.unwrap_or(&Yaml::Null))?;
                let state = details.get("State").map(|state| resolver.text(state)).transpose()?;
                if state.as_deref() == Some("DISABLED") {
                    continue;
                }
                if expression.starts_with("cron(") {
                    cron = Some(expression);
                } else {
                    every = Some(rate(&expression)?);
                }
            }
            other => return Err(TemplateError::Unsupported(format!("event type {other} of {resource}"))),
        }
    }
    Ok(FunctionSpec {
        name: required_text(resolver, properties, "FunctionName")?,
        timeout: Duration::from_secs(number("Timeout", 3)?),
        memory_mb: number("MemorySize", 128)?,
        folder,
        environment,
        routes,
        role,
        every,
        cron,
        event_sources,
    })
}

/// The resource of `!GetAtt <resource>.Arn`.
fn attribute_of(value: &Yaml) -> Result<String, TemplateError> {
    let path = match value {
        Yaml::Tagged(tagged) if tagged.tag == "GetAtt" => scalar_text(&tagged.value)?,
        other => return Err(TemplateError::Unsupported(format!("the role {other:?}"))),
    };
    Ok(path.split('.').next().unwrap_or_default().to_owned())
}

/// The resource of `[!Ref <resource>]`.
fn role_of_profile(roles: &Yaml) -> Result<String, TemplateError> {
    match roles.as_sequence().map(Vec::as_slice) {
        Some([Yaml::Tagged(tagged)]) if tagged.tag == "Ref" => scalar_text(&tagged.value),
        _ => Err(TemplateError::Unsupported("an instance profile whose Roles are not one !Ref".to_owned())),
    }
}

fn route(resolver: &Resolver<'_>, details: &Yaml) -> Result<RouteSpec, TemplateError> {
    let authorizer = details.get("Auth").and_then(|auth| auth.get("Authorizer")).and_then(Yaml::as_str);
    let open = authorizer == Some("NONE");
    let Some(path) = details.get("Path") else { return Ok(RouteSpec::Default { open }) };
    let path = resolver.text(path)?;
    if path == "$default" {
        return Ok(RouteSpec::Default { open });
    }
    let method = required_text(resolver, details, "Method")?.to_uppercase();
    Ok(RouteSpec::Path { method, path, open })
}

/// `rate(1 minute)` and the like.
fn rate(expression: &str) -> Result<Duration, TemplateError> {
    let unknown = || TemplateError::Unsupported(format!("the schedule {expression}"));
    let inner =
        expression.strip_prefix("rate(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(unknown)?;
    let (count, unit) = inner.split_once(' ').ok_or_else(unknown)?;
    let count: u64 = count.parse().map_err(|_| unknown())?;
    let seconds = match unit.trim_end_matches('s') {
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return Err(unknown()),
    };
    Ok(Duration::from_secs(count * seconds))
}

fn authorizer(resolver: &Resolver<'_>, properties: &Yaml) -> Result<Option<AuthorizerSpec>, TemplateError> {
    let Some(auth) = properties.get("Auth") else { return Ok(None) };
    let Some(name) = auth.get("DefaultAuthorizer") else { return Ok(None) };
    let name = resolver.text(name)?;
    let details = auth
        .get("Authorizers")
        .and_then(|all| all.get(name.as_str()))
        .ok_or_else(|| TemplateError::Unresolved(format!("authorizer {name}")))?;
    let version = required_text(resolver, details, "AuthorizerPayloadFormatVersion")?;
    let simple = details.get("EnableSimpleResponses").and_then(Yaml::as_bool).unwrap_or(false);
    if version != "2.0" || !simple {
        return Err(TemplateError::Unsupported(
            "an authorizer other than of format 2.0 with simple responses".to_owned(),
        ));
    }
    let arn = required_text(resolver, details, "FunctionArn")?;
    let identity = details.get("Identity").unwrap_or(&Yaml::Null);
    let list = |key: &str| -> Result<Vec<String>, TemplateError> {
        identity
            .get(key)
            .and_then(Yaml::as_sequence)
            .into_iter()
            .flatten()
            .map(|item| resolver.text(item))
            .collect()
    };
    for unknown in ["QueryStrings", "StageVariables"] {
        if identity.get(unknown).is_some() {
            return Err(TemplateError::Unsupported(format!("{unknown} as an authorizer's identity")));
        }
    }
    let identity_context = list("Context")?;
    if let Some(unknown) = identity_context.iter().find(|name| *name != "routeKey") {
        return Err(TemplateError::Unsupported(format!("$context.{unknown} as an authorizer's identity")));
    }
    let seconds = required_text(resolver, identity, "ReauthorizeEvery")?;
    let seconds = seconds
        .parse()
        .map_err(|_| TemplateError::Malformed(format!("ReauthorizeEvery is no number: {seconds}")))?;
    Ok(Some(AuthorizerSpec {
        function: arn.rsplit(':').next().unwrap_or_default().to_owned(),
        identity_headers: list("Headers")?,
        identity_context,
        reauthorize_every: Duration::from_secs(seconds),
    }))
}

fn state_machine(
    resolver: &Resolver<'_>,
    resource: &str,
    properties: &Yaml,
    read: impl Fn(&str) -> Result<String, TemplateError>,
) -> Result<StateMachineSpec, TemplateError> {
    let mut definition = read(&required_text(resolver, properties, "DefinitionUri")?)?;
    let substitutions = properties.get("DefinitionSubstitutions").and_then(Yaml::as_mapping);
    for (key, value) in substitutions.into_iter().flatten() {
        definition = definition.replace(&format!("${{{}}}", scalar_text(key)?), &resolver.text(value)?);
    }
    if let Some(start) = definition.find("${") {
        let rest: String = definition[start..].chars().take(40).collect();
        return Err(TemplateError::Unresolved(format!("a substitution of the state machine at {rest}")));
    }
    let arn = resolver.text(&roles::reference(resource))?;
    let role = format!("{resource}Role");
    Ok(StateMachineSpec { name: required_text(resolver, properties, "Name")?, arn, role, definition })
}

fn runner_project(resolver: &Resolver<'_>, properties: &Yaml) -> Result<RunnerProjectSpec, TemplateError> {
    let location = required_text(resolver, required(properties, "Source")?, "Location")?;
    let (source_bucket, source_key) = location.split_once('/').ok_or_else(|| {
        TemplateError::Malformed(format!("the runner's source is no bucket/key: {location}"))
    })?;
    let mut environment = BTreeMap::new();
    let variables =
        properties.get("Environment").and_then(|environment| environment.get("EnvironmentVariables"));
    for variable in variables.and_then(Yaml::as_sequence).into_iter().flatten() {
        environment
            .insert(required_text(resolver, variable, "Name")?, required_text(resolver, variable, "Value")?);
    }
    Ok(RunnerProjectSpec {
        name: required_text(resolver, properties, "Name")?,
        source_bucket: source_bucket.to_owned(),
        source_key: source_key.to_owned(),
        environment,
        timeout_minutes: properties.get("TimeoutInMinutes").and_then(Yaml::as_u64).unwrap_or(60),
        role: attribute_of(required(properties, "ServiceRole")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(overrides: &[(&str, &str)]) -> Result<StackTemplate, TemplateError> {
        let identity = StackIdentity {
            stack_name: "ciab-local".into(),
            region: "us-east-1".into(),
            account: "123456789012".into(),
            public_parameters: BTreeMap::from([(
                "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64".into(),
                "ami-1".into(),
            )]),
        };
        let all = overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra")), &identity, &all)
    }

    #[test]
    fn the_deployed_template_is_understood_whole() {
        let template = ours(&[]).unwrap();
        let build = template.functions.iter().find(|function| function.folder == "build-image").unwrap();
        assert_eq!(build.name, "ciab-local-build-image");
        let expected = RouteSpec::Path {
            method: "POST".to_owned(),
            path: "/api/v1/images/build".to_owned(),
            open: false,
        };
        assert_eq!(build.routes, [expected]);
        assert_eq!(build.environment["CIAB_TABLE"], "ciab-local");
        assert_eq!(build.environment["CIAB_BUCKET"], "ciab-local-123456789012");
        assert_eq!(
            build.environment["CIAB_STATE_MACHINE_ARN"],
            "arn:aws:states:us-east-1:123456789012:stateMachine:ciab-local-build-image"
        );
        assert!(!build.environment.contains_key("CIAB_ADMIN_KEY_SECRET"));
        assert_eq!(template.generated_secrets, ["ciab-local-admin-key"]);
        let poller = template.functions.iter().find(|function| function.folder == "poll-builds").unwrap();
        assert_eq!((poller.every, &poller.cron), (Some(Duration::from_secs(60)), &None));
        let authorizer = template.authorizer.unwrap();
        assert_eq!(authorizer.function, "ciab-local-authorize-request");
        assert_eq!(authorizer.identity_headers, ["Authorization"]);
        assert_eq!(authorizer.identity_context, ["routeKey"], "an answer for one route is none for another");
        assert_eq!(authorizer.reauthorize_every, Duration::from_secs(60));
        assert_eq!(template.runner_projects[0].source_key, "runner/ciab-runner-x86_64.zip");
        assert_eq!(template.state_machines[0].name, "ciab-local-build-image");
        assert_eq!(template.tables[0]["TableName"], "ciab-local");
    }

    #[test]
    fn traces_may_be_sent_by_all_functions_and_the_state_machine_where_they_are_wanted_and_by_nothing_else() {
        let sending = |overrides: &[(&str, &str)]| -> Vec<String> {
            let may_send = |role: &RoleSpec| {
                let of_aws = role.shared.iter().map(|(_, policy)| policy);
                let mut policies = role.policies.iter().chain(&role.implied).chain(of_aws);
                policies.any(|policy| policy.to_string().contains("xray:PutTraceSegments"))
            };
            let roles = ours(overrides).unwrap().roles;
            roles.into_iter().filter(may_send).map(|role| role.logical).collect()
        };
        assert!(sending(&[]).is_empty());
        assert!(sending(&[("Tracing", "Disabled")]).is_empty());
        let mut expected: Vec<String> =
            ours(&[]).unwrap().functions.into_iter().map(|function| function.role).collect();
        expected.push("BuildImageStateMachineRole".to_owned());
        expected.sort();
        let mut active = sending(&[("Tracing", "Active")]);
        active.sort();
        assert_eq!(active, expected);
    }

    #[test]
    fn the_runners_instances_are_as_closed_as_the_template_says() {
        let template = ours(&[]).unwrap();
        let launch = &template.launch_templates[0];
        assert_eq!(launch.name, "ciab-local-runner");
        assert_eq!(template.functions[0].environment["CIAB_RUNNER_LAUNCH_TEMPLATE"], launch.name);
        assert_eq!(launch.data["ImageId"], "ami-1");
        assert_eq!(launch.data["InstanceInitiatedShutdownBehavior"], "terminate");
        assert_eq!(launch.data["MetadataOptions"]["HttpTokens"], "required");
        assert_eq!(launch.data["SecurityGroupIds"][0], template.security_groups[0].name.as_str());
        assert_eq!(launch.data.get("NetworkInterfaces"), None);
        assert_eq!(launch.data.get("InstanceMarketOptions"), None);
        let subnet =
            [("RunnerSubnetId", "subnet-12345678"), ("RunnerVpcId", "vpc-12345678"), ("RunnerSpot", "true")];
        let launch = &ours(&subnet).unwrap().launch_templates[0];
        assert_eq!(launch.data["NetworkInterfaces"][0]["SubnetId"], "subnet-12345678");
        assert_eq!(launch.data.get("SecurityGroupIds"), None);
        assert_eq!(launch.data["InstanceMarketOptions"]["MarketType"], "spot");
        assert!(ours(&subnet[..1]).unwrap_err().to_string().contains("RunnerVpcId"));
    }

    #[test]
    fn what_is_written_of_builds_goes_to_publish_events_and_what_it_cannot_handle_to_a_queue() {
        let template = ours(&[]).unwrap();
        let of = |function: &&FunctionSpec| !function.event_sources.is_empty();
        let [function] = &template.functions.iter().filter(of).collect::<Vec<_>>()[..] else { panic!("one") };
        assert_eq!(function.folder, "publish-events");
        let [source] = &function.event_sources[..] else { panic!("one stream") };
        assert_eq!(source.table, "ciab-local");
        assert_eq!(template.tables[0]["StreamSpecification"]["StreamViewType"], "NEW_AND_OLD_IMAGES");
        let record = |sort: &str| serde_json::json!({"eventName": "MODIFY", "dynamodb": {"Keys": {"sk": {"S": sort}}}});
        assert!(source.filter.lets_through(&record("BUILD")));
        assert!(!source.filter.lets_through(&record("LEASE")));
        assert!(source.reports_item_failures && source.bisects);
        let queue = source.on_failure.clone().unwrap();
        assert_eq!(queue, "ciab-local-unpublished-events");
        assert!(template.queues.contains(&queue));
    }

    #[test]
    fn a_resource_is_there_only_where_its_condition_holds() {
        let untold = "ciab-local-untold-builds".to_owned();
        assert!(!ours(&[]).unwrap().queues.contains(&untold));
        let topic = [("BuildEventsTopicArn", "arn:aws:sns:us-east-1:123456789012:builds")];
        assert!(ours(&topic).unwrap().queues.contains(&untold));
        assert!(ours(&[("BuildEventsTopicArn", "builds")]).is_err());
    }

    #[test]
    fn every_function_is_named_after_its_folder_and_so_is_its_resource() {
        for function in ours(&[]).unwrap().functions {
            assert_eq!(function.name, format!("ciab-local-{}", function.folder));
            let words = function.folder.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
            let resource = format!("\n  {}Function:\n", words.collect::<String>());
            assert!(include_str!("../../../infra/template.yaml").contains(&resource), "{resource}");
        }
    }

    #[test]
    fn only_health_and_readiness_are_open() {
        let open: Vec<String> = ours(&[])
            .unwrap()
            .functions
            .into_iter()
            .flat_map(|function| function.routes)
            .filter_map(|route| match route {
                RouteSpec::Path { path, open: true, .. } => Some(path),
                RouteSpec::Default { open: true } => Some("$default".to_owned()),
                _ => None,
            })
            .collect();
        assert_eq!(open, ["/health", "/ready"]);
    }

    #[test]
    fn cancelling_has_its_function_and_how_many_builds_run_at_once_is_set_from_outside() {
        let template = ours(&[("ConcurrentBuilds", "20")]).unwrap();
        let cancel = template.functions.iter().find(|function| function.folder == "cancel-build").unwrap();
        let expected = RouteSpec::Path {
            method: "POST".to_owned(),
            path: "/api/v1/images/builds/{build_id}/cancel".to_owned(),
            open: false,
        };
        assert_eq!(cancel.routes, [expected]);
        for function in &template.functions {
            assert_eq!(function.environment["CIAB_CONCURRENT_BUILDS"], "20", "{}", function.name);
        }
        for impossible in ["0", "501", "many"] {
            let error = ours(&[("ConcurrentBuilds", impossible)]).unwrap_err().to_string();
            assert!(error.contains("ConcurrentBuilds"), "{error}");
        }
    }

    #[test]
    fn what_the_authorizer_says_is_kept_as_long_by_the_gateway_as_the_admin_key_by_the_authorizer() {
        let template = ours(&[("AuthorizerCacheSecs", "7")]).unwrap();
        assert_eq!(template.authorizer.unwrap().reauthorize_every, Duration::from_secs(7));
        let function = template.functions.iter().find(|function| function.folder == "authorize-request");
        let environment = &function.unwrap().environment;
        assert_eq!(environment["CIAB_AUTHORIZER_CACHE_SECS"], "7");
        assert_eq!(environment["CIAB_ADMIN_KEY_SECRET"], template.generated_secrets[0]);
        assert!(ours(&[("AuthorizerCacheSecs", "3601")]).unwrap_err().to_string().contains("an hour"));
    }

    #[test]
    fn rebuilds_have_a_schedule_where_there_is_something_to_rebuild() {
        let rebuild = |overrides: &[(&str, &str)]| {
            let functions = ours(overrides).unwrap().functions;
            functions.into_iter().find(|function| function.folder == "rebuild-images").unwrap()
        };
        assert_eq!((rebuild(&[]).every, rebuild(&[]).cron), (None, None));
        let set =
            rebuild(&[("RebuildProviders", "codex,gemini"), ("RebuildSchedule", "cron(30 4 ? * MON *)")]);
        assert_eq!((set.every, set.cron.as_deref()), (None, Some("cron(30 4 ? * MON *)")));
        assert_eq!(set.environment["CIAB_REBUILD_PROVIDERS"], "codex,gemini");
        for impossible in [
            ("RebuildProviders", "copilot"),
            ("RebuildSchedule", "rate(1 minute)"),
            ("RebuildRegions", "eu-west-1"),
            ("KeepImages", "0"),
        ] {
            let error = ours(&[impossible]).unwrap_err().to_string();
            assert!(error.contains(impossible.0), "{error}");
        }
    }

    #[test]
    fn a_region_outside_the_allowed_ones_cannot_be_the_default() {
        let error = ours(&[("DefaultRegion", "eu-west-1")]).unwrap_err().to_string();
        assert!(error.contains("AllowedRegions"), "{error}");
        ours(&[("DefaultRegion", "eu-west-1"), ("AllowedRegions", "us-east-1,eu-west-1")]).unwrap();
    }
}
