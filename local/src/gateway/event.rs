//! Translates between HTTP and API Gateway's payload format 2.0, both ways.
//!
//! Pure: no clock, no randomness, no I/O. Facts from "Working with AWS Lambda proxy integrations for HTTP APIs" and
//! "Working with Lambda authorizers for HTTP APIs".

use std::collections::BTreeMap;

use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use super::routes::{Matched, decoded};

/// What the event says beyond the request itself.
pub(super) struct Surroundings<'a> {
    pub(super) request_id: &'a str,
    pub(super) source_ip: &'a str,
    pub(super) domain: &'a str,
    pub(super) time: jiff::Timestamp,
}

/// The event that the route's function gets.
pub(super) fn request_event(
    parts: &Parts,
    body: &[u8],
    matched: &Matched<'_>,
    surroundings: &Surroundings<'_>,
    authorizer_context: Option<&Json>,
) -> Json {
    let mut event = common(parts, matched, surroundings);
    if let Some(context) = authorizer_context {
        event["requestContext"]["authorizer"] = json!({"lambda": context});
    }
    event["isBase64Encoded"] = json!(false);
    if !body.is_empty() {
        match std::str::from_utf8(body) {
            Ok(text) if is_text(&parts.headers) => event["body"] = json!(text),
            _ => {
                event["body"] = json!(BASE64.encode(body));
                event["isBase64Encoded"] = json!(true);
            }
        }
    }
    event
}

/// The event that the authorizer gets.
pub(super) fn authorizer_event(
    parts: &Parts,
    matched: &Matched<'_>,
    surroundings: &Surroundings<'_>,
    identity_source: &[String],
    route_arn: &str,
) -> Json {
    let mut event = common(parts, matched, surroundings);
    event["type"] = json!("REQUEST");
    event["routeArn"] = json!(route_arn);
    event["identitySource"] = json!(identity_source);
    event
}

fn common(parts: &Parts, matched: &Matched<'_>, surroundings: &Surroundings<'_>) -> Json {
    let path = decoded(parts.uri.path());
    let route_key = &matched.route.key;
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let time = surroundings.time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
    let mut event = json!({
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": path,
        "rawQueryString": parts.uri.query().unwrap_or_default(),
        "headers": headers(&parts.headers),
        "requestContext": {
            "accountId": crate::ACCOUNT,
            "apiId": "local",
            "domainName": surroundings.domain,
            "domainPrefix": "local",
            "http": {
                "method": parts.method.as_str(),
                "path": path,
                "protocol": format!("{:?}", parts.version),
                "sourceIp": surroundings.source_ip,
                "userAgent": header("user-agent"),
            },
            "requestId": surroundings.request_id,
            "routeKey": route_key,
            "stage": "$default",
            "time": time,
            "timeEpoch": surroundings.time.as_millisecond(),
        },
    });
    let query = query(parts.uri.query().unwrap_or_default());
    if !query.is_empty() {
        event["queryStringParameters"] = json!(query);
    }
    if !matched.path_parameters.is_empty() {
        event["pathParameters"] = json!(matched.path_parameters);
    }
    let cookies: Vec<&str> = header("cookie").split("; ").filter(|cookie| !cookie.is_empty()).collect();
    if !cookies.is_empty() {
        event["cookies"] = json!(cookies);
    }
    event
}

/// Names in lower case; values of one name joined by commas; cookies have a field of their own.
fn headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != "cookie") {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    joined
}

fn query(raw: &str) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(&value.replace('+', " "));
        joined
            .entry(decoded(&name.replace('+', " ")))
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert(value);
    }
    joined
}

fn is_text(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return true;
    };
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.starts_with("text/")
        || ["application/json", "application/javascript", "application/xml"].contains(&media_type.as_str())
        || media_type.ends_with("+json")
        || media_type.ends_with("+xml")
}

/// The function's answer as an HTTP response, or nothing if it is no answer in format 2.0.
///
/// An answer without `statusCode` is the body of a 200, as API Gateway infers it.
pub(super) fn response(payload: &[u8]) -> Option<Response<Bytes>> {
    let answer: Json = serde_json::from_slice(payload).ok()?;
    let Some(status) = answer.get("statusCode") else {
        return plain(StatusCode::OK, &answer);
    };
    let code = status.as_u64().or_else(|| status.as_str().and_then(|text| text.parse().ok()))?;
    let status = StatusCode::from_u16(u16::try_from(code).ok()?).ok()?;
    let mut response = Response::new(body(&answer)?);
    *response.status_mut() = status;
    let empty = Map::new();
    for field in ["headers", "multiValueHeaders"] {
        for (name, value) in answer.get(field).and_then(Json::as_object).unwrap_or(&empty) {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            let joined: Vec<String> = values.iter().map(text).collect();
            response.headers_mut().insert(name, HeaderValue::from_str(&joined.join(",")).ok()?);
        }
    }
    for cookie in answer.get("cookies").and_then(Json::as_array).into_iter().flatten() {
        response.headers_mut().append(SET_COOKIE, HeaderValue::from_str(&text(cookie)).ok()?);
    }
    if !response.headers().contains_key(CONTENT_TYPE) && !response.body().is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain;charset=UTF-8"));
    }
    Some(response)
}

