//! Steps of the state machine: JSON in, JSON out, errors under the names that the state machine matches.

use ciab_core::step::StepError;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, Runtime, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use crate::invocation;

/// A step's error on its way to the state machine.
#[derive(Debug)]
struct Reported(StepError);

impl From<Reported> for Diagnostic {
    fn from(Reported(error): Reported) -> Self {
        // The message alone: what lies under it may hold internals, and was logged.
        Self { error_type: error.name().to_owned(), error_message: error.to_string() }
    }
}

/// Answers events with a step until the function is shut down.
///
/// # Errors
/// Where the Lambda runtime itself fails.
pub async fn serve_task<Deps, Input, Output, Step>(deps: Deps, step: Step) -> Result<(), Error>
where
    Input: DeserializeOwned,
    Output: Serialize,
    Step: AsyncFn(&Deps, Input) -> Result<Output, StepError>,
{
    let (deps, step) = (&deps, &step);
    Runtime::new(service_fn(async move |event: LambdaEvent<Input>| {
        let span = invocation::span(&event.context);
        // What went wrong was logged where it is known of which build.
        step(deps, event.payload).instrument(span).await.map_err(Reported)
    }))
    .run()
    .await
}
