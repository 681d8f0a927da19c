//! `ciab image builds`, `ciab schedule run` and `ciab stack check`.

use serde_json::{Value, json};

use crate::program::ciab;
use crate::service::{Answer, BUILD_ID, IMAGE_ID, Service, build, ok, refusal};

#[test]
fn builds_are_listed_and_filters_reach_the_service() {
    let service = Service::start();
    let page = json!({"builds": [build("succeeded"), build("building")], "next_token": null});
    service.on("GET /builds", [ok(page)]);
    let outcome = ciab(&service, &["image", "builds"]);
    outcome.exited(0);
    let expected = format!(
        "BUILD ID                              PROVIDER      REGION      CREATED              STATUS     IMAGE ID\n\
         {BUILD_ID}  claude-code   us-east-1   2026-03-25 14:29:58  succeeded  {IMAGE_ID}\n\
         {BUILD_ID}  claude-code   us-east-1   2026-03-25 14:29:58  building   --\n"
    );
    assert_eq!(outcome.stdout, expected);

    let empty = json!({"builds": [], "next_token": null});
    service.on("GET /builds?status=failed&provider=codex&limit=5", [ok(empty)]);
    let arguments = ["image", "builds", "--status", "failed", "--provider", "codex", "--limit", "5"];
    ciab(&service, &arguments).exited(0).says("hint: no builds match");
    service.on(
        "GET /builds?status=done",
        [refusal(400, "invalid_request", "`done` is not a status: one of queued, building is expected")],
    );
    ciab(&service, &["image", "builds", "--status", "done"]).exited(2).says("`done` is not a status");
    ciab(&service, &["image", "builds", "--limit", "0"]).exited(2);
}

#[test]
fn all_builds_are_one_document_and_one_page_says_that_there_are_more() {
    let service = Service::start();
    let page =
        |status: &str, token: Option<&str>| ok(json!({"builds": [build(status)], "next_token": token}));
    service.on("GET /builds", [page("building", Some("a"))]);
    service.on("GET /builds?limit=100", [page("building", Some("a"))]);
    service.on("GET /builds?limit=100&next_token=a", [page("failed", None)]);
    ciab(&service, &["image", "builds"]).exited(0).says("hint: there are more builds; --all");
    let document = ciab(&service, &["image", "builds", "--all", "--output", "json"]).exited(0).json();
    assert_eq!(document, json!({"builds": [build("building"), build("failed")], "next_token": null}));
}

fn report(failed: Value) -> Value {
    let of = |more: Value| {
        let mut item = json!({"provider": "codex", "region": "us-east-1", "build_id": BUILD_ID});
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item
    };
    json!({
        "started": [of(json!({}))],
        "deleted": [of(json!({"image_id": "ami-1", "images": ["ami-2", "ami-1"]}))],
        "kept_in_use": [of(json!({"image_id": "ami-3", "used_by": ["i-1", "lt-1"]}))],
        "failed": failed,
        "left_for_next_run": 2
    })
}

#[test]
fn a_rebuild_is_told_line_by_line() {
    let service = Service::start();
    service.on("POST /rebuilds", [Answer::Json(202, report(json!([])))]);
    let outcome = ciab(&service, &["schedule", "run", "--provider", "codex", "--region", "us-east-1"]);
    outcome.exited(0).says("hint: 2 older images are left");
    let expected = format!(
        "WHAT         PROVIDER      REGION      DETAIL\n\
         started      codex         us-east-1   build {BUILD_ID}\n\
         deleted      codex         us-east-1   ami-2, ami-1\n\
         kept in use  codex         us-east-1   ami-3 is used by i-1, lt-1\n"
    );
    assert_eq!(outcome.stdout, expected);
    assert_eq!(service.seen()[0].body, json!({"providers": ["codex"], "regions": ["us-east-1"]}));
}

#[test]
fn a_rebuild_of_which_a_part_failed_fails_and_says_which() {
    let service = Service::start();
    let failed = json!([{"provider": "gemini", "region": "us-east-1", "image_id": null,
                         "code": "unavailable", "message": "try again"}]);
    service.on("POST /rebuilds", [Answer::Json(202, report(failed))]);
    let outcome = ciab(&service, &["schedule", "run"]);
    outcome.exited(1);
    let line = "failed       gemini        us-east-1   try again (unavailable)\n";
    assert!(outcome.stdout.ends_with(line), "{}", outcome.stdout);
    assert_eq!(service.seen()[0].body, json!({}));
}

#[test]
fn a_rebuild_whose_answer_was_lost_is_sent_again_under_the_same_key() {
    let service = Service::start();
    service.on("POST /rebuilds", [Answer::Dropped, Answer::Json(202, report(json!([])))]);
    ciab(&service, &["schedule", "run"]).exited(0);
    ciab(&service, &["schedule", "run", "--idempotency-key", "mine"]).exited(0);
    let keys: Vec<String> = service
        .seen()
        .iter()
        .map(|seen| seen.headers["idempotency-key"].to_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 3);
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[2], "mine");
}

#[test]
fn a_stack_that_has_nothing_billed_passes_its_check_and_another_fails_it() {
    let service = Service::start();
    let resource = |kind: &str, id: &str, billed: Value| {
        json!({"kind": kind, "id": id, "region": "us-east-1", "build_id": null,
               "since": "2026-03-25T14:30:00Z", "billed": billed})
    };
    let group = resource("security_group", "sg-1", json!(false));
    service.on("GET /resources", [ok(json!({"resources": [group]}))]);
    let outcome = ciab(&service, &["stack", "check"]);
    outcome.exited(0).says("Nothing with the stack's tag is billed.");
    assert_eq!(
        outcome.stdout,
        "KIND            ID                        REGION      SINCE                BILLED  BUILD ID\n\
         security group  sg-1                      us-east-1   2026-03-25 14:30:00  no      --\n"
    );
    for billed in [json!(true), json!(null)] {
        let volume = resource("volume", "vol-1", billed);
        service.on("GET /resources", [ok(json!({"resources": [group.clone(), volume]}))]);
        ciab(&service, &["stack", "check"]).exited(1).says("1 things with the stack's tag are billed");
    }
    service.on("GET /resources", [refusal(403, "forbidden", "the key lacks the scope read")]);
    ciab(&service, &["stack", "check"]).exited(4);
}
