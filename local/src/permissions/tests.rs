//! The roles of the template that is deployed: that each may what it needs, nothing outside of it, and that every condition of every
//! statement holds something off.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::HeaderValue;
use serde_json::json;

use super::policy::Statement;
use super::*;
use crate::template::{self, StackIdentity};

const STACK: &str = "ciab-local";
const ACCOUNT: &str = "123456789012";

/// EC2 as far as a test says what it holds.
#[derive(Default)]
struct World {
    tags: BTreeMap<String, BTreeMap<String, String>>,
}

impl World {
    /// Things of this stack, of another, and of nobody.
    fn with_things() -> Self {
        let mut world = Self::default();
        for (owner, stack) in [("ours", STACK), ("theirs", "another")] {
            for kind in ["i", "vol", "sg", "snap", "ami", "lt", "packer_key", "key"] {
                let tags = BTreeMap::from([("ciab:stack".to_owned(), stack.to_owned())]);
                world.tags.insert(format!("{kind}-{owner}"), tags);
            }
        }
        for (owner, build) in [("mine", BUILD), ("anothers", "650e8400-e29b-41d4-a716-446655440000")] {
            for kind in ["i", "vol", "sg", "snap", "ami", "lt"] {
                let tags = [("ciab:stack", STACK), ("ciab:build-id", build)];
                let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
                world.tags.insert(format!("{kind}-{owner}"), BTreeMap::from(tags));
            }
        }
        world
    }
}

impl Facts for World {
    async fn launched(&self, _region: &str, mut call: Query) -> (Query, Option<String>) {
        let name = call.get("LaunchTemplate.LaunchTemplateName").map(str::to_owned);
        let Some(name) = name else { return (call, None) };
        for (key, value) in [
            ("ImageId", "ami-runner"),
            ("InstanceType", "t3.small"),
            ("MetadataOptions.HttpTokens", "required"),
            (
                "IamInstanceProfile.Arn",
                "arn:aws:iam::123456789012:instance-profile/ciab-local-RunnerInstanceProfile",
            ),
            ("SecurityGroupId.1", "sg-runner"),
        ] {
            if call.get(key).is_none() {
                call.set(key, value);
            }
        }
        (call, Some(if name == "ciab-local-runner" { "lt-runner" } else { "lt-other" }.to_owned()))
    }

    async fn tags(&self, _region: &str, _kind: &str, id: &str) -> BTreeMap<String, String> {
        self.tags.get(id).cloned().unwrap_or_default()
    }
}

fn template() -> StackTemplate {
    let identity = StackIdentity {
        stack_name: STACK.into(),
        region: "us-east-1".into(),
        account: ACCOUNT.into(),
        public_parameters: BTreeMap::from([(
            "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64".into(),
            "ami-runner".into(),
        )]),
    };
    let parameters = BTreeMap::from([("BuildKmsKeyArns".to_owned(), KEY.to_owned())]);
    template::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../infra")), &identity, &parameters)
        .unwrap()
}

fn permissions() -> Permissions {
    let permissions = Permissions::new(&template(), None).unwrap();
    let pair = |name: &str, id: &str| (name.to_owned(), id.to_owned());
    permissions.learn(&[
        pair("security-group/ciab-local-RunnerSecurityGroup", "security-group/sg-runner"),
        pair("launch-template/ciab-local-runner", "launch-template/lt-runner"),
    ]);
    permissions
}

/// A call of somebody's.
#[derive(Clone, Debug)]
struct Request {
    key: String,
    region: &'static str,
    service: &'static str,
    incoming: Incoming,
}

impl Request {
    fn new(key: &str, service: &'static str, method: Method, uri: &str, body: String) -> Self {
        let incoming =
            Incoming { method, uri: uri.parse().unwrap(), headers: HeaderMap::new(), body: body.into() };
        Self { key: key.to_owned(), region: "us-east-1", service, incoming }
    }

    fn in_region(mut self, region: &'static str) -> Self {
        self.region = region;
        self
    }

    fn signed(&self) -> Incoming {
        let mut incoming = self.incoming.clone();
        let scope = format!("{}/20260101/{}/{}/aws4_request", self.key, self.region, self.service);
        let header = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        incoming.headers.insert("authorization", HeaderValue::from_str(&header).unwrap());
        incoming
    }
}

fn form(key: &str, service: &'static str, action: &str, parameters: &[(&str, &str)]) -> Request {
    let mut form = form_urlencoded::Serializer::new(String::new());
    let body = form.append_pair("Action", action).extend_pairs(parameters).finish();
    Request::new(key, service, Method::POST, "/", body)
}

fn ec2(key: &str, action: &str, parameters: &[(&str, &str)]) -> Request {
    form(key, "ec2", action, parameters)
}

fn s3(key: &str, method: Method, path: &str) -> Request {
    Request::new(key, "s3", method, path, String::new())
}

fn aws_json(key: &str, service: &'static str, target: &'static str, body: Json) -> Request {
    let mut request = Request::new(key, service, Method::POST, "/", body.to_string());
    request.incoming.headers.insert("x-amz-target", HeaderValue::from_static(target));
    request
}

/// A build of this role is a session with its id, as issue-credentials begins it. The key is the session's.
fn begin_build(permissions: &Permissions, role: &str) -> (Session, String) {
    let key = format!("ASIA{role}");
    let role = permissions.roles.read().unwrap()[role].clone();
    let session =
        Session::assumed(Arc::new(role), "build", None, vec![("ciab:build-id".into(), BUILD.into())]);
    permissions.sessions.lock().unwrap().insert(key.clone(), session.clone());
    (session, key)
}

async fn may(permissions: &Permissions, request: &Request) -> Result<(), String> {
    let mut request = request.clone();
    if OF_BUILDS.contains(&request.key.as_str()) {
        request.key = begin_build(permissions, &request.key).1;
    }
    let world = World::with_things();
    permissions.judge(&request.signed(), Some(&world)).await.map(drop).map_err(|denial| denial.reason)
}

fn record(id: &str) -> Json {
    json!({"TableName": STACK, "Key": {"pk": {"S": format!("BUILD#{id}")}, "sk": {"S": "BUILD"}}})
}

const BUCKET: &str = "/ciab-local-123456789012";

/// The roles that clean up.
const CLEANERS: [&str; 3] = ["CancelBuildFunctionRole", "CleanUpFunctionRole", "PollBuildsFunctionRole"];

const STARTER: &str = "StartRunnerFunctionRole";
/// Whoever Packer is.
const PACKER: &str = "BuildRole";
/// Whoever the runner is for its build's files.
const FILES: &str = "BuildFilesRole";
/// The roles that are taken on as one build.
const OF_BUILDS: [&str; 2] = [PACKER, FILES];
/// Who takes them on.
const ISSUER: &str = "IssueCredentialsFunctionRole";
const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";
/// A key that the operator lets builds use.
const KEY: &str = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER_BUILD: &str = "650e8400-e29b-41d4-a716-446655440000";

