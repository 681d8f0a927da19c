//! The authorizer of the HTTP API: wires AWS to `ciab_core::authorize_request`.

use std::sync::Arc;

use ciab_aws::{DynamoRecords, SsmSecrets, SystemClock};
use ciab_core::authorize_request::{AdminKey, Deps, run};
use ciab_lambda::{Error, seconds, serve_authorizer, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let aws = ciab_aws::connect()?;
    // The API that the secret is read by reaches Secrets Manager under this name.
    let admin_key = format!("/aws/reference/secretsmanager/{}", variable("CIAB_ADMIN_KEY_SECRET")?);
    let deps = Deps {
        clock: Arc::new(SystemClock),
        keys: Arc::new(DynamoRecords::new(&aws, variable("CIAB_TABLE")?)),
        secrets: Arc::new(SsmSecrets::new(&aws)),
        admin_key: AdminKey::new(admin_key, seconds("CIAB_AUTHORIZER_CACHE_SECS")?),
    };
    serve_authorizer(deps, run).await
}
