//! One module per command; this one finds the command's settings and hands over.
//!
//! A command composes requests, asks the client, and gives documents to the printer; it writes to no stream itself.

mod build;
mod cancel;
mod completions;
mod delete;
mod list;
mod logs;
mod status;

use crate::args::{Args, Command, ImageCommand};
use crate::client::Client;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::Printer;

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let command = match args.command {
        // Completions must work before anything is configured.
        Command::Completions { shell } => return completions::run(shell),
        Command::Image(command) => command,
    };
    let settings = config::load(&args.global)?;
    let client = Client::new(&settings)?;
    let mut printer = Printer::new(settings.output);
    if settings.api_key.is_some() && !client.server().is_https() && !client.server().is_loopback() {
        printer.warning(&format!("the API key travels unencrypted to {}", client.server()));
    }
    let printer = &mut printer;
    match *command {
        ImageCommand::Build(options) => build::run(&client, printer, &settings.build, &options).await,
        ImageCommand::List(options) => list::run(&client, printer, &settings.build, &options).await,
        ImageCommand::Status(options) => status::run(&client, printer, &options).await,
        ImageCommand::Logs(options) => logs::run(&client, printer, &options).await,
        ImageCommand::Cancel(options) => cancel::run(&client, printer, &options).await,
        ImageCommand::Delete(options) => delete::run(&client, printer, &options).await,
    }
}
