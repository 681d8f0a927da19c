//! A runner that is killed leaves Packer alive just long enough to clean up.

mod world;

use std::process::{Command, Stdio};
use std::time::Duration;

use ciab_runner::process::{Program, run};
use ciab_runner::stop::StopSwitch;
use world::{executable, until};

/// What the test runs as a process of its own, which is this program again, to kill it.
async fn runner_to_be_killed(folder: std::ffi::OsString) {
    let program = Program {
        binary: std::path::Path::new(&folder).join("packer"),
        arguments: vec![],
        folder: folder.clone().into(),
        environment: std::env::vars_os().collect(),
        temporary_folder: folder.into(),
    };
    run(&program, &StopSwitch::new(), Duration::from_secs(60), |_| {}).await.expect("Packer can be started");
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
    let mut runner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "packer_cleans_up_after_a_runner_that_was_killed"])
        .env("PACKER_TEST_FOLDER", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
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
