//! Rebuilds on the running stack, as the schedule and as people start them, the list of builds, and what is left in EC2.

use anyhow::{Context, Result, ensure};
use end_to_end::{Scene, templates};
use local_stack::StackParts;
use serde_json::{Value, json};
use template_server::authority::Authority;
use template_server::server::{self, Request, ok};

/// A stack that rebuilds two agents from a template that takes seconds, and keeps one image of each.
fn set() -> Result<(Scene, tempfile::TempDir)> {
    let authority = Authority::create();
    let template = templates::without_communicator();
    let address =
        server::tls(authority.server(&["127.0.0.1"]), move |_: &Request| ok(template.clone().into_bytes()));
    let folder = tempfile::tempdir()?;
    let certificates = folder.path().join("authority.pem");
    std::fs::write(&certificates, authority.root_pem())?;
    let certificates = certificates.display().to_string();
    let source = format!("TemplateSource=https://{address}/image.pkr.hcl");
    let trusted = format!("TrustedTemplateHosts={address}");
    let arguments = [
        "--poll-interval",
        "2",
        "--certificates",
        &certificates,
        "--set",
        &trusted,
        "--set",
        &source,
        "--set",
        "RebuildProviders=codex,gemini",
        "--set",
        "KeepImages=1",
    ];
    Ok((Scene::start(&StackParts::from_environment()?, &arguments)?, folder))
}

/// One run of the schedule.
fn night(scene: &Scene, at: &str) -> Result<Value> {
    let report = scene.invoke("rebuild-images", &json!({"scheduled_at": at}))?;
    ensure!(report["failed"] == json!([]), "{report:#}");
    Ok(report)
}

