//! Creates what the template declares: table, bucket, queues, state machine, secret, what runners on EC2 are launched from, and the files
//! that runners are started from.
//!
//! Speaks the services' JSON and REST directly: only shared/aws may import the AWS SDK, and moto checks no signature.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use zip::write::SimpleFileOptions;

use crate::template::{
    InstanceProfileSpec, LaunchTemplateSpec, SecurityGroupSpec, StackTemplate, StateMachineSpec,
};

/// Where runners on EC2 find their program.
const RUNNER_PROGRAM: &str = "runner/ciab-runner-x86_64";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionError {
    #[error("{what} cannot be created")]
    Unreachable { what: String, source: reqwest::Error },
    #[error("{what} cannot be created: {answer}")]
    Refused { what: String, answer: String },
    #[error("{path} cannot be read for the runner's archive")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the runner's archive cannot be written")]
    Archive(#[from] zip::result::ZipError),
}

/// Where and as whom things are created.
pub(crate) struct Provisioner<'a> {
    pub(crate) moto: SocketAddr,
    pub(crate) region: &'a str,
    pub(crate) client: &'a reqwest::Client,
}

impl Provisioner<'_> {
    /// Creates everything, side by side.
    pub(crate) async fn create(
        &self,
        template: &StackTemplate,
        runner: &Path,
        buildspec: &Path,
    ) -> Result<(), ProvisionError> {
        let tables = futures::future::try_join_all(template.tables.iter().map(|table| self.table(table)));
        let machines = futures::future::try_join_all(
            template.state_machines.iter().map(|machine| self.state_machine(machine)),
        );
        let storage = async {
            for bucket in &template.buckets {
                self.object(bucket, "", Vec::new()).await?;
            }
            for project in &template.runner_projects {
                let archive = runner_archive(runner, buildspec)?;
                self.object(&project.source_bucket, &project.source_key, archive).await?;
            }
            Ok::<(), ProvisionError>(())
        };
        let secrets = futures::future::try_join_all(
            template.generated_secrets.iter().map(|name| self.generated_secret(name)),
        );
        let queues = futures::future::try_join_all(template.queues.iter().map(|name| self.queue(name)));
        tokio::try_join!(tables, machines, storage, secrets, queues).map(|_| ())
    }

    /// Creates what runners on EC2 are launched from; the ids that stand for names from then on, as the last parts of ARNs. The first call takes moto a second or two, in which it loads its EC2.
    pub(crate) async fn create_for_ec2(
        &self,
        template: &StackTemplate,
        runner: &Path,
    ) -> Result<Vec<(String, String)>, ProvisionError> {
        for project in &template.runner_projects {
            self.object(&project.source_bucket, RUNNER_PROGRAM, read(runner)?).await?;
        }
        for InstanceProfileSpec { name, .. } in &template.instance_profiles {
            let what = format!("the instance profile {name}");
            let form = [("InstanceProfileName".to_owned(), name.clone())];
            self.form("iam", "CreateInstanceProfile", &what, &form).await?;
        }
        let mut group_ids = BTreeMap::new();
        for SecurityGroupSpec { name, description } in &template.security_groups {
            let what = format!("the security group {name}");
            let form = [
                ("GroupName".to_owned(), name.clone()),
                ("GroupDescription".to_owned(), description.clone()),
            ];
            let answer = self.form("ec2", "CreateSecurityGroup", &what, &form).await?;
            let id = between(&answer, "<groupId>", "</groupId>");
            let id = id.ok_or_else(|| ProvisionError::Refused { what, answer: answer.clone() })?;
            group_ids.insert(name.clone(), id.to_owned());
        }
        let group = |(name, id): (&String, &String)| {
            (format!("security-group/{name}"), format!("security-group/{id}"))
        };
        let mut ids: Vec<(String, String)> = group_ids.iter().map(group).collect();
        for LaunchTemplateSpec { name, data } in &template.launch_templates {
            let mut form = vec![("LaunchTemplateName".to_owned(), name.clone())];
            flatten("LaunchTemplateData", data, &group_ids, &mut form);
            let what = format!("the launch template {name}");
            let answer = self.form("ec2", "CreateLaunchTemplate", &what, &form).await?;
            let id = between(&answer, "<launchTemplateId>", "</launchTemplateId>");
            let id = id.ok_or_else(|| ProvisionError::Refused { what, answer: answer.clone() })?;
            ids.push((format!("launch-template/{name}"), format!("launch-template/{id}")));
        }
        Ok(ids)
    }

    /// A call of the Query protocol.
    async fn form(
        &self,
        service: &str,
        action: &str,
        what: &str,
        parameters: &[(String, String)],
    ) -> Result<String, ProvisionError> {
        let version = if service == "iam" { "2010-05-08" } else { "2016-11-15" };
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .append_pair("Version", version)
            .extend_pairs(parameters)
            .finish();
        let request = self
            .client
            .post(format!("http://{}/", self.moto))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        self.send(request, service, what).await
    }

    async fn table(&self, properties: &Json) -> Result<(), ProvisionError> {
        let wanted =
            ["TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes"]
                .into_iter();
        let mut request: Json = wanted
            .filter_map(|key| Some((key.to_owned(), properties.get(key)?.clone())))
            .collect::<serde_json::Map<_, _>>()
            .into();
        if let Some(stream) = properties.get("StreamSpecification") {
            // CloudFormation leaves out that it is wanted.
            let view = stream["StreamViewType"].clone();
            request["StreamSpecification"] = json!({"StreamEnabled": true, "StreamViewType": view});
        }
        let what = format!("the table {}", properties["TableName"]);
        self.json("dynamodb", "DynamoDB_20120810.CreateTable", &what, &request).await?;
        if let Some(specification) = properties.get("TimeToLiveSpecification") {
            let request =
                json!({"TableName": properties["TableName"], "TimeToLiveSpecification": specification});
            self.json("dynamodb", "DynamoDB_20120810.UpdateTimeToLive", &what, &request).await?;
        }
        Ok(())
    }

    /// CloudFormation would make the value up. Here it is one that is known beforehand, since whoever starts a stack wants to
    /// use it at once.
    async fn generated_secret(&self, name: &str) -> Result<(), ProvisionError> {
        let request = json!({
            "Name": name, "SecretString": crate::API_KEY, "ClientRequestToken": uuid::Uuid::new_v4().to_string(),
        });
        self.json("secretsmanager", "secretsmanager.CreateSecret", &format!("the secret {name}"), &request)
            .await
    }

    async fn queue(&self, name: &str) -> Result<(), ProvisionError> {
        let what = format!("the queue {name}");
        self.json("sqs", "AmazonSQS.CreateQueue", &what, &json!({"QueueName": name})).await
    }

    async fn state_machine(&self, machine: &StateMachineSpec) -> Result<(), ProvisionError> {
        let role = format!("arn:aws:iam::{}:role/{}", crate::ACCOUNT, machine.name);
        let request = json!({"name": machine.name, "definition": machine.definition, "roleArn": role});
        let what = format!("the state machine {}", machine.name);
        self.json("states", "AWSStepFunctions.CreateStateMachine", &what, &request).await
    }

    /// Puts an object, or with an empty key the bucket itself.
    async fn object(&self, bucket: &str, key: &str, body: Vec<u8>) -> Result<(), ProvisionError> {
        let what = format!("{bucket}/{key} in S3");
        let request = self.client.put(format!("http://{}/{bucket}/{key}", self.moto)).body(body);
        self.send(request, "s3", &what).await.map(drop)
    }

    async fn json(&self, service: &str, target: &str, what: &str, body: &Json) -> Result<(), ProvisionError> {
        let request = self
            .client
            .post(format!("http://{}/", self.moto))
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.0")
            .body(body.to_string());
        self.send(request, service, what).await.map(drop)
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        service: &str,
        what: &str,
    ) -> Result<String, ProvisionError> {
        let unreachable = |source| ProvisionError::Unreachable { what: what.to_owned(), source };
        let request =
            request.header("authorization", authorization(crate::ACCESS_KEY_ID, service, self.region));
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let answer = answer.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(answer);
        }
        Err(ProvisionError::Refused { what: what.to_owned(), answer })
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(inner, _)| inner)
}

