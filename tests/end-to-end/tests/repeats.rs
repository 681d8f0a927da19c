//! Events that come twice, late, or to two at once: none starts a second runner or changes how a build ended.

use std::thread;

use anyhow::{Result, ensure};
use end_to_end::harm::Rig;
use end_to_end::templates;
use local_stack::StackParts;
use serde_json::{Value, json};

fn request(content: &str) -> Value {
    json!({"provider": "codex", "template": {"type": "inline", "content": content}})
}

/// Every event that a function may get about a build, as it was, or with what an old execution would send.
fn events(id: &str, image_id: &Value) -> [(&'static str, Value); 5] {
    let error = json!({"Error": "States.Timeout", "Cause": "an old message"});
    let artifacts = json!([{"region": "us-east-1", "image_id": image_id, "id": image_id}]);
    [
        ("prepare-build", json!({"build_id": id})),
        ("start-runner", json!({"build_id": id, "task_token": "an-old-token"})),
        ("finish-build", json!({"build_id": id, "artifacts": artifacts})),
        ("clean-up", json!({"build_id": id, "error": error})),
        ("poll-builds", json!({})),
    ]
}

#[test]
fn a_message_after_the_end_changes_nothing() -> Result<()> {
    let rig = Rig::set(&StackParts::from_environment()?, &[])?;
    let outcome = (|| {
        let scene = &rig.scene;
        let succeeded = scene.start_build(&request(&templates::without_communicator()))?;
        let succeeded = scene.ended(&succeeded)?;
        ensure!(succeeded["status"] == "succeeded", "{succeeded:#}");
        let failed = scene.start_build(&request(&templates::invalid()))?;
        let failed = scene.ended(&failed)?;
        ensure!(failed["status"] == "failed", "{failed:#}");
        rig.two_polls()?;

        let held = scene.leftovers()?;
        let started = rig.proxy.calls().get("codebuild.StartBuild").copied();
        for before in [&succeeded, &failed] {
            let id = before["build_id"].as_str().unwrap_or_default();
            // The image of the one that succeeded, also for the one that failed.
            for (function, event) in events(id, &succeeded["image_id"]) {
                for _ in 0..2 {
                    let answer = scene.invoke(function, &event)?;
                    let after = scene.build(id)?;
                    ensure!(after == *before, "{function} changed a final record ({answer}): {after:#}");
                }
            }
        }
        let started_since = rig.proxy.calls().get("codebuild.StartBuild").copied();
        ensure!(started == started_since, "a runner was started for a build that has ended");
        rig.two_polls()?;
        ensure!(scene.leftovers()? == held, "EC2 changed: {held:?} {:?}", scene.leftovers()?);
        Ok(())
    })();
    rig.end(outcome)
}

#[test]
fn many_pollers_and_doubled_events_beside_a_build_do_it_no_harm() -> Result<()> {
    let rig = Rig::set(&StackParts::from_environment()?, &[])?;
    let outcome = (|| {
        let scene = &rig.scene;
        let id = scene.start_build(&request(&templates::without_communicator()))?;
        let over = || -> Result<bool> {
            let build = scene.build(&id)?;
            Ok(matches!(build["status"].as_str(), Some("succeeded" | "failed")))
        };
        thread::scope(|scope| {
            let pollers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        while !over()? {
                            let answer = scene.invoke("poll-builds", &json!({}))?;
                            ensure!(answer["errorType"].is_null(), "a poll failed: {answer}");
                            // Preparing again gives no more time and no second bundle; it may be refused.
                            scene.invoke("prepare-build", &json!({"build_id": id}))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            pollers.into_iter().try_for_each(|poller| poller.join().unwrap_or(Ok(())))
        })?;
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "succeeded", "{build:#}");
        ensure!(rig.proxy.calls().get("codebuild.StartBuild") == Some(&1), "{:?}", rig.proxy.calls());
        rig.two_polls()?;
        let left = scene.leftovers()?;
        let image = format!("image {}", build["image_id"].as_str().unwrap_or_default());
        ensure!(left.len() == 2 && left.contains(&image), "{left:?}");
        Ok(())
    })();
    rig.end(outcome)
}