/// A launch as Packer makes it, changed by what is given.
fn build_launch(changes: &[(&'static str, &'static str)]) -> Request {
    let mut parameters = BTreeMap::from([
        ("ImageId", "ami-nobodys"),
        ("InstanceType", "t3.medium"),
        ("KeyName", "ciab-550e8400-e29b-41d4-a716-446655440000"),
        ("SecurityGroupId.1", "sg-nobodys"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "ciab:build-id"),
        ("TagSpecification.1.Tag.1.Value", BUILD),
        ("TagSpecification.1.Tag.2.Key", "ciab:stack"),
        ("TagSpecification.1.Tag.2.Value", STACK),
        ("TagSpecification.2.ResourceType", "volume"),
        ("TagSpecification.2.Tag.1.Key", "ciab:build-id"),
        ("TagSpecification.2.Tag.1.Value", BUILD),
        ("TagSpecification.2.Tag.2.Key", "ciab:stack"),
        ("TagSpecification.2.Tag.2.Value", STACK),
    ]);
    parameters.extend(changes.iter().copied());
    ec2(PACKER, "RunInstances", &parameters.into_iter().collect::<Vec<_>>())
}

fn tag(resource: &str, build: &str) -> Request {
    tag_of(resource, build, STACK)
}

fn tag_of(resource: &str, build: &str, stack: &str) -> Request {
    let tags = [
        ("ResourceId.1", resource),
        ("Tag.1.Key", "ciab:build-id"),
        ("Tag.1.Value", build),
        ("Tag.2.Key", "ciab:stack"),
        ("Tag.2.Value", stack),
    ];
    ec2(PACKER, "CreateTags", &tags)
}

/// What a template would have to do to get at what is not its own.
fn refused_to_templates() -> Vec<(&'static str, Request)> {
    let key_pair = |build: &str, stack: &str| {
        let tags = [
            ("KeyName", "k"),
            ("TagSpecification.1.ResourceType", "key-pair"),
            ("TagSpecification.1.Tag.1.Key", "ciab:build-id"),
            ("TagSpecification.1.Tag.1.Value", build),
            ("TagSpecification.1.Tag.2.Key", "ciab:stack"),
            ("TagSpecification.1.Tag.2.Value", stack),
        ];
        ec2(PACKER, "CreateKeyPair", &tags)
    };
    let copy = |key: &'static str, value: &'static str| {
        let tags = [
            ("SourceImageId", "ami-mine"),
            ("SourceRegion", "us-east-1"),
            ("TagSpecification.1.ResourceType", "image"),
            ("TagSpecification.1.Tag.1.Key", key),
            ("TagSpecification.1.Tag.1.Value", value),
        ];
        ec2(PACKER, "CopyImage", &tags)
    };
    let of = |action: &str, parameter: &str, id: &str| ec2(PACKER, action, &[(parameter, id)]);
    vec![
        ("looks elsewhere", of("DescribeImages", "Owner.1", "self").in_region("eu-west-1")),
        ("launches untagged", build_launch(&[("TagSpecification.1.Tag.1.Key", "Name")])),
        ("launches as another build", build_launch(&[("TagSpecification.1.Tag.1.Value", OTHER_BUILD)])),
        ("makes a volume that nobody owns", ec2(PACKER, "CreateVolume", &[])),
        ("launches for another stack", build_launch(&[("TagSpecification.1.Tag.2.Value", "another")])),
        ("launches from another stack's image", build_launch(&[("ImageId", "ami-theirs")])),
        ("launches what passes for a runner", {
            let runner = [
                ("TagSpecification.1.Tag.3.Key", "ciab:runner-of"),
                ("TagSpecification.1.Tag.3.Value", OTHER_BUILD),
            ];
            build_launch(&runner)
        }),
        ("tags as another's what it makes", key_pair(OTHER_BUILD, STACK)),
        ("tags as another stack's what it makes", key_pair(BUILD, "another")),
        ("copies for another build", copy("ciab:build-id", OTHER_BUILD)),
        ("copies for another stack", copy("ciab:stack", "another")),
        ("gives an image to another stack", tag_of("ami-nobodys", BUILD, "another")),
        ("gives its own to another stack", tag_of("i-mine", BUILD, "another")),
        ("takes somebody's instance by a tag", tag("i-nobodys", BUILD)),
        ("takes another stack's image by a tag", tag("ami-theirs", BUILD)),
        ("gives an image to another build", tag("ami-nobodys", OTHER_BUILD)),
        ("gives away its own", tag("i-mine", OTHER_BUILD)),
        ("takes another build's instance by a tag", tag("i-anothers", BUILD)),
        ("ends another build's instance", of("TerminateInstances", "InstanceId.1", "i-anothers")),
        ("ends somebody's instance", of("TerminateInstances", "InstanceId.1", "i-nobodys")),
        ("launches from another build's launch template", {
            let of = "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateId";
            ec2(PACKER, "CreateFleet", &[(of, "lt-anothers"), ("Type", "instant")])
        }),
        ("makes an image of another build's instance", of("CreateImage", "InstanceId", "i-anothers")),
        ("deletes another build's volume", of("DeleteVolume", "VolumeId", "vol-anothers")),
        ("deletes another build's image", of("DeregisterImage", "ImageId", "ami-anothers")),
        ("shares another stack's snapshot", of("ModifySnapshotAttribute", "SnapshotId", "snap-theirs")),
        ("opens the runners' group", of("AuthorizeSecurityGroupIngress", "GroupId", "sg-ours")),
        ("deletes another build's key pair", of("DeleteKeyPair", "KeyName", "ciab-650e8400")),
        ("deletes somebody's key pair", of("DeleteKeyPair", "KeyName", "mine")),
        (
            "reads another build's template",
            s3(PACKER, Method::GET, &format!("{BUCKET}/builds/b/template.tar.gz")),
        ),
        ("puts another Packer", s3(PACKER, Method::PUT, &format!("{BUCKET}/tools/packer/1.11.2/packer.zip"))),
        (
            "reports",
            aws_json(PACKER, "states", "AWSStepFunctions.SendTaskSuccess", json!({"taskToken": "t"})),
        ),
        ("reads a build's record", aws_json(PACKER, "dynamodb", "DynamoDB_20120810.GetItem", record("b"))),
    ]
}

/// An invocation of a function of the stack.
fn invoke(key: &str, function: &str) -> Request {
    let path = format!("/2015-03-31/functions/ciab-local-{function}/invocations");
    Request::new(key, "lambda", Method::POST, &path, String::new())
}

/// A build's files, each with what its runner does with it.
fn files(key: &str, build: &str) -> Vec<Request> {
    [
        (Method::GET, "template.tar.gz"),
        (Method::PUT, "log/0000000000.ndjson"),
        (Method::PUT, "ledger.json"),
        (Method::PUT, "manifest.json"),
    ]
    .into_iter()
    .map(|(method, name)| s3(key, method, &format!("{BUCKET}/builds/{build}/{name}")))
    .collect()
}

