//! `--wait` and `--watch` through trouble: the verdict is the build's final status or none.

use std::time::Duration;

use serde_json::json;

use crate::program::{against, ciab, finish};
use crate::service::{Answer, BUILD_ID, Service, accepted, build, ok, refusal};

#[test]
fn a_wait_survives_dropped_connections_and_a_failing_service() {
    let service = Service::start();
    let page = |status: u16| Answer::Raw(status, Vec::new(), "<html>a gateway's page</html>".to_owned());
    service.on("POST /build", [accepted()]).on_build([
        Answer::Dropped,
        refusal(500, "internal_error", "try again"),
        ok(build("building")),
        page(502),
        Answer::CutShort,
        ok(build("building")),
        page(200),
        refusal(429, "rate_limited", "slow down"),
        ok(build("succeeded")),
    ]);
    let outcome = ciab(&service, &["image", "build", "--wait", "--output", "json"]);
    assert_eq!(outcome.exited(0).json(), build("succeeded"));
}

#[test]
fn a_wait_survives_a_service_that_is_gone_for_a_while() {
    let service = Service::start();
    service.on("POST /build", [accepted()]).on_build([ok(build("building"))]);
    let child = against(&service, &["image", "build", "--wait"]).spawn().unwrap();
    while service.seen().len() < 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
    service.stop();
    std::thread::sleep(Duration::from_millis(700));
    service.on_build([ok(build("succeeded"))]);
    service.resume();
    finish(child).exited(0);
}

#[test]
fn a_busy_service_is_left_alone_for_as_long_as_it_asks() {
    let service = Service::start();
    let busy = json!({"error": {"code": "rate_limited", "message": "slow down"}}).to_string();
    service
        .on("POST /build", [accepted()])
        .on_build([Answer::Raw(429, vec![("retry-after", "1".to_owned())], busy), ok(build("succeeded"))]);
    let start = std::time::Instant::now();
    ciab(&service, &["image", "build", "--wait"]).exited(0);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_key_that_stops_working_is_not_the_builds_failure() {
    let service = Service::start();
    service
        .on("POST /build", [accepted()])
        .on_build([ok(build("building")), refusal(401, "unauthorized", "the key is not known")]);
    let outcome = ciab(&service, &["image", "build", "--wait"]);
    outcome
        .exited(4)
        .says(&format!("lost track of build {BUILD_ID}, which may still be running"))
        .says(&format!("hint: `ciab image status {BUILD_ID} --watch`"));
    assert_eq!(outcome.stdout, "");
}

#[test]
fn a_status_that_is_not_known_is_no_verdict() {
    let service = Service::start();
    service.on("POST /build", [accepted()]).on_build([ok(build("melted"))]);
    let outcome = ciab(&service, &["image", "build", "--wait"]);
    outcome.exited(5).says("its status is `melted`");
}

#[test]
fn a_build_that_a_read_does_not_find_yet_is_waited_for() {
    let service = Service::start();
    service
        .on("POST /build", [accepted()])
        .on_build([refusal(404, "build_not_found", "no such build"), ok(build("succeeded"))]);
    ciab(&service, &["image", "build", "--wait"]).exited(0);
}

#[test]
fn watching_judges_and_showing_does_not() {
    let service = Service::start();
    service.on_build([ok(build("building")), ok(build("failed"))]);
    let outcome = ciab(&service, &["image", "status", BUILD_ID, "--watch"]);
    outcome.exited(1).says("Packer build timed out");
    let outcome = ciab(&service, &["image", "status", BUILD_ID]);
    outcome.exited(0);
    assert!(outcome.stdout.ends_with("Error:      Packer build timed out after 1800 seconds\n"));
    assert_eq!(outcome.stderr, "");
}
