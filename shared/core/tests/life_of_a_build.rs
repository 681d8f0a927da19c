//! Builds from their request to their end, in a pretend world: every step by its real code, whatever dies in between.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use ciab_core::api::{ApiError, HttpRequest, HttpResponse};
use ciab_core::build::{Artifact, BuildStatus, Phase};
use ciab_core::clean_up::Caught;
use ciab_core::ids::BuildId;
use ciab_core::ledger::Ledger;
use ciab_core::manifest::Manifest;
use ciab_core::ports::{ExecutionState, RunnerState};
use ciab_core::step::StepError;
use ciab_core::{
    build_image, cancel_build, clean_up, delete_image, finish_build, poll_builds, prepare_build, start_runner,
};
use serde_json::{Value, json};
use world::World;

const AMI: &str = "ami-0abcdef1234567890";

async fn post(world: &World, body: &Value, key: Option<&str>) -> Result<HttpResponse, ApiError> {
    let mut request = HttpRequest { body: body.to_string().into_bytes(), ..HttpRequest::default() };
    if let Some(key) = key {
        request.headers.insert("idempotency-key".into(), key.into());
    }
    build_image::handle(&world.build_image(), &request).await
}

async fn submitted(world: &World) -> BuildId {
    let answer = post(world, &json!({"provider": "codex"}), None).await.unwrap();
    assert_eq!(answer.status, 202);
    answer.body.unwrap()["build_id"].as_str().unwrap().parse().unwrap()
}

async fn running(world: &World) -> BuildId {
    let id = submitted(world).await;
    prepare_build::run(&world.prepare_build(), prepare_build::Input { build_id: id }).await.unwrap();
    start(world, id).await.unwrap();
    id
}

async fn start(world: &World, id: BuildId) -> Result<start_runner::Output, StepError> {
    let input = start_runner::Input { build_id: id, task_token: "token".into() };
    start_runner::run(&world.start_runner(), input).await
}

async fn finish(world: &World, id: BuildId) -> Result<finish_build::Output, StepError> {
    let artifact = Artifact { region: "us-east-1".parse().unwrap(), image_id: AMI.parse().unwrap() };
    finish_build::run(&world.reconcile(), finish_build::Input { build_id: id, artifacts: vec![artifact] })
        .await
}

