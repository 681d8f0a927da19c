//! The running stack refuses what a role of the template does not allow, in the words of AWS. All other tests run under the same roles.

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, templates};
use local_stack::{StackParts, http_client};
use serde_json::{Value, json};

/// A call signed by a role: its status and answer. One to S3 with a body is a PUT.
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
        Some(body) if service == "s3" => agent.put(url).header("Authorization", signature).send(body)?,
        None => agent.get(url).header("Authorization", signature).call()?,
        Some(body) => {
            let mut request = agent.post(url).header("Authorization", signature);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.send(body)?
        }
    };
    let body = answer.body_mut().read_to_vec()?;
    Ok((answer.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
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
    let path = format!("{BUCKET}/runner/nothing");
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

/// A program on the runner that becomes the runner: it is of the same user, and reads what that was started with. Backwards, since
/// the log masks what is secret.
const THIEF: &str = r#"
  provisioner "shell-local" {
    inline = [
      "for process in /proc/[0-9]*; do tr '\\0' '\\n' < $process/environ 2>/dev/null | grep -E '^(CIAB_TASK_TOKEN|AWS_ACCESS_KEY_ID)=' | sed 's/^/stolen /' | rev; done | sort -u",
    ]
  }
}
"#;

#[test]
fn a_template_that_has_become_the_runner_gets_at_no_other_build() -> Result<()> {
    let scene = Scene::start(&StackParts::from_environment()?, &["--called-actions", "/dev/null"])?;
    let outcome = of_a_thief(&scene);
    scene.end(outcome)
}

/// What the thief's log says of a variable.
fn stolen(log: &[String], variable: &str) -> Result<String> {
    let name = format!("stolen {variable}=");
    let found = log.iter().find_map(|line| {
        let line: String = line.chars().rev().collect();
        Some(line.split_once(&name)?.1.split_whitespace().next()?.to_owned())
    });
    found.with_context(|| format!("no {variable} in {log:#?}"))
}

fn of_a_thief(scene: &Scene) -> Result<()> {
    let plain = templates::without_communicator();
    let end = plain.rfind('}').context("the template has no end")?;
    let built = |content: &str| -> Result<String> {
        let request = json!({"provider": "codex", "template": {"type": "inline", "content": content}});
        let build_id = scene.start_build(&request)?;
        let build = scene.ended(&build_id)?;
        ensure!(build["status"] == "succeeded", "{build:#}");
        Ok(build_id)
    };
    let victim = built(&plain)?;
    let own = built(&format!("{}{THIEF}", &plain[..end]))?;
    let log = scene.log(&own)?;
    let (runner, token) = (stolen(&log, "AWS_ACCESS_KEY_ID")?, stolen(&log, "CIAB_TASK_TOKEN")?);
    ensure!(runner == "RunnerRole", "the runner is {runner}");

    // As the machine: no build's files, its own neither, and no build's roles.
    let file = |build: &str, name: &str| format!("{BUCKET}/builds/{build}/{name}");
    let forbidden = |key: &str, path: &str, body: Option<&str>| -> Result<()> {
        let (status, answer) = call(scene, key, "s3", &[], path, body)?;
        ensure!(status == 403 && answer.contains("AccessDenied"), "{key} {path}: {status} {answer}");
        Ok(())
    };
    for build in [&victim, &own] {
        forbidden(&runner, &file(build, "template.tar.gz"), None)?;
        forbidden(&runner, &file(build, "input.json"), None)?;
        for name in ["log/0000000000.ndjson", "ledger.json", "manifest.json"] {
            forbidden(&runner, &file(build, name), Some("{}"))?;
        }
        for role in ["BuildRole", "BuildFilesRole"] {
            let form = [("Content-Type", "application/x-www-form-urlencoded")];
            let assume = format!(
                "Action=AssumeRole&RoleSessionName=x&RoleArn=arn:aws:iam::123456789012:role/ciab-local-{role}\
                 &Tags.member.1.Key=ciab:build-id&Tags.member.1.Value={build}"
            );
            let (status, answer) = call(scene, &runner, "sts", &form, "/", Some(&assume))?;
            ensure!(status == 403 && answer.contains("does not trust"), "{role}: {status} {answer}");
        }
    }

    // As the build: what it knows is good for itself alone.
    let function = "/2015-03-31/functions/ciab-local-issue-credentials/invocations";
    let ask = |key: &str, build: &str, token: &str| {
        let question = json!({"build_id": build, "task_token": token}).to_string();
        call(scene, key, "lambda", &[], function, Some(&question))
    };
    for (build, token) in [(victim.as_str(), token.as_str()), (&own, "invented"), (&victim, "")] {
        let (status, answer) = ask(&runner, build, token)?;
        ensure!(status == 200 && answer.contains("CredentialsRefused"), "{build}: {status} {answer}");
        ensure!(
            !answer.contains("access_key_id") && (token.is_empty() || !answer.contains(token)),
            "{answer}"
        );
    }
    let (status, answer) = ask(&runner, &own, &token)?;
    let given: Value = serde_json::from_str(&answer).with_context(|| format!("{status} {answer}"))?;
    let key =
        |set: &str| given[set]["access_key_id"].as_str().with_context(|| format!("no {set} in {answer}"));
    let (files, packer) = (key("files")?, key("packer")?);
    let (status, answer) = call(scene, files, "s3", &[], &file(&own, "template.tar.gz"), None)?;
    ensure!(status == 200, "its own bundle: {status} {answer}");
    for key in [files, packer] {
        forbidden(key, &file(&victim, "template.tar.gz"), None)?;
        forbidden(key, &file(&victim, "manifest.json"), Some("{}"))?;
        let (status, answer) = ask(key, &own, &token)?;
        ensure!(status == 403, "the function is the runner's alone: {status} {answer}");
    }
    Ok(())
}
