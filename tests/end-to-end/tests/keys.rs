//! Who comes in, on every route that there is: with no key, a wrong one, one whose time is over or that was revoked, one that may
//! not do this, and the right one. Then what keys are limited to, the first admin key, and the command line.

use anyhow::{Context, Result, bail, ensure};
use end_to_end::{Answer, Api, Scene, eventually, templates};
use local_stack::{JsonApi, StackParts};
use serde_json::{Value, json};
use serde_norway::Value as Yaml;

const KEYS: &str = "/api/v1/images/keys";
const SCOPES: [&str; 4] = ["read", "build", "delete", "admin"];
/// Long enough to be seen at work, short enough to be waited for.
const CACHE: &str = "AuthorizerCacheSecs=1";

/// A key that the service made.
struct Key {
    id: String,
    text: String,
}

fn made(scene: &Scene, request: &Value) -> Result<Key> {
    let answer = scene.api.post(KEYS, request)?;
    ensure!(answer.status == 201, "no key was made: {answer:?}");
    let key = Key { id: answer.text("key_id")?, text: answer.text("key")? };
    ensure!(key.text.starts_with(&format!("ciab_{}_", key.id)), "{answer:?}");
    Ok(key)
}

fn with_scopes(scene: &Scene, scopes: &[&str]) -> Result<Key> {
    made(scene, &json!({"label": scopes.join(" and "), "scopes": scopes}))
}

