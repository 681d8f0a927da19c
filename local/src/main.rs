//! `ciab-local`: the stack on one machine. The functions' and the runner's real binaries, the real state machine and the
//! real Packer, with stand-ins for the services around them.
//!
//! A development tool: the product never depends on it, and it holds nothing of the domain.

mod codebuild;
mod confine;
mod edge;
mod event_source;
mod gateway;
mod lambda_host;
mod moto;
mod permissions;
mod process;
mod provision;
mod schedule;
mod settings;
mod stack;
mod template;
mod work_dir;

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use settings::{Command, CommandLine, Settings, Up};
use work_dir::WorkDir;

/// moto's account.
const ACCOUNT: &str = "123456789012";
/// The operator's: the stack's own key, and that of whoever looks at it from outside. It may do everything.
const ACCESS_KEY_ID: &str = "local";
/// The first admin key of the local stack. No secret: it opens nothing but a stack on the loopback address.
const API_KEY: &str = "ciab-local-development-key";

fn main() -> ExitCode {
    // Instances are started by starting this program again; that must come before anything else.
    if let Some(code) = ciab_local_ec2::run_if_asked() {
        return code;
    }
    let command = CommandLine::parse().command;
    let filter = EnvFilter::try_from_env("CIAB_LOCAL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .init();
    // The HTTP client wants one even though nothing here speaks TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match command {
        Command::Up(up) => run_stack(*up),
        Command::Permissions(wanted) => compare_permissions(&wanted).unwrap_or_else(|error| refuse(&error)),
        Command::RootFilesystem(wanted) => {
            make_root_filesystem(&wanted.out).unwrap_or_else(|error| refuse(&error))
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn make_root_filesystem(folder: &Path) -> anyhow::Result<ExitCode> {
    let root = ciab_local_ec2::build_root_filesystem(folder).await?;
    writeln!(std::io::stdout(), "{}", root.display())?;
    Ok(ExitCode::SUCCESS)
}

fn compare_permissions(wanted: &settings::Permissions) -> anyhow::Result<ExitCode> {
    let template = wanted.template()?;
    let differences = permissions::compare_usage(&template, &wanted.called, &wanted.reasons)?;
    let mut out = std::io::stdout();
    for difference in &differences {
        writeln!(out, "{difference}")?;
    }
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_stack(up: Up) -> ExitCode {
    let prepared = Settings::check(up).and_then(|settings| {
        let work_dir = WorkDir::create(settings.up.work_dir.as_deref())?;
        Ok((settings, work_dir))
    });
    let (settings, work_dir) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return refuse(&error),
    };
    let pid = std::process::id();
    let inside = work_dir.clone();
    let stack = move || match stack::run(&settings, &inside, pid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    };
    confine::run(stack, move || work_dir.remove())
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// An error and what caused it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
