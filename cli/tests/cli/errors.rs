//! Exit codes and messages for each way the service can refuse or fail.

use std::net::TcpListener;

use crate::program::{ciab, command, run};
use crate::service::{Answer, BUILD_ID, Service, ok, refusal};

#[test]
fn each_refusal_has_its_exit_code_and_its_own_words() {
    let service = Service::start();
    for (status, code, exit) in [
        (400, "invalid_request", 2),
        (401, "unauthorized", 4),
        (403, "forbidden", 4),
        (404, "build_not_found", 3),
        (409, "build_ended", 2),
    ] {
        service.on_build([refusal(status, code, "what was given, what is allowed")]);
        let outcome = ciab(&service, &["image", "status", BUILD_ID]);
        outcome.exited(exit).says(&format!("error: what was given, what is allowed ({code})\n"));
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn a_service_that_goes_on_failing_exits_5() {
    let service = Service::start();
    service.on_build([refusal(503, "unavailable", "come back later")]);
    ciab(&service, &["image", "status", BUILD_ID]).exited(5).says("come back later (unavailable)");
    assert!(service.seen().len() > 1, "a failing service is tried more than once");
}

#[test]
fn a_failure_of_the_service_is_told_with_the_request_that_its_logs_have() {
    let service = Service::start();
    let body = r#"{"error": {"code": "internal_error", "message": "oh"}}"#;
    let named =
        |status| Answer::Raw(status, vec![("apigw-requestid", "JKJaXm=".to_owned())], body.to_owned());
    service.on_build([named(500)]);
    ciab(&service, &["image", "status", BUILD_ID])
        .exited(5)
        .says("error: oh (internal_error)\nhint: whoever runs the service finds more in its logs under the request JKJaXm=");
    service.on_build([named(404)]);
    let outcome = ciab(&service, &["image", "status", BUILD_ID]);
    outcome.exited(3);
    assert!(!outcome.stderr.contains("JKJaXm"), "what the caller can mend needs no log: {}", outcome.stderr);
}

#[test]
fn a_service_that_recovers_is_not_noticed() {
    let service = Service::start();
    service.on_build([
        Answer::Dropped,
        refusal(500, "internal_error", "oh"),
        ok(crate::service::build("building")),
    ]);
    let outcome = ciab(&service, &["image", "status", BUILD_ID]);
    outcome.exited(0);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn an_unreachable_service_is_named_with_what_to_do() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let outcome = run(command(&["image", "list", "--server-url", &url]).env("CIAB_API_KEY", "hunter2"));
    outcome
        .exited(5)
        .says(&format!("error: can't reach the service at {url}: Connection refused"))
        .says("hint: is the service running? set --server-url or CIAB_SERVER_URL");
    assert!(!outcome.stderr.contains("hunter2"));
}

#[test]
fn something_else_on_the_port_is_not_taken_for_the_service() {
    let service = Service::start();
    service.on_build([Answer::Raw(404, Vec::new(), "<html>Not Found</html>".to_owned())]);
    let outcome = ciab(&service, &["image", "status", BUILD_ID]);
    outcome.exited(5).says("not as a CIAB image service does").says("hint: does --server-url");
    service.on_build([Answer::Raw(403, Vec::new(), "{\"message\":\"Forbidden\"}".to_owned())]);
    ciab(&service, &["image", "status", BUILD_ID])
        .exited(4)
        .says("the API key is missing, not accepted, or may not do this")
        .says("hint: a key may be wrong, expired or revoked, or lack the scope");
}

#[test]
fn the_key_does_not_follow_a_redirect() {
    let elsewhere = Service::start();
    let service = Service::start();
    let location = format!("{}/api/v1/images/builds/{BUILD_ID}", elsewhere.url());
    service.on_build([Answer::Raw(307, vec![("location", location.clone())], String::new())]);
    ciab(&service, &["image", "status", BUILD_ID]).exited(5).says(&format!("redirects to {location}"));
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn wrong_usage_exits_2_before_anything_is_sent() {
    let service = Service::start();
    for arguments in [
        &["image", "status", "not-a-uuid"][..],
        &["image", "cancel", "not-a-uuid"],
        &["image", "cancel"],
        &["image", "delete", "snap-1", "-y"],
        &["image", "build", "--timeout", "0"],
        &["image", "build", "--var", "no-equals-sign"],
        &["image", "build", "--var-file", "/no/such/file.json"],
        &["image", "list", "--output", "xml"],
        &["image", "launch"],
        &["image"],
    ] {
        let outcome = ciab(&service, arguments);
        outcome.exited(2);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
    assert!(service.seen().is_empty());
}

#[test]
fn help_does_not_show_the_key() {
    for arguments in [&["--help"][..], &["image", "build", "--help"]] {
        let outcome = run(command(arguments).env("CIAB_API_KEY", "hunter2"));
        outcome.exited(0);
        assert!(outcome.stdout.contains("CIAB_API_KEY"), "{}", outcome.stdout);
        assert!(!outcome.stdout.contains("hunter2"), "{}", outcome.stdout);
    }
}

#[test]
fn a_key_that_cannot_be_sent_is_not_repeated() {
    let outcome = run(command(&["image", "list"]).env("CIAB_API_KEY", "hunter2\nX: y"));
    outcome.exited(2);
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
}

#[test]
fn completions_need_no_service_and_no_configuration() {
    for shell in ["bash", "zsh", "fish"] {
        let outcome = run(&mut command(&["completions", shell, "--config", "/no/such/file"]));
        outcome.exited(0);
        assert!(outcome.stdout.contains("ciab"), "{shell}");
    }
}