/// What one route asks of whoever takes it.
#[derive(Debug, PartialEq)]
enum Asks {
    Nothing,
    AnyKey,
    Scope(&'static str),
}

/// A route of the template, and a request that takes it and does nothing to what there is.
#[derive(Debug)]
struct Route {
    method: String,
    path: String,
    body: &'static str,
    asks: Asks,
}

impl Route {
    fn send(&self, api: &Api) -> Result<Answer> {
        let headers = [("content-type", "application/json")];
        let headers = if self.body.is_empty() { &[][..] } else { &headers };
        api.send(&self.method, &self.path, headers, self.body)
    }
}

/// Every route of `infra/template.yaml`. What each asks is what the contract says, not what the code does.
fn routes(parts: &StackParts) -> Result<Vec<Route>> {
    let template: Yaml =
        serde_norway::from_str(&std::fs::read_to_string(parts.infra.join("template.yaml"))?)?;
    let resources = template["Resources"].as_mapping().context("the template has no resources")?;
    let events = resources
        .values()
        .filter(|resource| resource["Type"] == "AWS::Serverless::Function")
        .flat_map(|function| function["Properties"]["Events"].as_mapping().into_iter().flatten())
        .filter(|(_, event)| event["Type"] == "HttpApi");
    let routes: Vec<Route> = events.map(|(_, event)| route(&event["Properties"])).collect::<Result<_>>()?;
    ensure!(routes.len() >= 14, "the routes are no longer found in the template: {routes:?}");
    Ok(routes)
}

fn route(properties: &Yaml) -> Result<Route> {
    let Some(pattern) = properties["Path"].as_str() else {
        let path = "/nothing/here".to_owned();
        return Ok(Route { method: "GET".into(), path, body: "", asks: Asks::AnyKey });
    };
    let method = properties["Method"].as_str().context("a route has no method")?.to_uppercase();
    let asks = match (method.as_str(), pattern) {
        ("GET", "/health" | "/ready") => Asks::Nothing,
        (_, path) if path.starts_with(KEYS) || path == "/api/v1/images/rebuilds" => Asks::Scope("admin"),
        ("GET", _) => Asks::Scope("read"),
        ("POST", _) => Asks::Scope("build"),
        ("DELETE", _) => Asks::Scope("delete"),
        other => bail!("the contract says nothing of {other:?}"),
    };
    let is_open = properties["Auth"]["Authorizer"] == "NONE";
    ensure!(is_open == (asks == Asks::Nothing), "{pattern} is open, or should be");
    let path = pattern
        .replace("{build_id}", "00000000-0000-4000-8000-000000000000")
        .replace("{image_id}", "ami-0abcdef1234567890")
        .replace("{key_id}", "00000000000000000000");
    ensure!(!path.contains('{'), "nothing is known to put into {path}");
    // No document, so that a right key is told that the request is wrong.
    let body = if method == "POST" { "[" } else { "" };
    Ok(Route { method, path, body, asks })
}

#[test]
fn every_route_lets_in_whom_the_contract_names_and_nobody_else() -> Result<()> {
    let parts = StackParts::from_environment()?;
    let routes = routes(&parts)?;
    let scene = Scene::start(&parts, &["--poll-interval", "2", "--set", CACHE])?;
    let outcome = (|| {
        let keys = SCOPES.map(|scope| with_scopes(&scene, &[scope]).map(|key| (scope, key)));
        let keys = keys.into_iter().collect::<Result<Vec<_>>>()?;
        let bad = bad_keys(&scene)?;
        for route in &routes {
            if route.asks == Asks::Nothing {
                let answer = route.send(&scene.api_with_key(None))?;
                ensure!(answer.status == 200, "{route:?}: {answer:?}");
                continue;
            }
            let answer = route.send(&scene.api_with_key(None))?;
            ensure!((answer.status, answer.code()) == (401, "unauthorized"), "{route:?}: {answer:?}");
            for (what, key) in &bad {
                let answer = route.send(&scene.api_with_key(Some(key)))?;
                ensure!(
                    (answer.status, answer.code()) == (403, "forbidden"),
                    "{what}, {route:?}: {answer:?}"
                );
            }
            for (scope, key) in &keys {
                let answer = route.send(&scene.api_with_key(Some(&key.text)))?;
                let is_enough =
                    *scope == "admin" || route.asks == Asks::AnyKey || route.asks == Asks::Scope(scope);
                let came_in = !matches!(answer.status, 401 | 403);
                ensure!(came_in == is_enough, "{scope}, {route:?}: {answer:?}");
                ensure!(answer.status < 500, "{scope}, {route:?}: {answer:?}");
                ensure!(came_in || answer.code() == "forbidden", "{scope}, {route:?}: {answer:?}");
            }
            let answer = route.send(&scene.api)?;
            ensure!(!matches!(answer.status, 401 | 403), "the first admin key, {route:?}: {answer:?}");
        }
        where_the_table_cannot_be_read_nobody_comes_in(&scene, &keys[0].1)
    })();
    scene.end(outcome)
}

/// Keys that open nothing, by what is wrong with them.
fn bad_keys(scene: &Scene) -> Result<Vec<(&'static str, String)>> {
    let all = with_scopes(scene, &SCOPES)?;
    let other_end = if all.text.ends_with('0') { '1' } else { '0' };
    let wrong_secret = format!("{}{other_end}", &all.text[..all.text.len() - 1]);
    let unknown = all.text.replace(&all.id, "0123456789abcdef0123");

    let expired = made(scene, &json!({"label": "expired", "scopes": SCOPES, "expires_in_days": 1}))?;
    let api = scene.api_with_key(Some(&expired.text));
    ensure!(api.get(KEYS)?.status == 200, "it has a day");
    a_day_goes_by(scene, &expired)?;
    comes_in_no_more(&api, "an expired key")?;
    let listing = scene.api.get(KEYS)?;
    ensure!(!listing.body.to_string().contains(&expired.id), "an expired key is listed: {listing:?}");

    let revoked = with_scopes(scene, &SCOPES)?;
    let api = scene.api_with_key(Some(&revoked.text));
    ensure!(api.get(KEYS)?.status == 200, "it is not revoked yet");
    let path = format!("{KEYS}/{}", revoked.id);
    ensure!(scene.api.delete(&path)?.status == 204, "it can be revoked");
    let again = scene.api.delete(&path)?;
    ensure!((again.status, again.code()) == (404, "key_not_found"), "{again:?}");
    comes_in_no_more(&api, "a revoked key")?;

    Ok(vec![
        ("something else", "wrong".to_owned()),
        ("an unknown key", unknown),
        ("another secret", wrong_secret),
        ("an expired key", expired.text),
        ("a revoked key", revoked.text),
    ])
}

/// The one thing that a test cannot wait for, done to the record of the key. The time-to-live is left alone, as if it were late.
fn a_day_goes_by(scene: &Scene, key: &Key) -> Result<()> {
    let request = json!({
        "TableName": "ciab-local",
        "Key": {"pk": {"S": "KEYS"}, "sk": {"S": key.id}},
        "UpdateExpression": "SET expires_at = :then",
        "ConditionExpression": "attribute_exists(pk)",
        "ExpressionAttributeValues": {":then": {"S": "2020-01-01T00:00:00Z"}},
    });
    JsonApi::new(scene.aws_endpoint_url())?.call("dynamodb", "DynamoDB_20120810.UpdateItem", &request)?;
    Ok(())
}

/// Waits until what the authorizer said before is forgotten.
fn comes_in_no_more(api: &Api, what: &str) -> Result<()> {
    eventually(&format!("{what} stays out"), || Ok((api.get(KEYS)?.status == 403).then_some(())))
}

fn where_the_table_cannot_be_read_nobody_comes_in(scene: &Scene, key: &Key) -> Result<()> {
    let request = json!({"TableName": "ciab-local"});
    JsonApi::new(scene.aws_endpoint_url())?.call("dynamodb", "DynamoDB_20120810.DeleteTable", &request)?;
    // A route that it was allowed before, as long as that is remembered.
    let api = scene.api_with_key(Some(&key.text));
    eventually("nobody knows of any key", || {
        let answer = api.get("/nothing/here")?;
        ensure!(answer.status != 403, "the key was called wrong: {answer:?}");
        Ok((answer.status == 500 && answer.code() == "internal_error").then_some(()))
    })
}

#[test]
fn a_key_reaches_no_further_than_its_limits() -> Result<()> {
    let parts = StackParts::from_environment()?;
    let scene =
        Scene::start(&parts, &["--poll-interval", "2", "--set", "AllowedRegions=us-east-1,eu-west-1"])?;
    let outcome = (|| {
        let scopes = json!(["read", "build", "delete"]);
        let codex = json!({"label": "codex", "scopes": scopes, "providers": ["codex"]});
        let codex = scene.api_with_key(Some(&made(&scene, &codex)?.text));
        let ireland = json!({"label": "ireland", "scopes": scopes, "regions": ["eu-west-1"]});
        let ireland = scene.api_with_key(Some(&made(&scene, &ireland)?.text));
        let refused = |answer: Answer, limit: &str| {
            let told = answer.body["error"]["message"].as_str().unwrap_or_default();
            let is_told = told.contains("limited to") && told.contains(limit);
            ensure!((answer.status, answer.code(), is_told) == (403, "forbidden", true), "{answer:?}");
            Ok(())
        };

        let template = json!({"type": "inline", "content": templates::without_communicator()});
        let build = |provider: &str| json!({"provider": provider, "template": template});
        let path = "/api/v1/images/build";
        refused(codex.post(path, &build("gemini"))?, "codex")?;
        // The region is the default one here, which the request does not name.
        refused(ireland.post(path, &build("codex"))?, "eu-west-1")?;
        let accepted = codex.post(path, &build("codex"))?;
        ensure!(accepted.status == 202, "{accepted:?}");
        let own = scene.ended(&accepted.text("build_id")?)?;
        let other = scene.start_build(&build("gemini"))?;
        let other = scene.ended(&other)?;
        ensure!(own["status"] == "succeeded" && other["status"] == "succeeded", "{own:#} {other:#}");

        let text = |build: &Value, field: &str| build[field].as_str().unwrap_or_default().to_owned();
        let build_path = |build: &Value| format!("/api/v1/images/builds/{}", text(build, "build_id"));
        let image_path = |build: &Value| format!("/api/v1/images/{}", text(build, "image_id"));
        for (key, limit) in [(&codex, "codex"), (&ireland, "eu-west-1")] {
            refused(key.get(&build_path(&other))?, limit)?;
            refused(key.get(&format!("{}/log", build_path(&other)))?, limit)?;
            refused(key.send("POST", &format!("{}/cancel", build_path(&other)), &[], "")?, limit)?;
            refused(key.get(&image_path(&other))?, limit)?;
            refused(key.delete(&image_path(&other))?, limit)?;
            refused(key.delete(&format!("{}?dry_run=true", image_path(&other)))?, limit)?;
        }
        refused(codex.get("/api/v1/images?provider=gemini")?, "codex")?;
        let listed = |api: &Api, query: &str| -> Result<Vec<String>> {
            let answer = api.get(&format!("/api/v1/images{query}"))?;
            ensure!(answer.status == 200 && answer.body["next_token"].is_null(), "{answer:?}");
            let images = answer.body["images"].as_array().cloned().unwrap_or_default();
            Ok(images.iter().map(|image| text(image, "image_id")).collect())
        };
        ensure!(listed(&scene.api, "")?.len() == 2, "both images are there");
        ensure!(listed(&codex, "")? == [text(&own, "image_id")], "its own is all that it sees");
        ensure!(listed(&codex, "?limit=1&region=us-east-1")? == [text(&own, "image_id")], "by region too");
        ensure!(listed(&ireland, "")?.is_empty(), "nothing was built there");

        ensure!(codex.get(&build_path(&own))?.status == 200, "its own build");
        ensure!(codex.get(&image_path(&own))?.status == 200, "its own image");
        ensure!(codex.delete(&image_path(&own))?.status == 204, "its own to delete");
        let still = scene.api.get(&image_path(&other))?;
        ensure!(still.status == 200, "the other is still there: {still:?}");
        Ok(())
    })();
    scene.end(outcome)
}

#[test]
fn the_first_admin_key_is_a_secret_that_can_be_replaced() -> Result<()> {
    let scene = Scene::start(&StackParts::from_environment()?, &["--set", CACHE])?;
    let outcome = (|| {
        let aws = JsonApi::new(scene.aws_endpoint_url())?;
        let secret = json!({"SecretId": "ciab-local-admin-key"});
        let value = aws.call("secretsmanager", "secretsmanager.GetSecretValue", &secret)?;
        ensure!(
            value["SecretString"] == scene.api_key(),
            "the key that was handed out is the secret's value"
        );
        ensure!(scene.api.get(KEYS)?.status == 200, "it opens");
        let replace = |with: &str| {
            let request = json!({
                "SecretId": "ciab-local-admin-key", "SecretString": with,
                "ClientRequestToken": format!("{with:-<36}"),
            });
            aws.call("secretsmanager", "secretsmanager.PutSecretValue", &request)
        };
        let opens = |key: &str| anyhow::Ok(scene.api_with_key(Some(key)).get(KEYS)?.status == 200);
        let next = "another-first-admin-key";
        ensure!(!opens(next)?, "it is not the key yet");
        replace(next)?;
        eventually("the new key opens", || Ok(opens(next)?.then_some(())))?;
        comes_in_no_more(&scene.api, "the key that was replaced")?;
        replace("short")?;
        eventually("a short key opens nothing", || Ok((!opens(next)?).then_some(())))?;
        ensure!(!opens("short")?, "it is no key");
        Ok(())
    })();
    scene.end(outcome)
}

#[test]
fn a_key_is_made_used_and_revoked_by_the_command_line() -> Result<()> {
    let scene = Scene::start(&StackParts::from_environment()?, &["--set", CACHE])?;
    let outcome = (|| {
        let document = |arguments: &[&str]| -> Result<Value> {
            let output = scene.ciab(arguments)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "ciab {arguments:?} ended with {}:\n{said}", output.status);
            Ok(serde_json::from_slice(&output.stdout)?)
        };
        let arguments = [
            "key",
            "create",
            "--label",
            "reader",
            "--scope",
            "read",
            "--provider",
            "codex",
            "--expires-in",
            "90d",
        ];
        let made = document(&arguments)?;
        let text = |field: &str| made[field].as_str().unwrap_or_default();
        let (id, key) = (text("key_id"), text("key"));
        ensure!(made["scopes"] == json!(["read"]) && made["providers"] == json!(["codex"]), "{made:#}");
        ensure!(made["expires_at"].is_string() && made["regions"].is_null(), "{made:#}");
        let listing = document(&["key", "list"])?;
        ensure!(listing["keys"][0]["key_id"] == id && !listing.to_string().contains(key), "{listing:#}");

        let exit = |arguments: &[&str]| -> Result<Option<i32>> {
            Ok(scene.ciab_with_key(key, arguments)?.status.code())
        };
        ensure!(exit(&["image", "list"])? == Some(0), "it may read");
        ensure!(exit(&["image", "build", "--provider", "codex"])? == Some(4), "it may not build");
        ensure!(exit(&["key", "list"])? == Some(4), "it is no admin's");

        let revoked = document(&["key", "revoke", id])?;
        ensure!(revoked == json!({"key_id": id, "revoked": true}), "{revoked:#}");
        ensure!(scene.ciab(&["key", "revoke", id])?.status.code() == Some(3), "it is gone");
        eventually("the revoked key is refused", || Ok((exit(&["image", "list"])? == Some(4)).then_some(())))
    })();
    scene.end(outcome)
}
