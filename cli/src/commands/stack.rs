//! `ciab stack check`: what of the stack is in EC2, and whether any of it is billed.

use serde_json::Value;

use super::paging::items;
use crate::client::Client;
use crate::document::{cell, time_cell};
use crate::exit::{Exit, Failure};
use crate::output::{self, Printer};

const COLUMNS: [(&str, u16); 6] =
    [("KIND", 14), ("ID", 24), ("REGION", 10), ("SINCE", 19), ("BILLED", 6), ("BUILD ID", 0)];

pub(crate) async fn check(client: &Client, printer: &mut Printer) -> Result<Exit, Failure> {
    let document = client.resources().await?;
    printer.result(&document, resource_table)?;
    // What does not say that it costs nothing is taken to cost something.
    let billed = |resource: &&Value| resource.get("billed").and_then(Value::as_bool) != Some(false);
    let billed = items(&document, "resources").iter().filter(billed).count();
    if billed == 0 {
        printer.note("Nothing with the stack's tag is billed.");
        return Ok(Exit::Done);
    }
    printer.note(&format!("{billed} things with the stack's tag are billed, or hold what is."));
    printer.hint("`ciab image delete` deletes images; what builds left is removed by the service itself");
    Ok(Exit::BuildFailed)
}

fn resource_table(document: &Value) -> String {
    let rows = items(document, "resources").iter().map(|resource| {
        let billed = match resource.get("billed").and_then(Value::as_bool) {
            Some(true) => "yes".to_owned(),
            Some(false) => "no".to_owned(),
            None => "--".to_owned(),
        };
        vec![
            cell(resource, "kind").replace('_', " "),
            cell(resource, "id"),
            cell(resource, "region"),
            time_cell(resource, "since"),
            billed,
            cell(resource, "build_id"),
        ]
    });
    output::table(&COLUMNS, rows)
}
