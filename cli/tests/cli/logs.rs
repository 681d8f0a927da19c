//! A build's log: as the result of `logs`, and as progress of `build --follow`.

use serde_json::{Value, json};

use crate::program::ciab;
use crate::service::{Answer, BUILD_ID, Service, accepted, build, log_page, ok, refusal};

#[test]
fn the_log_is_the_result_and_goes_to_stdout() {
    let service = Service::start();
    service.on_build([ok(build("succeeded"))]);
    service.on_log(0, [log_page(0, &["one", "two"], true)]);
    service.on_log(2, [log_page(2, &["three"], true)]);
    service.on_log(3, [log_page(3, &[], true)]);
    let outcome = ciab(&service, &["image", "logs", BUILD_ID]);
    outcome.exited(0);
    assert_eq!(outcome.stdout, "one\ntwo\nthree\n");
    assert_eq!(outcome.stderr, "");

    let document = ciab(&service, &["image", "logs", BUILD_ID, "--output", "json"]).exited(0).json();
    assert_eq!(document["lines"].as_array().unwrap().len(), 3);
    assert_eq!((&document["next_offset"], &document["complete"]), (&json!(3), &json!(true)));
}

#[test]
fn a_log_is_followed_to_its_end_through_a_lost_connection_each_line_once() {
    let service = Service::start();
    service.on_build([ok(build("building"))]);
    service.on_log(0, [log_page(0, &[], false), log_page(0, &["one"], false)]);
    service.on_log(1, [log_page(1, &[], false), Answer::Dropped, log_page(1, &["two"], false)]);
    service.on_log(2, [log_page(2, &[], false), log_page(2, &[], true)]);
    let outcome = ciab(&service, &["image", "logs", BUILD_ID, "--follow"]);
    outcome.exited(0);
    assert_eq!(outcome.stdout, "one\ntwo\n");

    let outcome = ciab(&service, &["image", "logs", BUILD_ID, "--follow", "--output", "json"]);
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| &line["text"]).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn without_following_a_running_builds_log_ends_where_it_is() {
    let service = Service::start();
    service.on_build([ok(build("building"))]);
    service.on_log(0, [log_page(0, &["one"], false)]);
    service.on_log(1, [log_page(1, &[], false)]);
    let outcome = ciab(&service, &["image", "logs", BUILD_ID]);
    assert_eq!(outcome.exited(0).stdout, "one\n");
}

#[test]
fn following_a_build_shows_its_log_on_stderr_and_the_result_on_stdout() {
    let service = Service::start();
    service.on("POST /build", [accepted()]);
    service.on_build([ok(build("queued")), ok(build("building")), ok(build("succeeded"))]);
    service.on_log(0, [refusal(404, "build_not_found", "no log yet"), log_page(0, &["one"], false)]);
    service.on_log(1, [log_page(1, &[], false), log_page(1, &["last words"], true)]);
    service.on_log(2, [log_page(2, &[], true)]);
    let outcome = ciab(&service, &["image", "build", "--follow", "--output", "json"]);
    outcome.exited(0).says("one\nlast words\n");
    assert_eq!(outcome.json(), build("succeeded"));
}

#[test]
fn a_log_that_does_not_move_on_is_not_read_for_ever() {
    let service = Service::start();
    service.on_build([ok(build("building"))]);
    service.on_log(0, [ok(json!({"lines": [{"text": "again"}], "next_offset": 0, "complete": false}))]);
    ciab(&service, &["image", "logs", BUILD_ID]).exited(5).says("does not move on");
}

#[test]
fn the_log_of_an_unknown_build_is_not_found() {
    let service = Service::start();
    service.on_build([refusal(404, "build_not_found", "no build has this id")]);
    let outcome = ciab(&service, &["image", "logs", BUILD_ID, "--follow"]);
    outcome.exited(3).says("error: no build has this id (build_not_found)");
}
