//! What a runner asks issue-credentials, by Lambda's own protocol, and what it signs with what it got. moto's Lambda runs functions in
//! containers, so that an HTTP client answers here in its place.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use ciab_aws::{LambdaCredentialsIssuer, S3Objects, SdkConfig, connect_to, with_credentials};
use ciab_core::ports::{
    CredentialsIssuer, ObjectStore, PortError, RenewedCredentials, Secret, TemporaryCredentials,
};
use jiff::{SignedDuration, Timestamp};

const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";
const TOKEN: &str = "the-task-token";
const GIVEN: &str = r#"{
    "files": {"access_key_id": "ASIAFILES", "secret_access_key": "files secret", "session_token": "files session", "expires_at": "2026-03-25T15:30:00Z"},
    "packer": {"access_key_id": "ASIAPACKER", "secret_access_key": "packer secret", "session_token": "packer session", "expires_at": "2026-03-25T15:30:01Z"}
}"#;

#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    /// `X-Amz-Function-Error`, or the kind of an error of Lambda's own.
    header: Option<(&'static str, &'static str)>,
    body: String,
}

/// Gives the same answer to every request, and notes path, body and who signed.
#[derive(Debug, Clone)]
struct Service {
    answer: Answer,
    seen: Arc<Mutex<Vec<(String, String, String)>>>,
}

impl Service {
    fn new(status: u16, header: Option<(&'static str, &'static str)>, body: &str) -> Self {
        Self { answer: Answer { status, header, body: body.to_owned() }, seen: Arc::default() }
    }

    /// The product's configuration, answered by this, by the machine's own identity.
    fn config(&self) -> SdkConfig {
        let config = connect_to("us-east-1", Some("http://127.0.0.1:9"));
        let config = config.into_builder().http_client(SharedHttpClient::new(self.clone())).build();
        with_credentials(&config, Arc::new(Keys::new("AKIAMACHINE")))
    }

    async fn ask(&self) -> Result<ciab_core::ports::BuildCredentials, PortError> {
        let issuer = LambdaCredentialsIssuer::new(&self.config(), "prod-issue-credentials");
        issuer.issue(BUILD.parse().unwrap(), TOKEN).await
    }
}

impl HttpClient for Service {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Service {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
        let signature = request.headers().get("authorization").unwrap_or_default().to_owned();
        self.seen.lock().unwrap().push((request.uri().to_owned(), body, signature));
        let mut response = HttpResponse::new(
            self.answer.status.try_into().unwrap(),
            SdkBody::from(self.answer.body.as_str()),
        );
        if let Some((name, value)) = self.answer.header {
            response.headers_mut().insert(name, value);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

/// Another key each time.
struct Keys(&'static str, Mutex<u32>);

impl Keys {
    fn new(name: &'static str) -> Self {
        Self(name, Mutex::new(0))
    }
}

#[async_trait]
impl RenewedCredentials for Keys {
    async fn current(&self) -> Result<TemporaryCredentials, PortError> {
        let mut number = self.1.lock().unwrap();
        *number += 1;
        Ok(TemporaryCredentials {
            access_key_id: format!("{}{number}", self.0),
            secret_access_key: Secret::new("secret"),
            session_token: Secret::new("session"),
            expires_at: Timestamp::now() + SignedDuration::from_hours(1),
        })
    }
}

#[tokio::test]
async fn the_function_is_asked_by_its_name_with_build_and_token() {
    let lambda = Service::new(200, None, GIVEN);
    let given = lambda.ask().await.unwrap();
    assert_eq!(given.files.access_key_id, "ASIAFILES");
    assert_eq!(given.packer.secret_access_key.expose(), "packer secret");
    assert_eq!(given.packer.expires_at.to_string(), "2026-03-25T15:30:01Z");
    assert!(!format!("{given:?}").contains("secret\""));
    let seen = lambda.seen.lock().unwrap();
    let [(uri, body, signature)] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(uri.ends_with("/2015-03-31/functions/prod-issue-credentials/invocations"), "{uri}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, serde_json::json!({"build_id": BUILD, "task_token": TOKEN}));
    assert!(signature.contains("Credential=AKIAMACHINE1/"), "{signature}");
}

#[tokio::test]
async fn a_function_that_fails_is_told_from_one_that_refuses() {
    let failed = |body: &str| Service::new(200, Some(("x-amz-function-error", "Unhandled")), body);
    let refused =
        failed(r#"{"errorType": "CredentialsRefused", "errorMessage": "no"}"#).ask().await.unwrap_err();
    assert!(
        matches!(&refused, PortError::Refused { code, .. } if code == "CredentialsRefused"),
        "{refused:?}"
    );
    let late = failed(r#"{"errorMessage": "Task timed out after 30.00 seconds"}"#).ask().await.unwrap_err();
    assert!(matches!(late, PortError::Unavailable { .. }), "{late:?}");
    // What looks like an answer is none where the function failed.
    assert!(failed(GIVEN).ask().await.is_err());
}

#[tokio::test]
async fn lambdas_own_refusals_and_what_is_no_answer_are_errors_that_show_nothing() {
    let denied = Service::new(403, Some(("x-amzn-errortype", "AccessDeniedException")), "{}");
    let denied = denied.ask().await.unwrap_err();
    assert!(
        matches!(&denied, PortError::Refused { code, .. } if code == "AccessDeniedException"),
        "{denied:?}"
    );
    let odd = GIVEN.replace("\"files\"", "\"others\"");
    let odd = Service::new(200, None, &odd).ask().await.unwrap_err();
    assert!(matches!(odd, PortError::Unreadable { .. }), "{odd:?}");
    for error in [denied, odd] {
        let shown = format!("{error:?} {error}");
        assert!(!shown.contains("secret") && !shown.contains(TOKEN), "{shown}");
    }
}

#[tokio::test]
async fn each_request_is_signed_with_the_credentials_of_its_time() {
    let s3 = Service::new(200, None, "");
    let config = with_credentials(&s3.config(), Arc::new(Keys::new("ASIAFILES")));
    let objects = S3Objects::new(&config, "bucket");
    objects.put("builds/b/ledger.json", b"{}".to_vec()).await.unwrap();
    objects.put("builds/b/ledger.json", b"{}".to_vec()).await.unwrap();
    let seen = s3.seen.lock().unwrap();
    let keys: Vec<bool> = ["Credential=ASIAFILES1/", "Credential=ASIAFILES2/"]
        .iter()
        .zip(seen.iter())
        .map(|(key, (_, _, signature))| signature.contains(key))
        .collect();
    assert_eq!((seen.len(), keys), (2, vec![true, true]), "{seen:?}");
}
