//! Where a build's template comes from, in a pretend world: what is fetched, with what credential, what is kept, and what is
//! refused before anything is paid for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "the world is more than these tests need")]

mod world;

use std::sync::Arc;

use ciab_core::api::{ApiError, HttpRequest, HttpResponse};
use ciab_core::ids::BuildId;
use ciab_core::ports::FetchError;
use ciab_core::step::StepError;
use ciab_core::{build_image, prepare_build, upload_template};
use ciab_template::Bundle;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::World;

const SOURCE: &str = "https://h.example/image.pkr.hcl";
const TEMPLATE: &str = r#"
source "amazon-ebs" "x" {
  ami_name = "x"
}
build {
  sources = ["source.amazon-ebs.x"]
}
"#;

async fn post(world: &World, template_source: &str) -> Result<HttpResponse, ApiError> {
    post_body(world, &json!({"provider": "codex", "template_source": template_source})).await
}

async fn post_body(world: &World, body: &Value) -> Result<HttpResponse, ApiError> {
    let request = HttpRequest { body: body.to_string().into_bytes(), ..HttpRequest::default() };
    build_image::handle(&world.build_image(), &request).await
}

async fn submitted(world: &World, template_source: &str) -> BuildId {
    let answer = post(world, template_source).await.unwrap();
    assert_eq!(answer.status, 202);
    answer.body.unwrap()["build_id"].as_str().unwrap().parse().unwrap()
}

async fn prepared(world: &World, build_id: BuildId) -> Result<(), StepError> {
    prepare_build::run(&world.prepare_build(), prepare_build::Input { build_id }).await.map(drop)
}

fn serves(world: &World, source: &str, content: &str, validator: Option<&str>) {
    let answer = Ok((content.to_owned(), validator.map(str::to_owned)));
    world.state(|state| state.servers.insert(source.to_owned(), answer));
}

fn fetches(world: &World) -> Vec<(String, Option<String>, Option<String>)> {
    world.state(|state| std::mem::take(&mut state.fetches))
}

fn fetch(
    source: &str,
    known: Option<&str>,
    credential: Option<&str>,
) -> (String, Option<String>, Option<String>) {
    (source.to_owned(), known.map(str::to_owned), credential.map(str::to_owned))
}

fn set(world: &World, name: &'static str, value: &str) {
    world.state(|state| state.settings.insert(name, value.to_owned()));
}

fn keys(world: &World, folder: &str) -> Vec<String> {
    world.state(|state| state.objects.keys().filter(|key| key.starts_with(folder)).cloned().collect())
}

#[tokio::test]
async fn a_fetched_template_is_fetched_by_the_first_step_and_kept_under_its_digest() {
    let world = World::new();
    serves(&world, SOURCE, TEMPLATE, None);
    let id = submitted(&world, SOURCE).await;
    assert!(fetches(&world).is_empty(), "nobody waits for other people's servers while asking for a build");
    prepared(&world, id).await.unwrap();
    assert_eq!(fetches(&world), [fetch(SOURCE, None, None)]);
    let digest = Bundle::from_inline(TEMPLATE).digest();
    assert_eq!(world.build(id).template.digest.as_deref(), Some(digest.as_str()));
    let hex = digest.trim_start_matches("sha256:");
    assert_eq!(keys(&world, "templates/kept/"), [format!("templates/kept/{hex}.tar.gz")]);
}

#[tokio::test]
async fn a_step_that_is_repeated_takes_the_template_that_it_took_before() {
    let world = World::new();
    serves(&world, SOURCE, TEMPLATE, None);
    let id = submitted(&world, SOURCE).await;
    prepared(&world, id).await.unwrap();
    let before = world.state(|state| state.objects[&prepare_build::bundle_key(id)].clone());
    serves(&world, SOURCE, &TEMPLATE.replace("\"x\"\n", "\"y\"\n"), None);
    prepared(&world, id).await.unwrap();
    assert_eq!(world.state(|state| state.objects[&prepare_build::bundle_key(id)].clone()), before);
    assert_eq!(fetches(&world).len(), 1);
}

#[tokio::test]
async fn an_unchanged_template_is_not_fetched_again_and_a_changed_one_is() {
    let world = World::new();
    serves(&world, SOURCE, TEMPLATE, Some("\"etag-1\""));
    for known in [None, Some("\"etag-1\"")] {
        let id = submitted(&world, SOURCE).await;
        prepared(&world, id).await.unwrap();
        assert_eq!(fetches(&world), [fetch(SOURCE, known, None)]);
    }
    serves(&world, SOURCE, &TEMPLATE.replace("\"x\"\n", "\"y\"\n"), Some("\"etag-2\""));
    let id = submitted(&world, SOURCE).await;
    prepared(&world, id).await.unwrap();
    assert_eq!(keys(&world, "templates/kept/").len(), 2);
    assert_ne!(world.build(id).template.digest.unwrap(), Bundle::from_inline(TEMPLATE).digest());
}