/// What tells which service and region a request is for, and whose it is; nobody checks the signature.
pub(crate) fn authorization(key: &str, service: &str, region: &str) -> String {
    let scope = format!("{key}/20260101/{region}/{service}/aws4_request");
    format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0")
}

/// Runner and buildspec as CodeBuild gets them, not compressed: nothing is gained on one machine, and a debug build of
/// the runner takes seconds to deflate.
fn runner_archive(runner: &Path, buildspec: &Path) -> Result<Vec<u8>, ProvisionError> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, path, mode) in [("ciab-runner", runner, 0o755), ("buildspec.yml", buildspec, 0o644)] {
        let content = read(path)?;
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .unix_permissions(mode);
        archive.start_file(name, options)?;
        let unwritable = |source| ProvisionError::Unreadable { path: path.to_owned(), source };
        archive.write_all(&content).map_err(unwritable)?;
    }
    Ok(archive.finish()?.into_inner())
}

fn read(path: &Path) -> Result<Vec<u8>, ProvisionError> {
    std::fs::read(path).map_err(|source| ProvisionError::Unreadable { path: path.to_owned(), source })
}

/// CloudFormation's properties as a form: lists, which have names in the plural there, become `Name.1`, `Name.2`, … and a
/// security group's name its id.
fn flatten(name: &str, value: &Json, group_ids: &BTreeMap<String, String>, form: &mut Vec<(String, String)>) {
    match value {
        Json::Object(entries) => {
            for (key, value) in entries {
                flatten(&format!("{name}.{key}"), value, group_ids, form);
            }
        }
        Json::Array(items) => {
            let (before, list) = name.rsplit_once('.').unwrap_or(("", name));
            let item = if list == "Groups" { "SecurityGroupId" } else { list.trim_end_matches('s') };
            for (number, value) in (1..).zip(items) {
                flatten(&format!("{before}.{item}.{number}"), value, group_ids, form);
            }
        }
        Json::String(text) => {
            form.push((name.to_owned(), group_ids.get(text).unwrap_or(text).clone()));
        }
        Json::Null => {}
        other => form.push((name.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_template_becomes_a_form() {
        let data = json!({
            "ImageId": "ami-1",
            "SecurityGroupIds": ["runner"],
            "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["runner"]}],
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}],
        });
        let group_ids = BTreeMap::from([("runner".to_owned(), "sg-1".to_owned())]);
        let mut form = Vec::new();
        flatten("D", &data, &group_ids, &mut form);
        let expected = [
            ("D.ImageId", "ami-1"),
            ("D.NetworkInterface.1.DeviceIndex", "0"),
            ("D.NetworkInterface.1.SecurityGroupId.1", "sg-1"),
            ("D.SecurityGroupId.1", "sg-1"),
            ("D.TagSpecification.1.ResourceType", "instance"),
            ("D.TagSpecification.1.Tag.1.Key", "a"),
            ("D.TagSpecification.1.Tag.1.Value", "b"),
        ];
        form.sort();
        assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
