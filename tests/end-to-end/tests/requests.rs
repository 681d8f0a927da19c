//! Requests on the running stack: both shapes, keys, and bad input, which starts and writes nothing.

use anyhow::{Result, ensure};
use end_to_end::Scene;
use serde_json::{Value, json};

const BUILD: &str = "/api/v1/images/build";
const NO_BUILD: &str = "00000000-0000-4000-8000-000000000000";

#[test]
fn requests_get_the_contracts_answers() -> Result<()> {
    let scene = Scene::set()?;
    let outcome = health_needs_no_key(&scene)
        .and_then(|()| everything_else_needs_the_key(&scene))
        .and_then(|()| bad_requests_are_refused(&scene))
        .and_then(|()| what_is_not_there_is_not_found(&scene))
        .and_then(|()| an_idempotency_key_gives_one_build(&scene));
    scene.end(outcome)
}

fn health_needs_no_key(scene: &Scene) -> Result<()> {
    for path in ["/health", "/ready"] {
        let answer = scene.api_with_key(None).get(path)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
    }
    Ok(())
}

fn everything_else_needs_the_key(scene: &Scene) -> Result<()> {
    let build = format!("/api/v1/images/builds/{NO_BUILD}");
    let log = format!("{build}/log");
    let routes = [
        ("POST", BUILD),
        ("GET", build.as_str()),
        ("GET", log.as_str()),
        ("GET", "/api/v1/images"),
        ("GET", "/api/v1/images/ami-0abcdef1234567890"),
        ("DELETE", "/api/v1/images/ami-0abcdef1234567890"),
    ];
    for (method, path) in routes {
        let without = scene.api_with_key(None).send(method, path, &[], "")?;
        ensure!((without.status, without.code()) == (401, "unauthorized"), "{method} {path}: {without:?}");
        let wrong = scene.api_with_key(Some("wrong")).send(method, path, &[], "")?;
        ensure!((wrong.status, wrong.code()) == (403, "forbidden"), "{method} {path}: {wrong:?}");
    }
    Ok(())
}

fn bad_requests_are_refused(scene: &Scene) -> Result<()> {
    let inline =
        |content: &str| json!({"provider": "codex", "template": {"type": "inline", "content": content}});
    let cases: [(Value, u16, &str, &str); 9] = [
        (json!({"provider": "emacs"}), 400, "invalid_request", "claude-code"),
        (json!({"provider": "codex", "region": "moon"}), 400, "invalid_request", "moon"),
        (json!({"provider": "codex", "region": "ap-south-1"}), 400, "config_validation_error", "us-east-1"),
        (json!({"provider": "codex", "colour": "red"}), 400, "invalid_request", "colour"),
        (json!({"provider": "codex", "agent_provider": "gemini"}), 400, "invalid_request", "agent_provider"),
        (
            json!({"provider": "codex", "template_source": "builtin://x"}),
            404,
            "template_source_not_found",
            "default-ec2",
        ),
        (
            json!({"provider": "codex", "template": {"type": "file_path", "path": "x"}}),
            400,
            "invalid_request",
            "inline",
        ),
        (json!({"provider": "codex", "variables": {"nope": "1"}}), 400, "config_validation_error", "nope"),
        (inline("source \"null\" \"x\" {}"), 400, "config_validation_error", "Amazon"),
    ];
    for (body, status, code, part) in cases {
        let answer = scene.api.post(BUILD, &body)?;
        ensure!((answer.status, answer.code()) == (status, code), "{body}: {answer:?}");
        ensure!(
            answer.body["error"]["message"].as_str().unwrap_or_default().contains(part),
            "{body}: {answer:?}"
        );
    }
    let json = [("content-type", "application/json")];
    for body in ["", "not json", "[]", "{\"provider\":"] {
        let answer = scene.api.send("POST", BUILD, &json, body)?;
        ensure!((answer.status, answer.code()) == (400, "invalid_request"), "{body}: {answer:?}");
    }
    let answer = scene.api.send("POST", BUILD, &[("content-type", "text/plain")], "{}")?;
    ensure!((answer.status, answer.code()) == (415, "unsupported_media_type"), "{answer:?}");
    // Nothing was started: EC2 is as it was, and no runner ever made a log.
    ensure!(scene.leftovers()?.is_empty(), "a refused request left something in EC2");
    Ok(())
}

fn what_is_not_there_is_not_found(scene: &Scene) -> Result<()> {
    for (method, path, status, code) in [
        ("GET", "/api/v1/images/builds/not-a-uuid", 400, "invalid_request"),
        ("GET", &*format!("/api/v1/images/builds/{NO_BUILD}"), 404, "build_not_found"),
        ("GET", &*format!("/api/v1/images/builds/{NO_BUILD}/log"), 404, "build_not_found"),
        ("GET", "/api/v1/images/ami-0abcdef1234567890", 404, "image_not_found"),
        ("DELETE", "/api/v1/images/ami-0abcdef1234567890", 404, "image_not_found"),
        ("GET", "/api/v1/images?limit=0", 400, "invalid_request"),
        ("GET", "/api/v1/images?colour=red", 400, "invalid_request"),
        ("GET", "/api/v1/images?next_token=forged", 400, "invalid_request"),
        ("GET", "/api/v2/images", 404, "not_found"),
        ("PUT", "/api/v1/images", 405, "method_not_allowed"),
    ] {
        let answer = scene.api.send(method, path, &[], "")?;
        ensure!((answer.status, answer.code()) == (status, code), "{method} {path}: {answer:?}");
    }
    Ok(())
}

fn an_idempotency_key_gives_one_build(scene: &Scene) -> Result<()> {
    let send = |body: Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
        scene.api.send("POST", BUILD, &headers, &body.to_string())
    };
    // The other shape of the same request, so that both are seen to mean the same.
    let content = "source \"amazon-ebs\" \"x\" {}";
    let first = send(json!({"provider": "codex", "template": {"type": "inline", "content": content}}))?;
    ensure!(first.status == 202, "{first:?}");
    let second =
        send(json!({"agent_provider": "codex", "template": {"content": content, "type": "inline"}}))?;
    ensure!(first.body["build_id"] == second.body["build_id"], "{first:?} {second:?}");
    let other = send(json!({"provider": "gemini"}))?;
    ensure!((other.status, other.code()) == (409, "idempotency_conflict"), "{other:?}");
    let build = scene.ended(&first.text("build_id")?)?;
    ensure!(build["status"] == "failed", "an empty source cannot be built: {build:#}");
    scene.nothing_is_left_of(&build)
}
