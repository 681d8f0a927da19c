//! `ciab image build`: what is sent, and what is printed.

use serde_json::json;

use crate::program::{ciab, write};
use crate::service::{Answer, BUILD_ID, IMAGE_ID, Service, accepted, build, ok, refusal};

const BLOCK: &str = "\
Build ID:   550e8400-e29b-41d4-a716-446655440000
Provider:   claude-code
Region:     us-east-1
Status:     queued
Started:    --
AMI ID:     --
";

#[test]
fn a_build_is_started_and_shown_with_hints_on_stderr_only() {
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    let outcome = ciab(&service, &["image", "build", "--var", "node_version=22"]);
    outcome.exited(0).says(&format!("hint: `ciab image status {BUILD_ID} --watch`"));
    assert_eq!(outcome.stdout, BLOCK);

    let request = &service.seen()[0];
    assert_eq!(request.body, json!({"provider": "claude-code", "variables": {"node_version": "22"}}));
    assert_eq!(request.headers["authorization"], "Bearer a-key-for-tests");
    let key = request.headers["idempotency-key"].to_str().unwrap();
    assert!(key.parse::<uuid::Uuid>().is_ok(), "{key}");
}

#[test]
fn the_answer_is_printed_as_the_service_gave_it() {
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    let outcome = ciab(&service, &["image", "build", "--output", "json"]);
    assert_eq!(outcome.exited(0).json(), build("queued"));
    let outcome = ciab(&service, &["--output", "yaml", "image", "build"]);
    outcome.exited(0);
    assert!(
        outcome.stdout.contains("build_id: 550e8400-e29b-41d4-a716-446655440000\n"),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stdout.contains("image_id: null\n"), "{}", outcome.stdout);
}

#[test]
fn a_lost_reply_is_asked_for_again_under_the_same_key() {
    let service = Service::start();
    service.on("POST /build", [Answer::Dropped, Answer::CutShort, accepted()]);
    ciab(&service, &["image", "build"]).exited(0);
    let keys: Vec<_> = service.seen().iter().map(|seen| seen.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn a_given_idempotency_key_is_used() {
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    ciab(&service, &["image", "build", "--idempotency-key", "nightly-7"]).exited(0);
    assert_eq!(service.seen()[0].headers["idempotency-key"], "nightly-7");
    ciab(&service, &["image", "build", "--idempotency-key", "two words"]).exited(2);
    assert_eq!(service.seen().len(), 1);
}

#[test]
fn a_local_template_travels_inline() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("image.pkr.hcl");
    write(&template, "source \"amazon-ebs\" \"image\" {}\n");
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    ciab(&service, &["image", "build", "--template", template.to_str().unwrap()]).exited(0);
    let sent = &service.seen()[0].body;
    assert_eq!(
        sent["template"],
        json!({"type": "inline", "content": "source \"amazon-ebs\" \"image\" {}\n"})
    );
    assert_eq!(sent.get("template_source"), None);

    ciab(&service, &["image", "build", "--template", "no-such-thing"]).exited(2).says("no-such-thing");
    assert_eq!(service.seen().len(), 1);
}

#[test]
fn waiting_ends_with_the_final_document() {
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    service.on_build([ok(build("queued")), ok(build("building")), ok(build("succeeded"))]);
    let outcome = ciab(&service, &["image", "build", "--wait", "--output", "json"]);
    assert_eq!(outcome.exited(0).json(), build("succeeded"));

    service.on_build([ok(build("succeeded"))]);
    let outcome = ciab(&service, &["image", "build", "--wait"]);
    assert!(outcome.exited(0).stdout.ends_with(&format!("AMI ID:     {IMAGE_ID}\n")), "{}", outcome.stdout);
}

#[test]
fn a_failed_build_exits_1_and_says_why() {
    let mut failed = build("failed");
    failed["failure"] = json!({"stage": "provision", "step": "install-agent", "message": "exit status 1",
                               "last_log_lines": ["npm ERR! no such package"]});
    let service = Service::start();
    service.on("POST /build", [accepted()]).on_build([ok(failed.clone())]);
    let outcome = ciab(&service, &["image", "build", "--wait", "--output", "json"]);
    outcome
        .exited(1)
        .says(&format!("error: build {BUILD_ID} failed: Packer build timed out after 1800 seconds"))
        .says("stage: provision")
        .says("npm ERR! no such package")
        .says(&format!("hint: `ciab image logs {BUILD_ID}`"));
    assert_eq!(outcome.json(), failed);
}

#[test]
fn an_image_that_exists_already_needs_no_waiting() {
    let service = Service::start();
    service.on("POST /build", [Answer::Json(202, build("succeeded"))]).on_build([ok(build("succeeded"))]);
    ciab(&service, &["image", "build", "--wait"]).exited(0);
    ciab(&service, &["image", "build"]).exited(0).says("hint: the same inputs have been built already");
}

#[test]
fn a_refused_request_starts_no_wait() {
    let service = Service::start();
    service.on("POST /build", [refusal(400, "invalid_request", "unknown provider `emacs`; allowed: codex")]);
    let outcome = ciab(&service, &["image", "build", "--provider", "emacs", "--wait"]);
    outcome.exited(2).says("error: unknown provider `emacs`; allowed: codex (invalid_request)");
    assert_eq!(outcome.stdout, "");
    assert_eq!(service.seen().len(), 1);
}