/// What a template would have to do to get at another build that has become the runner, by the machine's identity or by that of
/// its build's files.
fn refused_to_runners() -> Vec<(&'static str, Request)> {
    let mut refused = vec![
        (
            "the runner lists builds",
            s3("RunnerRole", Method::GET, &format!("{BUCKET}?list-type=2&prefix=builds/")),
        ),
        ("the runner begins a build", invoke("RunnerRole", "build-image")),
        ("the runner starts another", invoke("RunnerRole", "start-runner")),
        (
            "the runner reads a record",
            aws_json("RunnerRole", "dynamodb", "DynamoDB_20120810.GetItem", record(BUILD)),
        ),
        ("a build lists files", s3(FILES, Method::GET, &format!("{BUCKET}?list-type=2&prefix=builds/"))),
        (
            "a build reads its variables",
            s3(FILES, Method::GET, &format!("{BUCKET}/builds/{BUILD}/input.json")),
        ),
        (
            "a build reads its manifest",
            s3(FILES, Method::GET, &format!("{BUCKET}/builds/{BUILD}/manifest.json")),
        ),
        (
            "a build changes its template",
            s3(FILES, Method::PUT, &format!("{BUCKET}/builds/{BUILD}/template.tar.gz")),
        ),
        (
            "a build puts another Packer",
            s3(FILES, Method::PUT, &format!("{BUCKET}/tools/packer/1.11.2/packer.zip")),
        ),
        ("a build asks for credentials", invoke(FILES, "issue-credentials")),
        ("Packer asks for credentials", invoke(PACKER, "issue-credentials")),
    ];
    refused
        .extend(files("RunnerRole", BUILD).into_iter().map(|file| ("the runner's role is no build's", file)));
    refused.extend(files(FILES, OTHER_BUILD).into_iter().map(|file| ("another build's file", file)));
    refused.extend(files(PACKER, BUILD).into_iter().map(|file| ("Packer's role is for EC2", file)));
    refused
}

/// What Packer does in a build, in the order of things.
fn allowed_to_packer() -> Vec<(&'static str, Request)> {
    let of = |action: &str, parameter: &str, id: &str| ec2(PACKER, action, &[(parameter, id)]);
    vec![
        ("looks for its source", of("DescribeImages", "Owner.1", "self")),
        ("makes a key pair", of("CreateKeyPair", "KeyName", "ciab-550e8400-e29b-41d4-a716-446655440000")),
        ("makes a group", of("CreateSecurityGroup", "VpcId", "vpc-1")),
        ("opens its group", of("AuthorizeSecurityGroupIngress", "GroupId", "sg-nobodys")),
        ("launches", build_launch(&[])),
        ("launches from another build's image", build_launch(&[("ImageId", "ami-anothers")])),
        ("stops its instance", of("StopInstances", "InstanceId.1", "i-mine")),
        ("makes an image", of("CreateImage", "InstanceId", "i-mine")),
        ("describes the image", of("ModifyImageAttribute", "ImageId", "ami-nobodys")),
        ("tags the image", tag("ami-nobodys", BUILD)),
        ("makes a launch template for a spot instance", {
            let tags = [
                ("LaunchTemplateName", "packer-fleet-launch-template-1"),
                ("TagSpecification.1.ResourceType", "launch-template"),
                ("TagSpecification.1.Tag.1.Key", "ciab:build-id"),
                ("TagSpecification.1.Tag.1.Value", BUILD),
                ("TagSpecification.1.Tag.2.Key", "ciab:stack"),
                ("TagSpecification.1.Tag.2.Value", STACK),
            ];
            ec2(PACKER, "CreateLaunchTemplate", &tags)
        }),
        ("asks for a spot instance", {
            let of = "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateId";
            ec2(PACKER, "CreateFleet", &[(of, "lt-mine"), ("Type", "instant")])
        }),
        ("lets the image grow old", of("EnableImageDeprecation", "ImageId", "ami-nobodys")),
        ("tags the snapshot once more", tag("snap-mine", BUILD)),
        ("names its instance", {
            ec2(
                PACKER,
                "CreateTags",
                &[("ResourceId.1", "i-mine"), ("Tag.1.Key", "Name"), ("Tag.1.Value", "x")],
            )
        }),
        ("ends its instance", of("TerminateInstances", "InstanceId.1", "i-mine")),
        ("deletes its group", of("DeleteSecurityGroup", "GroupId", "sg-nobodys")),
        (
            "deletes its key pair",
            of("DeleteKeyPair", "KeyName", "ciab-550e8400-e29b-41d4-a716-446655440000-2"),
        ),
    ]
}

/// A launch as start-runner makes it, changed by what is given.
fn launch(changes: &[(&str, &str)]) -> Request {
    let mut parameters = BTreeMap::from([
        ("LaunchTemplate.LaunchTemplateName", "ciab-local-runner"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "ciab:stack"),
        ("TagSpecification.1.Tag.1.Value", STACK),
        ("TagSpecification.2.ResourceType", "volume"),
        ("TagSpecification.2.Tag.1.Key", "ciab:stack"),
        ("TagSpecification.2.Tag.1.Value", STACK),
    ]);
    for (name, value) in changes {
        parameters.insert(name, value);
        if value.is_empty() {
            parameters.remove(name);
        }
    }
    ec2(STARTER, "RunInstances", &parameters.into_iter().collect::<Vec<_>>())
}

