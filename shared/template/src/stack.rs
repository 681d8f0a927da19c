//! Room for parsers that call themselves at each level of nesting.

/// Bytes. The deepest that `hcl-edit` follows (64 levels, each a `for` in the next) takes between 2 and 4 MiB in a debug
/// build, and a thread may have no more than 2 MiB.
const ROOM: usize = 8 << 20;

/// Calls `parse` with enough stack for whatever depth it allows.
pub(crate) fn with_room<T>(parse: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(ROOM, ROOM, parse)
}
