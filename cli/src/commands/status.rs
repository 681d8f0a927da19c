//! `ciab image status`: shows a build, and with `--watch` waits for its end and judges it.

use crate::args::StatusOptions;
use crate::client::Client;
use crate::document::{self, Build, Status};
use crate::exit::{Exit, Failure};
use crate::output::Printer;
use crate::pace::Patience;
use crate::wait::{self, Wait};

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    options: &StatusOptions,
) -> Result<Exit, Failure> {
    let build_id = options.build_id;
    let build = client.build(build_id, true).await?;
    if !options.watch {
        // Showing a failed build is a success: the question was what its status is.
        printer.result(&build.document, document::build_block)?;
        return Ok(Exit::Done);
    }
    let ended = if build.status.is_final() {
        build
    } else {
        let wait = Wait { build_id, follow: false, patience: Patience::for_build(None) };
        let hints = || wait::goes_on(build_id);
        wait::unless_interrupted(hints, wait::until_final(client, printer, &wait)).await?
    };
    verdict(printer, &ended, true)
}

/// Prints a build that has ended; a failed one is a failure of the command, told with all that is known about it.
pub(crate) fn verdict(printer: &mut Printer, build: &Build, show_log: bool) -> Result<Exit, Failure> {
    printer.result(&build.document, document::build_block)?;
    if build.status == Status::Succeeded {
        return Ok(Exit::Done);
    }
    if build.is_cancelled() {
        // Somebody wanted it so: where it stood then, and its last lines, explain nothing.
        return Err(Failure::BuildCancelled { build_id: build.id });
    }
    if show_log {
        for line in document::last_log_lines(&build.document) {
            printer.note(&format!("  {line}"));
        }
    }
    for detail in document::failure_details(&build.document) {
        printer.note(&detail);
    }
    Err(Failure::BuildFailed { build_id: build.id, error: document::build_error(&build.document) })
}