/// Calls that must be refused, each for the sake of one condition or more.
fn refused() -> Vec<(&'static str, Request)> {
    let item = |role: &str, target: &'static str, partition: &str| {
        aws_json(
            role,
            "dynamodb",
            target,
            json!({"TableName": STACK, "Key": {"pk": {"S": partition}, "sk": {"S": "x"}}}),
        )
    };
    let query = |role: &str, partition: &str| {
        let values = json!({":p": {"S": partition}});
        let body = json!({"TableName": STACK, "KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": values});
        aws_json(role, "dynamodb", "DynamoDB_20120810.Query", body)
    };
    let get = "DynamoDB_20120810.GetItem";
    let update = "DynamoDB_20120810.UpdateItem";
    let delete = "DynamoDB_20120810.DeleteItem";
    let mut refused = vec![
        ("list-images reads a build", item("ListImagesFunctionRole", get, "BUILD#1")),
        ("delete-image frees a slot", item("DeleteImageFunctionRole", delete, "SLOTS")),
        ("check-health reads a build", item("CheckHealthFunctionRole", get, "BUILD#1")),
        ("issue-credentials reads a key", item(ISSUER, get, "KEYS")),
        ("authorize-request reads a build", item("AuthorizeRequestFunctionRole", get, "BUILD#1")),
        ("manage-keys deletes a build", item("ManageKeysFunctionRole", delete, "BUILD#1")),
        (
            "publish-events speaks for another",
            aws_json(
                "PublishEventsFunctionRole",
                "events",
                "AWSEvents.PutEvents",
                json!({"Entries": [{"Source": "aws.ec2", "DetailType": "Build State Change", "Detail": "{}"}]}),
            ),
        ),
        ("poll-builds deletes a build", item("PollBuildsFunctionRole", delete, "BUILD#1")),
        ("poll-builds makes a key", item("PollBuildsFunctionRole", update, "KEYS")),
        ("poll-builds reads what is no list of images", query("PollBuildsFunctionRole", "BUILD#1")),
        (
            "build-image lists what is not a template",
            s3("BuildImageFunctionRole", Method::GET, &format!("{BUCKET}?list-type=2&prefix=builds/")),
        ),
        (
            "rebuild-images lists what is not a template",
            s3("RebuildImagesFunctionRole", Method::GET, &format!("{BUCKET}?list-type=2&prefix=builds/")),
        ),
        (
            "rebuild-images deletes another stack's image",
            ec2("RebuildImagesFunctionRole", "DeregisterImage", &[("ImageId", "ami-theirs")]),
        ),
        (
            "upload-template lists other templates",
            s3(
                "UploadTemplateFunctionRole",
                Method::GET,
                &format!("{BUCKET}?list-type=2&prefix=templates/kept/"),
            ),
        ),
        (
            "get-build lists more than a log",
            s3("GetBuildFunctionRole", Method::GET, &format!("{BUCKET}?list-type=2&prefix=builds/")),
        ),
        (
            "prepare-build lists builds",
            s3("PrepareBuildFunctionRole", Method::GET, &format!("{BUCKET}?list-type=2&prefix=builds/")),
        ),
        (
            "finish-build looks elsewhere",
            ec2("FinishBuildFunctionRole", "DescribeImages", &[]).in_region("eu-west-1"),
        ),
        ("start-runner looks elsewhere", ec2(STARTER, "DescribeInstances", &[]).in_region("eu-west-1")),
        (
            "start-runner ends another stack's",
            ec2(STARTER, "TerminateInstances", &[("InstanceId.1", "i-theirs")]),
        ),
        (
            "delete-image deletes another stack's image",
            ec2("DeleteImageFunctionRole", "DeregisterImage", &[("ImageId", "ami-theirs")]),
        ),
        (
            "delete-image deletes an untagged snapshot",
            ec2("DeleteImageFunctionRole", "DeleteSnapshot", &[("SnapshotId", "snap-nobodys")]),
        ),
        (
            "start-runner launches from another template",
            launch(&[("LaunchTemplate.LaunchTemplateName", "other")]),
        ),
        (
            "start-runner launches without a template, but for the machine",
            launch(&[
                ("LaunchTemplate.LaunchTemplateName", ""),
                ("ImageId", "ami-runner"),
                ("InstanceType", "t3.small"),
                ("MetadataOptions.HttpTokens", "required"),
                ("SecurityGroupId.1", "sg-runner"),
            ]),
        ),
        ("start-runner launches untagged", launch(&[("TagSpecification.1.Tag.1.Key", "Name")])),
        (
            "start-runner launches an untagged volume",
            launch(&[("TagSpecification.2.ResourceType", "instance")]),
        ),
        ("start-runner tags it as another stack's", launch(&[("TagSpecification.1.Tag.1.Value", "another")])),
        ("start-runner launches something larger", launch(&[("InstanceType", "p5.48xlarge")])),
        ("start-runner opens the metadata service", launch(&[("MetadataOptions.HttpTokens", "optional")])),
        (
            "start-runner gives a tag that is not ours",
            launch(&[("TagSpecification.1.Tag.2.Key", "owner"), ("TagSpecification.1.Tag.2.Value", "me")]),
        ),
        (
            "start-runner tags what it did not just make",
            ec2(
                STARTER,
                "CreateTags",
                &[("ResourceId.1", "i-theirs"), ("Tag.1.Key", "ciab:stack"), ("Tag.1.Value", STACK)],
            ),
        ),
    ];
    // Whoever could write a key would be an admin, and whoever reads them knows what there are.
    for role in [
        "BuildImageFunctionRole",
        "GetBuildFunctionRole",
        "PrepareBuildFunctionRole",
        STARTER,
        "FinishBuildFunctionRole",
        "RebuildImagesFunctionRole",
    ] {
        refused.push(("reads keys", item(role, get, "KEYS")));
    }
    refused.extend([
        ("rebuild-images frees a slot", item("RebuildImagesFunctionRole", delete, "SLOTS")),
        (
            "list-resources looks elsewhere",
            ec2("ListResourcesFunctionRole", "DescribeInstances", &[]).in_region("eu-west-1"),
        ),
    ]);
    refused.extend(refused_to_templates());
    refused.extend(refused_to_runners());
    for cleaner in CLEANERS {
        refused.extend([
            ("reads keys", item(cleaner, get, "KEYS")),
            (
                "lists all of a build's files",
                s3(cleaner, Method::GET, &format!("{BUCKET}?list-type=2&prefix=builds/b/")),
            ),
            ("looks at instances elsewhere", ec2(cleaner, "DescribeInstances", &[]).in_region("eu-west-1")),
            (
                "ends another stack's instance",
                ec2(cleaner, "TerminateInstances", &[("InstanceId.1", "i-theirs")]),
            ),
            (
                "ends an instance elsewhere",
                ec2(cleaner, "TerminateInstances", &[("InstanceId.1", "i-ours")]).in_region("eu-west-1"),
            ),
            (
                "changes another stack's instance",
                ec2(cleaner, "ModifyInstanceAttribute", &[("InstanceId", "i-theirs")]),
            ),
            (
                "ends an untagged instance",
                ec2(cleaner, "TerminateInstances", &[("InstanceId.1", "i-nobodys")]),
            ),
            ("deletes another stack's image", ec2(cleaner, "DeregisterImage", &[("ImageId", "ami-theirs")])),
            ("deletes another stack's volume", ec2(cleaner, "DeleteVolume", &[("VolumeId", "vol-theirs")])),
            (
                "deletes a volume elsewhere",
                ec2(cleaner, "DeleteVolume", &[("VolumeId", "vol-ours")]).in_region("eu-west-1"),
            ),
            (
                "deletes another stack's key pair of Packer's",
                ec2(cleaner, "DeleteKeyPair", &[("KeyName", "packer_key-theirs")]),
            ),
            (
                "deletes a key pair of Packer's elsewhere",
                ec2(cleaner, "DeleteKeyPair", &[("KeyName", "packer_1")]).in_region("eu-west-1"),
            ),
            ("deletes somebody's key pair", ec2(cleaner, "DeleteKeyPair", &[("KeyName", "mine")])),
            (
                "deletes a tagged key pair elsewhere",
                ec2(cleaner, "DeleteKeyPair", &[("KeyName", "key-ours")]).in_region("eu-west-1"),
            ),
        ]);
    }
    refused
}

