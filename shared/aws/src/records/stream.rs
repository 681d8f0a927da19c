//! What the table's stream says of builds.

use ciab_core::build::BuildRecord;
use ciab_core::event::Change;
use ciab_core::ports::PortError;
use jiff::Timestamp;

use super::items::{self, Item};
use crate::failure::Call;

const CALL: Call = Call { service: "dynamodb", operation: "GetRecords" };

/// The change that a record of the stream stands for, from the build's item before and after, each empty where there is none.
/// None for an item that was removed: no build's ever is but by hand, and then there is nothing to tell.
///
/// # Errors
/// Where an item holds no build that can be read.
pub fn read_change(
    old: serde_dynamo::Item,
    new: serde_dynamo::Item,
    at: Timestamp,
) -> Result<Option<Change>, PortError> {
    let read = |item: serde_dynamo::Item| -> Result<Option<BuildRecord>, PortError> {
        let item = Item::from(item);
        if item.is_empty() { Ok(None) } else { items::read_build(&item, CALL).map(Some) }
    };
    let old = read(old)?;
    Ok(read(new)?.map(|new| Change { old, new, at }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_is_gone_has_nothing_to_tell_and_one_that_is_no_build_is_an_error() {
        let at = "2026-03-25T14:30:00Z".parse().unwrap();
        let lease = || -> serde_dynamo::Item {
            serde_dynamo::to_item(serde_json::json!({"pk": "LEASE#poll-builds", "sk": "LEASE"})).unwrap()
        };
        assert_eq!(read_change(Default::default(), Default::default(), at).unwrap(), None);
        assert!(read_change(Default::default(), lease(), at).is_err());
        assert!(read_change(lease(), Default::default(), at).is_err());
    }
}
