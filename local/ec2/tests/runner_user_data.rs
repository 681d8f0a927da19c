//! `infra/runner-user-data.sh` in an instance: it fetches the runner with the instance's own role, hands it its values, and
//! switches the machine off whatever comes.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{Stack, base64, call_service, eventually, only};

const SOON: Duration = Duration::from_secs(60);

const SCRIPT: &str = include_str!("../../../infra/runner-user-data.sh");

/// A value that would do harm as code.
const TOKEN: &str = "AQC'\"$(touch /root/harm)`touch /root/harm` ;&|\\ end";

/// A runner that says what it was told.
const RUNNER: &str = "#!/bin/sh\necho \"token=<$CIAB_TASK_TOKEN> build=<$CIAB_BUILD_ID> key=<${AWS_ACCESS_KEY_ID:-none}>\"\n\
    ls /root/harm 2>/dev/null\nexit 3\n";

/// The metadata service and the bucket, as far as the script asks for them.
struct Aws {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Aws {
    fn serve(runner: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = requests.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                answer(connection, runner, &noted);
            }
        });
        Self { address, requests }
    }

    fn request(&self, start: &str) -> Option<String> {
        self.requests.lock().unwrap().iter().find(|request| request.starts_with(start)).cloned()
    }
}

fn answer(mut connection: TcpStream, runner: &str, requests: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut request = String::new();
    while reader.read_line(&mut request).is_ok_and(|read| read > 2) {}
    let has_token = request.contains("\nX-aws-ec2-metadata-token: metadata-token\r");
    let role = "/latest/meta-data/iam/security-credentials/";
    let path = request.split(' ').nth(1).unwrap_or_default();
    let body = match path {
        "/latest/api/token" if request.starts_with("PUT") => "metadata-token",
        _ if path == role && has_token => "the-role",
        _ if path == format!("{role}the-role") && has_token => {
            "{\n  \"Code\" : \"Success\",\n  \"AccessKeyId\" : \"ASIAROLE\",\n  \"SecretAccessKey\" : \"a/b+c=\",\n  \
             \"Token\" : \"session/token==\",\n  \"Expiration\" : \"2026-03-25T20:00:00Z\"\n}"
        }
        "/bucket/runner/ciab-runner-x86_64" => runner,
        _ => "",
    };
    requests.lock().unwrap().push(request);
    let status = if body.is_empty() { "401 Unauthorized" } else { "200 OK" };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let _ = connection.shutdown(std::net::Shutdown::Write);
    let _ = reader.read_to_string(&mut String::new());
}

type Values = BTreeMap<&'static str, String>;

fn user_data(change: impl FnOnce(&mut Values)) -> String {
    let values = [
        ("AWS_REGION", "us-east-1"),
        ("CIAB_BUCKET", "bucket"),
        ("CIAB_BUILD_ID", "550e8400-e29b-41d4-a716-446655440000"),
        ("CIAB_DEADLINE", "2100-01-01T00:00:00.25Z"),
        ("CIAB_REGION", "us-east-1"),
        ("CIAB_RUNNER_SHA256", ""),
        ("CIAB_TASK_TOKEN", TOKEN),
        ("CIAB_TIMEOUT_SECS", "1800"),
        ("RUST_LOG", "info"),
    ];
    let mut values: Values = values.map(|(name, value)| (name, value.to_owned())).into();
    change(&mut values);
    let lines: String = values.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    base64(SCRIPT.replace("@VALUES@\n", &lines).as_bytes())
}

/// Boots a runner and waits for its end; what it said.
fn run(aws: &Aws, change: impl FnOnce(&mut Values)) -> String {
    let consoles = tempfile::tempdir().unwrap();
    let folder = consoles.path().display().to_string();
    let (endpoint, metadata) = (
        format!("AWS_ENDPOINT_URL={0}", aws.address),
        format!("AWS_EC2_METADATA_SERVICE_ENDPOINT={}", aws.address),
    );
    let variables = ["--profile-environment", &endpoint, "--profile-environment", &metadata];
    let stack = Stack::start_with_arguments(&[&["--consoles", &folder], &variables[..]].concat());
    let iam = ("iam", "2010-05-08");
    let profile = [("InstanceProfileName", "runner")];
    assert_eq!(
        call_service(&stack.moto_endpoint, iam, "us-east-1", "CreateInstanceProfile", &profile).0,
        200
    );
    let image = stack.base_image();
    let data = user_data(change);
    let root = stack.call(
        "RunInstances",
        &[
            ("ImageId", image.as_str()),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("UserData", data.as_str()),
            ("IamInstanceProfile.Name", "runner"),
            ("InstanceInitiatedShutdownBehavior", "terminate"),
        ],
    );
    let instance = only(&root, "instanceId");
    let console =
        || std::fs::read_to_string(consoles.path().join(format!("{instance}.log"))).unwrap_or_default();
    assert!(eventually(SOON, || stack.state_of(&instance) == "terminated"), "it goes on: {}", console());
    console()
}

#[test]
fn the_runner_is_fetched_with_the_instances_role_and_told_its_values_as_they_are() {
    let aws = Aws::serve(RUNNER);
    let console = run(&aws, |_| {});
    let expected = format!("token=<{TOKEN}> build=<550e8400-e29b-41d4-a716-446655440000> key=<none>");
    assert!(console.contains(&expected), "{console}");
    assert!(console.lines().all(|line| line != "/root/harm"), "{console}");
    assert!(console.contains("exit code 3"), "{console}");
    let fetched = aws.request("GET /bucket/runner/ciab-runner-x86_64 ").expect("the runner is fetched");
    assert!(fetched.contains("AWS4-HMAC-SHA256 Credential=ASIAROLE/"), "{fetched}");
    assert!(
        fetched.contains("/us-east-1/s3/aws4_request, SignedHeaders=")
            && fetched.contains("x-amz-security-token")
    );
    for header in ["x-amz-security-token: session/token==", "x-amz-content-sha256: e3b0c442"] {
        assert!(fetched.to_lowercase().contains(header), "{fetched}");
    }
    assert!(!console.contains("a/b+c="), "the secret is shown to nobody: {console}");
}

#[test]
fn a_runner_of_another_digest_is_not_run() {
    let aws = Aws::serve(RUNNER);
    let console = run(&aws, |values| _ = values.insert("CIAB_RUNNER_SHA256", "0".repeat(64)));
    assert!(console.contains("FAILED") && !console.contains("token=<"), "{console}");
}

#[test]
fn a_runner_that_goes_on_past_its_deadline_is_switched_off_with_its_machine() {
    let aws = Aws::serve("#!/bin/sh\ntrap '' TERM\necho begun\nwhile :; do sleep 1; done\n");
    let console = run(&aws, |values| {
        // The script's grace is a minute.
        let passed = Command::new("date").args(["-u", "-d", "50 seconds ago", "+%FT%TZ"]).output().unwrap();
        values.insert("CIAB_DEADLINE", String::from_utf8(passed.stdout).unwrap().trim().to_owned());
    });
    assert!(console.contains("begun") && console.contains("The time is over"), "{console}");
}

#[test]
fn a_machine_without_a_deadline_is_switched_off_at_once() {
    let aws = Aws::serve(RUNNER);
    let console = run(&aws, |values| _ = values.insert("CIAB_DEADLINE", "soon".to_owned()));
    assert!(console.contains("invalid date") && !console.contains("token=<"), "{console}");
}