#[tokio::test]
async fn within_its_time_to_live_a_template_is_taken_without_asking_and_a_commit_always_is() {
    let world = World::new();
    set(&world, "CIAB_TEMPLATE_CACHE_SECS", "60");
    let commit = format!("git::https://h.example/r.git?ref={}", "a".repeat(40));
    for source in [SOURCE, commit.as_str()] {
        serves(&world, source, TEMPLATE, Some("v"));
        let id = submitted(&world, source).await;
        prepared(&world, id).await.unwrap();
    }
    assert_eq!(fetches(&world).len(), 2);
    for (secs, source, expected) in [(59, SOURCE, 0), (2, SOURCE, 1), (86_400, commit.as_str(), 0)] {
        world.pass(secs);
        let id = submitted(&world, source).await;
        prepared(&world, id).await.unwrap();
        assert_eq!(fetches(&world).len(), expected, "{source} {secs} s later");
    }
}

#[tokio::test]
async fn what_is_known_of_a_template_that_is_kept_no_longer_counts_for_nothing() {
    let world = World::new();
    serves(&world, SOURCE, TEMPLATE, Some("v"));
    let id = submitted(&world, SOURCE).await;
    prepared(&world, id).await.unwrap();
    world.state(|state| state.objects.retain(|key, _| !key.starts_with("templates/kept/")));
    fetches(&world);
    let id = submitted(&world, SOURCE).await;
    prepared(&world, id).await.unwrap();
    assert_eq!(fetches(&world), [fetch(SOURCE, None, None)]);
}

