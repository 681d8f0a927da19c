//! What others hear of builds, from the table's stream over publish-events and the event bus to a queue of their own.

use anyhow::{Result, ensure};
use end_to_end::events::{Listener, metrics_of};
use end_to_end::{Scene, eventually, templates};
use serde_json::{Value, json};

fn request(provider: &str, script: &str) -> Value {
    let content = templates::with_script(script);
    json!({"provider": provider, "template": {"type": "inline", "content": content}})
}

fn texts<'a>(events: &'a [Value], field: &str) -> Vec<&'a str> {
    events.iter().map(|event| event["detail"][field].as_str().unwrap_or("none")).collect()
}

/// Waits until the build is told to be clean: the last there is to tell of it. What was told, the state changes first.
fn told(listener: &Listener, id: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let events = eventually("the build is told to be clean", || {
        let events = listener.heard_of(id)?;
        Ok(events.last().is_some_and(|event| event["detail"]["clean"] == true).then_some(events))
    })?;
    let revisions: Vec<u64> =
        events.iter().map(|event| event["detail"]["revision"].as_u64().unwrap_or_default()).collect();
    ensure!(revisions.is_sorted(), "out of order: {revisions:?}");
    let of_state = |event: &Value| event["detail-type"] == "Build State Change";
    let (states, others): (Vec<Value>, Vec<Value>) = events.into_iter().partition(of_state);
    // Each begins where the one before has ended, so that none was left out.
    for field in ["status", "phase"] {
        let before = texts(&states, &format!("previous_{field}"));
        let expected: Vec<&str> = [&["none"], &texts(&states, field)[..states.len() - 1]].concat();
        ensure!(before == expected, "{before:?} is not {expected:?}");
    }
    Ok((states, others))
}

#[test]
fn every_change_of_state_is_told_in_order_and_each_end_is_counted() -> Result<()> {
    let scene = Scene::set()?;
    let outcome = (|| {
        let everything = Listener::to_everything(&scene)?;
        let ends = Listener::to_what_the_template_tells(&scene)?;
        let good = scene.start_build(&request("codex", "true"))?;
        let bad = scene.start_build(&request("gemini", "echo sesame-open; exit 7"))?;
        let unwanted = scene.start_build(&request("cursor", "echo now; sleep 600"))?;
        scene.logged(&unwanted, "now")?;
        let path = format!("/api/v1/images/builds/{unwanted}/cancel");
        ensure!(scene.api.send("POST", &path, &[], "")?.status == 202, "it could not be cancelled");

        let (good, bad, unwanted) = (scene.ended(&good)?, scene.ended(&bad)?, scene.ended(&unwanted)?);
        a_success_is_told(&everything, &good)?;
        a_failure_is_told(&everything, &bad)?;
        a_cancellation_is_told(&everything, &unwanted)?;

        for (build, status) in [(&good, "succeeded"), (&bad, "failed"), (&unwanted, "failed")] {
            let events = ends.heard_of(id(build))?;
            ensure!(
                texts(&events, "status") == [status],
                "the template's rule tells of ends alone: {events:#?}"
            );
        }
        ends_are_counted(&scene, &good, &bad, &unwanted)
    })();
    scene.end(outcome)
}

fn id(build: &Value) -> &str {
    build["build_id"].as_str().unwrap_or_default()
}

fn a_success_is_told(listener: &Listener, build: &Value) -> Result<()> {
    let (states, others) = told(listener, id(build))?;
    let phases = ["queued", "preparing", "starting", "running_packer", "succeeded"];
    ensure!(texts(&states, "phase") == phases, "{states:#?}");
    ensure!(
        texts(&states, "status") == ["queued", "building", "building", "building", "succeeded"],
        "{states:#?}"
    );
    let last = &states[4]["detail"];
    for field in ["image_id", "created_at", "started_at", "completed_at", "provider", "region"] {
        ensure!(last[field] == build[field], "{field}: {last:#} is not {build:#}");
    }
    ensure!(last["images"] == json!([{"region": "us-east-1", "image_id": build["image_id"]}]), "{last:#}");
    ensure!(last["failure"].is_null(), "{last:#}");
    ensure!(others.iter().all(|event| event["detail"]["status"] == "succeeded"), "{others:#?}");
    Ok(())
}

