//! Logs: the id of a build, or of the request that asked for it, finds what the functions and the runner said about it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use end_to_end::{Answer, Scene, eventually, templates};
use serde_json::{Value, json};

const BUILD: &str = "/api/v1/images/build";

/// Runs a test on a stack of its own.
fn on_a_stack(test: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let scene = Scene::set()?;
    let outcome = test(&scene);
    scene.end(outcome)
}

/// A file of the stack's logs, by its folder and its name in there.
struct File {
    name: String,
    lines: Vec<String>,
}

/// What the functions and the runners said so far; a line that is still being written is left out.
fn files(scene: &Scene) -> Result<Vec<File>> {
    let logs = scene.directory().context("the stack has no folder")?.join("logs");
    let mut files = Vec::new();
    for folder in ["functions", "builds", "instances"] {
        let Ok(entries) = fs::read_dir(logs.join(folder)) else { continue };
        for entry in entries {
            let path = entry?.path();
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let name = format!("{folder}/{}", path.file_stem().map(Path::new).unwrap_or(&path).display());
            files.push(File { name, lines: whole.lines().map(str::to_owned).collect() });
        }
    }
    Ok(files)
}

/// The lines about a build, each with its file's name.
fn about(scene: &Scene, build_id: &str) -> Result<Vec<(String, Value)>> {
    let mut about = Vec::new();
    for file in files(scene)? {
        for line in &file.lines {
            // An instance's console has other lines, too.
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            if line["build_id"] == build_id {
                about.push((file.name.clone(), line));
            }
        }
    }
    Ok(about)
}

/// Waits until each of these has said something about the build. Whatever has must name its request.
fn all_speak(scene: &Scene, build_id: &str, request_id: &str, speakers: &[&str]) -> Result<()> {
    for speaker in speakers {
        eventually(&format!("{speaker} says something about the build"), || {
            Ok(about(scene, build_id)?.iter().any(|(name, _)| name.starts_with(speaker)).then_some(()))
        })?;
    }
    for (name, line) in about(scene, build_id)? {
        ensure!(line["request_id"] == request_id, "{name} does not name the request {request_id}: {line}");
        for field in ["time", "level", "message", "target"] {
            ensure!(line[field].is_string(), "{name} has a line without `{field}`: {line}");
        }
    }
    Ok(())
}

/// The build that was asked for, and the id of the request that did, as the caller is told it.
fn accepted(answer: &Answer) -> Result<(String, String)> {
    ensure!(answer.status == 202, "the build was not accepted: {answer:?}");
    let request_id = answer.request_id.clone().context("the answer has no apigw-requestid")?;
    Ok((answer.text("build_id")?, request_id))
}

fn request(runner: &str, content: &str) -> Value {
    json!({"provider": "codex", "runner": runner, "template": {"type": "inline", "content": content}})
}

#[test]
fn every_line_about_a_build_names_it_from_the_request_to_the_runner() -> Result<()> {
    on_a_stack(|scene| {
        let secret = "a-value-for-packer-alone";
        let template =
            format!("{}\nvariable \"word\" {{\n  type = string\n}}\n", templates::without_communicator());
        let mut body = request("codebuild", &template);
        body["variables"] = json!({"word": secret});
        let (build_id, request_id) = accepted(&scene.api.post(BUILD, &body)?)?;
        let build = scene.ended(&build_id)?;
        ensure!(build["status"] == "succeeded", "{build:#}");
        let speakers = [
            "functions/build-image",
            "functions/prepare-build",
            "functions/start-runner",
            "builds/",
            "functions/finish-build",
        ];
        all_speak(scene, &build_id, &request_id, &speakers)?;

        // An instance's console holds what its own programs say.
        for file in files(scene)?.into_iter().filter(|file| !file.name.starts_with("instances/")) {
            for line in file.lines {
                let is_object = serde_json::from_str::<Value>(&line).is_ok_and(|line| line.is_object());
                ensure!(is_object, "{} has a line that is no JSON object: {line}", file.name);
                for secret in [secret, scene.api_key()] {
                    ensure!(!line.contains(secret), "{} holds a secret: {line}", file.name);
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_build_that_fails_is_followed_through_its_clean_up_until_the_poller_has_seen_it_clean() -> Result<()> {
    on_a_stack(|scene| {
        let answer = scene.api.post(BUILD, &request("codebuild", &templates::invalid()))?;
        let (build_id, request_id) = accepted(&answer)?;
        let build = scene.ended(&build_id)?;
        ensure!(build["status"] == "failed", "{build:#}");
        let speakers = ["functions/build-image", "builds/", "functions/clean-up", "functions/poll-builds"];
        all_speak(scene, &build_id, &request_id, &speakers)
    })
}

#[test]
fn a_runner_on_ec2_names_the_build_and_its_request_too() -> Result<()> {
    on_a_stack(|scene| {
        let answer = scene.api.post(BUILD, &request("ec2", &templates::without_communicator()))?;
        let (build_id, request_id) = accepted(&answer)?;
        let build = scene.ended(&build_id)?;
        ensure!(build["status"] == "succeeded", "{build:#}");
        all_speak(scene, &build_id, &request_id, &["functions/start-runner", "instances/"])
    })
}

#[test]
fn a_build_that_is_asked_for_twice_keeps_its_first_request_and_the_second_leads_to_it() -> Result<()> {
    on_a_stack(|scene| {
        let body = request("codebuild", &templates::without_communicator()).to_string();
        let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
        let (build_id, first) = accepted(&scene.api.send("POST", BUILD, &headers, &body)?)?;
        let (again, second) = accepted(&scene.api.send("POST", BUILD, &headers, &body)?)?;
        ensure!(again == build_id && first != second, "{build_id} by {first}, {again} by {second}");
        eventually("a line says that it was asked for once more", || {
            let lines = about(scene, &build_id)?;
            Ok(lines.iter().any(|(_, line)| line["by_request_id"] == second.as_str()).then_some(()))
        })?;
        scene.ended(&build_id)?;
        all_speak(scene, &build_id, &first, &["functions/build-image", "functions/finish-build"])
    })
}

#[test]
fn a_request_that_is_refused_is_found_by_the_id_in_its_answer() -> Result<()> {
    on_a_stack(|scene| {
        let answer = scene.api.post(BUILD, &json!({"provider": "emacs"}))?;
        ensure!(answer.status == 400, "{answer:?}");
        let request_id = answer.request_id.context("the answer has no apigw-requestid")?;
        eventually("build-image says why it refused", || {
            let files = files(scene)?;
            let lines = files.iter().filter(|file| file.name == "functions/build-image");
            let mut lines =
                lines.flat_map(|file| &file.lines).map(|line| serde_json::from_str::<Value>(line));
            Ok(lines
                .any(|line| {
                    line.is_ok_and(|line| {
                        line["request_id"] == request_id.as_str() && line["code"] != Value::Null
                    })
                })
                .then_some(()))
        })
    })
}
