//! `ciab image list`: the images there are, newest first.

use serde_json::Value;

use super::paging;
use crate::args::ListOptions;
use crate::client::{Client, ImageFilter};
use crate::config::BuildDefaults;
use crate::document::{cell, time_cell};
use crate::exit::{Exit, Failure};
use crate::output::{self, Printer};

const COLUMNS: [(&str, u16); 5] =
    [("IMAGE ID", 24), ("PROVIDER", 12), ("REGION", 10), ("CREATED", 19), ("STATUS", 0)];

pub(crate) async fn run(
    client: &Client,
    printer: &mut Printer,
    defaults: &BuildDefaults,
    options: &ListOptions,
) -> Result<Exit, Failure> {
    let filter = filter(options, defaults);
    let mut document = client.images(&filter).await?;
    if options.all {
        let page =
            async |token| client.images(&ImageFilter { next_token: Some(token), ..filter.clone() }).await;
        paging::append_the_rest(&mut document, "images", page).await?;
    }
    printer.result(&document, image_table)?;
    if paging::next_token(&document).is_some() {
        printer.hint("there are more images; --all lists them all");
    }
    if images(&document).is_empty() {
        printer.hint(&empty_hint(options, &filter));
    }
    Ok(Exit::Done)
}

fn filter(options: &ListOptions, defaults: &BuildDefaults) -> ImageFilter {
    let region =
        options.region.clone().or_else(|| defaults.region.clone()).filter(|region| !region.is_empty());
    // Whoever wants all wants them in few requests.
    let limit = options.limit.or(options.all.then_some(100));
    ImageFilter { region, provider: options.provider.clone(), limit, next_token: None }
}

fn images(document: &Value) -> &[Value] {
    document.get("images").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn image_table(document: &Value) -> String {
    let rows = images(document).iter().map(|image| {
        vec![
            cell(image, "image_id"),
            cell(image, "provider"),
            cell(image, "region"),
            time_cell(image, "created_at"),
            cell(image, "status"),
        ]
    });
    output::table(&COLUMNS, rows)
}

fn empty_hint(options: &ListOptions, filter: &ImageFilter) -> String {
    match &filter.region {
        Some(region) if options.region.is_none() => {
            format!("no images in {region}, the configuration's region; --region '' lists every region's")
        }
        _ => "no images match; `ciab image build` makes one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_are_listed_as_documented() {
        let document = json!({"images": [{
            "image_id": "ami-0abcdef1234567890", "provider": "claude-code", "region": "us-east-1",
            "created_at": "2026-03-25T14:30:00Z", "status": "available", "build_id": "x"
        }], "next_token": null});
        let expected = "\
IMAGE ID                  PROVIDER      REGION      CREATED              STATUS
ami-0abcdef1234567890     claude-code   us-east-1   2026-03-25 14:30:00  available
";
        assert_eq!(image_table(&document), expected);
    }

    #[test]
    fn a_longer_name_widens_its_column() {
        let document = json!({"images": [{"region": "ap-southeast-1", "status": "available"}]});
        let expected = "\
IMAGE ID                  PROVIDER      REGION          CREATED              STATUS
--                        --            ap-southeast-1  --                   available
";
        assert_eq!(image_table(&document), expected);
    }

    #[test]
    fn no_images_leave_the_heading() {
        let expected = "IMAGE ID                  PROVIDER      REGION      CREATED              STATUS\n";
        assert_eq!(image_table(&json!({"images": []})), expected);
    }
}