#[tokio::test]
async fn what_conditions_hold_off_is_refused() {
    let permissions = permissions();
    for (what, request) in refused() {
        let denied = may(&permissions, &request).await.expect_err(what);
        assert!(denied.contains("is not authorized to perform"), "{what}: {denied}");
    }
    for (role, check) in refused_by_itself() {
        assert!(!may_by_itself(&permissions, role, &check), "{role} may {check:?}");
    }
}

/// As [`refused`], for what a role could do only together with rights that it does not have: which role, and what.
fn refused_by_itself() -> Vec<(&'static str, Check)> {
    let runner = format!("arn:aws:iam::{ACCOUNT}:role/ciab-local-RunnerRole");
    let grant = Check::new("kms:CreateGrant", KEY);
    let (through_ec2, through_s3) = ("ec2.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com");
    vec![
        (STARTER, Check::new("iam:PassRole", runner).with("iam:PassedToService", "lambda.amazonaws.com")),
        (PACKER, Check::new("kms:Decrypt", KEY)),
        (
            PACKER,
            Check::new("kms:Decrypt", KEY.replace("1234abcd", "00000000"))
                .with("kms:ViaService", through_ec2),
        ),
        (PACKER, grant.clone().with("kms:ViaService", through_ec2)),
        (PACKER, grant.clone().with("kms:ViaService", through_s3).with("kms:GrantIsForAWSResource", "true")),
        (STARTER, Check::new("kms:Decrypt", KEY)),
        (STARTER, grant.clone().with("kms:ViaService", through_ec2)),
        (STARTER, grant.with("kms:ViaService", through_s3).with("kms:GrantIsForAWSResource", "true")),
    ]
}

fn may_by_itself(permissions: &Permissions, role: &str, check: &Check) -> bool {
    let session = if OF_BUILDS.contains(&role) {
        begin_build(permissions, role).0
    } else {
        permissions.session(role).unwrap()
    };
    permissions.judge_check(&session, check.clone()).is_ok()
}

/// The role's own statements, and those of its boundary.
fn lists(role: &mut Role) -> Vec<&mut Vec<Statement>> {
    [Some(&mut role.statements), role.boundary.as_mut()].into_iter().flatten().collect()
}

/// Every condition, as (list, statement, condition): their numbers.
fn conditions(role: &mut Role) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for (list, statements) in lists(role).into_iter().enumerate() {
        for (at, statement) in statements.iter().enumerate() {
            found.extend((0..statement.conditions.len()).map(|condition| (list, at, condition)));
        }
    }
    found
}

#[tokio::test]
async fn no_condition_can_be_removed_without_something_being_let_through() {
    let refused = refused();
    let mut idle = Vec::new();
    let mut tried = 0;
    let mut roles = permissions().roles.into_inner().unwrap();
    for (name, role) in &mut roles {
        for (list, at, condition) in conditions(role) {
            let without = permissions();
            let (statement, removed) = {
                let mut roles = without.roles.write().unwrap();
                let mut lists = lists(roles.get_mut(name).unwrap());
                let statement = &mut lists[list][at];
                let removed = statement.conditions.remove(condition);
                (statement.clone(), removed)
            };
            tried += 1;
            let mut noticed = false;
            for (_, request) in refused.iter().filter(|(_, request)| request.key == *name) {
                noticed |= may(&without, request).await.is_ok();
            }
            for (_, check) in refused_by_itself().iter().filter(|(role, _)| role == name) {
                noticed |= may_by_itself(&without, name, check);
            }
            // A denial whose condition is gone denies what is in order, which is as good a notice.
            if statement.effect == policy::Effect::Deny {
                for (_, request) in allowed().iter().filter(|(_, request)| request.key == *name) {
                    noticed |= may(&without, request).await.is_err();
                }
            }
            if !noticed {
                idle.push(format!("{name}, {}: {} of {}", statement.name, removed.operator, removed.key));
            }
        }
    }
    assert!(tried > 20, "only {tried} conditions were found");
    assert!(idle.is_empty(), "no call of `refused` needs these conditions:\n{}", idle.join("\n"));
}

/// What the roles are for, and what they must not be kept from.
fn allowed() -> Vec<(&'static str, Request)> {
    let mut allowed = vec![
        ("start-runner launches", launch(&[])),
        ("start-runner ends its own", ec2(STARTER, "TerminateInstances", &[("InstanceId.1", "i-ours")])),
        (
            "get-build reads",
            aws_json("GetBuildFunctionRole", "dynamodb", "DynamoDB_20120810.GetItem", record("b")),
        ),
        (
            "the machine invokes",
            Request::new(
                "ak",
                "lambda",
                Method::POST,
                "/2015-03-31/functions/ciab-local-clean-up/invocations",
                String::new(),
            ),
        ),
        (
            "the runner reports",
            aws_json("RunnerRole", "states", "AWSStepFunctions.SendTaskHeartbeat", json!({"taskToken": "t"})),
        ),
        (
            "prepare-build reads a secret's token",
            aws_json(
                "PrepareBuildFunctionRole",
                "ssm",
                "AmazonSSM.GetParameter",
                json!({"Name": "/aws/reference/secretsmanager/ciab/token"}),
            ),
        ),
    ];
    allowed.extend(allowed_to_packer());
    // A copy's source is asked for in no policy.
    allowed.push(("copies an image", ec2(PACKER, "CopyImage", &[("SourceImageId", "ami-mine")])));
    allowed.push(("the runner asks for its build's credentials", invoke("RunnerRole", "issue-credentials")));
    allowed.push((
        "issue-credentials reads a build",
        aws_json(ISSUER, "dynamodb", "DynamoDB_20120810.GetItem", record(BUILD)),
    ));
    allowed.extend(files(FILES, BUILD).into_iter().map(|file| ("the build's own file", file)));
    for tool in [Method::GET, Method::PUT] {
        let tool = s3("RunnerRole", tool, &format!("{BUCKET}/tools/packer/1.11.2/packer.zip"));
        allowed.push(("the runner brings Packer", tool));
    }
    for cleaner in CLEANERS {
        allowed.extend([
            (
                "deletes an image that Packer had not tagged",
                ec2(cleaner, "DeregisterImage", &[("ImageId", "ami-nobodys")]),
            ),
            (
                "deletes a copy wherever it is",
                ec2(cleaner, "DeleteSnapshot", &[("SnapshotId", "snap-ours")]).in_region("ap-south-1"),
            ),
            (
                "deletes a group that has no tags",
                ec2(cleaner, "DeleteSecurityGroup", &[("GroupId", "sg-nobodys")]),
            ),
            ("deletes a build's key pair", ec2(cleaner, "DeleteKeyPair", &[("KeyName", "ciab-1")])),
            ("deletes a tagged key pair", ec2(cleaner, "DeleteKeyPair", &[("KeyName", "key-ours")])),
            ("deletes Packer's role", form(cleaner, "iam", "DeleteRole", &[("RoleName", "packer-1")])),
        ]);
    }
    allowed
}

