//! Whole builds with Packers made of shell: what the state machine is told, what is in the bucket, and that nothing is
//! left running.

mod world;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ciab_core::build::{Artifact, Failure, FailureKind, Stage};
use ciab_core::ledger::Ledger;
use ciab_core::manifest::Outcome;
use ciab_runner::report::Reported;
use ciab_runner::stop::StopReason;
use serde_json::json;
use world::{TOKEN, Told, World, until};

const SUCCESS: &str = r"
say 'Creating temporary keypair: packer_1'
message 'Instance ID: i-0123456789abcdef0'
artifact 'us-east-1:ami-0123456789abcdef0%!(PACKER_COMMA)us-west-2:ami-0123456789abcdef1'
";

fn artifact(region: &str, image_id: &str) -> Artifact {
    Artifact { region: region.parse().expect("a region"), image_id: image_id.parse().expect("an AMI's id") }
}

#[tokio::test]
async fn a_build_that_succeeds_reports_its_images() {
    let world = World::new(SUCCESS);
    assert!(matches!(world.run().await, Reported::Yes));
    assert_eq!(
        world.told(),
        Told::Success(json!({"artifacts": [
            {"region": "us-east-1", "image_id": "ami-0123456789abcdef0"},
            {"region": "us-west-2", "image_id": "ami-0123456789abcdef1"},
        ]}))
    );
    let ledger: Ledger = serde_json::from_value(world.objects.json("ledger.json").unwrap()).unwrap();
    assert!(ledger.instances.contains("i-0123456789abcdef0") && ledger.key_pairs.contains("packer_1"));
    let manifest = world.objects.json("manifest.json").unwrap();
    assert_eq!(manifest["outcome"], "succeeded");
    assert_eq!(manifest["packer_version"], "1.6.6");
    assert_eq!(manifest["artifacts"][0]["image_id"], "ami-0123456789abcdef0");
    assert!(
        world.objects.log_text().contains("stdout: ==> amazon-ebs.x: Creating temporary keypair: packer_1")
    );
}

#[tokio::test]
async fn packer_is_asked_in_order_and_without_init_before_1_7() {
    let world = World::new(SUCCESS);
    world.run().await;
    let commands = std::fs::read_to_string(world.path("commands")).unwrap();
    assert_eq!(
        commands.lines().collect::<Vec<_>>(),
        [
            "-machine-readable version",
            "-machine-readable validate -var-file=../variables.pkrvars.json .",
            "-machine-readable build -color=false -var-file=../variables.pkrvars.json .",
        ]
    );
}

#[tokio::test]
async fn from_1_7_on_plugins_are_installed_first() {
    let mut world = World::new(SUCCESS);
    world.environment.push(("PACKER_TEST_VERSION".into(), "1.11.2".into()));
    assert!(matches!(world.run().await, Reported::Yes));
    let commands = std::fs::read_to_string(world.path("commands")).unwrap();
    assert_eq!(commands.lines().nth(1), Some("-machine-readable init ."));
}

#[tokio::test]
async fn packer_runs_in_the_template_beside_its_private_variables() {
    let world = World::new(
        r#"
        ls > "$PACKER_TEST_FOLDER/files"; stat -c %a ../variables.pkrvars.json > "$PACKER_TEST_FOLDER/mode"
        env > "$PACKER_TEST_FOLDER/environment"
        artifact us-east-1:ami-0123456789abcdef0
        "#,
    );
    world.run().await;
    let read = |name| std::fs::read_to_string(world.path(name)).unwrap();
    assert_eq!(read("files"), "a.pkr.hcl\n");
    assert_eq!(read("mode"), "600\n");
    assert!(!read("environment").contains("CIAB_") && !read("environment").contains(TOKEN));
}

