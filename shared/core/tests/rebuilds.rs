//! Rebuilds in a pretend world: one build each however often they are delivered, and what is deleted of what they made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "the world is more than these tests need")]

mod world;

use std::collections::BTreeMap;

use ciab_core::api::{ApiError, HttpRequest, HttpResponse};
use ciab_core::build::{Artifact, Origin};
use ciab_core::ids::{BuildId, ImageId};
use ciab_core::rebuild_images::{self, Deps, Incomplete, Rebuilds, Report, Scheduled};
use ciab_core::{build_image, finish_build};
use serde_json::{Value, json};
use world::World;

const NIGHT: &str = "2026-03-26T03:00:00Z";

fn deps(world: &World, providers: &str, regions: &str) -> Deps {
    let allowed = BTreeMap::from([("CIAB_ALLOWED_REGIONS", "us-east-1,eu-west-1".to_owned())]);
    world.state(|state| state.settings = allowed);
    let get = |name: &'static str| match name {
        "CIAB_REBUILD_PROVIDERS" => Some(providers.to_owned()),
        "CIAB_REBUILD_REGIONS" => Some(regions.to_owned()),
        "CIAB_KEEP_IMAGES" => Some("2".to_owned()),
        _ => None,
    };
    Deps {
        rebuilds: Rebuilds::read(get, &world.settings()).unwrap(),
        build_image: world.build_image(),
        delete_image: world.delete_image(),
    }
}

async fn night(deps: &Deps, at: &str) -> Result<Report, Incomplete> {
    rebuild_images::run(deps, Scheduled { scheduled_at: at.parse().unwrap() }, "night".parse().ok()).await
}

async fn post(deps: &Deps, key: Option<&str>, body: &str) -> Result<HttpResponse, ApiError> {
    let mut request = HttpRequest { body: body.as_bytes().to_vec(), ..HttpRequest::default() };
    request.headers.extend(key.map(|key| ("idempotency-key".to_owned(), key.to_owned())));
    rebuild_images::handle(deps, &request).await
}

fn ami(number: usize) -> ImageId {
    format!("ami-{number:017x}").parse().unwrap()
}

/// The build ends with this AMI, and with copies of it.
async fn ends_with(world: &World, id: BuildId, number: usize, copies: &[usize]) {
    world.state(|state| {
        let now = state.now;
        state.builds.get_mut(&id).unwrap().start(now).unwrap();
    });
    let artifact =
        |number: &usize, region: &str| Artifact { region: region.parse().unwrap(), image_id: ami(*number) };
    let mut artifacts = vec![artifact(&number, world.build(id).region.as_str())];
    artifacts.extend(copies.iter().map(|copy| artifact(copy, "eu-west-1")));
    for artifact in &artifacts {
        world.ami_appears(id, artifact.image_id.as_str(), false);
    }
    finish_build::run(&world.reconcile(), finish_build::Input { build_id: id, artifacts }).await.unwrap();
}

/// So many nights, each of which makes an AMI, numbered from 1.
async fn nights(world: &World, deps: &Deps, many: usize) {
    for number in 1..=many {
        let at = format!("2026-03-{number:02}T03:00:00Z");
        let report = night(deps, &at).await.unwrap();
        ends_with(world, report.started[0].build_id, number, &[]).await;
        world.pass(24 * 60 * 60);
    }
}

fn amis(world: &World) -> Vec<String> {
    let mut amis: Vec<String> =
        world.state(|state| state.amis.iter().map(|ami| ami.id.to_string()).collect());
    amis.sort();
    amis
}

fn numbered(numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(|number| ami(*number).to_string()).collect()
}

#[tokio::test]
async fn a_night_that_is_delivered_twice_gives_one_build_of_each() {
    let world = World::new();
    let deps = deps(&world, "codex,gemini", "us-east-1,eu-west-1");
    let first = night(&deps, NIGHT).await.unwrap();
    assert_eq!(first.started.len(), 4);
    let builds: Vec<BuildId> = first.started.iter().map(|started| started.build_id).collect();
    world.state(|state| {
        assert_eq!(state.builds.len(), 4);
        assert_eq!(state.executions.len(), 4);
        assert!(state.builds.values().all(|build| build.origin == Origin::Rebuild));
    });
    let second = night(&deps, NIGHT).await.unwrap();
    assert_eq!(second.started.iter().map(|started| started.build_id).collect::<Vec<_>>(), builds);
    world.state(|state| assert_eq!(state.builds.len(), 4));
    assert_eq!(night(&deps, "2026-03-27T03:00:00Z").await.unwrap().started.len(), 4);
    world.state(|state| assert_eq!(state.builds.len(), 8, "the next night is another"));
}