#[tokio::test]
async fn what_the_roles_are_for_is_allowed() {
    let permissions = permissions();
    for (what, request) in allowed() {
        assert_eq!(may(&permissions, &request).await, Ok(()), "{} {what}", request.key);
    }
}

/// For each role something that others may.
#[tokio::test]
async fn each_role_is_refused_what_is_outside_of_it() {
    let permissions = permissions();
    let roles: Vec<String> = permissions.roles.read().unwrap().keys().cloned().collect();
    assert!(roles.len() > 14, "{roles:?}");
    for role in &roles {
        let outside = [
            aws_json(role, "dynamodb", "DynamoDB_20120810.Scan", json!({"TableName": STACK})),
            aws_json(
                role,
                "dynamodb",
                "DynamoDB_20120810.GetItem",
                json!({"TableName": "others", "Key": {"id": {"S": "1"}}}),
            ),
            aws_json(
                role,
                "states",
                "AWSStepFunctions.StartExecution",
                json!({"stateMachineArn": "arn:aws:states:us-east-1:123456789012:stateMachine:other"}),
            ),
            aws_json(
                role,
                "secretsmanager",
                "secretsmanager.GetSecretValue",
                json!({"SecretId": "production/database"}),
            ),
            aws_json(role, "dynamodb", "DynamoDB_20120810.DeleteTable", json!({"TableName": STACK})),
            s3(role, Method::GET, "/another-bucket/key"),
            s3(role, Method::DELETE, &format!("{BUCKET}/builds/b/input.json")),
            form(role, "iam", "CreateRole", &[("RoleName", "admin")]),
            form(
                role,
                "iam",
                "PutRolePolicy",
                &[("RoleName", "ciab-local-RunnerRole"), ("PolicyName", "p"), ("PolicyDocument", "{}")],
            ),
            form(role, "iam", "ListUsers", &[]),
            form(
                role,
                "sts",
                "AssumeRole",
                &[("RoleArn", "arn:aws:iam::123456789012:role/admin"), ("RoleSessionName", "s")],
            ),
            ec2(role, "DeleteVpc", &[("VpcId", "vpc-1")]),
        ];
        for request in &outside {
            let denied = may(&permissions, request).await;
            assert!(
                denied.is_err(),
                "{role} may {:?} {}",
                request.incoming,
                String::from_utf8_lossy(&request.incoming.body)
            );
        }
        if role != "RunnerRole" && role != "BuildRole" {
            let launch = ec2(role, "RunInstances", &[("ImageId", "ami-1"), ("InstanceType", "t3.large")]);
            assert!(may(&permissions, &launch).await.is_err(), "{role} launches whatever it likes");
        }
    }
}

#[tokio::test]
async fn what_all_runners_share_is_never_removed() {
    let permissions = permissions();
    for cleaner in CLEANERS {
        for request in [
            ec2(cleaner, "DeleteSecurityGroup", &[("GroupId", "sg-runner")]),
            ec2(cleaner, "DeleteLaunchTemplate", &[("LaunchTemplateId", "lt-runner")]),
        ] {
            let denied = may(&permissions, &request).await.unwrap_err();
            assert!(denied.contains("denies it"), "{denied}");
        }
    }
}

#[tokio::test]
async fn whoever_is_not_known_may_nothing_and_the_operator_everything() {
    let permissions = permissions();
    let question = |key: &str| ec2(key, "DescribeInstances", &[]);
    assert!(may(&permissions, &question("AKIDSTRANGER")).await.unwrap_err().contains("not known"));
    assert_eq!(may(&permissions, &ec2(crate::ACCESS_KEY_ID, "DeleteVpc", &[])).await, Ok(()));
    let unsigned = Incoming { headers: HeaderMap::new(), ..question("x").incoming };
    assert!(permissions.judge(&unsigned, None::<&World>).await.is_err());
}

/// Roles beside the template's, for what none of its roles has.
fn with_roles(specs: &[(&str, Json, Option<Json>, Json)]) -> Permissions {
    let mut template = template();
    let document = |statements: &Json| json!({"Version": "2012-10-17", "Statement": statements});
    for (name, statements, boundary, trust) in specs {
        template.roles.push(crate::template::RoleSpec {
            logical: (*name).to_owned(),
            arn: format!("arn:aws:iam::{ACCOUNT}:role/{name}"),
            policies: vec![document(statements)],
            shared: Vec::new(),
            implied: Vec::new(),
            boundary: boundary.as_ref().map(document),
            trust: document(trust),
        });
    }
    Permissions::new(&template, None).unwrap()
}

fn trust_in(principal: &str) -> Json {
    json!({"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"})
}

#[tokio::test]
async fn a_boundary_allows_nothing_and_limits_everything() {
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    let boundary = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    let permissions = with_roles(&[
        ("Bounded", all, Some(boundary.clone()), trust_in("arn:aws:iam::1:role/x")),
        ("Empty", json!([]), Some(boundary), trust_in("arn:aws:iam::1:role/x")),
    ]);
    assert_eq!(may(&permissions, &s3("Bounded", Method::GET, "/b/k")).await, Ok(()));
    assert!(
        may(&permissions, &ec2("Bounded", "DescribeImages", &[])).await.unwrap_err().contains("boundary")
    );
    assert!(may(&permissions, &s3("Empty", Method::GET, "/b/k")).await.is_err());
}

async fn take_on(
    permissions: &Permissions,
    key: &str,
    role: &str,
    policy: Option<Json>,
) -> Result<String, String> {
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
    let policy = policy.map(|policy| policy.to_string());
    let mut parameters = vec![("RoleArn", arn.as_str()), ("RoleSessionName", "build")];
    parameters.extend(policy.as_deref().map(|policy| ("Policy", policy)));
    let request = form(key, "sts", "AssumeRole", &parameters);
    may(permissions, &request).await?;
    let answer = permissions.assume(&request.signed());
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let key = body.split_once("<AccessKeyId>").and_then(|(_, rest)| rest.split_once("</AccessKeyId>"));
    key.map(|(key, _)| key.to_owned()).ok_or(body)
}

