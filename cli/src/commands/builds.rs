//! `ciab image builds`: the builds there were and are, newest first.

use serde_json::Value;

use super::paging;
use crate::args::BuildsOptions;
use crate::client::{BuildFilter, Client};
use crate::document::{cell, time_cell};
use crate::exit::{Exit, Failure};
use crate::output::{self, Printer};

const COLUMNS: [(&str, u16); 6] =
    [("BUILD ID", 36), ("PROVIDER", 12), ("REGION", 10), ("CREATED", 19), ("STATUS", 9), ("IMAGE ID", 0)];

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    options: &BuildsOptions,
) -> Result<Exit, Failure> {
    let filter = BuildFilter {
        status: options.status.clone(),
        provider: options.provider.clone(),
        // Whoever wants all wants them in few requests.
        limit: options.limit.or(options.all.then_some(100)),
        next_token: None,
    };
    let mut document = client.builds(&filter).await?;
    if options.all {
        let page =
            async |token| client.builds(&BuildFilter { next_token: Some(token), ..filter.clone() }).await;
        paging::append_the_rest(&mut document, "builds", page).await?;
    }
    printer.result(&document, build_table)?;
    if paging::next_token(&document).is_some() {
        printer.hint("there are more builds; --all lists them all");
    }
    if paging::items(&document, "builds").is_empty() {
        printer.hint("no builds match; `ciab image build` starts one");
    }
    Ok(Exit::Done)
}

fn build_table(document: &Value) -> String {
    let rows = paging::items(document, "builds").iter().map(|build| {
        vec![
            cell(build, "build_id"),
            cell(build, "provider"),
            cell(build, "region"),
            time_cell(build, "created_at"),
            cell(build, "status"),
            cell(build, "image_id"),
        ]
    });
    output::table(&COLUMNS, rows)
}
