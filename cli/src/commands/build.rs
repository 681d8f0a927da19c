//! `ciab image build`: starts a build and, where asked to, waits for its end.

use serde_json::Value;
use uuid::Uuid;

use crate::args::BuildOptions;
use crate::build_request::{self, BuildRequest};
use crate::client::Client;
use crate::commands::{status, template};
use crate::config::BuildDefaults;
use crate::document::{Build, Status, build_block};
use crate::exit::{Exit, Failure, to_follow};
use crate::output::Printer;
use crate::pace::Patience;
use crate::wait::{self, Wait};

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    defaults: &BuildDefaults,
    options: &BuildOptions,
) -> Result<Exit, Failure> {
    let BuildRequest { mut body, upload } = build_request::compose(options, defaults)?;
    let idempotency_key = idempotency_key(options)?;
    if let Some(packed) = upload {
        let uploading = template::upload::bring(client, printer, &packed);
        let source = wait::unless_interrupted(Vec::new, uploading).await?;
        body.insert("template_source".to_owned(), source.into());
    }
    let body = Value::Object(body);
    let lost = || {
        let again = format!(
            "the build may have been started; run again with --idempotency-key {idempotency_key} to find it"
        );
        vec![again]
    };
    let starting = async { Ok(client.start_build(body, &idempotency_key).await?) };
    let accepted = wait::unless_interrupted(lost, starting).await?;

    if !(options.wait || options.follow) {
        printer.result(&accepted.document, build_block)?;
        hint_what_next(printer, &accepted);
        return Ok(Exit::Done);
    }
    let ended = if accepted.status.is_final() && !options.follow {
        // The answer to POST is a short document: the whole one holds the image and the error.
        client.build(accepted.id, true).await?
    } else {
        printer.note(&format!("Build {} is {}; waiting for its end.", accepted.id, accepted.status.name()));
        let wait = Wait {
            build_id: accepted.id,
            follow: options.follow,
            patience: Patience::for_build(build_request::timeout_secs(options, defaults)),
        };
        let hints = || wait::goes_on(accepted.id);
        wait::unless_interrupted(hints, wait::until_final(client, printer, &wait)).await?
    };
    // Who followed the log has just seen its end.
    status::verdict(printer, &ended, !options.follow)
}

fn hint_what_next(printer: &Printer, accepted: &Build) {
    match accepted.status {
        Status::Queued | Status::Building => {
            for hint in to_follow(accepted.id) {
                printer.hint(&hint);
            }
        }
        Status::Succeeded => {
            printer.hint("the same inputs have been built already; --force builds them again")
        }
        Status::Failed => {
            printer.hint("this build has ended already; a new --idempotency-key starts another")
        }
    }
}

/// The key that is given, or one of this run: with it, a request whose answer was lost can be sent again safely.
fn idempotency_key(options: &BuildOptions) -> Result<String, Failure> {
    match &options.idempotency_key {
        None => Ok(Uuid::new_v4().to_string()),
        Some(key) if !key.is_empty() && key.chars().all(|character| character.is_ascii_graphic()) => {
            Ok(key.clone())
        }
        Some(_) => Err(Failure::usage(
            "--idempotency-key takes visible ASCII characters without spaces",
            "a UUID is a good key",
        )),
    }
}
