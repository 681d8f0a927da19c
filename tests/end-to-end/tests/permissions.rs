//! The running stack refuses what a role of the template does not allow, in the words of AWS. All other tests run under the same roles.

use anyhow::{Result, ensure};
use end_to_end::Scene;
use local_stack::{StackParts, http_client};

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