#[tokio::test]
async fn a_failed_provisioner_is_reported_with_step_message_and_lines() {
    let world = World::new(
        r#"
        say 'Provisioning with shell script: install.sh'
        message 'fetching'
        complain 'npm: not found'
        say 'Provisioning step had errors: Running the cleanup provisioner%!(PACKER_COMMA) if present...'
        say 'Deleting temporary keypair...'
        line ",ui,error,Build 'amazon-ebs.x' errored after 1 second: Script exited with non-zero exit status: 127"
        line ",error-count,1"
        line "amazon-ebs.x,error,Script exited with non-zero exit status: 127"
        line ',ui,say,\n==> Builds finished but no artifacts were created.'
        exit 1
        "#,
    );
    assert!(matches!(world.run().await, Reported::Yes), "a failed build is reported too");
    let (name, failure) = world.failure();
    assert_eq!(name, "PackerFailed");
    assert_eq!(failure.stage, Stage::RunPacker);
    assert_eq!(failure.step.as_deref(), Some("Provisioning with shell script: install.sh"));
    assert_eq!(failure.message, "Script exited with non-zero exit status: 127");
    assert_eq!(failure.last_log_lines.last().unwrap(), "npm: not found");
    let manifest = world.objects.json("manifest.json").unwrap();
    assert_eq!(manifest["outcome"], "PackerFailed");
    assert_eq!(manifest["failure"]["message"], failure.message);
}

#[tokio::test]
async fn an_end_without_error_and_without_image_is_a_failure() {
    let world = World::new("line 'null.n,artifact,0,id,Null'");
    world.run().await;
    let (name, failure) = world.failure();
    assert_eq!(name, "PackerFailed");
    assert!(failure.message.contains("made no AMI"), "{}", failure.message);
}

#[tokio::test]
async fn an_image_beside_a_failed_build_is_no_success_but_stands_in_the_manifest() {
    let world = World::new(
        "artifact us-east-1:ami-0123456789abcdef0; line ',error-count,1'; line 'amazon-ebs.y,error,no'; exit 1",
    );
    world.run().await;
    assert_eq!(world.failure().1.message, "no");
    assert_eq!(
        world.objects.json("manifest.json").unwrap()["artifacts"][0]["image_id"],
        "ami-0123456789abcdef0"
    );
}

#[tokio::test]
async fn a_crash_without_a_word_is_told_as_such() {
    let world = World::new("kill -SEGV $$");
    world.run().await;
    let (name, failure) = world.failure();
    assert_eq!(name, "PackerFailed");
    assert!(failure.message.contains("signal: 11"), "{}", failure.message);
}

#[tokio::test]
async fn what_packer_writes_to_stderr_is_in_the_log_and_garbage_harms_nothing() {
    let world = World::new(
        r"echo 'panic: runtime error' >&2; head -c 300000 /dev/urandom; echo; printf 'no end'; exit 2",
    );
    world.run().await;
    assert!(world.objects.log_text().contains("stderr: panic: runtime error"));
    assert!(world.objects.log_text().contains("stdout: no end"));
    assert_eq!(world.failure().0, "PackerFailed");
}

#[tokio::test]
async fn a_packer_that_is_not_there_is_the_runners_failure() {
    let mut world = World::new("");
    world.configuration.packer.binary = Some("/nowhere/packer".into());
    assert!(matches!(world.run().await, Reported::Yes));
    let (name, failure) = world.failure();
    assert_eq!(name, "RunnerFailed");
    assert!(failure.message.contains("/nowhere/packer"), "{}", failure.message);
}

#[tokio::test]
async fn a_bundle_that_is_not_there_is_the_runners_failure() {
    let world = World::new("");
    world.objects.stored.lock().unwrap().clear();
    world.run().await;
    assert_eq!(world.failure().0, "RunnerFailed");
}

#[tokio::test]
async fn at_the_deadline_the_time_out_is_reported_in_the_documented_words() {
    let mut world = World::new("while :; do sleep 0.05; done");
    world.configuration.deadline = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
    assert!(matches!(world.run().await, Reported::Yes));
    let (name, failure) = world.failure();
    assert_eq!(name, "BuildTimedOut");
    assert_eq!(failure.message, "Packer build timed out after 1800 seconds");
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert_eq!(world.outcome(), Outcome::Failed(failure), "the manifest says the same");
}

