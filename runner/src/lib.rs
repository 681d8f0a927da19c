//! ciab-runner: runs one build's Packer from start to end and reports how it went.
//!
//! It lives only as long as the build, on a machine that runs a stranger's template. It never writes to the database;
//! what it knows goes into the bucket (log, ledger, manifest) and to the state machine (heartbeats, one report).
//! [`run::run`] is the walk through it.

pub mod bundle;
pub mod configuration;
pub mod credentials;
pub mod downloads;
pub mod failure;
pub mod install;
pub mod issued_credentials;
pub mod ledger;
pub mod log;
pub mod manifest;
pub mod named_resources;
pub mod packer;
pub mod packer_output;
pub mod process;
pub mod progress;
pub mod redaction;
pub mod report;
pub mod run;
pub mod sensitive_variables;
pub mod step;
pub mod stop;
pub mod told;
