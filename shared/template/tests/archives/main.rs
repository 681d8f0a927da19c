//! Archives from elsewhere: what well-made ones become, and a table of attacks, each judged by what came of it.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod attacks;
mod make_tar;
mod make_zip;
mod mutations;
mod well_made;
