//! The world around the runner in its tests: a bucket and a state machine in memory, bundles, and Packers made of shell.
//!
//! A fake here implements a port. Must never pause in place of waiting for a condition.

#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a world that cannot be set up fails its test")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ciab_core::build::Failure;
use ciab_core::ids::BuildId;
use ciab_core::log::{Line, read_chunk};
use ciab_core::manifest::{Manifest, Outcome};
use ciab_core::ports::{
    BuildCredentials, CredentialsIssuer, ObjectStore, PortError, Secret, TaskState, TaskTokens,
    TemporaryCredentials,
};
use ciab_runner::configuration::Configuration;
use ciab_runner::downloads::WebDownloads;
use ciab_runner::install::{Product, Release, Wanted};
use ciab_runner::issued_credentials::IssuedCredentials;
use ciab_runner::report::Reported;
use ciab_runner::run::{Ports, run};
use ciab_runner::stop::StopSwitch;
use ciab_template::{ArchivedFile, Bundle, VARIABLES_FILE};
use serde_json::Value;

pub const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";
pub const TOKEN: &str = "the-task-token-0123456789";

pub fn build_id() -> BuildId {
    BUILD.parse().unwrap()
}

pub fn unavailable() -> PortError {
    PortError::Unavailable { service: "test", operation: "Test", source: "down".into() }
}

/// A bucket in memory that notes every write.
#[derive(Default)]
pub struct MemoryObjects {
    pub stored: Mutex<BTreeMap<String, Vec<u8>>>,
    pub writes: Mutex<Vec<(String, Vec<u8>)>>,
    pub down: AtomicBool,
    /// Keys of the writes that were refused while it was down.
    pub refused: Mutex<Vec<String>>,
}

#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError> {
        Ok(self.stored.lock().unwrap().get(key).cloned())
    }
    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), PortError> {
        if self.down.load(Ordering::SeqCst) {
            self.refused.lock().unwrap().push(key.to_owned());
            return Err(unavailable());
        }
        self.writes.lock().unwrap().push((key.to_owned(), body.clone()));
        self.stored.lock().unwrap().insert(key.to_owned(), body);
        Ok(())
    }
    async fn list(&self, prefix: &str) -> Result<Vec<String>, PortError> {
        Ok(self.stored.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect())
    }
    async fn ready(&self) -> Result<(), PortError> {
        Ok(())
    }
}

impl MemoryObjects {
    pub fn json(&self, name: &str) -> Option<Value> {
        let stored = self.stored.lock().unwrap();
        stored.get(&format!("builds/{BUILD}/{name}")).map(|body| serde_json::from_slice(body).unwrap())
    }

    /// How many writes of this name were refused.
    pub fn refused(&self, name: &str) -> usize {
        self.refused.lock().unwrap().iter().filter(|key| key.ends_with(name)).count()
    }

    /// The log's lines, after a check that its chunks are numbered without a gap.
    pub fn log(&self) -> Vec<Line> {
        let stored = self.stored.lock().unwrap();
        let mut lines = Vec::new();
        for (key, body) in stored.iter().filter(|(key, _)| key.contains("/log/")) {
            assert_eq!(*key, format!("builds/{BUILD}/log/{:010}.ndjson", lines.len()));
            lines.extend(read_chunk(body));
        }
        lines
    }

    pub fn log_text(&self) -> String {
        self.log().iter().map(|line| format!("{}: {}\n", line.stream, line.text)).collect()
    }
}

/// What the state machine was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Success(Value),
    Failure(String, String),
}

/// A state machine that waits for one task.
#[derive(Default)]
pub struct OneTask {
    pub told: Mutex<Vec<Told>>,
    pub heartbeats: AtomicU32,
    pub gone: AtomicBool,
    /// So many reports get no answer, though they arrive.
    pub answers_to_lose: AtomicU32,
    /// So many reports do not arrive.
    pub reports_to_lose: AtomicU32,
    /// Its heartbeats are heard, but it has ended when the report comes.
    pub gone_for_reports: AtomicBool,
    /// The bucket, to see what is in it when the report comes.
    pub objects: Arc<MemoryObjects>,
    /// The outcome in the manifest when the report came.
    pub stored_before_report: Mutex<Option<String>>,
}

