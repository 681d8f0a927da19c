//! The role that Packer runs with.

use ciab_aws::StsBuildIdentity;
use ciab_core::ports::{BuildIdentity, PortError};
use jiff::{SignedDuration, Timestamp};

use crate::servers::Server;

const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";
const ROLE: &str = "arn:aws:iam::123456789012:role/build";

#[tokio::test]
async fn a_build_gets_credentials_of_the_role_for_an_hour() {
    let server = Server::moto();
    let identity = StsBuildIdentity::new(&server.config(), ROLE);
    let credentials = identity.credentials(BUILD.parse().unwrap()).await.unwrap();
    assert!(!credentials.access_key_id.is_empty());
    let left = credentials.expires_at.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_mins(50) && left <= SignedDuration::from_mins(60), "{left:?}");
    let shown = format!("{credentials:?}");
    for secret in [&credentials.secret_access_key, &credentials.session_token] {
        assert!(!secret.expose().is_empty() && !shown.contains(secret.expose()), "{shown}");
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_gives_none() {
    let server = Server::moto();
    let config = server.config();
    drop(server);
    let gone = StsBuildIdentity::new(&config, ROLE).credentials(BUILD.parse().unwrap()).await.unwrap_err();
    assert!(matches!(gone, PortError::Unavailable { .. }), "{gone:?}");
}
