//! From the SDK's times to ours.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use jiff::Timestamp;

/// The same time; none where it lies outside of what we can tell.
pub(crate) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    SystemTime::try_from(*time).ok().and_then(|time| Timestamp::try_from(time).ok())
}