impl OneTask {
    fn take(&self, told: Told) -> Result<TaskState, PortError> {
        if self.reports_to_lose.load(Ordering::SeqCst) > 0 {
            self.reports_to_lose.fetch_sub(1, Ordering::SeqCst);
            return Err(unavailable());
        }
        *self.stored_before_report.lock().unwrap() = self
            .objects
            .json("manifest.json")
            .map(|manifest| manifest["outcome"].as_str().unwrap().to_owned());
        if self.gone.swap(true, Ordering::SeqCst) || self.gone_for_reports.load(Ordering::SeqCst) {
            return Ok(TaskState::Gone);
        }
        self.told.lock().unwrap().push(told);
        if self.answers_to_lose.load(Ordering::SeqCst) > 0 {
            self.answers_to_lose.fetch_sub(1, Ordering::SeqCst);
            return Err(unavailable());
        }
        Ok(TaskState::Open)
    }
}

#[async_trait]
impl TaskTokens for OneTask {
    async fn heartbeat(&self, token: &str) -> Result<TaskState, PortError> {
        assert_eq!(token, TOKEN);
        self.heartbeats.fetch_add(1, Ordering::SeqCst);
        Ok(if self.gone.load(Ordering::SeqCst) { TaskState::Gone } else { TaskState::Open })
    }
    async fn succeed(&self, token: &str, output: &Value) -> Result<TaskState, PortError> {
        assert_eq!(token, TOKEN);
        self.take(Told::Success(output.clone()))
    }
    async fn fail(&self, token: &str, error: &str, cause: &str) -> Result<TaskState, PortError> {
        assert_eq!(token, TOKEN);
        self.take(Told::Failure(error.to_owned(), cause.to_owned()))
    }
}

/// A function that gives credentials as often as it is asked, each time with another key.
#[derive(Default)]
pub struct OneIssuer {
    pub asked: AtomicU32,
    pub refuses: AtomicBool,
    /// How long its credentials are good; none for an hour.
    pub seconds: Mutex<Option<i64>>,
}

pub const SECRET_KEY: &str = "the-secret-key-of-the-build";
pub const FILES_SECRET_KEY: &str = "the-secret-key-of-the-builds-files";

#[async_trait]
impl CredentialsIssuer for OneIssuer {
    async fn issue(&self, build: BuildId, task_token: &str) -> Result<BuildCredentials, PortError> {
        assert_eq!((build, task_token), (build_id(), TOKEN));
        if self.refuses.load(Ordering::SeqCst) {
            let (code, source) = ("CredentialsRefused".to_owned(), "not this build's".into());
            return Err(PortError::Refused { service: "lambda", operation: "Invoke", code, source });
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let seconds = self.seconds.lock().unwrap().unwrap_or(3600);
        let set = |whose: &str, secret: &str| TemporaryCredentials {
            access_key_id: format!("ASIA{whose}{number}"),
            secret_access_key: Secret::new(secret),
            session_token: Secret::new("the-session-token-of-the-build"),
            expires_at: jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds),
        };
        Ok(BuildCredentials { files: set("FILES", FILES_SECRET_KEY), packer: set("BUILD", SECRET_KEY) })
    }
}

/// This Packer, or else the one that the test says more about.
pub fn wanted(binary: Option<PathBuf>) -> Wanted {
    let release = |product, version: &str| Release {
        product,
        version: version.into(),
        sha256: None,
        // Nobody listens there.
        mirror: "http://127.0.0.1:9".parse().unwrap(),
    };
    Wanted {
        binary,
        auto_install: false,
        packer: release(Product::Packer, "1.11.2"),
        amazon_plugin: release(Product::AmazonPlugin, "1.3.9"),
    }
}

/// Everything that a test of a whole build needs.
pub struct World {
    pub objects: Arc<MemoryObjects>,
    pub task: Arc<OneTask>,
    pub issuer: Arc<OneIssuer>,
    pub switch: StopSwitch,
    pub configuration: Configuration,
    pub environment: Vec<(OsString, OsString)>,
    /// A folder of this test.
    pub folder: tempfile::TempDir,
}

