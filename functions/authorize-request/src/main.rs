//! The authorizer of the HTTP API: wires the key's hash to `ciab_core::authorize_request`.

use ciab_core::authorize_request::{KeyHash, is_authorized};
use ciab_lambda::{Error, serve_authorizer, start_tracing, variable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    start_tracing();
    let expected: KeyHash = variable("CIAB_API_KEY_SHA256")?.parse()?;
    serve_authorizer(|header| is_authorized(header, &expected)).await
}
