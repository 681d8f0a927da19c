//! `ciab template upload`: brings a template to the service, and prints the source that builds name it by.

use serde_json::{Value, json};

use crate::args::UploadOptions;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::local_template::{self, PackedTemplate, megabytes};
use crate::output::Printer;

/// From here on an upload takes long enough to be shown.
const WORTH_SHOWING: usize = 1024 * 1024;

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    options: &UploadOptions,
) -> Result<Exit, Failure> {
    let bundle = local_template::read(&options.path)?;
    let packed = local_template::pack(&options.path, &bundle)?;
    let source = bring(client, printer, &packed).await?;
    let document = json!({"template_source": source, "files": packed.files, "size": packed.bytes.len()});
    printer.result(&document, |document| {
        format!("{}\n", document.get("template_source").and_then(Value::as_str).unwrap_or_default())
    })?;
    printer.hint(&format!("`ciab image build --template {source}` builds it"));
    Ok(Exit::Done)
}

/// The source that the template goes by once the service has it.
pub(crate) async fn bring(
    client: &Client,
    printer: &mut Printer,
    packed: &PackedTemplate,
) -> Result<String, Failure> {
    if packed.bytes.len() >= WORTH_SHOWING {
        let size = megabytes(packed.bytes.len() as u64);
        printer.note(&format!("Uploading {} files, {size}.", packed.files));
        printer.start_progress(&format!("uploading {size}"));
    }
    let brought = client.bring_template(packed).await;
    printer.end_progress();
    Ok(brought?)
}
