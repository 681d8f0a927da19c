//! `ciab image delete`: deregisters an image and the others of its build and deletes their snapshots, after asking.

use serde_json::{Value, json};

use crate::args::DeleteOptions;
use crate::client::{Client, Deletion};
use crate::document::inline;
use crate::exit::{Exit, Failure};
use crate::output::Printer;
use crate::wait::unless_interrupted;

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    options: &DeleteOptions,
) -> Result<Exit, Failure> {
    let image_id = &options.image_id;
    if options.dry_run {
        let preview = client.preview_deletion(image_id).await?;
        printer.result(&preview, preview_block)?;
        printer.note("Nothing was deleted.");
        return Ok(Exit::Done);
    }
    if !options.yes {
        confirm(printer, image_id)?;
    }
    let hints = || vec![format!("the deletion may have begun; `ciab image delete {image_id}` finishes it")];
    let deletion = unless_interrupted(hints, async { Ok(client.delete_image(image_id).await?) }).await?;
    if let Deletion::GoneAfterLostAnswer = deletion {
        printer.note("An earlier attempt got no answer; the image is not there any more.");
    }
    // The service answers with no document: this one is ours.
    printer.result(&json!({"image_id": image_id, "deleted": true}), |_| format!("Deleted {image_id}\n"))?;
    Ok(Exit::Done)
}

fn confirm(printer: &Printer, image_id: &str) -> Result<(), Failure> {
    match printer
        .confirm(&format!("Delete {image_id}, whatever other images its build made, and their snapshots?"))
    {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::Interrupted { hints: vec!["nothing was deleted".to_owned()] }),
        None => Err(Failure::usage(
            format!("deleting {image_id} needs a yes, and there is no terminal to ask on"),
            "-y deletes without asking; --dry-run shows what would go",
        )),
    }
}

/// What would go, one field a line, whatever fields the service names.
fn preview_block(document: &Value) -> String {
    match document.as_object() {
        Some(fields) => fields.iter().map(|(name, value)| format!("{name}: {}\n", inline(value))).collect(),
        None => inline(document) + "\n",
    }
}
