//! Holds every answer that a test gets against `infra/openapi.yaml`: the operation documents the status, the body is what it
//! says, and has nothing that it does not say.
//!
//! Must never be more lenient than a client which was generated from that file.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::Answer;

const DESCRIPTION: &str = include_str!("../../../infra/openapi.yaml");

/// What an operation documents for an answer.
enum Documented<'a> {
    /// A document of this schema.
    Body(&'a Value),
    /// Nothing but the status.
    Empty,
}

/// Fails where the answer is not one that the description promises.
///
/// # Errors
/// Says what the description has and what came.
pub(crate) fn check(method: &str, path: &str, answer: &Answer) -> Result<()> {
    let description = description()?;
    let told = || format!("{method} {path} answered {}: {}", answer.status, answer.body);
    let schema = match documented(description, method, path, answer.status).with_context(told)? {
        Documented::Body(schema) => schema,
        Documented::Empty => {
            ensure!(answer.body.is_null(), "{}, where infra/openapi.yaml has no body", told());
            return Ok(());
        }
    };
    // References are into the whole document.
    let mut root: Map<String, Value> = schema.as_object().context("a schema is no object")?.clone();
    root.insert("components".to_owned(), description["components"].clone());
    let validator = jsonschema::draft202012::new(&Value::Object(root)).context("infra/openapi.yaml")?;
    if let Err(error) = validator.validate(&answer.body) {
        bail!("{}, which is not what infra/openapi.yaml says: at {}: {error}", told(), error.instance_path());
    }
    Ok(())
}

/// The description, in which an object that lists its properties has no others.
fn description() -> Result<&'static Value> {
    static READ: OnceLock<Result<Value, String>> = OnceLock::new();
    let read = READ.get_or_init(|| {
        let mut read: Value = serde_norway::from_str(DESCRIPTION).map_err(|error| error.to_string())?;
        close(&mut read);
        Ok(read)
    });
    read.as_ref().map_err(|error| anyhow::anyhow!("infra/openapi.yaml: {error}"))
}

fn close(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object) && fields.contains_key("type") {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn documented<'a>(description: &'a Value, method: &str, path: &str, status: u16) -> Result<Documented<'a>> {
    let path = path.split('?').next().unwrap_or_default();
    let paths = description["paths"].as_object().context("there are no paths")?;
    let known = paths
        .iter()
        .filter(|(pattern, _)| matches(pattern, path))
        .min_by_key(|(pattern, _)| pattern.matches('{').count());
    let operation = known.map(|(_, item)| &item[method.to_ascii_lowercase()]);
    let response = match operation {
        Some(operation) if operation.is_object() => &operation["responses"][status.to_string()],
        // What has no operation is refused, for its key or for what it is.
        operation => {
            let responses = &description["components"]["responses"];
            match (status, operation) {
                (401, _) => &responses["Unauthorized"],
                (403, _) => &responses["Forbidden"],
                (404, None) => &responses["NotFound"],
                (405, Some(_)) => &responses["MethodNotAllowed"],
                // Whether the key is good cannot be told at the moment.
                (500, _) => &responses["InternalError"],
                _ => &Value::Null,
            }
        }
    };
    let response = match response["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => description.pointer(pointer).context("a reference leads nowhere")?,
        None => response,
    };
    ensure!(response.is_object(), "infra/openapi.yaml documents no such status");
    Ok(match &response["content"]["application/json"]["schema"] {
        Value::Null => Documented::Empty,
        schema => Documented::Body(schema),
    })
}

fn matches(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    let fits = |(pattern, given): (&&str, &&str)| {
        pattern == given || (pattern.starts_with('{') && !given.is_empty())
    };
    pattern.len() == path.len() && pattern.iter().zip(&path).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: &str, path: &str, status: u16, body: Value) -> Result<()> {
        check(method, path, &Answer { status, body, request_id: None })
    }

    fn image() -> Value {
        json!({
            "image_id": "ami-0abcdef1234567890", "provider": "codex", "region": "us-east-1", "status": "available",
            "created_at": "2026-03-25T14:30:00Z", "build_id": "550e8400-e29b-41d4-a716-446655440000", "name": "x",
            "template_digest": null, "snapshots": [], "provisioned": true, "origin": "request"
        })
    }

    #[test]
    fn what_the_description_promises_passes() {
        judged("GET", "/health", 200, json!({"status": "ok"})).unwrap();
        judged("GET", "/api/v1/images/ami-0abcdef1234567890", 200, image()).unwrap();
        judged("GET", "/api/v1/images?limit=1", 200, json!({"images": [image()], "next_token": null}))
            .unwrap();
        judged("DELETE", "/api/v1/images/ami-0abcdef1234567890", 204, Value::Null).unwrap();
        let refused = json!({"error": {"code": "not_found", "message": "there is nothing at /x"}});
        judged("GET", "/x", 404, refused).unwrap();
    }

    #[test]
    fn what_it_does_not_promise_is_told() {
        let mut more = image();
        more["colour"] = json!("red");
        let mut less = image();
        less.as_object_mut().unwrap().remove("name");
        let unknown = json!({"error": {"code": "on_holiday", "message": "?"}});
        for (method, path, status, body) in [
            ("GET", "/health", 200, json!({"status": "fine"})),
            ("GET", "/health", 418, Value::Null),
            ("GET", "/api/v1/images/ami-0abcdef1234567890", 200, more),
            ("GET", "/api/v1/images/ami-0abcdef1234567890", 200, less),
            ("DELETE", "/api/v1/images/ami-0abcdef1234567890", 204, image()),
            ("GET", "/api/v1/images", 400, unknown),
            ("PUT", "/api/v1/images", 200, json!({})),
        ] {
            assert!(judged(method, path, status, body).is_err(), "{method} {path} {status}");
        }
    }
}
