//! A runner that is killed leaves Packer alive just long enough to clean up, and a ledger that says how far it came.

#![expect(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod world;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ciab_core::ledger::Ledger;
use ciab_core::ports::{ObjectStore, PortError};
use ciab_runner::process::{Program, run};
use ciab_runner::run::Ports;
use ciab_runner::stop::StopSwitch;
use world::{World, build_id, executable, until};

/// Runs a test of this program as a process of its own, with this folder.
fn start_this_test(name: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env("PACKER_TEST_FOLDER", folder)
        // What it leaves goes with the folder.
        .env("TMPDIR", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the test runs as a process of its own, which is this program again, to kill it.
async fn runner_to_be_killed(folder: std::ffi::OsString) {
    let program = Program {
        binary: std::path::Path::new(&folder).join("packer"),
        arguments: vec![],
        folder: folder.clone().into(),
        environment: std::env::vars_os().collect(),
        temporary_folder: folder.into(),
    };
    run(&program, &StopSwitch::new(), || Duration::from_secs(60), |_| {})
        .await
        .expect("Packer can be started");
}

#[tokio::test]
async fn packer_cleans_up_after_a_runner_that_was_killed() {
    if let Some(folder) = std::env::var_os("PACKER_TEST_FOLDER") {
        return runner_to_be_killed(folder).await;
    }
    let folder = tempfile::tempdir().unwrap();
    // It speaks before it cleans up, as Packer does: into a pipe that the runner reads no more.
    executable(
        folder.path(),
        "packer",
        r#"#!/bin/bash
        trap 'echo Cancelling; echo Deleting >&2; touch "$PACKER_TEST_FOLDER/cleaned-up"; exit 1' TERM
        echo $$ > "$PACKER_TEST_FOLDER/started"
        while :; do sleep 0.05; done
        "#,
    );
    let mut runner = start_this_test("packer_cleans_up_after_a_runner_that_was_killed", folder.path());
    until("Packer", || {
        std::fs::read_to_string(folder.path().join("started")).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    runner.kill().unwrap();
    runner.wait().unwrap();

    until("the clean-up", || folder.path().join("cleaned-up").exists()).await;
    let packer = std::fs::read_to_string(folder.path().join("started")).unwrap();
    let stat = format!("/proc/{}/stat", packer.trim());
    until("Packer's end", || {
        // Nobody may be there to take the dead process away.
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

/// A bucket that outlives its process.
struct FolderObjects(PathBuf);

#[async_trait]
impl ObjectStore for FolderObjects {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError> {
        Ok(std::fs::read(self.0.join(key)).ok())
    }
    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), PortError> {
        let path = self.0.join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As in S3, nobody sees half of an object.
        let part = path.with_extension("part");
        std::fs::write(&part, body).unwrap();
        std::fs::rename(part, path).unwrap();
        Ok(())
    }
    async fn list(&self, _prefix: &str) -> Result<Vec<String>, PortError> {
        Ok(Vec::new())
    }
    async fn ready(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// A whole build whose bucket is the folder. Packer goes on at each step once the test says so.
async fn build_to_be_killed(folder: PathBuf) {
    let script = r#"
        next() { while [ ! -e "$CIAB_TEST_STEPS/$1" ]; do sleep 0.01; done; }
        say 'Creating temporary keypair: packer_1'
        message 'Instance ID: i-0123456789abcdef0'
        say 'Creating AMI t from instance i-0123456789abcdef0'
        message 'AMI: ami-0123456789abcdef0'
        next copy
        say 'Copying/Encrypting AMI (ami-0123456789abcdef0) to other regions...'
        message 'Copying to: eu-west-1'
        next tag
        say 'Adding tags to AMI (ami-0123456789abcdef0)...'
        while :; do sleep 0.05; done
    "#
    .replace("$CIAB_TEST_STEPS", folder.to_str().unwrap());
    let world = World::new(&script);
    let bucket = FolderObjects(folder);
    let stored = std::mem::take(&mut *world.objects.stored.lock().unwrap());
    for (key, body) in stored {
        bucket.put(&key, body).await.unwrap();
    }
    let ports = Ports { objects: Arc::new(bucket), ..world.ports() };
    ciab_runner::run::run(&world.configuration, &ports, &world.switch, world.environment.clone()).await;
}

#[tokio::test]
async fn a_runner_that_was_killed_leaves_a_ledger_that_says_how_far_packer_came() {
    const THIS: &str = "a_runner_that_was_killed_leaves_a_ledger_that_says_how_far_packer_came";
    if let Some(folder) = std::env::var_os("PACKER_TEST_FOLDER") {
        return build_to_be_killed(folder.into()).await;
    }
    // Killed after each step: what its ledger says then.
    for (steps, copied, provisioned) in
        [(&[][..], false, false), (&["copy"], true, false), (&["copy", "tag"], true, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Ledger::key(build_id()));
        let ledger = || {
            std::fs::read(&path)
                .map(|body| serde_json::from_slice::<Ledger>(&body).unwrap())
                .unwrap_or_default()
        };
        for step in steps {
            std::fs::write(folder.path().join(step), "").unwrap();
        }
        let mut runner = start_this_test(THIS, folder.path());
        until("the image in the ledger", || !ledger().images.is_empty()).await;
        until("the last step in the ledger", || {
            ledger().copy_regions.contains("eu-west-1") == copied
                && ledger().provisioned_to_the_end() == provisioned
        })
        .await;
        runner.kill().unwrap();
        runner.wait().unwrap();

        let ledger = ledger();
        assert_eq!(ledger.begun, ["amazon-ebs.x".to_owned()].into());
        assert_eq!(ledger.provisioned_to_the_end(), provisioned);
        assert!(ledger.instances.contains("i-0123456789abcdef0") && ledger.key_pairs.contains("packer_1"));
        assert!(!folder.path().join(ciab_core::manifest::Manifest::key(build_id())).exists());
    }
}
