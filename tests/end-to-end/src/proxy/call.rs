//! One call to AWS as it passes the proxy: for which service and operation, and by which process.

use std::fmt;
use std::net::SocketAddr;

use crate::processes::{self, Process};

/// A request that was read whole, and what it asks for.
#[derive(Clone, Debug)]
pub struct Call {
    /// The service's name as it is signed for: `ec2`, `dynamodb`, `states`, `codebuild`, `s3`.
    pub service: String,
    /// The operation's name, such as `RunInstances`; for S3 the method and `object` or `bucket`.
    pub operation: String,
    /// The path with its query.
    pub path: String,
    /// What was sent, as text.
    pub body: String,
    client: SocketAddr,
    proxy: SocketAddr,
}

impl Call {
    pub(super) fn new(head: &Head, body: &[u8], client: SocketAddr, proxy: SocketAddr) -> Self {
        let body = String::from_utf8_lossy(body).into_owned();
        let (service, operation) = named(head, &body);
        Self { service, operation, path: head.path.clone(), body, client, proxy }
    }

    /// The process that made the call; none if it is gone already.
    pub fn caller(&self) -> Option<Process> {
        processes::behind_connection(self.client, self.proxy)
    }

    /// `service.operation`.
    pub fn name(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.operation)
    }
}

/// A request's first line and headers, as far as they matter here.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn named(head: &Head, body: &str) -> (String, String) {
    // DynamoDB_20120810.PutItem, AWSStepFunctions.StartExecution, CodeBuild_20161006.StartBuild
    if let Some((prefix, operation)) = head.header("x-amz-target").and_then(|target| target.rsplit_once('.'))
    {
        let service = match prefix.split('_').next().unwrap_or_default() {
            "AWSStepFunctions" => "states".to_owned(),
            other => other.to_lowercase(),
        };
        return (service, operation.to_owned());
    }
    let scope = head.header("authorization").and_then(|text| text.split_once("Credential="));
    let service = scope.and_then(|(_, scope)| scope.split('/').nth(3)).unwrap_or("unsigned").to_owned();
    let in_query = head.path.split_once('?').map(|(_, query)| query).unwrap_or_default();
    if let Some(action) = parameter(body, "Action").or_else(|| parameter(in_query, "Action")) {
        return (service, action.to_owned());
    }
    let path = head.path.split('?').next().unwrap_or_default();
    // /service/<shape>/operation/<name>
    if let Some((_, operation)) = path.split_once("/operation/") {
        return (service, operation.to_owned());
    }
    let what = if path.trim_matches('/').contains('/') { "object" } else { "bucket" };
    (service, format!("{} {what}", head.method))
}

/// The value of a form's parameter, as it is written in there.
fn parameter<'a>(form: &'a str, name: &str) -> Option<&'a str> {
    form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Head {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Head { method: method.to_owned(), path: path.to_owned(), headers }
    }

    fn name(head: &Head, body: &str) -> String {
        let (service, operation) = named(head, body);
        format!("{service}.{operation}")
    }

    #[test]
    fn every_protocol_of_aws_names_its_operation() {
        let signed = |service: &str| {
            format!(
                "AWS4-HMAC-SHA256 Credential=k/20260325/us-east-1/{service}/aws4_request, SignedHeaders=host"
            )
        };
        let target = |target| head("POST", "/", &[("x-amz-target", target)]);
        assert_eq!(name(&target("DynamoDB_20120810.PutItem"), "{}"), "dynamodb.PutItem");
        assert_eq!(name(&target("AWSStepFunctions.StartExecution"), "{}"), "states.StartExecution");
        assert_eq!(name(&target("CodeBuild_20161006.StartBuild"), "{}"), "codebuild.StartBuild");
        let (ec2, s3) = (signed("ec2"), signed("s3"));
        let form = head("POST", "/", &[("authorization", &ec2)]);
        assert_eq!(name(&form, "Version=2016-11-15&Action=RunInstances&ImageId=ami-1"), "ec2.RunInstances");
        let put = head("PUT", "/bucket/builds/1/ledger.json?x-id=PutObject", &[("authorization", &s3)]);
        assert_eq!(name(&put, "{}"), "s3.PUT object");
        let list = head("GET", "/bucket?list-type=2&prefix=builds", &[("authorization", &s3)]);
        assert_eq!(name(&list, ""), "s3.GET bucket");
    }

    #[test]
    fn a_parameter_is_no_other_that_ends_with_its_name() {
        assert_eq!(parameter("LastAction=no&Action=Yes", "Action"), Some("Yes"));
        assert_eq!(parameter("Actions=1", "Action"), None);
    }
}