#[tokio::test]
async fn a_setting_that_changes_between_two_deliveries_makes_no_second_build() {
    let world = World::new();
    night(&deps(&world, "codex", ""), NIGHT).await.unwrap();
    let changed = deps(&world, "codex", "");
    world.state(|state| state.settings.insert("CIAB_BUILD_INSTANCE_TYPE", "t3.large".into()));
    let changed = Deps { build_image: world.build_image(), ..changed };
    night(&changed, NIGHT).await.unwrap();
    assert_eq!(world.only_build().instance_type, "t3.medium");
}

#[tokio::test]
async fn one_that_cannot_be_started_keeps_no_other_from_its_turn_and_is_made_up_for() {
    let world = World::new();
    let deps = deps(&world, "codex,gemini,cursor", "");
    world.state(|state| state.fail_next = Some("submit"));
    let error = night(&deps, NIGHT).await.unwrap_err().to_string();
    assert!(error.contains("1 parts") && error.contains("codex in us-east-1"), "{error}");
    world.state(|state| assert_eq!(state.builds.len(), 2));
    let again = night(&deps, NIGHT).await.unwrap();
    assert_eq!(again.started.len(), 3);
    world.state(|state| assert_eq!(state.builds.len(), 3));
}

#[tokio::test]
async fn the_newest_images_stay_and_older_ones_go_with_their_copies() {
    let world = World::new();
    let deps = deps(&world, "codex", "");
    let first = night(&deps, NIGHT).await.unwrap().started[0].build_id;
    ends_with(&world, first, 1, &[11]).await;
    for (number, at) in [(2, "2026-03-27T03:00:00Z"), (3, "2026-03-28T03:00:00Z")] {
        world.pass(24 * 60 * 60);
        let report = night(&deps, at).await.unwrap();
        assert!(report.deleted.is_empty(), "{report:?}");
        ends_with(&world, report.started[0].build_id, number, &[]).await;
    }
    world.pass(24 * 60 * 60);
    let report = night(&deps, "2026-03-29T03:00:00Z").await.unwrap();
    let deleted = &report.deleted[0];
    assert_eq!((report.deleted.len(), deleted.build_id, &deleted.image_id), (1, first, &ami(1)));
    assert_eq!(deleted.images, [ami(11), ami(1)]);
    assert_eq!(amis(&world), numbered(&[2, 3]));
    world.state(|state| assert_eq!(state.images.len(), 2));
}

#[tokio::test]
async fn what_somebody_asked_for_by_itself_is_neither_counted_nor_deleted() {
    let world = World::new();
    let deps = deps(&world, "codex", "");
    for number in 11..=14 {
        let body = json!({"provider": "codex"}).to_string().into_bytes();
        let request = HttpRequest { body, ..HttpRequest::default() };
        let answer = build_image::handle(&world.build_image(), &request).await.unwrap();
        let id = answer.body.unwrap()["build_id"].as_str().unwrap().parse().unwrap();
        ends_with(&world, id, number, &[]).await;
    }
    nights(&world, &deps, 3).await;
    night(&deps, NIGHT).await.unwrap();
    assert_eq!(amis(&world), numbered(&[2, 3, 11, 12, 13, 14]));
}

#[tokio::test]
async fn a_copy_in_a_region_of_another_is_not_what_that_region_made() {
    let world = World::new();
    let here = deps(&world, "codex", "us-east-1");
    let first = night(&here, NIGHT).await.unwrap().started[0].build_id;
    ends_with(&world, first, 1, &[11]).await;
    // Three that are newer, in the region of the copy.
    let there = deps(&world, "codex", "eu-west-1");
    for number in 2..=4 {
        world.pass(24 * 60 * 60);
        let at = format!("2026-03-{:02}T03:00:00Z", 26 + number);
        let report = night(&there, &at).await.unwrap();
        ends_with(&world, report.started[0].build_id, number, &[]).await;
    }
    night(&deps(&world, "codex", "us-east-1,eu-west-1"), "2026-03-31T03:00:00Z").await.unwrap();
    assert_eq!(amis(&world), numbered(&[1, 3, 4, 11]));
}

#[tokio::test]
async fn an_image_that_is_used_stays_and_is_told_of_and_goes_when_it_is_not_used_any_more() {
    let world = World::new();
    let deps = deps(&world, "codex", "");
    nights(&world, &deps, 2).await;
    let used = [("i-1".to_owned())].into();
    world.state(|state| state.users.insert(ami(1).to_string(), used));
    let third = night(&deps, "2026-03-03T03:00:00Z").await.unwrap().started[0].build_id;
    ends_with(&world, third, 3, &[]).await;
    world.pass(24 * 60 * 60);
    let report = night(&deps, "2026-03-04T03:00:00Z").await.unwrap();
    assert!(report.deleted.is_empty() && report.failed.is_empty(), "{report:?}");
    assert_eq!(report.kept_in_use[0].used_by, ["i-1".to_owned()].into());
    assert_eq!(amis(&world), numbered(&[1, 2, 3]));
    world.state(|state| state.users.clear());
    assert_eq!(night(&deps, "2026-03-05T03:00:00Z").await.unwrap().deleted[0].image_id, ami(1));
}