fn a_failure_is_told(listener: &Listener, build: &Value) -> Result<()> {
    let (states, others) = told(listener, id(build))?;
    let phases = ["queued", "preparing", "starting", "running_packer", "cleaning_up", "failed"];
    ensure!(texts(&states, "phase") == phases, "{states:#?}");
    let last = &states[5]["detail"];
    ensure!(last["failure"] == json!({"stage": "run-packer", "kind": "failed"}), "{last:#}");
    ensure!(last["image_id"].is_null() && last["images"] == json!([]), "{last:#}");
    let all = format!("{states:?}{others:?}");
    ensure!(!all.contains("sesame") && !all.contains("amazon-ebs"), "what a template says is told: {all}");
    Ok(())
}

fn a_cancellation_is_told(listener: &Listener, build: &Value) -> Result<()> {
    let (states, _) = told(listener, id(build))?;
    let phases = ["queued", "preparing", "starting", "running_packer", "cleaning_up", "cancelled"];
    ensure!(texts(&states, "phase") == phases, "{states:#?}");
    let last = &states[5]["detail"];
    ensure!(last["failure"] == json!({"stage": "run-packer", "kind": "cancelled"}), "{last:#}");
    Ok(())
}

fn ends_are_counted(scene: &Scene, good: &Value, bad: &Value, unwanted: &Value) -> Result<()> {
    let documents = eventually("all three ends in the log of publish-events", || {
        let documents = metrics_of(scene, "publish-events")?;
        let is_there = |name: &str| documents.iter().any(|document| document[name].is_number());
        let all = ["BuildsSucceeded", "BuildsFailed", "BuildsCancelled"].into_iter().all(is_there);
        Ok((all && documents.iter().filter(|one| one["QueuedDuration"].is_number()).count() >= 3)
            .then_some(documents))
    })?;
    for (name, provider, build) in [
        ("BuildsSucceeded", "codex", good),
        ("BuildsFailed", "gemini", bad),
        ("BuildsCancelled", "cursor", unwanted),
    ] {
        let counted: Vec<&Value> = documents.iter().filter(|one| one[name].is_number()).collect();
        let [document] = counted[..] else { anyhow::bail!("{name}, not once: {counted:#?}") };
        ensure!(document[name] == 1 && document["Provider"] == provider, "{document:#}");
        ensure!(document["Stack"] == "ciab-local", "{document:#}");
        let dimensions = &document["_aws"]["CloudWatchMetrics"][0]["Dimensions"];
        ensure!(*dimensions == json!([["Stack"], ["Stack", "Provider"]]), "{document:#}");
        let took = document["BuildDuration"].as_f64().unwrap_or_default();
        let expected = milliseconds_between(build, "created_at", "completed_at")?;
        ensure!((took - expected).abs() < 1.0, "{took} ms and not {expected}: {document:#}");
    }
    let count = |name: &str| documents.iter().filter(|one| one[name].is_number()).count();
    ensure!((count("QueuedDuration"), count("RunnerDuration")) == (3, 3), "{documents:#?}");
    ensure!(count("CleanUpDuration") == 2, "of what failed alone: {documents:#?}");
    eventually("the poller tells what it sees", || {
        let polls = metrics_of(scene, "poll-builds")?;
        let names = ["BuildsQueued", "ActiveBuilds", "BuildsWithLeftovers", "PollDuration"];
        Ok(polls.iter().any(|poll| names.iter().all(|name| poll[*name].is_number())).then_some(()))
    })
}

fn milliseconds_between(build: &Value, began: &str, ended: &str) -> Result<f64> {
    let time =
        |field: &str| -> Result<jiff::Timestamp> { Ok(build[field].as_str().unwrap_or_default().parse()?) };
    Ok(time(ended)?.duration_since(time(began)?).as_secs_f64() * 1_000.0)
}
