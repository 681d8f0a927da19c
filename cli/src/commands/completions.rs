//! `ciab completions <shell>`: the shell's completion script on stdout. Needs no service and no configuration.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::{Args, Format};
use crate::exit::{Exit, Failure};
use crate::output::Printer;

pub(crate) fn run(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "ciab", &mut script);
    Printer::new(Format::Table).raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