#[tokio::test]
async fn a_role_that_is_taken_on_may_what_it_and_the_sessions_policy_allow() {
    let build = json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    let caller = json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::123456789012:role/ByAccount"});
    let permissions = with_roles(&[
        ("Named", build.clone(), None, trust_in("arn:aws:iam::123456789012:role/Caller")),
        ("ByAccount", build, None, trust_in("arn:aws:iam::123456789012:root")),
        ("Caller", caller, None, trust_in("arn:aws:iam::1:role/x")),
    ]);
    let session = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/mine/*"}]});
    let key = take_on(&permissions, "Caller", "Named", Some(session)).await.unwrap();
    assert_eq!(may(&permissions, &s3(&key, Method::GET, "/b/mine/k")).await, Ok(()));
    assert!(
        may(&permissions, &s3(&key, Method::GET, "/b/other")).await.unwrap_err().contains("session's policy")
    );
    assert!(may(&permissions, &ec2(&key, "DescribeImages", &[])).await.is_err());
    let key = take_on(&permissions, "Caller", "ByAccount", None).await.unwrap();
    assert_eq!(may(&permissions, &s3(&key, Method::GET, "/b/other")).await, Ok(()));
    // Trusted by name is enough; trusted with the account, one's own policy must allow it.
    assert!(take_on(&permissions, "RunnerRole", "Named", None).await.unwrap_err().contains("does not trust"));
    assert!(take_on(&permissions, "GetBuildFunctionRole", "ByAccount", None).await.is_err());
}

/// Somebody takes a role on as a build, with these tags.
async fn take_on_build(
    permissions: &Permissions,
    key: &str,
    role: &str,
    tags: &[(&str, &str)],
) -> Result<String, String> {
    let arn = format!("arn:aws:iam::{ACCOUNT}:role/ciab-local-{role}");
    let mut parameters =
        vec![("RoleArn".to_owned(), arn), ("RoleSessionName".to_owned(), "build".to_owned())];
    for (number, (tag, value)) in (1..).zip(tags) {
        parameters.push((format!("Tags.member.{number}.Key"), (*tag).to_owned()));
        parameters.push((format!("Tags.member.{number}.Value"), (*value).to_owned()));
    }
    let parameters: Vec<_> = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = form(key, "sts", "AssumeRole", &parameters);
    may(permissions, &request).await?;
    let answer = permissions.assume(&request.signed());
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let key = body.split_once("<AccessKeyId>").and_then(|(_, rest)| rest.split_once("</AccessKeyId>"));
    key.map(|(key, _)| key.to_owned()).ok_or(body)
}

#[tokio::test]
async fn issue_credentials_alone_begins_a_build_and_only_as_one_build() {
    let permissions = permissions();
    let id = ("ciab:build-id", BUILD);
    let packer = take_on_build(&permissions, ISSUER, PACKER, &[id]).await.unwrap();
    let terminate = |id: &str| ec2(&packer, "TerminateInstances", &[("InstanceId.1", id)]);
    assert_eq!(may(&permissions, &terminate("i-mine")).await, Ok(()));
    assert!(may(&permissions, &terminate("i-anothers")).await.is_err());
    let of_files = take_on_build(&permissions, ISSUER, FILES, &[id]).await.unwrap();
    for (own, anothers) in files(&of_files, BUILD).iter().zip(&files(&of_files, OTHER_BUILD)) {
        assert_eq!(may(&permissions, own).await, Ok(()));
        assert!(may(&permissions, anothers).await.is_err());
    }
    let everybody: Vec<String> = permissions.roles.read().unwrap().keys().cloned().collect();
    for role in OF_BUILDS {
        for tags in [&[][..], &[("ciab:build-id", "x")], &[id, ("team", "a")], &[("team", "a")]] {
            let refused = take_on_build(&permissions, ISSUER, role, tags).await.unwrap_err();
            assert!(refused.contains("does not trust"), "{tags:?}: {refused}");
        }
        for other in everybody.iter().filter(|other| *other != ISSUER).chain([&packer, &of_files]) {
            assert!(
                take_on_build(&permissions, other, role, &[id]).await.is_err(),
                "{other} takes on {role}"
            );
        }
    }
}

#[test]
fn a_key_of_the_operators_is_used_through_ec2() {
    let permissions = permissions();
    let through_ec2 =
        |action: &str| Check::new(action, KEY).with("kms:ViaService", "ec2.us-east-1.amazonaws.com");
    assert!(may_by_itself(&permissions, PACKER, &through_ec2("kms:Decrypt")));
    let grant = through_ec2("kms:CreateGrant").with("kms:GrantIsForAWSResource", "true");
    assert!(may_by_itself(&permissions, PACKER, &grant));
    assert!(!may_by_itself(&permissions, PACKER, &through_ec2("kms:ScheduleKeyDeletion")));
}

#[tokio::test]
async fn a_session_without_a_builds_id_changes_nothing() {
    let permissions = permissions();
    for file in files(FILES, BUILD) {
        assert!(permissions.judge(&file.signed(), None::<&World>).await.is_err(), "{file:?}");
    }
    for (what, request) in allowed_to_packer() {
        let action = request.incoming.body.clone();
        let untagged = Request { key: "BuildRole".to_owned(), ..request };
        let world = World::with_things();
        let outcome = permissions.judge(&untagged.signed(), Some(&world)).await;
        let changes_its_own = String::from_utf8_lossy(&action).contains("mine");
        assert!(!changes_its_own || outcome.is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_sessions_policy_that_is_not_understood_gives_no_credentials() {
    let permissions = with_roles(&[(
        "Named",
        json!([]),
        None,
        trust_in("arn:aws:iam::123456789012:role/ciab-local-RunnerRole"),
    )]);
    let odd = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Odd": {"s3:prefix": "a"}}}]});
    assert!(take_on(&permissions, "RunnerRole", "Named", Some(odd)).await.unwrap_err().contains("Odd"));
}

#[tokio::test]
async fn every_kind_of_call_is_taken_apart() {
    let permissions = permissions();
    let checks = |request: &Request, launch: Option<Launch>| -> BTreeSet<String> {
        let incoming = request.signed();
        let signature = Signature::of(&incoming).unwrap();
        let checks =
            request::checks(&asked(&incoming, &signature), launch.as_ref(), &permissions.surroundings);
        let text = |check: Check| {
            format!("{} {}", check.action, check.resource.rsplit(':').next().unwrap_or_default())
        };
        checks.unwrap_or_else(|error| panic!("{error}")).into_iter().map(text).collect()
    };
    let is = |request: Request, expected: &[&str]| {
        let expected: BTreeSet<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(checks(&request, None), expected);
    };
    is(
        ec2(
            "x",
            "CreateImage",
            &[
                ("InstanceId", "i-1"),
                ("TagSpecification.1.ResourceType", "image"),
                ("TagSpecification.1.Tag.1.Key", "a"),
            ],
        ),
        &[
            "ec2:CreateImage instance/i-1",
            "ec2:CreateImage image/*",
            "ec2:CreateImage snapshot/*",
            "ec2:CreateTags image/*",
        ],
    );
    is(
        ec2("x", "CreateTags", &[("ResourceId.1", "ami-1"), ("ResourceId.2", "snap-1"), ("Tag.1.Key", "a")]),
        &["ec2:CreateTags image/ami-1", "ec2:CreateTags snapshot/snap-1"],
    );
    is(
        ec2("x", "AttachVolume", &[("InstanceId", "i-1"), ("VolumeId", "vol-1")]),
        &["ec2:AttachVolume instance/i-1", "ec2:AttachVolume volume/vol-1"],
    );
    is(
        ec2("x", "TerminateInstances", &[("InstanceId.1", "i-1"), ("InstanceId.2", "i-2")]),
        &["ec2:TerminateInstances instance/i-1", "ec2:TerminateInstances instance/i-2"],
    );
    let items = json!({"TransactItems": [
        {"Put": {"TableName": STACK, "Item": {"pk": {"S": "a"}}}},
        {"Delete": {"TableName": STACK, "Key": {"pk": {"S": "b"}}}},
        {"ConditionCheck": {"TableName": STACK, "Key": {"pk": {"S": "c"}}}},
    ]});
    is(
        aws_json("x", "dynamodb", "DynamoDB_20120810.TransactWriteItems", items),
        &[
            "dynamodb:PutItem table/ciab-local",
            "dynamodb:DeleteItem table/ciab-local",
            "dynamodb:ConditionCheckItem table/ciab-local",
        ],
    );
    let query = json!({"TableName": STACK, "IndexName": "active-builds", "KeyConditionExpression": "#a = :a",
        "ExpressionAttributeNames": {"#a": "active"}, "ExpressionAttributeValues": {":a": {"S": "1"}}});
    is(
        aws_json("x", "dynamodb", "DynamoDB_20120810.Query", query),
        &["dynamodb:Query table/ciab-local/index/active-builds"],
    );
    is(s3("x", Method::HEAD, "/b/k%20k?x-id=HeadObject"), &["s3:GetObject b/k k"]);
    is(s3("x", Method::PUT, "/b/k?partNumber=1&uploadId=u"), &["s3:PutObject b/k"]);
    is(s3("x", Method::HEAD, "/b"), &["s3:ListBucket b"]);
    is(
        form("x", "iam", "AddRoleToInstanceProfile", &[("RoleName", "r"), ("InstanceProfileName", "p")]),
        &["iam:AddRoleToInstanceProfile instance-profile/p", "iam:PassRole role/r"],
    );
    is(
        aws_json("x", "codebuild", "CodeBuild_20161006.BatchGetBuilds", json!({"ids": ["p:1", "p:2"]})),
        &["codebuild:BatchGetBuilds project/p"],
    );
    is(
        aws_json("x", "events", "AWSEvents.PutEvents", json!({"Entries": [{"Source": "ciab.images"}]})),
        &["events:PutEvents event-bus/default"],
    );

    is(
        aws_json(
            "x",
            "dynamodb",
            "DynamoDBStreams_20120810.GetRecords",
            json!({"ShardIterator": "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/l|1|x"}),
        ),
        &["dynamodb:GetRecords table/t/stream/l"],
    );

    let run = launch(&[("InstanceMarketOptions.MarketType", "spot"), ("KeyName", "k")]);
    let (call, launch_template) =
        World::default().launched("us-east-1", Query::parse(None, &run.incoming.body)).await;
    let found = checks(&run, Some(Launch { call, launch_template }));
    let expected = [
        "ec2:CreateTags instance/*",
        "ec2:CreateTags volume/*",
        "ec2:RunInstances image/ami-runner",
        "ec2:RunInstances instance/*",
        "ec2:RunInstances key-pair/k",
        "ec2:RunInstances launch-template/lt-runner",
        "ec2:RunInstances network-interface/*",
        "ec2:RunInstances security-group/sg-runner",
        "ec2:RunInstances spot-instances-request/*",
        "ec2:RunInstances subnet/*",
        "ec2:RunInstances volume/*",
        "iam:PassRole role/ciab-local-RunnerRole",
    ];
    assert_eq!(found, expected.iter().map(|text| (*text).to_owned()).collect());
}

#[test]
fn a_call_that_is_in_no_table_is_an_error() {
    let surroundings = permissions().surroundings;
    for request in [
        ec2("x", "DeleteVpc", &[("VpcId", "vpc-1")]),
        ec2("x", "TerminateInstances", &[]),
        ec2("x", "CreateTags", &[("ResourceId.1", "odd-1")]),
        ec2("x", "DescribeVpcAttribute", &[("VpcId", "vpc-1")]),
        s3("x", Method::GET, "/b?policy"),
        s3("x", Method::PUT, "/b"),
        s3("x", Method::GET, "/b/k?tagging"),
        form("x", "sts", "GetSessionToken", &[]),
        form("x", "iam", "CreateUser", &[("UserName", "u")]),
        aws_json("x", "dynamodb", "DynamoDB_20120810.ExecuteStatement", json!({"Statement": "SELECT"})),
        aws_json("x", "states", "DynamoDB_20120810.GetItem", record("b")),
        aws_json("x", "kms", "TrentService.Decrypt", json!({})),
    ] {
        let incoming = request.signed();
        let signature = Signature::of(&incoming).unwrap();
        let checks = request::checks(&asked(&incoming, &signature), None, &surroundings);
        assert!(checks.is_err(), "{request:?}: {checks:?}");
    }
}

#[test]
fn whoever_signed_is_found_in_header_address_and_form() {
    let header = s3("K", Method::GET, "/b/k").signed();
    assert_eq!(Signature::of(&header).unwrap().key, "K");
    let address = Request::new(
        "",
        "s3",
        Method::GET,
        "/b/k?X-Amz-Credential=K%2F20260101%2Feu-west-1%2Fs3%2Faws4_request",
        String::new(),
    );
    let expected =
        Signature { key: "K".to_owned(), region: "eu-west-1".to_owned(), service: "s3".to_owned() };
    assert_eq!(Signature::of(&address.incoming), Some(expected.clone()));
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = part("key", "templates/uploads/a")
        + &part("x-amz-credential", "K/20260101/eu-west-1/s3/aws4_request")
        + "--x--\r\n";
    let upload = Request::new("", "s3", Method::POST, "/b", body);
    assert_eq!(Signature::of(&upload.incoming), Some(expected.clone()));
    let checks =
        request::checks(&asked(&upload.incoming, &expected), None, &Surroundings::default()).unwrap();
    assert_eq!(checks, [Check::new("s3:PutObject", "arn:aws:s3:::b/templates/uploads/a")]);
}

#[test]
fn denials_are_told_in_the_services_own_words() {
    let answer = |request: Request| {
        let incoming = request.signed();
        let signature = Signature::of(&incoming).unwrap();
        Denial::new(&signature, &incoming, "a<b".to_owned()).into_response()
    };
    let status = |request: Request| answer(request).status().as_u16();
    assert_eq!(status(ec2("x", "DeleteVpc", &[])), 403);
    assert_eq!(status(s3("x", Method::GET, "/b/k")), 403);
    assert_eq!(status(aws_json("x", "dynamodb", "DynamoDB_20120810.GetItem", json!({}))), 400);
    let response = answer(aws_json("x", "states", "AWSStepFunctions.StartExecution", json!({})));
    assert_eq!(response.headers()["x-amzn-errortype"], "AccessDeniedException");
}
