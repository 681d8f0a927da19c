//! The adapters against real services on this machine: moto's server, and Amazon's own DynamoDB Local for the records.
//!
//! `cargo xtask test` sets the variables that say where they are; without them these tests fail.

#![expect(clippy::unwrap_used, reason = "a test fails where something unexpected is missing")]

mod build_identity;
mod calls;
mod cloud;
mod credentials_issuer;
mod ec2_runners;
mod events;
mod keys;
mod objects;
mod records;
mod runners;
mod secrets;
mod servers;
mod uploads;
mod workflows;
