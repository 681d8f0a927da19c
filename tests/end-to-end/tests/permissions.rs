//! The running stack refuses what a role of the template does not allow, in the words of AWS. All other tests run under the same roles.

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, templates};
use local_stack::{StackParts, http_client};
use serde_json::json;

/// A call signed by a role: its status and answer.
fn call(
    scene: &Scene,
    role: &str,
    service: &str,
    headers: &[(&str, &str)],
    path: &str,
    body: Option<&str>,
) -> Result<(u16, String)> {
    let url = format!("{}{path}", scene.aws_endpoint_url().trim_end_matches('/'));
    let signature = format!(
        "AWS4-HMAC-SHA256 Credential={role}/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    );
    let agent = http_client::agent();
    let mut answer = match body {
        None => agent.get(url).header("Authorization", signature).call()?,
        Some(body) => {
            let mut request = agent.post(url).header("Authorization", signature);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.send(body)?
        }
    };
    Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
}

const BUCKET: &str = "/ciab-local-123456789012";

#[test]
fn a_role_is_refused_what_the_template_does_not_allow_it() -> Result<()> {
    // These refusals are wanted, so they are no part of what is compared with the roles.
    let scene = Scene::start(&StackParts::from_environment()?, &["--called-actions", "/dev/null"])?;
    let outcome = refusals(&scene).and_then(|()| absence(&scene)).and_then(|()| strangers(&scene));
    scene.end(outcome)
}

fn refusals(scene: &Scene) -> Result<()> {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let terminate = "Action=TerminateInstances&InstanceId.1=i-0123456789abcdef0";
    let (status, answer) = call(scene, "CleanUpFunctionRole", "ec2", &form, "/", Some(terminate))?;
    ensure!(status == 403 && answer.contains("<Code>UnauthorizedOperation</Code>"), "{status} {answer}");

    let elsewhere = "Action=DescribeVpcs";
    let (status, answer) = call(scene, "CleanUpFunctionRole", "ec2", &form, "/", Some(elsewhere))?;
    ensure!(status == 403 && answer.contains("ec2:DescribeVpcs"), "{status} {answer}");

    let target = [("X-Amz-Target", "DynamoDB_20120810.Scan")];
    let scan = r#"{"TableName": "ciab-local"}"#;
    let (status, answer) = call(scene, "GetBuildFunctionRole", "dynamodb", &target, "/", Some(scan))?;
    ensure!(status == 400 && answer.contains("AccessDeniedException"), "{status} {answer}");

    let path = format!("{BUCKET}/builds/b/input.json");
    let (status, answer) = call(scene, "GetBuildFunctionRole", "s3", &[], &path, None)?;
    ensure!(status == 403 && answer.contains("<Code>AccessDenied</Code>"), "{status} {answer}");
    Ok(())
}

/// Who may list learns that an object is not there, and nobody else does.
fn absence(scene: &Scene) -> Result<()> {
    let path = format!("{BUCKET}/builds/b/log/000001.ndjson");
    let (status, answer) = call(scene, "GetBuildFunctionRole", "s3", &[], &path, None)?;
    ensure!(status == 404, "{status} {answer}");
    let path = format!("{BUCKET}/builds/b/template.tar.gz");
    let (status, answer) = call(scene, "RunnerRole", "s3", &[], &path, None)?;
    ensure!(status == 403 && answer.contains("AccessDenied"), "{status} {answer}");
    Ok(())
}

fn strangers(scene: &Scene) -> Result<()> {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let (status, answer) = call(scene, "AKIDNOBODY", "ec2", &form, "/", Some("Action=DescribeInstances"))?;
    ensure!(status == 403 && answer.contains("not known"), "{status} {answer}");
    Ok(())
}

/// What a template learns of itself where it may run programs on the runner: its access key, and all variables.
const CURIOUS: &str = r#"
  provisioner "shell-local" {
    inline = [
      "curl --silent --noproxy '*' --header \"Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN\" $AWS_CONTAINER_CREDENTIALS_FULL_URI | tr ',' '\\n'",
      "env",
    ]
  }
}
"#;

#[test]
fn a_templates_own_identity_is_its_build_and_nothing_else() -> Result<()> {
    let scene = Scene::start(&StackParts::from_environment()?, &["--called-actions", "/dev/null"])?;
    let outcome = of_a_template(&scene);
    scene.end(outcome)
}

