//! `ciab schedule run`: has the service do now what its schedule does at night.

use serde_json::{Map, Value, json};

use super::paging::items;
use crate::args::RunOptions;
use crate::client::Client;
use crate::document::{cell, inline};
use crate::exit::{Exit, Failure};
use crate::output::{self, Printer};
use crate::wait::unless_interrupted;

const COLUMNS: [(&str, u16); 4] = [("WHAT", 11), ("PROVIDER", 12), ("REGION", 10), ("DETAIL", 0)];

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    options: &RunOptions,
) -> Result<Exit, Failure> {
    let mut body = Map::new();
    for (field, names) in [("providers", &options.providers), ("regions", &options.regions)] {
        if !names.is_empty() {
            body.insert(field.to_owned(), json!(names));
        }
    }
    let key = options.idempotency_key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let hints =
        || vec![format!("builds may have been started; --idempotency-key {key} goes on with the same run")];
    let rebuild = async { Ok(client.rebuild(Value::Object(body), &key).await?) };
    let report = unless_interrupted(hints, rebuild).await?;
    printer.result(&report, report_table)?;
    if let Some(left) = report.get("left_for_next_run").and_then(Value::as_u64).filter(|left| *left > 0) {
        printer.hint(&format!("{left} older images are left; the next run goes on with them"));
    }
    Ok(if items(&report, "failed").is_empty() { Exit::Done } else { Exit::BuildFailed })
}

/// One line for each build that was started, image that was deleted or stays in use, and part that failed.
fn report_table(report: &Value) -> String {
    let detail = |list: &str, item: &Value| match list {
        "started" => format!("build {}", cell(item, "build_id")),
        "deleted" => item.get("images").map_or_else(|| cell(item, "image_id"), inline),
        "kept_in_use" => {
            let users = item.get("used_by").map_or_else(|| "somebody".to_owned(), inline);
            format!("{} is used by {users}", cell(item, "image_id"))
        }
        _ => format!("{} ({})", cell(item, "message"), cell(item, "code")),
    };
    let lists = ["started", "deleted", "kept_in_use", "failed"];
    let rows = lists.into_iter().flat_map(|list| {
        items(report, list).iter().map(move |item| {
            let what = list.replace('_', " ");
            vec![what, cell(item, "provider"), cell(item, "region"), detail(list, item)]
        })
    });
    output::table(&COLUMNS, rows)
}