impl World {
    /// A build of a template with one file, by a Packer made of these shell lines (see [`packer`]).
    pub fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binary = packer(folder.path(), script);
        Self::with_packer(folder, binary, &[("a.pkr.hcl", "source \"null\" \"n\" {}\n")], "{}")
    }

    pub fn with_packer(
        folder: tempfile::TempDir,
        packer_binary: PathBuf,
        template: &[(&str, &str)],
        variables: &str,
    ) -> Self {
        let objects = Arc::new(MemoryObjects::default());
        let bundle = Bundle::from_files(template.iter().copied()).unwrap();
        let variables = ArchivedFile { path: VARIABLES_FILE.into(), bytes: variables.into(), mode: 0o600 };
        let bundle = bundle.to_tar_gz("template/", &[variables]).unwrap();
        objects.stored.lock().unwrap().insert(format!("builds/{BUILD}/template.tar.gz"), bundle);
        let configuration = Configuration {
            build_id: build_id(),
            task_token: TOKEN.into(),
            bucket: "bucket".into(),
            deadline: jiff::Timestamp::now() + jiff::SignedDuration::from_secs(120),
            timeout_secs: 1800,
            packer: wanted(Some(packer_binary)),
            work_dir: None,
            credentials_function: "issue-credentials".into(),
            stop_grace: Duration::from_secs(20),
        };
        let path = std::env::var_os("PATH").unwrap();
        let environment = vec![
            ("PATH".into(), path),
            ("HOME".into(), folder.path().into()),
            ("CIAB_TASK_TOKEN".into(), TOKEN.into()),
            ("PACKER_TEST_FOLDER".into(), folder.path().into()),
        ];
        let task = Arc::new(OneTask { objects: objects.clone(), ..OneTask::default() });
        let issuer = Arc::default();
        Self { objects, task, issuer, switch: StopSwitch::new(), configuration, environment, folder }
    }

    pub fn ports(&self) -> Ports {
        let issued = IssuedCredentials::new(self.issuer.clone(), build_id(), TOKEN);
        Ports {
            objects: self.objects.clone(),
            tools: self.objects.clone(),
            tasks: self.task.clone(),
            credentials: Arc::new(issued),
            downloads: Arc::new(WebDownloads),
        }
    }

    pub async fn run(&self) -> Reported {
        self.run_with(&self.ports()).await
    }

    pub async fn run_with(&self, ports: &Ports) -> Reported {
        let reported = run(&self.configuration, ports, &self.switch, self.environment.clone()).await;
        assert_eq!(self.processes(), Vec::<String>::new(), "the build leaves no process");
        reported
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The only thing the state machine was told.
    pub fn told(&self) -> Told {
        let told = self.task.told.lock().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        told[0].clone()
    }

    pub fn failure(&self) -> (String, Failure) {
        match self.told() {
            Told::Failure(name, cause) => (name, serde_json::from_str(&cause).unwrap()),
            Told::Success(output) => panic!("the build succeeded: {output}"),
        }
    }

    /// How the manifest says that Packer ended.
    pub fn outcome(&self) -> Outcome {
        let manifest: Manifest = serde_json::from_value(self.objects.json("manifest.json").unwrap()).unwrap();
        manifest.outcome().unwrap()
    }

    /// Command lines of living processes that were started within this build.
    pub fn processes(&self) -> Vec<String> {
        let mark = format!("PACKER_TEST_FOLDER={}", self.folder.path().display());
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let environment = std::fs::read(path.join("environ")).ok()?;
                environment.split(|b| *b == 0).any(|entry| entry == mark.as_bytes()).then_some(())?;
                Some(std::fs::read_to_string(path.join("cmdline")).ok()?.replace('\0', " "))
            })
            .collect()
    }
}

/// An executable that answers `version` and `validate` well and runs these lines for `build`. Say things with
/// `say`, `message` and `complain`; `artifact` names AMIs.
pub fn packer(folder: &Path, build: &str) -> PathBuf {
    let script = format!(
        r#"#!/bin/bash
line() {{ printf '%s,%s\n' "$(date +%s)" "$1"; }}
say() {{ line ",ui,say,==> amazon-ebs.x: $1"; }}
message() {{ line ",ui,message,    amazon-ebs.x: $1"; }}
complain() {{ line ",ui,error,==> amazon-ebs.x: $1"; }}
artifact() {{ line "amazon-ebs.x,artifact,0,id,$1"; }}
echo "$*" >> "$PACKER_TEST_FOLDER/commands"
case "$2" in
version) line ",version,${{PACKER_TEST_VERSION:-1.6.6}}"; exit 0 ;;
validate) exit 0 ;;
init) exit 0 ;;
build) ;;
*) exit 127 ;;
esac
{build}
"#
    );
    executable(folder, "packer", &script)
}

pub fn executable(folder: &Path, name: &str, script: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Waits for a condition, for half a minute at most.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