async fn clean(world: &World, id: BuildId) -> Result<clean_up::Output, StepError> {
    let error = Caught { error: "RunnerFailed".into(), cause: r#"{"message": "it broke"}"#.into() };
    clean_up::run(&world.reconcile(), clean_up::Input { build_id: id, error }).await
}

#[tokio::test]
async fn a_build_goes_from_request_to_image() {
    let world = World::new();
    let id = running(&world).await;
    assert_eq!(world.build(id).phase, Phase::RunningPacker);
    world.ami_appears(id, AMI, true);
    assert!(matches!(finish(&world, id).await, Err(StepError::ImageNotReady(_))));
    assert_eq!(world.build(id).status, BuildStatus::Building, "not before the AMI is available");
    world.ami_appears(id, AMI, false);
    finish(&world, id).await.unwrap();
    let record = world.build(id);
    assert_eq!(record.status, BuildStatus::Succeeded);
    world.state(|state| {
        assert_eq!(state.images[AMI].snapshots, ["snap-1"]);
        assert!(state.slots.is_empty(), "its slot is free again");
    });
    finish(&world, id).await.expect("a repeated step changes nothing");
    assert_eq!(world.build(id), record);
    runner_ends(&world, id);
    world.poll_for_minutes(1).await;
    assert!(!world.build(id).is_active(), "a last look found nothing");
    assert_eq!(world.alive().len(), 1, "but the image");
}

#[tokio::test]
async fn the_state_machine_waits_longer_than_packer_may_run_and_hears_of_it_before() {
    for (timeout_secs, waits, heartbeat) in [(1800, 1845, 300), (30, 75, 74)] {
        let world = World::new();
        let body = json!({"provider": "codex", "timeout_secs": timeout_secs});
        let answer = post(&world, &body, None).await.unwrap().body.unwrap();
        let build_id = answer["build_id"].as_str().unwrap().parse().unwrap();
        let output =
            prepare_build::run(&world.prepare_build(), prepare_build::Input { build_id }).await.unwrap();
        assert_eq!((output.run_packer_timeout_secs, output.heartbeat_secs), (waits, heartbeat));
    }
}

#[tokio::test]
async fn bad_requests_change_nothing() {
    let world = World::new();
    for body in [
        json!({"provider": "emacs"}),
        json!({"provider": "codex", "template": {"type": "inline", "content": "source \"null\" \"x\" {}"}}),
        json!({"provider": "codex", "template": {"type": "inline", "content": "source {{{"}}),
        json!({"provider": "codex", "variables": {"no_such_variable": "x"}}),
    ] {
        let error = post(&world, &body, None).await.unwrap_err();
        assert_eq!(error.status(), 400, "{body}: {error}");
    }
    world.state(|state| {
        assert!(state.builds.is_empty() && state.objects.is_empty() && state.executions.is_empty());
    });
}

#[tokio::test]
async fn one_idempotency_key_gives_one_build() {
    let world = World::new();
    let body = json!({"provider": "codex"});
    let first = post(&world, &body, Some("k")).await.unwrap();
    let same_request =
        json!({"agent_provider": "codex", "template": {"type": "builtin", "name": "default-ec2"}});
    let second = post(&world, &same_request, Some("k")).await.unwrap();
    assert_eq!(first, second);
    let other = post(&world, &json!({"provider": "gemini"}), Some("k")).await.unwrap_err();
    assert_eq!((other.status(), other.code()), (409, "idempotency_conflict"));
    world.only_build();
}

#[tokio::test]
async fn a_build_is_noted_with_the_request_that_asked_first() {
    let world = World::new();
    for id in ["first", "second"] {
        let mut request = HttpRequest {
            body: br#"{"provider": "codex"}"#.to_vec(),
            request_id: id.parse().ok(),
            ..HttpRequest::default()
        };
        request.headers.insert("idempotency-key".into(), "k".into());
        build_image::handle(&world.build_image(), &request).await.unwrap();
    }
    assert_eq!(world.only_build().request_id, "first".parse().ok());
}

#[tokio::test]
async fn a_build_that_was_not_dispatched_is_dispatched_by_the_poller() {
    let world = World::new();
    world.state(|state| state.fail_next = Some("start"));
    let id = submitted(&world).await;
    world.state(|state| assert!(state.executions.is_empty()));
    world.pass(60);
    world.poll().await;
    world.state(|state| assert!(matches!(state.executions[&id], ExecutionState::Running { .. })));
}

#[tokio::test]
async fn one_build_launches_one_runner() {
    let world = World::new();
    let id = running(&world).await;
    start(&world, id).await.unwrap();
    world.state(|state| assert_eq!(state.runner_starts, 1));
}

#[tokio::test]
async fn a_runner_that_comes_too_late_is_stopped() {
    let world = World::new();
    let id = submitted(&world).await;
    clean(&world, id).await.unwrap();
    assert!(matches!(start(&world, id).await, Err(StepError::BuildEnded(_))));
    world.state(|state| assert_eq!(state.runner_starts, 0));
}

#[tokio::test]
async fn a_failed_build_is_torn_down_and_others_things_stay() {
    let world = World::new();
    let id = running(&world).await;
    world.packer_makes(id);
    let theirs = world.look_alikes();
    clean(&world, id).await.unwrap();
    let record = world.build(id);
    assert_eq!(record.status, BuildStatus::Failed);
    assert_eq!(record.failure.unwrap().message, "it broke");
    assert_eq!(record.leftovers.found, record.leftovers.removed);
    assert!(record.leftovers.found.instances.contains("i-1"));
    assert!(record.leftovers.found.security_groups.contains("sg-1"));
    assert_eq!(world.alive(), theirs);
    assert!(!record.clean, "one look is no proof");
    world.poll_for_minutes(1).await;
    assert!(world.build(id).clean);
    assert_eq!(world.alive(), theirs);
}

#[tokio::test]
async fn an_instance_that_takes_its_time_is_waited_for_across_steps() {
    let world = World::new();
    let id = running(&world).await;
    world.packer_makes(id);
    world.state(|state| state.shut_down_takes = 10);
    let mut tries = 0;
    while let Err(error) = clean(&world, id).await {
        assert!(matches!(error, StepError::LeftoversRemain(_)), "{error}");
        assert_eq!(world.build(id).status, BuildStatus::Building, "not failed before it is clean");
        tries += 1;
        assert!(tries < 20);
    }
    assert!(tries > 0);
    assert_eq!(world.build(id).status, BuildStatus::Failed);
    assert!(world.alive().is_empty());
}

#[tokio::test]
async fn clean_up_goes_on_after_any_call_that_fails() {
    for call in ["find", "delete", "replace"] {
        let world = World::new();
        let id = running(&world).await;
        world.packer_makes(id);
        world.state(|state| state.fail_next = Some(call));
        assert!(clean(&world, id).await.is_err(), "{call}");
        clean(&world, id).await.unwrap_or_else(|error| panic!("{call}: {error}"));
        assert!(world.build(id).status.is_final(), "{call}");
        assert!(world.alive().is_empty(), "{call}");
    }
}

#[tokio::test]
async fn the_poller_alone_ends_a_build_whose_runner_died() {
    let world = World::new();
    let id = running(&world).await;
    world.packer_makes(id);
    let runner = world.build(id).runner_id.unwrap();
    world.state(|state| {
        let at = state.now;
        state.runners.insert(runner, RunnerState::Ended { at, reported: false });
    });
    world.pass(60);
    world.poll().await;
    assert_eq!(world.build(id).status, BuildStatus::Failed);
    assert!(world.alive().is_empty());
    world.state(|state| assert_eq!(state.executions[&id], ExecutionState::Ended));
    world.poll_for_minutes(1).await;
    assert!(world.build(id).clean);
}

#[tokio::test]
async fn the_poller_alone_ends_a_build_whose_time_is_over() {
    let world = World::new();
    let id = running(&world).await;
    world.packer_makes(id);
    world.pass(1800 + 60);
    world.poll().await;
    let record = world.build(id);
    assert_eq!((record.status, record.phase), (BuildStatus::Failed, Phase::TimedOut));
    assert_eq!(record.failure.unwrap().message, "Packer build timed out after 1800 seconds");
    assert!(world.alive().is_empty());
}

#[tokio::test]
async fn a_build_that_cannot_be_brought_on_does_not_hold_up_the_others() {
    let world = World::new();
    let (first, second) = (running(&world).await, running(&world).await);
    world.pass(1800 + 60);
    world.state(|state| state.refused_for = Some(first));
    let output = world.poll().await;
    assert_eq!((output.looked_at, output.failed), (2, 1));
    assert!(!world.build(first).status.is_final() && world.build(second).status.is_final());
    world.state(|state| state.refused_for = None);
    world.poll().await;
    assert!(world.build(first).status.is_final());
}

#[tokio::test]
async fn a_result_that_comes_after_the_end_changes_nothing() {
    let world = World::new();
    let id = running(&world).await;
    clean(&world, id).await.unwrap();
    world.ami_appears(id, AMI, false);
    assert!(matches!(finish(&world, id).await, Err(StepError::BuildEnded(_))));
    assert_eq!(world.build(id).status, BuildStatus::Failed);
    world.state(|state| assert!(state.images.is_empty()));
}

#[tokio::test]
async fn an_ami_that_is_not_this_builds_is_not_recorded() {
    let world = World::new();
    let id = running(&world).await;
    world.ami_appears("00000000-0000-4000-8000-0000000000ff".parse().unwrap(), AMI, false);
    assert!(matches!(finish(&world, id).await, Err(StepError::ImageRejected(_))));
    world.state(|state| assert!(state.images.is_empty()));
}

#[tokio::test]
async fn an_ami_whose_tags_ec2_does_not_show_yet_is_waited_for() {
    let world = World::new();
    let id = running(&world).await;
    world.ami_appears(id, AMI, false);
    let tags = world.state(|state| std::mem::take(&mut state.amis[0].tags));
    assert!(matches!(finish(&world, id).await, Err(StepError::ImageNotReady(_))));
    world.state(|state| state.amis[0].tags = tags);
    finish(&world, id).await.unwrap();
    assert_eq!(world.build(id).status, BuildStatus::Succeeded);
}

async fn delete(world: &World, id: &str, dry_run: bool) -> Result<HttpResponse, ApiError> {
    let mut request = HttpRequest::default();
    request.path_parameters.insert("image_id".into(), id.into());
    if dry_run {
        request.query.insert("dry_run".into(), "true".into());
    }
    delete_image::handle(&world.delete_image(), &request).await
}

async fn with_image(world: &World) {
    let id = running(world).await;
    world.ami_appears(id, AMI, false);
    finish(world, id).await.unwrap();
}

#[tokio::test]
async fn an_image_is_deleted_once() {
    let world = World::new();
    with_image(&world).await;
    let would = delete(&world, AMI, true).await.unwrap();
    assert_eq!(would.body.unwrap()["would_delete"], json!({"images": [AMI], "snapshots": ["snap-1"]}));
    world.state(|state| assert_eq!(state.amis.len(), 1, "a dry run deletes nothing"));
    assert_eq!(delete(&world, AMI, false).await.unwrap().status, 204);
    world.state(|state| assert!(state.amis.is_empty() && state.images.is_empty()));
    assert_eq!(delete(&world, AMI, false).await.unwrap_err().code(), "image_not_found");
}

#[tokio::test]
async fn all_images_of_a_build_are_deleted_together() {
    const COPY: &str = "ami-0123456789abcdef0";
    let world = World::new();
    let id = running(&world).await;
    let artifacts: Vec<Artifact> = [AMI, COPY]
        .map(|ami| Artifact { region: "us-east-1".parse().unwrap(), image_id: ami.parse().unwrap() })
        .into();
    for ami in [AMI, COPY] {
        world.ami_appears(id, ami, false);
    }
    let input = finish_build::Input { build_id: id, artifacts };
    finish_build::run(&world.reconcile(), input).await.unwrap();
    let would = delete(&world, COPY, true).await.unwrap().body.unwrap();
    assert_eq!(would["would_delete"]["images"], json!([AMI, COPY]));
    world.state(|state| state.fail_next = Some("remove_image"));
    assert_eq!(delete(&world, COPY, false).await.unwrap_err().status(), 503);
    assert_eq!(delete(&world, COPY, false).await.unwrap().status, 204);
    world.state(|state| assert!(state.amis.is_empty() && state.images.is_empty()));
}

#[tokio::test]
async fn a_half_done_deletion_is_finished_by_asking_again() {
    for call in ["delete_snapshot", "remove_image"] {
        let world = World::new();
        with_image(&world).await;
        world.state(|state| state.fail_next = Some(call));
        assert_eq!(delete(&world, AMI, false).await.unwrap_err().status(), 503);
        assert_eq!(delete(&world, AMI, false).await.unwrap().status, 204);
        world.state(|state| assert!(state.images.is_empty()));
    }
}

#[tokio::test]
async fn an_ami_of_somebody_else_is_not_found_and_not_touched() {
    let world = World::new();
    with_image(&world).await;
    world.state(|state| state.amis[0].tags.insert("ciab:stack".into(), "staging".into()));
    assert_eq!(delete(&world, AMI, false).await.unwrap_err().status(), 404);
    assert_eq!(delete(&world, "ami-00000000000000000", false).await.unwrap_err().status(), 404);
    world.state(|state| assert_eq!((state.amis.len(), state.images.len()), (1, 1)));
}

#[tokio::test]
async fn an_image_that_was_deregistered_by_hand_leaves_the_listing() {
    let world = World::new();
    with_image(&world).await;
    world.state(|state| {
        state.amis.clear();
        state.resources.clear();
    });
    world.pass(600);
    let output = world.poll().await;
    assert_eq!(output.forgotten_images, 1);
    world.state(|state| assert!(state.images.is_empty()));
}

fn runner_ends(world: &World, id: BuildId) {
    let runner = world.build(id).runner_id.unwrap();
    world.state(|state| {
        let at = state.now;
        state.runners.insert(runner, RunnerState::Ended { at, reported: false });
    });
}

fn manifest(world: &World, id: BuildId, document: &Value) {
    world.state(|state| state.objects.insert(Manifest::key(id), document.to_string().into_bytes()));
}

#[tokio::test]
async fn a_result_whose_report_was_lost_is_recorded_by_the_poller_alone() {
    let world = World::new();
    let id = running(&world).await;
    world.ami_appears(id, AMI, false);
    let artifacts = json!([{"region": "us-east-1", "image_id": AMI}]);
    manifest(
        &world,
        id,
        &json!({"outcome": "succeeded", "artifacts": artifacts, "packer_version": "1.11.2"}),
    );
    runner_ends(&world, id);
    world.state(|state| state.executions.insert(id, ExecutionState::Ended));
    world.poll_for_minutes(1).await;
    let record = world.build(id);
    assert_eq!((record.status, record.image_id.unwrap().as_str()), (BuildStatus::Succeeded, AMI));
    world.state(|state| assert!(state.images.contains_key(AMI)));
}

#[tokio::test]
async fn a_time_out_is_not_told_of_a_build_whose_image_exists() {
    let world = World::new();
    let id = running(&world).await;
    world.ami_appears(id, AMI, false);
    let artifacts = json!([{"region": "us-east-1", "image_id": AMI}]);
    manifest(&world, id, &json!({"outcome": "succeeded", "artifacts": artifacts}));
    runner_ends(&world, id);
    world.pass(1800 + 60);
    world.poll().await;
    assert_eq!(world.build(id).status, BuildStatus::Succeeded);
}

#[tokio::test]
async fn a_failure_whose_report_was_lost_is_told_as_the_runner_told_it() {
    let world = World::new();
    let id = running(&world).await;
    let failure =
        json!({"stage": "run-packer", "step": "shell", "message": "exit status 7", "last_log_lines": ["x"]});
    manifest(&world, id, &json!({"outcome": "PackerFailed", "failure": failure}));
    runner_ends(&world, id);
    world.poll_for_minutes(1).await;
    let record = world.build(id);
    assert_eq!(record.status, BuildStatus::Failed);
    assert_eq!(record.failure.unwrap().message, "exit status 7");
}

#[tokio::test]
async fn a_whole_image_whose_runner_died_is_taken_over_and_a_half_one_is_removed() {
    for (provisioned, status) in [(true, BuildStatus::Succeeded), (false, BuildStatus::Failed)] {
        let world = World::new();
        let id = running(&world).await;
        world.packer_makes(id);
        world.ami_appears(id, AMI, false);
        let mut ledger = Ledger { begun: ["amazon-ebs.x".to_owned()].into(), ..Ledger::default() };
        if provisioned {
            ledger.provisioned = ledger.begun.clone();
        }
        world.state(|state| state.objects.insert(Ledger::key(id), serde_json::to_vec(&ledger).unwrap()));
        runner_ends(&world, id);
        world.poll_for_minutes(2).await;
        let record = world.build(id);
        assert_eq!(record.status, status, "provisioned: {provisioned}");
        let left: Vec<String> = world.alive().into_iter().map(|resource| resource.id).collect();
        assert_eq!(left, if provisioned { vec![AMI] } else { vec![] });
        world.poll_for_minutes(2).await;
        assert!(world.build(id).clean);
    }
}

#[tokio::test]
async fn a_step_that_broke_after_the_runner_ended_well_costs_no_image() {
    let world = World::new();
    let id = running(&world).await;
    world.ami_appears(id, AMI, false);
    let artifacts = json!([{"region": "us-east-1", "image_id": AMI}]);
    manifest(&world, id, &json!({"outcome": "succeeded", "artifacts": artifacts}));
    runner_ends(&world, id);
    let error = Caught { error: "ServiceUnavailable".into(), cause: String::new() };
    let output = clean_up::run(&world.reconcile(), clean_up::Input { build_id: id, error }).await.unwrap();
    assert_eq!(output.status, BuildStatus::Succeeded);
}

#[tokio::test]
async fn a_runner_whose_start_was_never_answered_is_found_and_never_started_twice() {
    let world = World::new();
    let id = submitted(&world).await;
    prepare_build::run(&world.prepare_build(), prepare_build::Input { build_id: id }).await.unwrap();
    world.state(|state| state.lose_reply_of = Some("start_runner"));
    let uncertain = start(&world, id).await.unwrap_err();
    assert_eq!(uncertain.name(), "RunnerUncertain", "it must not be tried with another task token");
    assert_eq!(world.build(id).runner_id, None);
    start(&world, id).await.unwrap();
    world.state(|state| assert_eq!(state.runner_starts, 1));

    let world = World::new();
    let id = submitted(&world).await;
    prepare_build::run(&world.prepare_build(), prepare_build::Input { build_id: id }).await.unwrap();
    world.state(|state| state.lose_reply_of = Some("start_runner"));
    assert!(start(&world, id).await.is_err());
    world.poll_for_minutes(1).await;
    assert!(world.build(id).runner_id.is_some(), "the poller notes it");
}

#[tokio::test]
async fn builds_beyond_the_slots_wait_and_start_in_the_order_in_which_they_came() {
    let world = World::new();
    world.state(|state| state.concurrent_builds = 2);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(submitted(&world).await);
        world.pass(1);
    }
    let dispatched =
        |world: &World| world.state(|state| state.executions.keys().copied().collect::<Vec<_>>());
    assert_eq!(dispatched(&world), ids[..2]);
    clean(&world, ids[0]).await.unwrap();
    assert_eq!(dispatched(&world), ids[..3], "a slot that gets free is taken at once");
    world.state(|state| state.fail_next = Some("release_slot"));
    clean(&world, ids[1]).await.unwrap();
    assert_eq!(dispatched(&world), ids[..3], "whoever held the slot died");
    world.poll_for_minutes(1).await;
    assert_eq!(dispatched(&world), ids[..4], "one poll later");
}

