//! Somebody else's servers, for tests: https on loopback with an authority of its own, and git repositories behind git's own
//! server program.
//!
//! Must never listen on anything but loopback.
#![expect(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

pub mod authority;
pub mod repositories;
pub mod server;
