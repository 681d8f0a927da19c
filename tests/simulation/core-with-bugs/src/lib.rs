//! A copy of `shared/core`, made by `build.rs`, in which the bugs of `bugs.rs` can be switched on.
//!
//! The product never sees it: there is no switch in `shared/core`. Must never be depended on but by `teeth`.

#![allow(warnings, clippy::all, reason = "bugs that are switched off leave code that nothing needs")]

include!(concat!(env!("OUT_DIR"), "/core.rs"));

#[path = "../bugs.rs"]
pub mod bugs;

/// The switch.
pub mod planted {
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Switches this bug on, for this thread, and every other one off.
    pub fn plant(bug: Option<&'static str>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is switched on.
    pub fn is(bug: &str) -> bool {
        PLANTED.get() == Some(bug)
    }
}
