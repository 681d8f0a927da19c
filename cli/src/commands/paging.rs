//! Listings that come in pages, joined to one document.

use serde_json::Value;

use crate::client;
use crate::exit::Failure;

/// A hundred thousand things at the documented page size. A service that has more repeats itself.
const MOST_PAGES: u32 = 1000;

/// Adds what follows the first page to its list; `page` asks for the page that a token leads to.
pub(super) async fn append_the_rest(
    document: &mut Value,
    list: &str,
    page: impl AsyncFn(String) -> Result<Value, client::Error>,
) -> Result<(), Failure> {
    for _ in 0..MOST_PAGES {
        let Some(token) = next_token(document) else { return Ok(()) };
        let mut page = page(token).await?;
        document["next_token"] = page["next_token"].take();
        if let (Some(Value::Array(items)), Some(Value::Array(more))) =
            (document.get_mut(list), page.get_mut(list))
        {
            items.append(more);
        }
    }
    Ok(())
}

pub(super) fn next_token(document: &Value) -> Option<String> {
    document.get("next_token").and_then(Value::as_str).map(str::to_owned)
}

/// The items of a document's list; none where it has no such list.
pub(super) fn items<'a>(document: &'a Value, list: &str) -> &'a [Value] {
    document.get(list).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
