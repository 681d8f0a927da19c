//! Builds on the running stack: one that succeeds, and the ways in which one fails, each leaving nothing in EC2.

use anyhow::{Result, ensure};
use end_to_end::{Scene, freeze_runner, kill_runner_alone, kill_runners_machine, templates};
use serde_json::{Value, json};

fn request(content: &str) -> Value {
    json!({"provider": "codex", "template": {"type": "inline", "content": content}})
}

/// Runs a test on a stack of its own.
fn on_a_stack(test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let scene = Scene::set()?;
    let outcome = test(&scene);
    scene.end(outcome)
}

#[test]
fn a_build_succeeds_and_its_image_is_listed_and_deleted() -> Result<()> {
    on_a_stack(|scene| {
        let mut request = request(&templates::with_script("echo made by $(whoami) | sudo tee /made"));
        request["tags"] = json!({"team": "sandbox"});
        let id = scene.start_build(&request)?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "succeeded", "{build:#}");
        ensure!(build["error"].is_null() && build["failure"].is_null(), "{build:#}");
        let image_id = build["image_id"].as_str().unwrap_or_default().to_owned();

        let log = scene.log(&id)?;
        ensure!(
            log.iter().any(|line| line.contains("made by ubuntu")),
            "the provisioner did not run: {log:#?}"
        );
        ensure!(
            log.iter().any(|line| line.contains("\"ciab:stack\": \"ciab-local\"")),
            "what is no secret is masked: {log:#?}"
        );

        // Only the AMI and its snapshot are new in EC2, and the AMI says whose it is.
        let left = scene.leftovers()?;
        ensure!(left.len() == 2 && left.contains(&format!("image {image_id}")), "{left:?}");
        let answer = scene.ec2.call("DescribeImages", &[("ImageId.1", &image_id)])?;
        let tags = answer.texts("imagesSet/item/tagSet/item/value");
        for expected in [id.as_str(), "ciab-local", "codex", "sandbox"] {
            ensure!(tags.iter().any(|tag| tag == expected), "no tag {expected} in {tags:?}");
        }

        let listing = scene.api.get("/api/v1/images?provider=codex&region=us-east-1")?;
        ensure!(listing.body["images"][0]["image_id"] == image_id.as_str(), "{listing:?}");
        ensure!(listing.body["images"][0]["provisioned"] == true, "{listing:?}");
        let others = scene.api.get("/api/v1/images?provider=gemini")?;
        ensure!(others.body == json!({"images": [], "next_token": null}), "{others:?}");

        let path = format!("/api/v1/images/{image_id}");
        let dry_run = scene.api.delete(&format!("{path}?dry_run=true"))?;
        ensure!(dry_run.body["would_delete"]["images"] == json!([image_id]), "{dry_run:?}");
        ensure!(scene.api.delete(&path)?.status == 204, "the image could not be deleted");
        let again = scene.api.delete(&path)?;
        ensure!((again.status, again.code()) == (404, "image_not_found"), "{again:?}");
        scene.nothing_is_left_of(&build)
    })
}

#[test]
fn a_template_that_packer_refuses_fails_with_packers_words() -> Result<()> {
    on_a_stack(|scene| {
        let id = scene.start_build(&request(&templates::invalid()))?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "failed" && build["image_id"].is_null(), "{build:#}");
        ensure!(build["error"].as_str().unwrap_or_default().contains("no_such_attribute"), "{build:#}");
        scene.nothing_is_left_of(&build)
    })
}

#[test]
fn a_provisioner_that_fails_fails_the_build_with_what_it_said() -> Result<()> {
    on_a_stack(|scene| {
        let id = scene
            .start_build(&request(&templates::with_script("echo the disk is made of cheese; exit 7")))?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "failed", "{build:#}");
        ensure!(build["error"].as_str().unwrap_or_default().contains('7'), "{build:#}");
        let lines = build["failure"]["last_log_lines"].to_string();
        ensure!(lines.contains("made of cheese"), "{build:#}");
        scene.nothing_is_left_of(&build)
    })
}

#[test]
fn a_build_whose_runners_machine_dies_fails_and_leaves_nothing() -> Result<()> {
    on_a_stack(|scene| {
        let id = scene.start_build(&request(&templates::with_script("echo now; sleep 600")))?;
        // The provisioner runs: Packer has an instance, a security group and a key pair.
        scene.logged(&id, "now")?;
        ensure!(scene.leftovers()?.len() >= 3, "nothing to leave behind yet");
        kill_runners_machine(&id)?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "failed", "{build:#}");
        ensure!(
            build["leftovers"]["found"]["instances"].as_array().is_some_and(|ids| ids.len() == 1),
            "{build:#}"
        );
        scene.nothing_is_left_of(&build)
    })
}

#[test]
fn a_build_whose_runner_is_killed_fails_and_leaves_nothing() -> Result<()> {
    on_a_stack(|scene| {
        let id = scene.start_build(&request(&templates::with_script("echo now; sleep 600")))?;
        scene.logged(&id, "now")?;
        // Packer hears of it, and may or may not get to clean up before its machine is gone too.
        kill_runner_alone(&id)?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "failed", "{build:#}");
        scene.nothing_is_left_of(&build)
    })
}

#[test]
fn a_build_whose_deadline_passes_fails_as_timed_out_and_leaves_nothing() -> Result<()> {
    on_a_stack(|scene| {
        let mut request = request(&templates::with_script("echo now; sleep 600"));
        request["timeout_secs"] = json!(30);
        let id = scene.start_build(&request)?;
        scene.logged(&id, "now")?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "failed" && build["phase"] == "timed_out", "{build:#}");
        ensure!(build["error"] == "Packer build timed out after 30 seconds", "{build:#}");
        scene.nothing_is_left_of(&build)
    })
}

#[test]
fn a_build_whose_runner_hangs_past_its_deadline_fails_and_leaves_nothing() -> Result<()> {
    on_a_stack(|scene| {
        let mut request = request(&templates::with_script("echo now; sleep 600"));
        request["timeout_secs"] = json!(30);
        let id = scene.start_build(&request)?;
        scene.logged(&id, "now")?;
        freeze_runner(&id)?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "failed" && build["phase"] == "timed_out", "{build:#}");
        ensure!(
            build["leftovers"]["found"]["instances"].as_array().is_some_and(|ids| ids.len() == 1),
            "{build:#}"
        );
        scene.nothing_is_left_of(&build)
    })
}