#[tokio::test]
async fn a_token_goes_to_the_host_that_it_is_for_and_to_no_other() {
    let world = World::new();
    set(&world, "CIAB_TEMPLATE_CREDENTIALS", r#"{"h.example": "/ciab/token"}"#);
    world.state(|state| state.secrets.insert("/ciab/token".into(), "s3cret".into()));
    let other = "https://other.example/image.pkr.hcl";
    for (source, credential) in [(SOURCE, Some("s3cret")), (other, None)] {
        serves(&world, source, TEMPLATE, None);
        let id = submitted(&world, source).await;
        prepared(&world, id).await.unwrap();
        assert_eq!(fetches(&world), [fetch(source, None, credential)]);
    }
    world.state(|state| {
        let stored = state.objects.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(stored.into_iter().all(|text| !text.contains("s3cret")));
        assert!(!format!("{:?}", state.builds).contains("s3cret"));
        state.secrets.clear();
    });
    let id = submitted(&world, SOURCE).await;
    let error = prepared(&world, id).await.unwrap_err();
    assert!(error.to_string().contains("a token for h.example"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_tried_again_and_one_that_refuses_is_not() {
    let world = World::new();
    let id = submitted(&world, SOURCE).await;
    assert_eq!(prepared(&world, id).await.unwrap_err().name(), "TemplateUnavailable");
    let refusal = FetchError::Refused("h.example answered 404".into());
    world.state(|state| state.servers.insert(SOURCE.into(), Err(refusal)));
    let error = prepared(&world, id).await.unwrap_err();
    assert_eq!((error.name(), error.to_string().as_str()), ("TemplateRejected", "h.example answered 404"));
}

#[tokio::test]
async fn an_uploaded_template_is_built_by_its_digest() {
    let world = World::new();
    let archive = Bundle::from_files([("image.pkr.hcl", TEMPLATE)]).unwrap().to_tar_gz("", &[]).unwrap();
    let sha256: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
    let announce = |sha256: &str, size: usize| {
        let body = json!({"sha256": sha256, "size": size}).to_string().into_bytes();
        HttpRequest { body, ..HttpRequest::default() }
    };
    let (clock, objects) = (Arc::new(world.clone()), Arc::new(world.clone()));
    let deps = upload_template::Deps { clock, objects, uploads: Arc::new(world.clone()) };
    let answer = upload_template::handle(&deps, &announce(&sha256, archive.len())).await.unwrap();
    let answer = answer.body.unwrap();
    let source = answer["template_source"].as_str().unwrap().to_owned();
    assert_eq!(source, format!("template://sha256:{sha256}"));
    assert_eq!(answer["upload"]["expires_at"], "2026-03-25T14:45:00Z");
    let key = answer["upload"]["fields"]["key"].as_str().unwrap().to_owned();
    assert_eq!(key, format!("templates/uploads/{sha256}"));

    let missing = post(&world, &source).await.unwrap_err();
    assert_eq!((missing.status(), missing.code()), (404, "template_source_not_found"));
    world.state(|state| state.objects.insert(key.clone(), archive.clone()));
    let again = upload_template::handle(&deps, &announce(&sha256, archive.len())).await.unwrap();
    assert_eq!(again.body.unwrap()["upload"], Value::Null, "it is there");
    let id = submitted(&world, &source).await;
    prepared(&world, id).await.unwrap();

    let kept = format!("template://{}", world.build(id).template.digest.unwrap());
    world.state(|state| state.objects.remove(&key));
    let again = submitted(&world, &kept).await;
    prepared(&world, again).await.unwrap();
    assert_eq!(world.build(again).template.digest, world.build(id).template.digest, "byte for byte");

    world.state(|state| state.objects.insert(key, b"something else".to_vec()));
    assert_eq!(post(&world, &source).await.unwrap_err().status(), 400);
    for (sha256, size, status) in
        [("ab", 1, 400), (sha256.as_str(), 0, 413), (sha256.as_str(), 17 << 20, 413)]
    {
        let refused = upload_template::handle(&deps, &announce(sha256, size)).await.unwrap_err();
        assert_eq!(refused.status(), status, "{refused}");
    }
}

#[tokio::test]
async fn only_templates_of_the_stacks_own_bucket_are_read() {
    let world = World::new();
    let archive = Bundle::from_files([("image.pkr.hcl", TEMPLATE)]).unwrap().to_tar_gz("", &[]).unwrap();
    world.state(|state| state.objects.insert("templates/mine.tar.gz".into(), archive));
    submitted(&world, "s3://bucket/templates/mine.tar.gz").await;
    for (source, status) in [
        ("s3://bucket/templates/nothing.zip", 404),
        ("s3://other-bucket/templates/mine.tar.gz", 400),
        ("s3://bucket/builds/0/input.json", 400),
    ] {
        assert_eq!(post(&world, source).await.unwrap_err().status(), status, "{source}");
    }
}

#[tokio::test]
async fn a_source_that_may_not_be_fetched_is_refused_before_anything_is_written() {
    let world = World::new();
    set(&world, "CIAB_ALLOWED_TEMPLATE_HOSTS", "h.example");
    set(&world, "CIAB_TRUSTED_TEMPLATE_HOSTS", "10.0.0.7:3000");
    for source in ["https://evil.example/a.zip", "http://h.example/a.zip", "git::https://evil.example/a.git"]
    {
        let error = post(&world, source).await.unwrap_err();
        assert_eq!((error.status(), error.code()), (400, "config_validation_error"), "{source}");
    }
    world.state(|state| assert!(state.builds.is_empty() && state.objects.is_empty()));
    for source in [SOURCE, "git::http://10.0.0.7:3000/a.git"] {
        submitted(&world, source).await;
    }
}

#[tokio::test]
async fn what_would_run_on_the_runner_is_refused_where_the_operator_does_not_allow_it() {
    let runs = r#"
source "amazon-ebs" "x" {
  ami_name = "x"
}
build {
  sources = ["source.amazon-ebs.x"]
  provisioner "shell-local" {
    inline = ["env"]
  }
}
"#;
    let inline = json!({"provider": "codex", "template": {"type": "inline", "content": runs}});
    for (allowed, inline_is_taken, fetched_is_taken) in
        [("none", false, false), ("submitted", true, false), ("all", true, true)]
    {
        let world = World::new();
        set(&world, "CIAB_ALLOW_LOCAL_EXECUTION", allowed);
        serves(&world, SOURCE, runs, None);
        let fetched = submitted(&world, SOURCE).await;
        let outcome = prepared(&world, fetched).await;
        assert_eq!(outcome.is_ok(), fetched_is_taken, "{allowed}: {outcome:?}");
        if let Err(error) = outcome {
            assert!(error.to_string().contains("template.pkr.hcl:7: "), "{error}");
            assert!(error.to_string().contains("shell-local"), "{error}");
        }
        assert_eq!(post_body(&world, &inline).await.is_ok(), inline_is_taken, "{allowed}");
        submitted(&world, "builtin://default-ec2").await;
    }
}
