//! Packer's own identity: credentials of the build's role, given out on the loopback device to whoever knows a token.
//!
//! They end after an hour, and builds may take eight: so Packer is told where to ask (the form of a container's
//! credentials, which all of AWS's SDKs know and renew from) and not given what would end under it.
//! (https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html)
//!
//! Must never give out, or leave in Packer's environment, anything that the runner itself is known by.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ciab_core::ports::PortError;
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::issued_credentials::IssuedCredentials;
use crate::log::Log;

const PATH: &str = "/credentials";

/// Whatever of AWS's settings says who somebody is, or where to learn it. What begins with one of these is taken out.
const IDENTITY: [&str; 9] = [
    "AWS_ACCESS_KEY",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_",
    "AWS_SE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_",
];

struct Given {
    credentials: Arc<IssuedCredentials>,
    token: String,
}

/// Gives credentials until it is dropped.
pub struct CredentialsEndpoint {
    address: SocketAddr,
    token: String,
    serving: JoinHandle<()>,
}

/// Packer cannot be given credentials.
#[derive(Debug, thiserror::Error)]
pub enum NoCredentials {
    /// The build's credentials were not to be had.
    #[error("the build's credentials were not given")]
    NotIssued(#[source] PortError),
    /// There is no port.
    #[error("no port could be opened on the loopback device")]
    NoPort(#[source] io::Error),
}

impl CredentialsEndpoint {
    /// Gives out what of these is Packer's, once they are there.
    ///
    /// # Errors
    /// Where there are none, or no port: then Packer need not be started.
    pub async fn start(credentials: Arc<IssuedCredentials>, log: Log) -> Result<Self, NoCredentials> {
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        log.add_secrets(vec![token.clone()]);
        credentials.packer().await.map_err(NoCredentials::NotIssued)?;
        let given = Arc::new(Given { credentials, token: token.clone() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(NoCredentials::NoPort)?;
        let address = listener.local_addr().map_err(NoCredentials::NoPort)?;
        let router = Router::new().route(PATH, get(answer)).with_state(given);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "Packer can no longer ask for credentials");
            }
        });
        Ok(Self { address, token, serving })
    }

    /// The variables that Packer learns of it by.
    pub fn variables(&self) -> [(OsString, OsString); 5] {
        let uri = format!("http://{}{PATH}", self.address);
        [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI".into(), uri.into()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN".into(), OsString::from(&self.token)),
            // Where this is not answered, no other identity is to be found: neither the machine's nor a file's.
            ("AWS_EC2_METADATA_DISABLED".into(), "true".into()),
            ("AWS_CONFIG_FILE".into(), "/dev/null".into()),
            ("AWS_SHARED_CREDENTIALS_FILE".into(), "/dev/null".into()),
        ]
    }
}

impl Drop for CredentialsEndpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Whether a variable tells who the runner is to AWS.
pub fn tells_identity(name: &str) -> bool {
    IDENTITY.iter().any(|prefix| name.starts_with(prefix))
}

async fn answer(State(given): State<Arc<Given>>, headers: HeaderMap) -> Response {
    let told = headers.get(header::AUTHORIZATION).map_or(&[][..], |token| token.as_bytes());
    // In the same time whichever part differs.
    if !bool::from(told.ct_eq(given.token.as_bytes())) {
        let refused = json!({"code": "AccessDenied", "message": "the token is not this build's"});
        return (StatusCode::FORBIDDEN, Json(refused)).into_response();
    }
    match given.credentials.packer().await {
        Ok(credentials) => Json(json!({
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key.expose(),
            "Token": credentials.session_token.expose(),
            // Whole seconds: not every SDK reads parts of them.
            "Expiration": credentials.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }))
        .into_response(),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "Packer could not be given credentials");
            let unavailable = json!({"code": "Unavailable", "message": "there are no credentials now"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(unavailable)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_who_the_runner_is_stays_with_it_and_the_rest_of_aws_does_not() {
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SECRET_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_SECURITY_TOKEN",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_ROLE_ARN",
            "AWS_PROFILE",
            "AWS_CONFIG_FILE",
        ] {
            assert!(tells_identity(name), "{name}");
        }
        for name in ["AWS_REGION", "AWS_ENDPOINT_URL", "AWS_MAX_ATTEMPTS", "PATH"] {
            assert!(!tells_identity(name), "{name}");
        }
    }
}
