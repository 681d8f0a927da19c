//! The real binary against a service with scripted answers, on loopback.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

mod build;
mod builds;
mod cancel;
mod configuration;
mod errors;
mod images;
mod interruption;
mod keys;
mod logs;
mod program;
mod service;
mod template;
mod waiting;