/// The texts of a field in a list of the report, in its order.
fn texts(report: &Value, list: &str, field: &str) -> Vec<String> {
    let items = report[list].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// Waits until the builds that a run started have succeeded; their images.
fn images(scene: &Scene, report: &Value) -> Result<Vec<String>> {
    texts(report, "started", "build_id")
        .iter()
        .map(|id| {
            let build = scene.ended(id)?;
            ensure!(build["status"] == "succeeded" && build["origin"] == "rebuild", "{build:#}");
            Ok(build["image_id"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

fn listed(scene: &Scene) -> Result<Vec<String>> {
    Ok(texts(&scene.api.get("/api/v1/images")?.body, "images", "image_id"))
}

#[test]
fn the_schedule_builds_each_once_keeps_the_newest_and_leaves_what_is_used() -> Result<()> {
    let (scene, _certificates) = set()?;
    let outcome = (|| {
        let own = json!({"provider": "codex"});
        let own = scene.ended(&scene.start_build(&own)?)?;
        ensure!(own["status"] == "succeeded" && own["origin"] == "request", "{own:#}");
        let own = own["image_id"].as_str().unwrap_or_default().to_owned();

        // Delivered twice, at once and after the end.
        let first = night(&scene, "2026-11-25T03:00:00Z")?;
        let again = night(&scene, "2026-11-25T03:00:00Z")?;
        ensure!(texts(&first, "started", "provider") == ["codex", "gemini"], "{first:#}");
        ensure!(first["started"] == again["started"], "{first:#} {again:#}");
        let first_images = images(&scene, &first)?;
        ensure!(night(&scene, "2026-11-25T03:00:00Z")?["started"] == first["started"], "one key, one build");

        let second_images = images(&scene, &night(&scene, "2026-11-26T03:00:00Z")?)?;
        ensure!(listed(&scene)?.len() == 5, "{:?}", listed(&scene)?);

        // Of the two that are too many, one is used: by an instance that somebody started.
        let (codex, gemini) = (&first_images[0], &first_images[1]);
        let run = [("ImageId", codex.as_str()), ("MinCount", "1"), ("MaxCount", "1")];
        let user = scene.ec2.call("RunInstances", &run)?.text("instancesSet/item/instanceId");
        let user = user.context("an instance has an id")?;
        let third = night(&scene, "2026-11-27T03:00:00Z")?;
        ensure!(texts(&third, "deleted", "image_id") == [gemini.as_str()], "{third:#}");
        ensure!(texts(&third, "kept_in_use", "image_id") == [codex.as_str()], "{third:#}");
        ensure!(third["kept_in_use"][0]["used_by"] == json!([user]), "{third:#}");
        let third_images = images(&scene, &third)?;

        // What a person starts is the same, and what nobody uses any more goes. Theirs stays.
        scene.ec2.call("TerminateInstances", &[("InstanceId.1", &user)])?;
        let output = scene.ciab(&["schedule", "run", "--provider", "codex"])?;
        ensure!(output.status.success(), "{output:?}");
        let fourth: Value = serde_json::from_slice(&output.stdout)?;
        let mut deleted = texts(&fourth, "deleted", "image_id");
        deleted.sort();
        let mut expected = vec![codex.clone(), second_images[0].clone()];
        expected.sort();
        ensure!(deleted == expected, "{fourth:#}");
        let newest = images(&scene, &fourth)?;
        let mut left = listed(&scene)?;
        left.sort();
        let mut expected = [vec![own, second_images[1].clone()], third_images, newest].concat();
        expected.sort();
        ensure!(left == expected, "{left:?} and not {expected:?}");
        let in_ec2 = scene.leftovers()?.into_iter().filter(|thing| thing.starts_with("image ")).count();
        ensure!(in_ec2 == expected.len(), "EC2 has {in_ec2} images");

        builds_are_listed(&scene)?;
        what_is_there_is_listed_until_it_is_deleted(&scene)
    })();
    scene.end(outcome)
}

/// One was asked for by itself, six were started by three nights, and one by a person.
fn builds_are_listed(scene: &Scene) -> Result<()> {
    let all = scene.api.get("/api/v1/images/builds")?;
    let times = texts(&all.body, "builds", "created_at");
    ensure!(times.len() == 8 && times.is_sorted_by(|a, b| a >= b), "{times:?}");
    ensure!(all.body["builds"][7]["origin"] == "request", "the oldest comes last: {all:?}");
    let first = texts(&all.body, "builds", "build_id");
    ensure!(all.body["builds"][0] == scene.build(&first[0])?, "a build is the same everywhere");

    let gemini = scene.api.get("/api/v1/images/builds?provider=gemini&status=succeeded&limit=2")?;
    ensure!(texts(&gemini.body, "builds", "provider") == ["gemini", "gemini"], "{gemini:?}");
    let token = gemini.text("next_token")?;
    let path = format!("/api/v1/images/builds?provider=gemini&status=succeeded&limit=2&next_token={token}");
    let rest = scene.api.get(&path)?;
    ensure!(texts(&rest.body, "builds", "provider") == ["gemini"], "{rest:?}");
    ensure!(rest.body["next_token"].is_null(), "{rest:?}");
    let none = scene.api.get("/api/v1/images/builds?status=failed")?;
    ensure!(none.body == json!({"builds": [], "next_token": null}), "{none:?}");
    for query in ["status=done", "provider=copilot", "limit=0", "next_token=x", "region=us-east-1"] {
        let refused = scene.api.get(&format!("/api/v1/images/builds?{query}"))?;
        ensure!((refused.status, refused.code()) == (400, "invalid_request"), "{query}: {refused:?}");
    }

    let output = scene.ciab(&["image", "builds", "--provider", "gemini", "--limit", "1", "--all"])?;
    let listing: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(texts(&listing, "builds", "provider").len() == 3, "{listing:#}");
    Ok(())
}

fn what_is_there_is_listed_until_it_is_deleted(scene: &Scene) -> Result<()> {
    let check = scene.ciab(&["stack", "check"])?;
    ensure!(check.status.code() == Some(1), "{check:?}");
    let found: Value = serde_json::from_slice(&check.stdout)?;
    let kinds = texts(&found, "resources", "kind");
    for (kind, many) in [("image", 5), ("snapshot", 5), ("instance", 0), ("volume", 0)] {
        ensure!(kinds.iter().filter(|found| *found == kind).count() == many, "{kind}: {kinds:?}");
    }
    for image in listed(scene)? {
        ensure!(scene.api.delete(&format!("/api/v1/images/{image}"))?.status == 204, "{image} stays");
    }
    let check = scene.ciab(&["stack", "check"])?;
    ensure!(check.status.success(), "{check:?}");
    Ok(())
}

#[test]
fn a_stack_that_rebuilds_nothing_says_so_and_builds_what_it_is_told() -> Result<()> {
    let scene = Scene::set()?;
    let outcome = (|| {
        let refused = scene.api.post("/api/v1/images/rebuilds", &json!({}))?;
        ensure!((refused.status, refused.code()) == (400, "config_validation_error"), "{refused:?}");
        ensure!(refused.body["error"]["message"].to_string().contains("RebuildProviders"), "{refused:?}");
        for body in [json!({"providers": ["copilot"]}), json!({"agents": ["codex"]}), json!([])] {
            let refused = scene.api.post("/api/v1/images/rebuilds", &body)?;
            ensure!((refused.status, refused.code()) == (400, "invalid_request"), "{refused:?}");
        }
        let no_event = scene.invoke("rebuild-images", &json!({"scheduled_at": "tonight"}))?;
        ensure!(no_event["errorMessage"].is_string(), "{no_event:#}");
        let builds = scene.api.get("/api/v1/images/builds")?;
        ensure!(builds.body["builds"] == json!([]), "{builds:?}");
        Ok(())
    })();
    scene.end(outcome)
}