#[tokio::test]
async fn a_time_out_tells_what_packer_was_at_and_the_lines_before() {
    let world = World::new(
        r#"
        stop() {
            line ',ui,error,Cancelling build after receiving terminated'
            say 'Provisioning step had errors: Running the cleanup provisioner%!(PACKER_COMMA) if present...'
            say 'Terminating the source AWS instance...'
            exit 1
        }
        trap stop TERM
        say 'Provisioning with shell script: install.sh'; message 'fetching'
        touch "$PACKER_TEST_FOLDER/started"; while :; do sleep 0.05; done
        "#,
    );
    stopped_once_started(&world, StopReason::Deadline).await;
    let (name, failure) = world.failure();
    assert_eq!(name, "BuildTimedOut");
    assert_eq!(failure.step.as_deref(), Some("Provisioning with shell script: install.sh"));
    assert!(failure.last_log_lines.contains(&"fetching".to_owned()), "{:?}", failure.last_log_lines);
    assert_eq!(world.outcome(), Outcome::Failed(failure));
}

#[tokio::test]
async fn what_ends_well_at_its_deadline_has_succeeded() {
    let world = World::new(
        r"
        trap 'artifact us-east-1:ami-0123456789abcdef0; exit 0' TERM
        touch $PACKER_TEST_FOLDER/started; while :; do sleep 0.05; done
        ",
    );
    stopped_once_started(&world, StopReason::Deadline).await;
    assert!(matches!(world.told(), Told::Success(_)));
    let made = vec![artifact("us-east-1", "ami-0123456789abcdef0")];
    assert_eq!(world.outcome(), Outcome::Succeeded(made));
}

#[tokio::test]
async fn an_image_of_a_build_that_was_cancelled_all_the_same_is_no_success() {
    // As Packer 1.6.6 does when it is told to stop after its AMI is made: it skips what is left, calls the build finished,
    // names no artifact, and ends with 1.
    let world = World::new(
        r#"
        stop() {
            line ',ui,error,Cancelling build after receiving terminated'
            line ",ui,say,Build 'amazon-ebs.x' finished after 2 seconds."
            line ',ui,say,Cleanly cancelled builds after being interrupted.'
            exit 1
        }
        trap stop TERM
        say 'Adding tags to AMI (ami-0123456789abcdef0)...'
        touch "$PACKER_TEST_FOLDER/started"; while :; do sleep 0.05; done
        "#,
    );
    stopped_once_started(&world, StopReason::Deadline).await;
    assert_eq!(world.failure().0, "BuildTimedOut");
    assert!(matches!(world.outcome(), Outcome::Failed(_)));
}

/// Runs the build, and stops it for this reason once its Packer has made the file `started`.
async fn stopped_once_started(world: &World, reason: StopReason) {
    let stopper = async {
        until("the build", || world.path("started").exists()).await;
        world.switch.stop(reason);
    };
    let (reported, ()) = tokio::join!(world.run(), stopper);
    assert!(matches!(reported, Reported::Yes));
}

#[tokio::test]
async fn a_packer_that_copies_is_killed_at_once_so_that_its_image_vouches_for_the_copies() {
    let world = World::new(
        r#"
        trap 'touch "$PACKER_TEST_FOLDER/told"; exit 1' TERM
        say 'Copying/Encrypting AMI (ami-7e319ab59b900e8a7) to other regions...'
        message 'Copying to: eu-west-1'
        touch "$PACKER_TEST_FOLDER/started"; while :; do sleep 0.05; done
        "#,
    );
    stopped_once_started(&world, StopReason::Deadline).await;
    assert_eq!(world.failure().0, "BuildTimedOut");
    assert!(!world.path("told").exists(), "it would have removed its AMI and left the copies");
}

#[tokio::test]
async fn a_packer_that_is_stopped_may_clean_up_and_what_it_says_is_in_the_log() {
    let world = World::new(
        r"
        trap 'say Deleting; exit 1' TERM
        say Waiting; touch $PACKER_TEST_FOLDER/started
        while :; do sleep 0.05; done
        ",
    );
    let stopper = async {
        until("the build", || world.path("started").exists()).await;
        world.switch.stop(StopReason::Deadline);
    };
    tokio::join!(world.run(), stopper);
    assert_eq!(world.failure().0, "BuildTimedOut");
    assert!(world.objects.log_text().contains("Deleting"));
}

