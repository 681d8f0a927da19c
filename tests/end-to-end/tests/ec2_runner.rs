//! Builds whose runner is an EC2 instance: the runner goes with its build, however the build or the runner ends.

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, eventually, freeze_runner, kill_runner_alone, kill_runners_machine, templates};
use serde_json::{Value, json};

fn request(content: &str) -> Value {
    json!({"provider": "codex", "runner": "ec2", "template": {"type": "inline", "content": content}})
}

/// Runs a test on a stack of its own.
fn on_a_stack(test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let scene = Scene::set()?;
    let outcome = test(&scene);
    scene.end(outcome)
}

/// Starts a build that goes on until somebody ends it, and returns once its provisioner runs.
fn endless_build(scene: &Scene) -> Result<String> {
    let id = scene.start_build(&request(&templates::with_script("echo now; sleep 600")))?;
    scene.logged(&id, "now")?;
    ensure!(runner_state(scene, &id)? == "running", "the build's runner is no instance that runs");
    Ok(id)
}

/// The build's runner, an instance; there is one.
fn runner(scene: &Scene, build_id: &str) -> Result<(String, String)> {
    let filter = [("Filter.1.Name", "tag:ciab:runner-of"), ("Filter.1.Value.1", build_id)];
    let answer = scene.ec2.call("DescribeInstances", &filter)?;
    let instance = |field: &str| answer.texts(&format!("reservationSet/item/instancesSet/item/{field}"));
    let (ids, states) = (instance("instanceId"), instance("instanceState/name"));
    ensure!(ids.len() == 1, "one build launches one runner, but these are here: {ids:?}");
    Ok((ids.into_iter().next().context("no runner")?, states.into_iter().next().unwrap_or_default()))
}

fn runner_state(scene: &Scene, build_id: &str) -> Result<String> {
    Ok(runner(scene, build_id)?.1)
}

/// Waits until the runner is gone; that is soon, but not a part of the build's end.
fn runner_is_gone(scene: &Scene, build_id: &str) -> Result<()> {
    eventually("the runner is terminated", || {
        Ok((runner_state(scene, build_id)? == "terminated").then_some(()))
    })
}

fn fails_and_leaves_nothing(scene: &Scene, id: &str) -> Result<Value> {
    let build = scene.ended(id)?;
    ensure!(build["status"] == "failed", "{build:#}");
    runner_is_gone(scene, id)?;
    scene.nothing_is_left_of(&build)?;
    Ok(build)
}

#[test]
fn a_build_on_an_ec2_runner_succeeds_and_its_runner_is_gone() -> Result<()> {
    on_a_stack(|scene| {
        let id = scene.start_build(&request(&templates::with_script("echo made by $(whoami)")))?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "succeeded" && build["runner"] == "ec2", "{build:#}");
        ensure!(
            scene.log(&id)?.iter().any(|line| line.contains("made by ubuntu")),
            "the provisioner did not run"
        );
        runner_is_gone(scene, &id)?;
        // Only the AMI and its snapshot are new in EC2.
        let image_id = build["image_id"].as_str().unwrap_or_default();
        let left = scene.leftovers()?;
        ensure!(left.len() == 2 && left.contains(&format!("image {image_id}")), "{left:?}");
        Ok(())
    })
}

#[test]
fn a_build_whose_packer_fails_on_an_ec2_runner_says_why_and_leaves_nothing() -> Result<()> {
    on_a_stack(|scene| {
        let id = scene.start_build(&request(&templates::with_script("echo broken >&2; exit 7")))?;
        let build = fails_and_leaves_nothing(scene, &id)?;
        ensure!(build["error"].as_str().is_some_and(|error| error.contains('7')), "{build:#}");
        Ok(())
    })
}

#[test]
fn an_ec2_runner_whose_machine_dies_fails_its_build_and_leaves_nothing() -> Result<()> {
    on_a_stack(|scene| {
        let id = endless_build(scene)?;
        kill_runners_machine(&id)?;
        let build = fails_and_leaves_nothing(scene, &id)?;
        // Packer died with it and could not clean up.
        ensure!(
            build["leftovers"]["found"]["instances"].as_array().is_some_and(|ids| ids.len() == 1),
            "{build:#}"
        );
        Ok(())
    })
}

#[test]
fn an_ec2_runner_that_is_taken_away_fails_its_build_and_leaves_nothing() -> Result<()> {
    on_a_stack(|scene| {
        let id = endless_build(scene)?;
        // As EC2 does with a spot instance, or somebody in the console.
        scene.ec2.call("TerminateInstances", &[("InstanceId.1", &runner(scene, &id)?.0)])?;
        fails_and_leaves_nothing(scene, &id).map(drop)
    })
}

#[test]
fn an_ec2_runner_whose_program_is_killed_switches_its_machine_off() -> Result<()> {
    on_a_stack(|scene| {
        let id = endless_build(scene)?;
        kill_runner_alone(&id)?;
        // By its user data: long before anybody else would do it.
        runner_is_gone(scene, &id)?;
        fails_and_leaves_nothing(scene, &id).map(drop)
    })
}

#[test]
fn an_ec2_runner_that_hangs_past_its_deadline_is_stopped_and_leaves_nothing() -> Result<()> {
    on_a_stack(|scene| {
        let mut request = request(&templates::with_script("echo now; sleep 600"));
        request["timeout_secs"] = json!(30);
        let id = scene.start_build(&request)?;
        scene.logged(&id, "now")?;
        freeze_runner(&id)?;
        let build = fails_and_leaves_nothing(scene, &id)?;
        ensure!(build["phase"] == "timed_out", "{build:#}");
        Ok(())
    })
}