fn body(answer: &Json) -> Option<Bytes> {
    let body = match answer.get("body") {
        None | Some(Json::Null) => return Some(Bytes::new()),
        Some(body) => text(body),
    };
    match answer.get("isBase64Encoded").and_then(Json::as_bool) {
        Some(true) => BASE64.decode(body).ok().map(Bytes::from),
        _ => Some(Bytes::from(body)),
    }
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn plain(status: StatusCode, document: &Json) -> Option<Response<Bytes>> {
    let body = Bytes::from(document.to_string());
    Response::builder().status(status).header(CONTENT_TYPE, "application/json").body(body).ok()
}

/// An answer of the gateway's own, in the API's error shape.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let document = json!({"error": {"code": code, "message": message}});
    let mut response = Response::new(Bytes::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::routes::RouteTable;
    use crate::template::{FunctionSpec, RouteSpec};

    fn event(request: axum::http::Request<&[u8]>, context: Option<&Json>) -> Json {
        let function = FunctionSpec {
            name: "f".into(),
            folder: "f".into(),
            timeout: std::time::Duration::from_secs(1),
            memory_mb: 128,
            environment: BTreeMap::new(),
            routes: vec![RouteSpec::Path { method: "ANY".into(), path: "/b/{id}".into(), open: false }],
            role: String::new(),
            every: None,
            cron: None,
            event_sources: Vec::new(),
        };
        let table = RouteTable::new(&[function]);
        let (parts, body) = request.into_parts();
        let matched = table.find(parts.method.as_str(), parts.uri.path()).unwrap();
        let surroundings = Surroundings {
            request_id: "r",
            source_ip: "127.0.0.1",
            domain: "localhost",
            time: "2026-03-25T14:30:00Z".parse().unwrap(),
        };
        request_event(&parts, body, &matched, &surroundings, context)
    }

    #[test]
    fn a_request_has_the_shape_of_format_two() {
        let request = axum::http::Request::post("/b/x%2Fy?a=1&a=2&q=c+d%21&flag")
            .header("X-Thing", "one")
            .header("x-thing", "two")
            .header("content-type", "application/json")
            .body(&b"{}"[..])
            .unwrap();
        let event = event(request, Some(&json!({"scope": "all"})));
        assert_eq!(event["version"], "2.0");
        assert_eq!(event["routeKey"], "ANY /b/{id}");
        assert_eq!(event["rawQueryString"], "a=1&a=2&q=c+d%21&flag");
        assert_eq!(event["queryStringParameters"], json!({"a": "1,2", "q": "c d!", "flag": ""}));
        assert_eq!(event["pathParameters"]["id"], "x/y");
        assert_eq!(event["headers"]["x-thing"], "one,two");
        assert_eq!(event["requestContext"]["http"]["method"], "POST");
        assert_eq!(event["requestContext"]["time"], "25/Mar/2026:14:30:00 +0000");
        assert_eq!(event["requestContext"]["authorizer"]["lambda"]["scope"], "all");
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("{}"), &json!(false)));
    }

    #[test]
    fn a_body_that_is_no_text_comes_in_base64() {
        let request = axum::http::Request::post("/b/1")
            .header("content-type", "application/octet-stream")
            .body(&[0u8, 255][..])
            .unwrap();
        let event = event(request, None);
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("AP8="), &json!(true)));
    }

    #[test]
    fn an_answer_becomes_status_headers_and_body() {
        let answer = json!({
            "statusCode": 202, "headers": {"Content-Type": "application/json"}, "body": "{}", "cookies": ["a=1"],
        });
        let response = response(answer.to_string().as_bytes()).unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["set-cookie"], "a=1");
        assert_eq!(response.body(), "{}");
    }

    #[test]
    fn an_answer_without_a_status_is_the_body_of_a_200_and_no_json_is_no_answer() {
        assert_eq!(response(br#"{"a":1}"#).unwrap().body(), r#"{"a":1}"#);
        assert!(response(b"nonsense").is_none());
        assert!(response(br#"{"statusCode": 9999}"#).is_none());
    }
}
