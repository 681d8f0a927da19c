//! `ciab`: the command line of the image service.
//!
//! It speaks the HTTP API, and to a store that the API names for an upload: it never talks to AWS otherwise and never runs Packer. This file only wires the
//! parts together; what a command does is in `commands`.

mod args;
mod build_request;
mod client;
mod commands;
mod config;
mod document;
mod exit;
mod local_template;
mod output;
mod pace;
mod secret;
mod server_url;
mod terminal_text;
mod upload;
mod wait;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return exit::report(&exit::Failure::Runtime { source }),
    };
    match runtime.block_on(commands::run(args::Args::parse())) {
        Ok(exit) => exit.into(),
        Err(failure) => exit::report(&failure),
    }
}
