//! Steps of the state machine, and what runners ask: JSON in, JSON out, errors under the names that they are matched by.

use ciab_core::issue_credentials::IssueError;
use ciab_core::step::StepError;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, Runtime, service_fn};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use crate::invocation;

/// An error on its way to whoever invoked the function: its name and its message alone. What lies under it may hold internals, and was
/// logged.
#[derive(Debug)]
struct Reported {
    name: &'static str,
    message: String,
}

impl From<StepError> for Reported {
    fn from(error: StepError) -> Self {
        Self { name: error.name(), message: error.to_string() }
    }
}

impl From<IssueError> for Reported {
    fn from(error: IssueError) -> Self {
        Self { name: error.name(), message: error.to_string() }
    }
}

impl From<Reported> for Diagnostic {
    fn from(Reported { name, message }: Reported) -> Self {
        Self { error_type: name.to_owned(), error_message: message }
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
    serve(deps, step).await
}

/// Answers what runners ask until the function is shut down. What they sent is taken apart by `answer`, so that nothing of it stands in
/// an error.
///
/// # Errors
/// Where the Lambda runtime itself fails.
pub async fn serve_runners<Deps, Output, Answer>(deps: Deps, answer: Answer) -> Result<(), Error>
where
    Output: Serialize,
    Answer: AsyncFn(&Deps, serde_json::Value) -> Result<Output, IssueError>,
{
    serve(deps, answer).await
}

async fn serve<Deps, Input, Output, Failed, Step>(deps: Deps, step: Step) -> Result<(), Error>
where
    Input: DeserializeOwned,
    Output: Serialize,
    Reported: From<Failed>,
    Step: AsyncFn(&Deps, Input) -> Result<Output, Failed>,
{
    let (deps, step) = (&deps, &step);
    Runtime::new(service_fn(async move |event: LambdaEvent<Input>| {
        let span = invocation::span(&event.context);
        // What went wrong was logged where it is known of which build.
        step(deps, event.payload).instrument(span).await.map_err(Reported::from)
    }))
    .run()
    .await
}