#[tokio::test]
async fn a_packer_that_ignores_its_end_is_killed_with_all_that_it_started() {
    let mut world = World::new(
        r#"
        trap '' TERM INT
        sleep 1000 &
        setsid sleep 1001 &
        setsid bash -c 'exec 1>&- 2>&-; trap "" TERM; while :; do sleep 1; done' &
        touch "$PACKER_TEST_FOLDER/started"
        while :; do sleep 0.1; done
        "#,
    );
    world.configuration.stop_grace = Duration::from_millis(300);
    let stopper = async {
        until("the build", || world.path("started").exists()).await;
        world.switch.stop(StopReason::Deadline);
    };
    let (reported, ()) = tokio::join!(world.run(), stopper);
    assert!(matches!(reported, Reported::Yes));
    assert_eq!(world.failure().0, "BuildTimedOut");
    assert!(world.objects.log_text().contains("Packer did not stop in time and was killed"));
}

#[tokio::test]
async fn what_packer_leaves_behind_keeps_neither_running_nor_the_build_waiting() {
    // The second one leaves the group and holds Packer's output open.
    let world = World::new(
        "sleep 1000 & setsid sleep 1001 & artifact us-east-1:ami-0123456789abcdef0; echo 'last words' >&2",
    );
    let began = Instant::now();
    assert!(matches!(world.run().await, Reported::Yes));
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(matches!(world.told(), Told::Success(_)));
    assert!(world.objects.log_text().contains("last words"));
}

#[tokio::test]
async fn a_runner_that_is_told_to_end_stops_packer_and_says_so() {
    let world =
        World::new("trap 'exit 1' TERM; touch $PACKER_TEST_FOLDER/started; while :; do sleep 0.05; done");
    stopped_once_started(&world, StopReason::Signal).await;
    let (name, failure) = world.failure();
    assert_eq!(name, "RunnerFailed");
    assert_eq!(failure.kind, FailureKind::Failed, "Packer was cancelled: how it ended is known");
    assert!(failure.message.contains("told to end"), "{}", failure.message);
}

#[tokio::test]
async fn a_build_that_nobody_waits_for_is_stopped() {
    let world = World::new("trap 'exit 1' TERM; while :; do sleep 0.05; done");
    let goes = async {
        while world.task.heartbeats.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        world.task.gone.store(true, Ordering::SeqCst);
    };
    let (reported, ()) = tokio::join!(world.run(), goes);
    assert!(matches!(reported, Reported::NobodyWaits));
    assert_eq!(world.objects.json("manifest.json").unwrap()["outcome"], "RunnerFailed");
    let Outcome::Failed(failure) = world.outcome() else { panic!("it succeeded") };
    assert_eq!(failure.kind, FailureKind::Failed, "Packer was cancelled: how it ended is known");
}

#[tokio::test]
async fn after_its_deadline_a_build_never_starts() {
    let mut world = World::new("touch $PACKER_TEST_FOLDER/started");
    world.configuration.deadline = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    assert!(matches!(world.run().await, Reported::Yes));
    assert_eq!(world.failure().0, "BuildTimedOut");
    assert!(!world.path("commands").exists());
}

#[tokio::test]
async fn the_log_and_the_ledger_are_there_while_packer_runs() {
    let world = World::new(
        r#"
        message 'Instance ID: i-0123456789abcdef0'
        while [ ! -e "$PACKER_TEST_FOLDER/go" ]; do sleep 0.05; done
        artifact us-east-1:ami-0123456789abcdef0
        "#,
    );
    let watcher = async {
        until("the log", || world.objects.log_text().contains("Instance ID")).await;
        until("the ledger", || world.objects.json("ledger.json").is_some()).await;
        std::fs::write(world.path("go"), "").unwrap();
    };
    let (reported, ()) = tokio::join!(world.run(), watcher);
    assert!(matches!(reported, Reported::Yes));
}

