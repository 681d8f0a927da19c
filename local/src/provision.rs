//! Creates what the template declares: table, bucket, state machine, and the archive that the runner is started from.
//!
//! Speaks the services' JSON and REST directly: only shared/aws may import the AWS SDK, and moto checks no signature.

use std::io::{Cursor, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use zip::write::SimpleFileOptions;

use crate::template::{StackTemplate, StateMachineSpec};

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
        tokio::try_join!(tables, machines, storage).map(|_| ())
    }

    /// Makes moto load its EC2 part, which takes it a second or two, before the first build waits for it.
    pub(crate) async fn load_ec2(&self) -> Result<(), ProvisionError> {
        let request = self
            .client
            .post(format!("http://{}/", self.moto))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("Action=DescribeInstances&Version=2016-11-15");
        self.send(request, "ec2", "a list of instances").await
    }

    async fn table(&self, properties: &Json) -> Result<(), ProvisionError> {
        let wanted =
            ["TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes"]
                .into_iter();
        let request: Json = wanted
            .filter_map(|key| Some((key.to_owned(), properties.get(key)?.clone())))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let what = format!("the table {}", properties["TableName"]);
        self.json("dynamodb", "DynamoDB_20120810.CreateTable", &what, &request).await?;
        if let Some(specification) = properties.get("TimeToLiveSpecification") {
            let request =
                json!({"TableName": properties["TableName"], "TimeToLiveSpecification": specification});
            self.json("dynamodb", "DynamoDB_20120810.UpdateTimeToLive", &what, &request).await?;
        }
        Ok(())
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
        self.send(request, "s3", &what).await
    }

    async fn json(&self, service: &str, target: &str, what: &str, body: &Json) -> Result<(), ProvisionError> {
        let request = self
            .client
            .post(format!("http://{}/", self.moto))
            .header("x-amz-target", target)
            .header("content-type", "application/x-amz-json-1.0")
            .body(body.to_string());
        self.send(request, service, what).await
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        service: &str,
        what: &str,
    ) -> Result<(), ProvisionError> {
        let unreachable = |source| ProvisionError::Unreachable { what: what.to_owned(), source };
        let request = request.header("authorization", authorization(service, self.region));
        let answer = request.send().await.map_err(unreachable)?;
        if answer.status().is_success() {
            return Ok(());
        }
        let answer = answer.text().await.map_err(unreachable)?;
        Err(ProvisionError::Refused { what: what.to_owned(), answer })
    }
}

/// What tells moto which service and region a request is for; it checks no signature.
pub(crate) fn authorization(service: &str, region: &str) -> String {
    let scope = format!("{}/20260101/{region}/{service}/aws4_request", crate::ACCESS_KEY_ID);
    format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0")
}

/// Runner and buildspec as CodeBuild gets them, not compressed: nothing is gained on one machine, and a debug build of
/// the runner takes seconds to deflate.
fn runner_archive(runner: &Path, buildspec: &Path) -> Result<Vec<u8>, ProvisionError> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, path, mode) in [("ciab-runner", runner, 0o755), ("buildspec.yml", buildspec, 0o644)] {
        let unreadable = |source| ProvisionError::Unreadable { path: path.to_owned(), source };
        let content = std::fs::read(path).map_err(unreadable)?;
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .unix_permissions(mode);
        archive.start_file(name, options)?;
        archive.write_all(&content).map_err(unreadable)?;
    }
    Ok(archive.finish()?.into_inner())
}
