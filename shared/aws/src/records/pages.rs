//! Pages of listings and the tokens that lead from one to the next.
//!
//! Must never put a caller's text into a request: a token is taken apart and made anew. It says where in a listing to go
//! on and not in which, so that no token leads out of the listing that was asked for.

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciab_core::ids::{BuildId, ImageId};
use ciab_core::key::KeyId;
use ciab_core::ports::{INVALID_NEXT_TOKEN, PortError};
use jiff::Timestamp;

use super::items::{ACTIVE, Item, Key, place, sortable};
use crate::failure::Call;

/// One page of items, and its last item where more follow.
pub(super) struct Cut {
    pub(super) items: Vec<Item>,
    pub(super) last: Option<Item>,
}

/// A query's limit: one more than the page holds, so that a full last page is known to be the last.
pub(super) fn one_more(limit: u32) -> i32 {
    i32::try_from(limit.saturating_add(1)).unwrap_or(i32::MAX)
}

/// A page from what a query with the limit [`one_more`] gave; `more` says whether the query stopped before the end.
pub(super) fn cut(mut items: Vec<Item>, more: bool, limit: u32) -> Cut {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = more || items.len() > limit;
    items.truncate(limit);
    let last = if more { items.last().cloned() } else { None };
    Cut { items, last }
}

pub(super) fn token_of_image(last: &Item) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(text(last, "sk")?))
}

/// A build's place in any of its listings.
pub(super) fn token_of_build(last: &Item) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(format!("{}#{}", text(last, "created_at")?, text(last, "build_id")?)))
}

pub(super) fn token_of_key(last: &Item) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(text(last, "sk")?))
}

pub(super) fn position_in_keys(token: &str, call: Call) -> Result<Item, PortError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let id =
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse::<KeyId>().ok());
    let id = id.ok_or_else(|| not_ours(call))?;
    Ok(Key::api_key(&id).into_item())
}

fn not_ours(call: Call) -> PortError {
    call.refused(INVALID_NEXT_TOKEN, "the token was not given by an earlier page")
}

pub(super) fn position_in_images(token: &str, partition: &str, call: Call) -> Result<Item, PortError> {
    let (time, id) = opened::<ImageId>(token, call)?;
    Ok(Key::in_listing(partition, place(time, &id)).into_item())
}

pub(super) fn position_in_active_builds(token: &str, call: Call) -> Result<Item, PortError> {
    position_of_build(token, "active", ACTIVE, call)
}

/// `attribute` is what the index partitions by, and `partition` its value in the listing that was asked for.
pub(super) fn position_of_build(
    token: &str,
    attribute: &str,
    partition: &str,
    call: Call,
) -> Result<Item, PortError> {
    let (time, id) = opened::<BuildId>(token, call)?;
    let mut position = Key::build(id).into_item();
    position.insert(attribute.to_owned(), AttributeValue::S(partition.to_owned()));
    position.insert("created_at".to_owned(), AttributeValue::S(sortable(time)));
    Ok(position)
}

/// The time and the id that a token holds.
fn opened<Id: std::str::FromStr>(token: &str, call: Call) -> Result<(Timestamp, Id), PortError> {
    let parts = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (time, id) = text.split_once('#')?;
        let at: Timestamp = time.parse().ok()?;
        // Only the spelling that we give: anything else was made by somebody else.
        (sortable(at) == time).then_some(())?;
        Some((at, id.parse().ok()?))
    };
    parts().ok_or_else(|| not_ours(call))
}

fn text<'a>(item: &'a Item, attribute: &str) -> Option<&'a str> {
    item.get(attribute)?.as_s().ok().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call = Call { service: "dynamodb", operation: "Query" };
    const PLACE: &str = "2026-03-25T14:30:00.000000000Z#ami-0abcdef1234567890";

    fn item(place: &str) -> Item {
        Item::from([("sk".to_owned(), AttributeValue::S(place.to_owned()))])
    }

    #[test]
    fn a_token_is_fit_for_a_url_and_leads_back_to_its_place() {
        let token = token_of_image(&item(PLACE)).unwrap();
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        let position = position_in_images(&token, "IMAGES", CALL).unwrap();
        assert_eq!(position["sk"], AttributeValue::S(PLACE.to_owned()));
        assert_eq!(position["pk"], AttributeValue::S("IMAGES".to_owned()));
    }

    #[test]
    fn a_token_that_was_tampered_with_is_refused() {
        let forged = [
            String::new(),
            "not base64!".to_owned(),
            URL_SAFE_NO_PAD.encode("IMAGES"),
            URL_SAFE_NO_PAD.encode([0xff, 0xfe]),
            URL_SAFE_NO_PAD.encode("2026-03-25T14:30:00Z#ami-0abcdef1234567890"),
            URL_SAFE_NO_PAD.encode("2026-03-25T14:30:00.000000000Z#ami-1#IMAGES"),
            URL_SAFE_NO_PAD.encode("yesterday#ami-0abcdef1234567890"),
        ];
        for token in forged {
            let error = position_in_images(&token, "IMAGES", CALL).unwrap_err();
            assert!(
                matches!(&error, PortError::Refused { code, .. } if code == INVALID_NEXT_TOKEN),
                "{token}: {error}"
            );
        }
    }

    #[test]
    fn a_full_last_page_has_no_next_one() {
        let three = || vec![item("a"), item("b"), item("c")];
        assert!(cut(three(), false, 3).last.is_none());
        let page = cut(three(), false, 2);
        assert_eq!(page.items.len(), 2);
        assert_eq!(page.last, Some(item("b")));
        assert_eq!(cut(three(), true, 3).last, Some(item("c")), "a page may end early by its size");
    }
}