#[tokio::test]
async fn secrets_are_in_neither_log_nor_report_nor_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        r#"
        message 'password=hunter2hunter2 token={TOKEN}'
        complain 'default-secret and aws-secret-0123456789'
        echo 'hunter2hunter2' >&2
        line "amazon-ebs.x,error,cannot log in with hunter2hunter2"
        exit 1
        "#
    );
    let binary = world::packer(folder.path(), &script);
    let template = "variable \"password\" {\n  sensitive = true\n}\nvariable \"other\" {\n  sensitive = true\n  default = \"default-secret\"\n}\n";
    let mut world =
        World::with_packer(folder, binary, &[("a.pkr.hcl", template)], r#"{"password": "hunter2hunter2"}"#);
    world.environment.push(("AWS_SECRET_ACCESS_KEY".into(), "aws-secret-0123456789".into()));
    world.run().await;
    let (_, failure) = world.failure();
    assert_eq!(failure.message, "cannot log in with <sensitive>");
    let mut everything = format!("{:?}", world.told());
    for (key, body) in world.objects.stored.lock().unwrap().iter() {
        if !key.ends_with("template.tar.gz") {
            everything.push_str(&String::from_utf8_lossy(body));
        }
    }
    for secret in ["hunter2hunter2", "default-secret", "aws-secret", TOKEN] {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_down_does_not_hold_up_packer_and_the_manifest_is_there_before_the_report() {
    let world = World::new(
        "for n in $(seq 2000); do message \"line $n\"; done; artifact us-east-1:ami-0123456789abcdef0; \
         touch $PACKER_TEST_FOLDER/ended",
    );
    world.objects.down.store(true, Ordering::SeqCst);
    let watcher = async {
        until("Packer's end", || world.path("ended").exists()).await;
        until("a try to store the manifest", || world.objects.refused("manifest.json") > 1).await;
        assert!(world.task.told.lock().unwrap().is_empty(), "the report waits for the manifest");
        world.objects.down.store(false, Ordering::SeqCst);
    };
    let (reported, ()) = tokio::join!(world.run(), watcher);
    assert!(matches!(reported, Reported::Yes));
    assert!(matches!(world.told(), Told::Success(_)));
    assert_eq!(world.task.stored_before_report.lock().unwrap().as_deref(), Some("succeeded"));
}

#[tokio::test]
async fn a_report_that_is_lost_leaves_a_manifest_that_the_life_of_a_build_can_be_decided_by() {
    for (script, outcome) in [
        (
            "artifact us-east-1:ami-0123456789abcdef0",
            Outcome::Succeeded(vec![artifact("us-east-1", "ami-0123456789abcdef0")]),
        ),
        (
            "line ',error-count,1'; line 'amazon-ebs.x,error,it broke'; exit 1",
            Outcome::Failed(Failure::of(Stage::RunPacker, "it broke")),
        ),
    ] {
        let world = World::new(script);
        world.task.gone_for_reports.store(true, Ordering::SeqCst);
        assert!(matches!(world.run().await, Reported::NobodyWaits));
        assert_eq!(world.outcome(), outcome);
    }
}

#[tokio::test]
async fn nothing_of_the_build_stays_on_the_disk() {
    let world = World::new(r#"pwd > "$PACKER_TEST_FOLDER/where"; touch "$TMPDIR/x"; exit 1"#);
    world.run().await;
    let place = std::fs::read_to_string(world.path("where")).unwrap();
    assert!(!std::path::Path::new(place.trim()).exists());
}

#[tokio::test]
async fn a_build_works_below_the_folder_that_was_said() {
    let mut world = World::new(
        r#"pwd > "$PACKER_TEST_FOLDER/where"; echo "$TMPDIR" >> "$PACKER_TEST_FOLDER/where"; exit 1"#,
    );
    let folder = world.path("work/dir");
    world.configuration.work_dir = Some(folder.clone());
    world.run().await;
    let places = std::fs::read_to_string(world.path("where")).unwrap();
    assert!(places.lines().count() == 2 && places.lines().all(|place| Path::new(place).starts_with(&folder)));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "something stays");
}
