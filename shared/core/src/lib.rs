//! The domain of ciab-images: types, the life of a build, decisions, and what each function does.
//!
//! No AWS SDK, clock, environment, randomness or I/O in here: the world comes in through the traits in [`ports`], so that
//! everything can be tested, and run again after a crash with the same result.

#![warn(missing_docs)]

pub mod api;
pub mod authorize_request;
pub mod build;
pub mod build_image;
pub mod cancel_build;
pub mod check_health;
pub mod clean_up;
pub mod delete_image;
mod digest;
pub mod dispatch;
pub mod event;
pub mod finish_build;
pub mod get_build;
pub mod ids;
pub mod image;
pub mod issue_credentials;
pub mod key;
pub mod ledger;
pub mod life;
pub mod list_images;
pub mod list_resources;
pub mod log;
pub mod manage_keys;
pub mod manifest;
pub mod poll_builds;
pub mod ports;
pub mod prepare_build;
pub mod publish_events;
pub mod rebuild_images;
pub mod reconcile;
pub mod request;
pub mod resolve_template;
pub mod resource;
pub mod routes;
pub mod settings;
mod spans;
pub mod start_runner;
pub mod step;
pub mod task_token;
pub mod template_hosts;
pub mod upload_template;
