//! `ciab image list` and `ciab image delete`.

use serde_json::json;

use crate::program::ciab;
use crate::service::{Answer, IMAGE_ID, Service, ok, refusal};

fn image(id: &str) -> serde_json::Value {
    json!({"image_id": id, "provider": "claude-code", "region": "us-east-1", "status": "available",
           "created_at": "2026-03-25T14:30:00Z"})
}

#[test]
fn images_are_listed_as_documented() {
    let service = Service::start();
    service.on("GET ", [ok(json!({"images": [image(IMAGE_ID)], "next_token": null}))]);
    let outcome = ciab(&service, &["image", "list"]);
    outcome.exited(0);
    assert_eq!(
        outcome.stdout,
        "IMAGE ID                  PROVIDER      REGION      CREATED              STATUS\n\
         ami-0abcdef1234567890     claude-code   us-east-1   2026-03-25 14:30:00  available\n"
    );
    assert_eq!(outcome.stderr, "");
}

#[test]
fn filters_reach_the_service() {
    let service = Service::start();
    service
        .on("GET ?region=eu-west-1&provider=codex&limit=5", [ok(json!({"images": [], "next_token": null}))]);
    let arguments = ["image", "list", "--region", "eu-west-1", "--provider", "codex", "--limit", "5"];
    ciab(&service, &arguments).exited(0).says("hint: no images match");
    ciab(&service, &["image", "list", "--limit", "101"]).exited(2);
}

#[test]
fn all_follows_every_page_and_one_page_says_that_there_are_more() {
    let service = Service::start();
    let page = |ids: &[&str], token: Option<&str>| {
        let images: Vec<_> = ids.iter().map(|id| image(id)).collect();
        ok(json!({"images": images, "next_token": token}))
    };
    service.on("GET ", [page(&["ami-1"], Some("a b"))]);
    service.on("GET ?limit=100", [page(&["ami-1"], Some("a b"))]);
    service.on("GET ?limit=100&next_token=a+b", [page(&["ami-2"], None)]);
    ciab(&service, &["image", "list"]).exited(0).says("hint: there are more images; --all");
    let document = ciab(&service, &["image", "list", "--all", "--output", "json"]).exited(0).json();
    assert_eq!(document, json!({"images": [image("ami-1"), image("ami-2")], "next_token": null}));
}

#[test]
fn deleting_without_a_terminal_needs_a_yes() {
    let service = Service::start();
    service.on(&format!("DELETE /{IMAGE_ID}"), [Answer::Json(204, json!(null))]);
    let outcome = ciab(&service, &["image", "delete", IMAGE_ID]);
    outcome.exited(2).says("hint: -y deletes without asking");
    assert!(service.seen().is_empty());

    let outcome = ciab(&service, &["image", "delete", IMAGE_ID, "-y"]);
    assert_eq!(outcome.exited(0).stdout, format!("Deleted {IMAGE_ID}\n"));
    let outcome = ciab(&service, &["image", "delete", IMAGE_ID, "-y", "--output", "json"]);
    assert_eq!(outcome.json(), json!({"image_id": IMAGE_ID, "deleted": true}));
}

#[test]
fn a_dry_run_shows_what_would_go() {
    let service = Service::start();
    let preview = json!({"image_id": IMAGE_ID, "snapshot_ids": ["snap-1", "snap-2"]});
    service.on(&format!("DELETE /{IMAGE_ID}?dry_run=true"), [ok(preview.clone())]);
    let outcome = ciab(&service, &["image", "delete", IMAGE_ID, "--dry-run"]);
    outcome.exited(0).says("Nothing was deleted.");
    assert_eq!(outcome.stdout, format!("image_id: {IMAGE_ID}\nsnapshot_ids: snap-1, snap-2\n"));
    let outcome = ciab(&service, &["image", "delete", IMAGE_ID, "--dry-run", "--output", "json"]);
    assert_eq!(outcome.json(), preview);
    assert!(service.targets().iter().all(|target| target.ends_with("dry_run=true")));
}

#[test]
fn deleting_what_is_not_there_is_not_found_unless_it_was_this_run_that_deleted_it() {
    let service = Service::start();
    let gone = || refusal(404, "image_not_found", "no such image");
    let route = format!("DELETE /{IMAGE_ID}");
    service.on(&route, [gone()]);
    ciab(&service, &["image", "delete", IMAGE_ID, "-y"]).exited(3).says("no such image (image_not_found)");
    service.on(&route, [Answer::Dropped, gone()]);
    ciab(&service, &["image", "delete", IMAGE_ID, "-y"]).exited(0).says("An earlier attempt got no answer");
}
