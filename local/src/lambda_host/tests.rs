//! The host over real processes: `examples/probe-function.rs`, on the runtime that the functions use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

use super::{Invoked, LambdaHost, routes};
use crate::template::FunctionSpec;

const NAME: &str = "probe";

async fn host(folder: &str, timeout: Duration) -> (Arc<LambdaHost>, tempfile::TempDir) {
    let logs = tempfile::tempdir().unwrap();
    let spec = FunctionSpec {
        name: NAME.to_owned(),
        folder: folder.to_owned(),
        timeout,
        memory_mb: 128,
        environment: BTreeMap::new(),
        routes: Vec::new(),
        role: "FunctionRole".to_owned(),
        every: None,
        cron: None,
        event_sources: Vec::new(),
    };
    // target/<profile>/deps/<this test> and target/<profile>/examples/<the function>
    let test = std::env::current_exe().unwrap();
    let binaries = test.parent().unwrap().parent().unwrap().join("examples");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let host = LambdaHost::new(&[spec], &binaries, logs.path(), address, "us-east-1", Vec::new());
    let host = Arc::new(host);
    tokio::spawn(axum::serve(listener, routes(Arc::clone(&host))).into_future());
    (host, logs)
}

async fn invoke(host: &Arc<LambdaHost>, order: Json) -> (Json, bool) {
    let Invoked { payload, failed } = host.invoke(NAME, Bytes::from(order.to_string())).await;
    (serde_json::from_slice(&payload).unwrap(), failed)
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_answer_and_an_error_are_passed_on_as_they_are() {
    let (host, _logs) = host("probe-function", LONG).await;
    let (answer, failed) = invoke(&host, json!({"a": 1})).await;
    assert!(!failed);
    assert_eq!(answer["order"], json!({"a": 1}));
    let (error, failed) = invoke(&host, json!({"fail": "LeftoversRemain"})).await;
    assert!(failed);
    assert_eq!(error["errorType"], "LeftoversRemain");
}

#[tokio::test]
async fn a_function_is_told_when_its_time_ends() {
    let (host, _logs) = host("probe-function", LONG).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let deadline = invoke(&host, json!({})).await.0["deadline_ms"].as_u64().unwrap();
    assert!((now + 29_000..now + 41_000).contains(&deadline), "{deadline} after {now}");
}

#[tokio::test]
async fn a_process_is_used_again_and_replaced_when_it_dies_in_an_invocation() {
    let (host, _logs) = host("probe-function", LONG).await;
    let first = invoke(&host, json!({})).await.0["pid"].clone();
    assert_eq!(invoke(&host, json!({})).await.0["pid"], first);
    let (error, failed) = invoke(&host, json!({"exit": true})).await;
    assert!(failed);
    assert_eq!(error["errorType"], "Runtime.ExitError");
    let (answer, failed) = invoke(&host, json!({})).await;
    assert!(!failed);
    assert_ne!(answer["pid"], first);
}

#[tokio::test]
async fn two_invocations_at_once_have_a_process_each() {
    let (host, _logs) = host("probe-function", LONG).await;
    let order = || invoke(&host, json!({"sleep_ms": 200}));
    let ((one, _), (other, _)) = tokio::join!(order(), order());
    assert_ne!(one["pid"], other["pid"]);
}

#[tokio::test]
async fn an_invocation_past_its_time_limit_ends_with_its_process() {
    let (host, _logs) = host("probe-function", Duration::from_secs(1)).await;
    let before = invoke(&host, json!({})).await.0["pid"].clone();
    let started = Instant::now();
    let late = host.invoke(NAME, Bytes::from_static(br#"{"sleep_ms": 60000}"#)).await;
    assert!(late.timed_out());
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_ne!(invoke(&host, json!({})).await.0["pid"], before);
}

#[tokio::test]
async fn an_invocation_goes_on_when_its_caller_has_gone() {
    let (host, _logs) = host("probe-function", LONG).await;
    let first = invoke(&host, json!({})).await.0["pid"].clone();
    let abandoned = host.invoke(NAME, Bytes::from_static(br#"{"sleep_ms": 100}"#));
    assert!(tokio::time::timeout(Duration::from_millis(20), abandoned).await.is_err());
    let began = Instant::now();
    while host.functions[NAME].idle.lock().await.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "the abandoned process does not come back");
        tokio::task::yield_now().await;
    }
    assert_eq!(invoke(&host, json!({})).await.0["pid"], first);
}

#[tokio::test]
async fn a_binary_that_cannot_start_is_found_at_warm_up() {
    let (host, _logs) = host("no-such-function", LONG).await;
    let error = host.warm_up().await.unwrap_err().to_string();
    assert!(error.contains("no-such-function"), "{error}");
}
