//! `ciab image cancel`: asks the service to end a build. It asks for no confirmation: a build can be started again.

use crate::args::CancelOptions;
use crate::client::{self, Client};
use crate::document::{self, Build};
use crate::exit::{Exit, Failure};
use crate::output::Printer;
use crate::wait::unless_interrupted;

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    options: &CancelOptions,
) -> Result<Exit, Failure> {
    let build_id = options.build_id;
    let hints = || vec![format!("it may be cancelled all the same; `ciab image status {build_id}` tells")];
    let build = unless_interrupted(hints, cancel(client, printer, options)).await?;
    printer.result(&build.document, document::build_block)?;
    if !build.status.is_final() {
        printer.hint(&format!("`ciab image status {build_id} --watch` waits until it has ended"));
    }
    Ok(Exit::Done)
}

async fn cancel(client: &Client, printer: &Printer, options: &CancelOptions) -> Result<Build, Failure> {
    let build_id = options.build_id;
    let (result, maybe_done_before) = client.cancel_build(build_id).await;
    match result {
        Ok(build) => Ok(build),
        Err(source) if source.is_build_ended() => {
            // An attempt whose answer was lost may be what ended it: then all is as it was asked for.
            if maybe_done_before && let Some(build) = cancelled_before(client, build_id).await {
                printer.note("An earlier attempt got no answer; the build is cancelled.");
                return Ok(build);
            }
            Err(Failure::HasEnded { build_id, source })
        }
        Err(source) => Err(Failure::Service(source)),
    }
}

async fn cancelled_before(client: &Client, build_id: uuid::Uuid) -> Option<Build> {
    let found: Result<Build, client::Error> = client.build(build_id, true).await;
    found.ok().filter(Build::is_cancelled)
}