#[tokio::test]
async fn what_is_not_there_or_not_ours_any_more_makes_no_other_one_too_many() {
    let world = World::new();
    let deps = deps(&world, "codex", "");
    nights(&world, &deps, 3).await;
    world.state(|state| {
        state.amis.retain(|image| image.id != ami(3));
        let second = state.amis.iter_mut().find(|image| image.id == ami(2)).unwrap();
        second.tags.insert("ciab:stack".into(), "another".into());
    });
    assert!(night(&deps, NIGHT).await.unwrap().deleted.is_empty());
    assert_eq!(amis(&world), numbered(&[1, 2]));
}

#[tokio::test]
async fn an_image_that_cannot_be_deleted_keeps_no_other_one_and_is_tried_again() {
    let world = World::new();
    let deps = deps(&world, "codex", "");
    // Two are too many at once.
    nights(&world, &deps, 2).await;
    world.state(|state| {
        for number in [1, 2] {
            state.users.insert(ami(number).to_string(), ["lt-1".to_owned()].into());
        }
    });
    for number in [3, 4] {
        let at = format!("2026-03-{number:02}T03:00:00Z");
        let id = night(&deps, &at).await.unwrap().started[0].build_id;
        ends_with(&world, id, number, &[]).await;
        world.pass(24 * 60 * 60);
    }
    world.state(|state| {
        state.users.clear();
        state.fail_next = Some("users_of");
    });
    assert!(night(&deps, "2026-03-05T03:00:00Z").await.is_err());
    assert_eq!(amis(&world), numbered(&[2, 3, 4]), "the newer one was tried first, and failed");
    let report = night(&deps, "2026-03-05T03:00:00Z").await.unwrap();
    assert_eq!(report.deleted[0].image_id, ami(2));
}

#[tokio::test]
async fn a_request_rebuilds_what_it_names_once_under_one_key() {
    let world = World::new();
    let deps = deps(&world, "codex,gemini", "");
    let body = json!({"providers": ["cursor"], "regions": ["eu-west-1"]}).to_string();
    let answer = post(&deps, Some("once"), &body).await.unwrap();
    assert_eq!(answer.status, 202);
    let document = answer.body.unwrap();
    assert_eq!(document["started"][0]["provider"], "cursor");
    assert_eq!(document["started"][0]["region"], "eu-west-1");
    let empty: [Value; 0] = [];
    assert_eq!(document["deleted"], json!(empty));
    assert_eq!(post(&deps, Some("once"), &body).await.unwrap().body.unwrap(), document);
    assert_eq!(world.only_build().build_id.to_string(), document["started"][0]["build_id"]);
    post(&deps, None, "").await.unwrap();
    post(&deps, None, "").await.unwrap();
    world.state(|state| assert_eq!(state.builds.len(), 5, "two of two without a key are four"));
}

#[tokio::test]
async fn a_callers_key_of_a_build_stands_in_no_rebuilds_way() {
    let world = World::new();
    let deps = deps(&world, "codex", "");
    for key in ["once", "rebuild request once codex us-east-1"] {
        let mut request =
            HttpRequest { body: br#"{"provider": "codex"}"#.to_vec(), ..HttpRequest::default() };
        request.headers.insert("idempotency-key".into(), key.into());
        let answer = build_image::handle(&deps.build_image, &request).await;
        assert_eq!(answer.is_ok(), key == "once", "{key}");
    }
    let document = post(&deps, Some("once"), "").await.unwrap().body.unwrap();
    assert_eq!(document["started"].as_array().unwrap().len(), 1, "{document}");
    world.state(|state| assert_eq!(state.builds.len(), 2));
}

#[tokio::test]
async fn what_cannot_be_rebuilt_is_told_and_nothing_is_started() {
    let world = World::new();
    let nothing = deps(&world, "", "");
    for (body, code, part) in [
        ("", "config_validation_error", "RebuildProviders"),
        (r#"{"providers": ["copilot"]}"#, "invalid_request", "copilot"),
        (r#"{"providers": []}"#, "invalid_request", "providers"),
        (r#"{"providers": "codex"}"#, "invalid_request", "providers"),
        (r#"{"providers": ["codex"], "regions": ["ap-south-1"]}"#, "config_validation_error", "ap-south-1"),
        (r#"{"provider": "codex"}"#, "invalid_request", "`provider`"),
        ("[]", "invalid_request", "object"),
        ("{", "invalid_request", "JSON"),
    ] {
        let error = post(&nothing, None, body).await.unwrap_err();
        assert_eq!(error.code(), code, "{body}");
        assert!(error.to_string().contains(part), "{body}: {error}");
    }
    assert!(night(&nothing, NIGHT).await.unwrap().started.is_empty());
    world.state(|state| assert!(state.builds.is_empty()));
}
