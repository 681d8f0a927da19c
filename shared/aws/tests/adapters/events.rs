//! Events on the bus: what moto takes, and what EventBridge says of those that it does not take, which moto never does.

use std::sync::{Arc, Mutex};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use ciab_aws::{EventBridgeEvents, SdkConfig};
use ciab_core::event::{BuildEvent, Change};
use ciab_core::ports::{Events, PortError};
use serde_json::{Value, json};

use crate::records::queued;
use crate::servers::Server;

fn events(count: usize) -> Vec<BuildEvent> {
    let event = || {
        let at = "2026-03-25T14:30:01.9Z".parse().unwrap();
        Change { old: None, new: queued("2026-03-25T14:30:00Z"), at }.events("prod").remove(0)
    };
    (0..count).map(|_| event()).collect()
}

/// Gives one answer to everything, and notes what was asked.
#[derive(Debug, Clone)]
struct Answering {
    status: u16,
    answer: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Answering {
    fn with(status: u16, answer: &Value) -> Self {
        Self { status, answer: answer.to_string(), asked: Arc::default() }
    }

    fn config(&self) -> SdkConfig {
        use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
        let credentials = Credentials::new("test", "test", None, None, "test");
        ciab_aws::connect_to("us-east-1", Some("http://127.0.0.1:9"))
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(SharedHttpClient::new(self.clone()))
            .build()
    }
}

impl HttpClient for Answering {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Answering {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let asked = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default();
        self.asked.lock().unwrap().push(asked);
        let body = SdkBody::from(self.answer.clone());
        HttpConnectorFuture::ready(Ok(HttpResponse::new(self.status.try_into().unwrap(), body)))
    }
}

#[tokio::test]
async fn an_event_is_told_under_our_name_with_its_kind_and_time() {
    let bus = Answering::with(200, &json!({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}));
    let events = events(1);
    assert_eq!(EventBridgeEvents::new(&bus.config()).publish(&events).await.unwrap(), 1);
    let asked = bus.asked.lock().unwrap()[0].clone();
    let [entry] = &asked["Entries"].as_array().unwrap()[..] else { panic!("one entry: {asked}") };
    assert_eq!(
        (&entry["Source"], &entry["DetailType"]),
        (&json!("ciab.images"), &json!("Build State Change"))
    );
    assert_eq!(entry["Time"].as_f64(), Some(1_774_449_001.0));
    assert_eq!(entry.get("EventBusName"), None, "the default bus");
    let detail: Value = serde_json::from_str(entry["Detail"].as_str().unwrap()).unwrap();
    assert_eq!(detail["event_id"], events[0].event_id());
}

#[tokio::test]
async fn what_comes_before_the_first_that_was_not_taken_counts() {
    let refused = json!({"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"});
    let answer = json!({"FailedEntryCount": 1, "Entries": [{"EventId": "1"}, refused, {"EventId": "3"}]});
    let bus = Answering::with(200, &answer);
    assert_eq!(EventBridgeEvents::new(&bus.config()).publish(&events(3)).await.unwrap(), 1);
}

#[tokio::test]
async fn a_bus_that_refuses_the_call_is_an_error() {
    let answer = json!({"__type": "AccessDeniedException", "message": "not authorized"});
    let bus = Answering::with(400, &answer);
    let error = EventBridgeEvents::new(&bus.config()).publish(&events(1)).await.unwrap_err();
    assert!(
        matches!(&error, PortError::Refused { code, .. } if code == "AccessDeniedException"),
        "{error:?}"
    );
}

#[tokio::test]
async fn ten_at_once_are_taken() {
    let server = Server::moto();
    assert_eq!(EventBridgeEvents::new(&server.config()).publish(&events(10)).await.unwrap(), 10);
}
