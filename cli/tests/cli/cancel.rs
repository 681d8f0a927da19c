//! `ciab image cancel`, and how a build that was cancelled shows elsewhere.

use crate::program::ciab;
use crate::service::{
    Answer, BUILD_ID, Service, accepted, being_cancelled, build, cancelled, log_page, ok, refusal,
};

fn ended() -> Answer {
    refusal(409, "build_ended", "the build has ended already")
}

#[test]
fn cancelling_prints_the_build_and_says_how_to_see_its_end() {
    let service = Service::start();
    service.on_cancel([Answer::Json(202, being_cancelled())]);
    let outcome = ciab(&service, &["image", "cancel", BUILD_ID]);
    outcome.exited(0);
    assert_eq!(
        outcome.stdout,
        "Build ID:   550e8400-e29b-41d4-a716-446655440000\n\
         Provider:   claude-code\n\
         Region:     us-east-1\n\
         Status:     building\n\
         Started:    2026-03-25 14:30:00\n\
         AMI ID:     --\n\
         Phase:      cleaning up\n\
         Error:      cancelled\n"
    );
    assert_eq!(
        outcome.stderr,
        format!("hint: `ciab image status {BUILD_ID} --watch` waits until it has ended\n")
    );
    let sent = &service.seen()[0];
    assert_eq!((sent.method.as_str(), &sent.body), ("POST", &serde_json::Value::Null));
    assert_eq!(service.targets(), [format!("POST /builds/{BUILD_ID}/cancel")]);
}

#[test]
fn a_build_that_ended_at_once_needs_no_hint() {
    let service = Service::start();
    service.on_cancel([Answer::Json(202, cancelled())]);
    let outcome = ciab(&service, &["image", "cancel", BUILD_ID]);
    outcome.exited(0);
    assert!(outcome.stdout.ends_with("AMI ID:     --\nError:      cancelled\n"), "{}", outcome.stdout);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn the_cancelled_build_is_printed_as_the_service_gave_it() {
    let service = Service::start();
    service.on_cancel([Answer::Json(202, being_cancelled())]);
    let outcome = ciab(&service, &["image", "cancel", BUILD_ID, "--output", "json"]);
    assert_eq!(outcome.exited(0).json(), being_cancelled());
    let outcome = ciab(&service, &["image", "cancel", BUILD_ID, "--output", "yaml"]);
    outcome.exited(0);
    assert!(outcome.stdout.contains("\nphase: cleaning_up\n"), "{}", outcome.stdout);
}

#[test]
fn a_build_that_has_ended_cannot_be_cancelled_and_that_is_wrong_usage() {
    let service = Service::start();
    service.on_cancel([ended()]);
    let outcome = ciab(&service, &["image", "cancel", BUILD_ID]);
    outcome
        .exited(2)
        .says("error: the build has ended already (build_ended)\n")
        .says(&format!("hint: `ciab image status {BUILD_ID}` shows how it ended"));
    assert_eq!(outcome.stdout, "");
    assert_eq!(service.seen().len(), 1);
}

#[test]
fn an_unknown_build_a_refused_key_and_a_failing_service_have_their_exit_codes() {
    let service = Service::start();
    for (status, code, exit) in [
        (404, "build_not_found", 3),
        (401, "unauthorized", 4),
        (403, "forbidden", 4),
        (503, "unavailable", 5),
    ] {
        service.on_cancel([refusal(status, code, "why not")]);
        let outcome = ciab(&service, &["image", "cancel", BUILD_ID]);
        outcome.exited(exit).says(&format!("error: why not ({code})"));
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn a_lost_reply_is_asked_for_again() {
    let service = Service::start();
    service.on_cancel([Answer::Dropped, Answer::CutShort, Answer::Json(202, being_cancelled())]);
    ciab(&service, &["image", "cancel", BUILD_ID]).exited(0);
    assert_eq!(service.seen().len(), 3);
}

#[test]
fn a_build_that_a_lost_attempt_has_cancelled_is_cancelled() {
    let service = Service::start();
    service.on_cancel([Answer::Dropped, ended()]).on_build([ok(cancelled())]);
    let outcome = ciab(&service, &["image", "cancel", BUILD_ID, "--output", "json"]);
    outcome.exited(0).says("An earlier attempt got no answer; the build is cancelled.");
    assert_eq!(outcome.json(), cancelled());
}

#[test]
fn a_build_that_ended_otherwise_during_a_lost_attempt_is_not_called_cancelled() {
    let service = Service::start();
    service.on_cancel([Answer::Dropped, ended()]).on_build([ok(build("succeeded"))]);
    let outcome = ciab(&service, &["image", "cancel", BUILD_ID]);
    outcome.exited(2).says("the build has ended already (build_ended)");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn an_answer_about_another_build_is_not_believed() {
    let service = Service::start();
    let mut other = being_cancelled();
    other["build_id"] = "650e8400-e29b-41d4-a716-446655440000".into();
    service.on_cancel([Answer::Json(202, other)]);
    let outcome = ciab(&service, &["image", "cancel", BUILD_ID]);
    outcome.exited(5).says("asked for 550e8400-e29b-41d4-a716-446655440000");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn waiting_for_a_build_that_is_cancelled_exits_1_and_does_not_explain_it_as_a_failure() {
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    for arguments in [&["image", "build", "--wait"][..], &["image", "build", "--follow"]] {
        service.on_build([ok(build("building")), ok(being_cancelled()), ok(cancelled())]);
        service.on_log(0, [log_page(0, &["installing"], true)]).on_log(1, [log_page(1, &[], true)]);
        let outcome = ciab(&service, arguments);
        outcome
            .exited(1)
            .says(&format!("error: build {BUILD_ID} was cancelled\n"))
            .says(&format!("hint: `ciab image logs {BUILD_ID}` shows the whole log"));
        assert!(outcome.stdout.ends_with("Error:      cancelled\n"), "{}", outcome.stdout);
        assert!(!outcome.stderr.contains("stage:"), "{}", outcome.stderr);
    }
}

#[test]
fn showing_a_cancelled_build_exits_0_and_watching_it_exits_1() {
    let service = Service::start();
    service.on_build([ok(cancelled())]);
    let outcome = ciab(&service, &["image", "status", BUILD_ID]);
    outcome.exited(0);
    assert!(outcome.stdout.contains("Status:     failed\n"), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("Error:      cancelled\n"), "{}", outcome.stdout);
    ciab(&service, &["image", "status", BUILD_ID, "--watch"]).exited(1).says("was cancelled");
}