fn of_a_template(scene: &Scene) -> Result<()> {
    let plain = templates::without_communicator();
    let end = plain.rfind('}').context("the template has no end")?;
    let content = format!("{}{CURIOUS}", &plain[..end]);
    let request = json!({"provider": "codex", "template": {"type": "inline", "content": content}});
    let build_id = scene.start_build(&request)?;
    let build = scene.ended(&build_id)?;
    ensure!(build["status"] == "succeeded", "{build:#}");
    let log = scene.log(&build_id)?;
    let key = log.iter().find_map(|line| {
        let rest = line.split_once("AccessKeyId")?.1;
        rest.split('"').find(|part| part.starts_with("ASIA"))
    });
    let key = key.with_context(|| format!("no key in {log:#?}"))?;
    for line in &log {
        for of_the_runner in ["RunnerRole", "AWS_ACCESS_KEY_ID", "CIAB_"] {
            ensure!(!line.contains(of_the_runner), "{line}");
        }
    }

    // It is somebody: what it may, it may.
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let (status, answer) = call(scene, key, "ec2", &form, "/", Some("Action=DescribeImages&Owner.1=self"))?;
    ensure!(status == 200, "{status} {answer}");

    let image = build["image_id"].as_str().unwrap_or_default();
    let launch = |build: &str| {
        let parameters = [
            ("ImageId", image),
            ("InstanceType", "t3.micro"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("TagSpecification.1.ResourceType", "instance"),
            ("TagSpecification.1.Tag.1.Key", "ciab:build-id"),
            ("TagSpecification.1.Tag.1.Value", build),
        ];
        let answer = scene.ec2.call("RunInstances", &parameters)?;
        let ids = answer.texts("instancesSet/item/instanceId");
        ids.first().cloned().context("nothing was launched")
    };
    let anothers = launch("650e8400-e29b-41d4-a716-446655440000")?;
    let own = launch(&build_id)?;
    let refused = [
        format!("Action=TerminateInstances&InstanceId.1={anothers}"),
        format!("Action=CreateTags&ResourceId.1={anothers}&Tag.1.Key=ciab:build-id&Tag.1.Value={build_id}"),
        format!("Action=RunInstances&ImageId={image}&InstanceType=t3.micro&MinCount=1&MaxCount=1"),
    ];
    for call_of_ec2 in &refused {
        let (status, answer) = call(scene, key, "ec2", &form, "/", Some(call_of_ec2))?;
        ensure!(
            status == 403 && answer.contains("UnauthorizedOperation"),
            "{call_of_ec2}: {status} {answer}"
        );
    }
    let terminate = format!("Action=TerminateInstances&InstanceId.1={own}");
    let (status, answer) = call(scene, key, "ec2", &form, "/", Some(&terminate))?;
    ensure!(status == 200, "its own instance: {status} {answer}");
    scene.ec2.call("TerminateInstances", &[("InstanceId.1", &anothers)])?;

    for (service, target, body) in [
        (
            "dynamodb",
            "DynamoDB_20120810.GetItem",
            r#"{"TableName": "ciab-local", "Key": {"pk": {"S": "KEYS"}, "sk": {"S": "x"}}}"#,
        ),
        ("secretsmanager", "secretsmanager.GetSecretValue", r#"{"SecretId": "ciab-local-admin-key"}"#),
        ("ssm", "AmazonSSM.GetParameter", r#"{"Name": "/ciab/token"}"#),
        ("states", "AWSStepFunctions.SendTaskHeartbeat", r#"{"taskToken": "t"}"#),
    ] {
        let (status, answer) = call(scene, key, service, &[("X-Amz-Target", target)], "/", Some(body))?;
        ensure!(status == 400 && answer.contains("AccessDenied"), "{target}: {status} {answer}");
    }
    for object in [format!("builds/{build_id}/template.tar.gz"), "tools/packer/1.11.2/packer.zip".to_owned()]
    {
        let (status, answer) = call(scene, key, "s3", &[], &format!("{BUCKET}/{object}"), None)?;
        ensure!(status == 403 && answer.contains("AccessDenied"), "{object}: {status} {answer}");
    }
    let role =
        "Action=AssumeRole&RoleSessionName=x&RoleArn=arn:aws:iam::123456789012:role/ciab-local-RunnerRole";
    let (status, answer) = call(scene, key, "sts", &form, "/", Some(role))?;
    ensure!(status == 403, "{status} {answer}");
    Ok(())
}
