//! What of the template nothing else would miss: remove it, and everything still deploys and works, but not as it was decided.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_norway::Value as Yaml;

const TEMPLATE: &str = include_str!("../../../infra/template.yaml");

fn template() -> Yaml {
    serde_norway::from_str(TEMPLATE).unwrap()
}

fn properties(resource: &str) -> Yaml {
    template()["Resources"][resource]["Properties"].clone()
}

/// Name and properties of all of a type.
fn all(kind: &str) -> Vec<(String, Yaml)> {
    let template = template();
    let resources = template["Resources"].as_mapping().unwrap().iter();
    resources
        .filter(|(_, resource)| resource["Type"] == kind)
        .map(|(name, resource)| (name.as_str().unwrap().to_owned(), resource["Properties"].clone()))
        .collect()
}

/// What `!Ref` or `!GetAtt` names.
fn named(value: &Yaml) -> &str {
    match value {
        Yaml::Tagged(tagged) => tagged.value.as_str().unwrap(),
        other => panic!("{other:?} names nothing"),
    }
}

#[test]
fn the_api_is_closed_to_pages_throttled_and_logged_without_keys() {
    let api = properties("HttpApi");
    assert!(api["CorsConfiguration"].is_null());
    assert_eq!(named(&api["DefaultRouteSettings"]["ThrottlingRateLimit"]), "ApiRequestsPerSecond");
    assert_eq!(named(&api["DefaultRouteSettings"]["ThrottlingBurstLimit"]), "ApiRequestBurst");
    assert_eq!(named(&api["AccessLogSettings"]["DestinationArn"]), "HttpApiLogGroup.Arn");
    let line = api["AccessLogSettings"]["Format"].as_str().unwrap();
    assert!(line.contains("$context.requestId") && line.contains("$context.authorizer.key_id"));
    assert!(!line.to_lowercase().contains("header"), "{line}");
    assert_eq!(api["Auth"]["DefaultAuthorizer"], "ApiKey");
}

#[test]
fn every_function_runs_where_the_parameters_say_and_its_log_ends() {
    let globals = template()["Globals"]["Function"].clone();
    assert_eq!(globals["Runtime"], "provided.al2023");
    assert_eq!(named(&globals["Architectures"][0]), "Architecture");
    assert_eq!(named(&globals["Tracing"]), "Tracing");
    let functions = all("AWS::Serverless::Function");
    assert!(functions.len() > 15);
    for (name, function) in functions {
        let group = named(&function["LoggingConfig"]["LogGroup"]).to_owned();
        assert_eq!(named(&properties(&group)["RetentionInDays"]), "LogRetentionDays", "{name}");
        let place = named(&properties(&group)["LogGroupName"]).to_owned();
        assert_eq!(place, format!("/aws/lambda/{}", named(&function["FunctionName"])), "{name}");
        for setting in ["Runtime", "Architectures", "Tracing"] {
            assert!(function[setting].is_null(), "{name} has a {setting} of its own");
        }
    }
    for (name, group) in all("AWS::Logs::LogGroup") {
        assert_eq!(named(&group["RetentionInDays"]), "LogRetentionDays", "{name}");
    }
}

#[test]
fn what_a_schedule_could_not_start_is_kept() {
    let events = |function: &str| properties(&format!("{function}Function"))["Events"].clone();
    let nightly = events("RebuildImages")["Nightly"]["Properties"].clone();
    assert_eq!(named(&nightly["ScheduleExpression"]), "RebuildSchedule");
    assert_eq!(named(&nightly["ScheduleExpressionTimezone"]), "RebuildTimeZone");
    let polls = events("PollBuilds")["EveryMinute"]["Properties"].clone();
    for (schedule, queue, function) in
        [(nightly, "FailedRebuilds.Arn", "RebuildImages"), (polls, "FailedPolls.Arn", "PollBuilds")]
    {
        assert_eq!(named(&schedule["DeadLetterConfig"]["Arn"]), queue);
        let asynchronous = properties(&format!("{function}Function"))["EventInvokeConfig"].clone();
        assert_eq!(named(&asynchronous["DestinationConfig"]["OnFailure"]["Destination"]), queue);
    }
    for (name, queue) in all("AWS::SQS::Queue") {
        assert_eq!(queue["SqsManagedSseEnabled"], true, "{name}");
    }
}

#[test]
fn the_records_are_protected() {
    let table = properties("Table");
    assert_eq!(table["DeletionProtectionEnabled"], true);
    assert_eq!(table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true);
    assert_eq!(table["SSESpecification"]["SSEEnabled"], true);
    for kept in ["Table", "Bucket"] {
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            assert!(
                template()["Resources"][kept][policy].as_str().unwrap().starts_with("Retain"),
                "{policy} of {kept}"
            );
        }
    }
}

#[test]
fn the_bucket_is_private_versioned_forgets_and_speaks_tls_alone() {
    let bucket = properties("Bucket");
    for setting in ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"] {
        assert_eq!(bucket["PublicAccessBlockConfiguration"][setting], true, "{setting}");
    }
    assert_eq!(bucket["VersioningConfiguration"]["Status"], "Enabled");
    let rules = bucket["LifecycleConfiguration"]["Rules"].as_sequence().unwrap();
    let rule = |id: &str| rules.iter().find(|rule| rule["Id"] == id && rule["Status"] == "Enabled").unwrap();
    assert_eq!(rule("builds")["Prefix"], "builds/");
    assert_eq!(named(&rule("builds")["ExpirationInDays"]), "LogRetentionDays");
    assert_eq!(named(&rule("templates")["ExpirationInDays"]), "TemplateRetentionDays");
    assert_eq!(rule("unfinished-uploads")["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"], 1);
    assert_eq!(rule("old-versions")["NoncurrentVersionExpiration"]["NoncurrentDays"], 7);
    let statements = properties("BucketPolicy")["PolicyDocument"]["Statement"].clone();
    let only = &statements.as_sequence().unwrap()[0];
    assert_eq!((only["Effect"].as_str(), only["Principal"].as_str()), (Some("Deny"), Some("*")));
    assert_eq!(only["Action"], "s3:*");
    assert_eq!(only["Condition"]["Bool"]["aws:SecureTransport"], "false");
}

/// Conditions of policies that the local stack does not judge.
#[test]
fn nobody_is_trusted_for_another() {
    let runner = properties("RunnerRole")["AssumeRolePolicyDocument"]["Statement"].clone();
    for statement in runner.as_sequence().unwrap() {
        if statement["Principal"]["Service"] == "codebuild.amazonaws.com" {
            let source = &statement["Condition"]["StringEquals"];
            assert_eq!(named(&source["aws:SourceAccount"]), "AWS::AccountId");
            assert!(named(&source["aws:SourceArn"]).ends_with(":project/${AWS::StackName}-runner"));
        }
    }
    let queue = properties("UntoldBuildsPolicy")["PolicyDocument"]["Statement"].clone();
    for statement in queue.as_sequence().unwrap() {
        assert_eq!(named(&statement["Condition"]["ArnEquals"]["aws:SourceArn"]), "BuildsEndedRule.Arn");
    }
}

#[test]
fn what_to_do_after_a_deployment_is_put_out() {
    let documentation = include_str!("../../../docs/DEPLOY.md");
    for output in ["ServerUrl", "AdminKeyCommand", "BucketName"] {
        assert!(template()["Outputs"][output]["Value"] != Yaml::Null, "no output {output}");
        assert!(documentation.contains(output), "DEPLOY.md does not speak of {output}");
    }
}
