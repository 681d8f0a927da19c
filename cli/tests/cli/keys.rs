//! Keys are made, listed and revoked, and a key is shown once.

use serde_json::{Value, json};

use crate::program::ciab;
use crate::service::{Answer, Service, ok, refusal};

const KEY_ID: &str = "019d2566fe4000000001";
const KEY: &str =
    "ciab_019d2566fe4000000001_abababababababababababababababababababababababababababababababab";

fn listed(id: &str) -> Value {
    json!({
        "key_id": id, "label": "ci", "scopes": ["read", "build"], "providers": ["codex"],
        "regions": ["eu-west-1"], "created_at": "2026-03-25T14:30:00Z", "expires_at": null,
    })
}

fn made() -> Value {
    let mut key = listed(KEY_ID);
    key["key"] = json!(KEY);
    key
}

#[test]
fn a_new_key_is_all_that_stdout_has_and_its_hints_are_elsewhere() {
    let service = Service::start();
    service.on("POST /keys", [Answer::Json(201, made())]);
    let arguments = [
        "key",
        "create",
        "--label",
        "ci",
        "--scope",
        "read",
        "--scope",
        "build",
        "--provider",
        "codex",
        "--region",
        "eu-west-1",
        "--expires-in",
        "90d",
    ];
    let outcome = ciab(&service, &arguments);
    assert_eq!(outcome.exited(0).stdout, format!("{KEY}\n"));
    outcome.says("hint: it is shown this once").says(&format!("`ciab key revoke {KEY_ID}` revokes it"));
    assert!(!outcome.stderr.contains(KEY), "{}", outcome.stderr);
    assert_eq!(
        service.seen()[0].body,
        json!({
            "label": "ci", "scopes": ["read", "build"], "providers": ["codex"], "regions": ["eu-west-1"],
            "expires_in_days": 90,
        })
    );
    let arguments = ["key", "create", "--label", "ci", "--scope", "read", "--output", "json"];
    assert_eq!(ciab(&service, &arguments).exited(0).json(), made());
    assert_eq!(service.seen()[1].body, json!({"label": "ci", "scopes": ["read"]}));
    let arguments = ["key", "create", "--label", "ci", "--scope", "read", "--output", "yaml"];
    assert!(ciab(&service, &arguments).exited(0).stdout.contains(&format!("key: {KEY}\n")));
}

#[test]
fn a_key_whose_answer_was_lost_is_made_again_and_the_lost_one_is_told_of() {
    let service = Service::start();
    service.on("POST /keys", [Answer::Dropped, Answer::Json(201, made())]);
    let outcome = ciab(&service, &["key", "create", "--label", "ci", "--scope", "read"]);
    outcome.exited(0).says("it may have made a key that nobody knows");
    assert_eq!((outcome.stdout.as_str(), service.seen().len()), (format!("{KEY}\n").as_str(), 2));
}

#[test]
fn an_answer_without_a_key_is_none() {
    let service = Service::start();
    service.on("POST /keys", [Answer::Json(201, listed(KEY_ID))]);
    let outcome = ciab(&service, &["key", "create", "--label", "ci", "--scope", "read"]);
    outcome.exited(5).says("it tells no key");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn keys_are_listed_page_by_page() {
    let service = Service::start();
    let page = |ids: &[&str], token: Option<&str>| {
        let keys: Vec<Value> = ids.iter().map(|id| listed(id)).collect();
        ok(json!({"keys": keys, "next_token": token}))
    };
    let other = "019d2566fe4000000002";
    service.on("GET /keys", [page(&[KEY_ID], Some("more"))]);
    service.on("GET /keys?limit=100", [page(&[KEY_ID], Some("more"))]);
    service.on("GET /keys?limit=100&next_token=more", [page(&[other], None)]);
    let outcome = ciab(&service, &["key", "list"]);
    outcome.exited(0).says("hint: there are more keys; --all");
    assert!(outcome.stdout.starts_with("KEY ID "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("read, build"), "{}", outcome.stdout);
    let all = ciab(&service, &["key", "list", "--all", "--output", "json"]).exited(0).json();
    assert_eq!(all, json!({"keys": [listed(KEY_ID), listed(other)], "next_token": null}));
    service.on("GET /keys", [page(&[], None)]);
    ciab(&service, &["key", "list"]).exited(0).says("hint: there are no keys but the first admin key");
}

#[test]
fn a_key_is_revoked_and_one_that_is_not_there_is_not_found() {
    let service = Service::start();
    let route = format!("DELETE /keys/{KEY_ID}");
    let gone = || refusal(404, "key_not_found", "there is no such key");
    service.on(&route, [Answer::Json(204, Value::Null)]);
    let outcome = ciab(&service, &["key", "revoke", KEY_ID]);
    assert_eq!(outcome.exited(0).stdout, format!("Revoked {KEY_ID}\n"));
    outcome.says("hint: where it was used just now");
    let outcome = ciab(&service, &["key", "revoke", KEY_ID, "--output", "json"]);
    assert_eq!(outcome.exited(0).json(), json!({"key_id": KEY_ID, "revoked": true}));
    service.on(&route, [gone()]);
    ciab(&service, &["key", "revoke", KEY_ID]).exited(3).says("there is no such key (key_not_found)");
    service.on(&route, [Answer::Dropped, gone()]);
    ciab(&service, &["key", "revoke", KEY_ID]).exited(0).says("An earlier attempt got no answer");
}

#[test]
fn wrong_usage_sends_nothing_and_shows_no_key() {
    let service = Service::start();
    for arguments in [
        &["key", "create", "--label", "ci"][..],
        &["key", "create", "--scope", "read"],
        &["key", "create", "--label", "ci", "--scope", "write"],
        &["key", "create", "--label", "ci", "--scope", "read", "--expires-in", "90"],
        &["key", "list", "--limit", "101"],
        &["key", "revoke"],
        &["key", "revoke", "admin"],
        &["key"],
    ] {
        assert_eq!(ciab(&service, arguments).exited(2).stdout, "", "{arguments:?}");
    }
    assert!(service.seen().is_empty());
}