#[tokio::test]
async fn a_build_that_got_a_slot_and_no_execution_gets_one_by_the_poller() {
    let world = World::new();
    world.state(|state| {
        state.concurrent_builds = 1;
        state.fail_next = Some("start");
    });
    let id = submitted(&world).await;
    world.state(|state| assert!(state.executions.is_empty() && state.slots.contains(&id)));
    world.poll_for_minutes(1).await;
    world.state(|state| assert!(state.executions.contains_key(&id)));
}

#[tokio::test]
async fn a_slot_whose_answer_was_lost_is_no_second_slot() {
    let world = World::new();
    world.state(|state| {
        state.concurrent_builds = 1;
        state.lose_reply_of = Some("take_slot");
    });
    let id = submitted(&world).await;
    assert_eq!(world.dispatcher().dispatch(None).await.unwrap(), 0);
    world.poll_for_minutes(1).await;
    world.state(|state| assert_eq!(state.slots, [id].into()));
}

async fn cancel(world: &World, id: BuildId) -> Result<HttpResponse, ApiError> {
    let mut request = HttpRequest::default();
    request.path_parameters.insert("build_id".into(), id.to_string());
    cancel_build::handle(&world.reconcile(), &request).await
}

#[tokio::test]
async fn a_build_is_cancelled_while_queued_and_while_building_and_twice_but_not_after_its_end() {
    let world = World::new();
    world.state(|state| state.concurrent_builds = 1);
    let first = running(&world).await;
    world.packer_makes(first);
    let waiting = submitted(&world).await;

    let answer = cancel(&world, waiting).await.unwrap();
    assert_eq!(answer.status, 202);
    let body = answer.body.unwrap();
    assert_eq!(
        (&body["status"], &body["phase"], &body["error"]),
        (&json!("failed"), &json!("cancelled"), &json!("cancelled"))
    );
    let again = cancel(&world, waiting).await.unwrap_err();
    assert_eq!((again.status(), again.code()), (409, "build_ended"));

    world.state(|state| state.shut_down_takes = 5);
    assert_eq!(cancel(&world, first).await.unwrap().status, 202);
    assert_eq!(world.build(first).status, BuildStatus::Building, "its instance takes its time");
    assert_eq!(cancel(&world, first).await.unwrap().status, 202, "twice");
    world.poll_for_minutes(3).await;
    let record = world.build(first);
    assert_eq!((record.status, record.phase), (BuildStatus::Failed, Phase::Cancelled));
    assert!(world.alive().is_empty());
    let unknown = "00000000-0000-4000-8000-0000000000ff".parse().unwrap();
    assert_eq!(cancel(&world, unknown).await.unwrap_err().code(), "build_not_found");
}

