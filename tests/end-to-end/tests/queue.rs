//! Builds that wait for a slot.

use anyhow::{Result, ensure};
use end_to_end::{Scene, eventually, kill_runners_machine, templates};
use local_stack::StackParts;
use serde_json::{Value, json};

fn request(script: &str) -> Value {
    let content = templates::with_script(script);
    json!({"provider": "codex", "template": {"type": "inline", "content": content}})
}

fn cancel(scene: &Scene, id: &str) -> Result<end_to_end::Answer> {
    scene.api.send("POST", &format!("/api/v1/images/builds/{id}/cancel"), &[], "")
}

#[test]
fn the_slot_of_a_build_that_died_goes_to_the_one_that_has_waited_longest() -> Result<()> {
    let arguments = ["--poll-interval", "1", "--set", "ConcurrentBuilds=1"];
    let scene = Scene::start(&StackParts::from_environment()?, &arguments)?;
    let outcome = (|| {
        let first = scene.start_build(&request("echo now; sleep 600"))?;
        scene.logged(&first, "now")?;
        let second = scene.start_build(&request("true"))?;
        let third = scene.start_build(&request("true"))?;
        let fourth = scene.start_build(&request("true"))?;

        // Cancelled while it waits: it ends at once, and nothing of it ever was.
        let answer = cancel(&scene, &second)?;
        ensure!(answer.status == 202, "{answer:?}");
        let cancelled = scene.ended(&second)?;
        ensure!(cancelled["error"] == "cancelled" && cancelled["phase"] == "cancelled", "{cancelled:#}");
        ensure!(cancelled["started_at"].is_null(), "it never began: {cancelled:#}");
        let too_late = cancel(&scene, &second)?;
        ensure!((too_late.status, too_late.code()) == (409, "build_ended"), "{too_late:?}");
        for waiting in [&third, &fourth] {
            let build = scene.build(waiting)?;
            ensure!(build["status"] == "queued", "there is one slot: {build:#}");
        }

        // Nobody is left who could give the slot back but the poller.
        scene.stop_execution(&first)?;
        kill_runners_machine(&first)?;
        let died = scene.ended(&first)?;
        ensure!(died["status"] == "failed", "{died:#}");
        let (third, fourth) = (scene.ended(&third)?, scene.ended(&fourth)?);
        for build in [&third, &fourth] {
            ensure!(build["status"] == "succeeded", "{build:#}");
        }
        ensure!(
            third["completed_at"].as_str() <= fourth["started_at"].as_str(),
            "one after the other, in their order: {third:#} {fourth:#}"
        );
        let mut kept = Vec::new();
        for build in [&third, &fourth] {
            let id = build["image_id"].as_str().unwrap_or_default();
            kept.push(format!("image {id}"));
            let answer = scene.ec2.call("DescribeImages", &[("ImageId.1", id)])?;
            let snapshots = answer.texts("imagesSet/item/blockDeviceMapping/item/ebs/snapshotId");
            kept.extend(snapshots.into_iter().map(|id| format!("snapshot {id}")));
        }
        eventually("EC2 holds the two images and no more", || {
            let left = scene.leftovers()?;
            Ok((left.len() == kept.len() && kept.iter().all(|item| left.contains(item))).then_some(()))
        })
    })();
    scene.end(outcome)
}
