//! The one SDK configuration that all clients share: HTTP client, region, credentials, endpoint, time-outs, retries.
//!
//! Must never walk the SDK's default chain: it reads files and asks the network while a function starts, and no function
//! has what it looks for. Nothing here waits; credentials are fetched with the first request that needs them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, fmt};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::identity::IdentityCache;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_ec2::config::{SharedCredentialsProvider, SharedHttpClient};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, tls};
use ciab_core::ports::RenewedCredentials;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ATTEMPTS: u32 = 5;

/// The environment names no region.
#[derive(Debug, thiserror::Error)]
#[error("neither AWS_REGION nor AWS_DEFAULT_REGION is set")]
pub struct NoRegion;

/// The configuration that the environment gives: `AWS_REGION` (else `AWS_DEFAULT_REGION`), `AWS_ENDPOINT_URL`, and
/// credentials from the first of what is there: `AWS_ACCESS_KEY_ID` and its companions (Lambda), the container's
/// endpoint (CodeBuild), the instance's metadata (EC2).
///
/// # Errors
/// Without a region.
pub fn connect() -> Result<SdkConfig, NoRegion> {
    let region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")).ok_or(NoRegion)?;
    Ok(connect_to(&region, set("AWS_ENDPOINT_URL").as_deref()))
}

/// As [`connect`], with region and endpoint given. `endpoint_url` is where every service answers; none for AWS itself.
pub fn connect_to(region: &str, endpoint_url: Option<&str>) -> SdkConfig {
    let http_client = http_client();
    let region = Region::new(region.to_owned());
    let mut builder = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .credentials_provider(credentials(&http_client, &region))
        .identity_cache(IdentityCache::lazy().build())
        .region(region)
        .http_client(http_client)
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .build(),
        );
    builder.set_endpoint_url(endpoint_url.map(str::to_owned));
    builder.build()
}

/// The same, by these credentials. They are asked for with every request: whoever keeps them renews them earlier than the SDK would.
pub fn with_credentials(config: &SdkConfig, credentials: Arc<dyn RenewedCredentials>) -> SdkConfig {
    config
        .clone()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(Kept(credentials)))
        .identity_cache(IdentityCache::no_cache())
        .build()
}

struct Kept(Arc<dyn RenewedCredentials>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(…)")
    }
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let current = self.0.current().await.map_err(CredentialsError::provider_error)?;
            let ends = u64::try_from(current.expires_at.as_second()).unwrap_or_default();
            Ok(Credentials::new(
                current.access_key_id,
                current.secret_access_key.expose(),
                Some(current.session_token.expose().to_owned()),
                Some(UNIX_EPOCH + Duration::from_secs(ends)),
                "issue-credentials",
            ))
        })
    }
}

/// rustls with ring: aws-lc, the SDK's default, takes four times as long to be ready. Plain `http` works as well.
fn http_client() -> SharedHttpClient {
    Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https()
}

fn credentials(http_client: &SharedHttpClient, region: &Region) -> SharedCredentialsProvider {
    if set("AWS_ACCESS_KEY_ID").is_some() {
        return SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
    }
    let settings = ProviderConfig::without_region()
        .with_region(Some(region.clone()))
        .with_http_client(http_client.clone());
    let in_container = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        .into_iter()
        .any(|name| set(name).is_some());
    if in_container {
        SharedCredentialsProvider::new(EcsCredentialsProvider::builder().configure(&settings).build())
    } else {
        SharedCredentialsProvider::new(ImdsCredentialsProvider::builder().configure(&settings).build())
    }
}

/// A variable's value; an empty one counts as not set, as everywhere in AWS's tools.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