#[tokio::test]
async fn two_polls_at_a_time_are_one() {
    let world = World::new();
    let deps = world.poll_builds();
    world.state(|state| {
        let until = state.now + jiff::SignedDuration::from_secs(30);
        state.leases.insert("poll-builds".into(), ("another".into(), until));
    });
    assert!(poll_builds::run(&deps, "me").await.unwrap().skipped);
    world.pass(31);
    assert!(!poll_builds::run(&deps, "me").await.unwrap().skipped, "the other one died");
}

#[tokio::test]
async fn what_turns_up_after_a_build_was_clean_is_removed_too() {
    let world = World::new();
    let id = running(&world).await;
    clean(&world, id).await.unwrap();
    world.poll_for_minutes(2).await;
    assert!(world.build(id).clean);
    world.packer_makes(id);
    world.poll_for_minutes(4).await;
    assert!(world.alive().is_empty());
    let record = world.build(id);
    assert!(record.clean && record.leftovers.found.instances.contains("i-1"));
}

#[tokio::test]
async fn many_builds_are_looked_for_together() {
    let world = World::new();
    world.state(|state| state.concurrent_builds = 100);
    for _ in 0..100 {
        running(&world).await;
    }
    world.pass(1800 + 60);
    let output = world.poll().await;
    assert_eq!((output.looked_at, output.failed), (100, 0));
    world.state(|state| assert_eq!(state.finds, 1, "one look for all"));
}

#[tokio::test]
async fn a_build_that_cannot_even_be_looked_at_is_told_as_failed_in_the_end_and_cleaned_when_it_can_be() {
    let world = World::new();
    let id = running(&world).await;
    world.packer_makes(id);
    world.state(|state| state.refused_for = Some(id));
    assert!(clean(&world, id).await.is_err());
    world.poll_for_minutes(14).await;
    assert_eq!(world.build(id).status, BuildStatus::Building);
    world.poll_for_minutes(3).await;
    let record = world.build(id);
    assert_eq!((record.status, record.clean), (BuildStatus::Failed, false));
    world.pass(600);
    assert_eq!(world.poll().await.with_leftovers, 1, "an alarm is raised");
    world.state(|state| state.refused_for = None);
    world.poll_for_minutes(6).await;
    assert!(world.build(id).clean && world.alive().is_empty());
}
