//! One module per command; this one finds the command's settings and hands over.
//!
//! A command composes requests, asks the client, and gives documents to the printer; it writes to no stream itself.

mod build;
mod builds;
mod cancel;
mod completions;
mod delete;
mod key;
mod list;
mod logs;
mod paging;
mod schedule;
mod stack;
mod status;
mod template;

use crate::args::{
    Args, Command, GlobalOptions, ImageCommand, KeyCommand, ScheduleCommand, StackCommand, TemplateCommand,
};
use crate::client::Client;
use crate::config::{self, Settings};
use crate::exit::{Exit, Failure};
use crate::output::Printer;

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let global = &args.global;
    match args.command {
        // Completions must work before anything is configured.
        Command::Completions { shell } => completions::run(shell),
        // Looks at files of this machine alone, and so needs no service.
        Command::Template(TemplateCommand::Check(options)) => {
            template::check::run(&mut Printer::new(config::load(global)?.output), &options)
        }
        Command::Template(TemplateCommand::Upload(options)) => {
            let (_, client, mut printer) = connect(global)?;
            template::upload::run(&client, &mut printer, &options).await
        }
        Command::Key(command) => {
            let (_, client, mut printer) = connect(global)?;
            match command {
                KeyCommand::Create(options) => key::create(&client, &mut printer, &options).await,
                KeyCommand::List(options) => key::list(&client, &mut printer, &options).await,
                KeyCommand::Revoke(options) => key::revoke(&client, &mut printer, &options).await,
            }
        }
        Command::Schedule(ScheduleCommand::Run(options)) => {
            let (_, client, mut printer) = connect(global)?;
            schedule::run(&client, &mut printer, &options).await
        }
        Command::Stack(StackCommand::Check) => {
            let (_, client, mut printer) = connect(global)?;
            stack::check(&client, &mut printer).await
        }
        Command::Image(command) => {
            let (settings, client, mut printer) = connect(global)?;
            let printer = &mut printer;
            match *command {
                ImageCommand::Build(options) => build::run(&client, printer, &settings.build, &options).await,
                ImageCommand::List(options) => list::run(&client, printer, &settings.build, &options).await,
                ImageCommand::Builds(options) => builds::run(&client, printer, &options).await,
                ImageCommand::Status(options) => status::run(&client, printer, &options).await,
                ImageCommand::Logs(options) => logs::run(&client, printer, &options).await,
                ImageCommand::Cancel(options) => cancel::run(&client, printer, &options).await,
                ImageCommand::Delete(options) => delete::run(&client, printer, &options).await,
            }
        }
    }
}

fn connect(global: &GlobalOptions) -> Result<(Settings, Client, Printer), Failure> {
    let settings = config::load(global)?;
    let client = Client::new(&settings)?;
    let printer = Printer::new(settings.output);
    if settings.api_key.is_some() && !client.server().is_https() && !client.server().is_loopback() {
        printer.warning(&format!("the API key travels unencrypted to {}", client.server()));
    }
    Ok((settings, client, printer))
}
