//! A function that does what its event says: what the Lambda host's tests run.

use std::time::Duration;

use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let order = event.payload;
    if let Some(milliseconds) = order["sleep_ms"].as_u64() {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
    if order["exit"].as_bool() == Some(true) {
        std::process::exit(7);
    }
    if let Some(error_type) = order["fail"].as_str() {
        return Err(Diagnostic { error_type: error_type.to_owned(), error_message: "as ordered".to_owned() });
    }
    Ok(json!({"pid": std::process::id(), "deadline_ms": event.context.deadline, "order": order}))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(handle)).await
}
