//! The command line as clap reads it: names, defaults and help, no decisions.
//!
//! Nothing here derives `Debug` but what is free of secrets.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::secret::Secret;

/// Build and manage machine images with coding agents pre-installed.
#[derive(Parser)]
#[command(name = "ciab", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 the build failed or was cancelled, the template would be refused, a part of a rebuild failed, or the stack \
has what is billed; 2 wrong usage, or \
cancelling a build that has ended; 3 not found; 4 not allowed; \
5 the service can't be reached or failed; 130 interrupted.";

#[derive(ClapArgs)]
pub(crate) struct GlobalOptions {
    /// Address of the service [default: http://localhost:9090]
    #[arg(long, global = true, value_name = "URL", env = "CIAB_SERVER_URL", help_heading = "Global options")]
    pub(crate) server_url: Option<String>,
    /// API key; prefer the environment variable, since other users can read a command line
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "CIAB_API_KEY",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    pub(crate) api_key: Option<Secret>,
    /// Form of the result on stdout [default: table]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Global options")]
    pub(crate) output: Option<Format>,
    /// Configuration file [default: ciab/config.toml in the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Machine images and their builds
    #[command(subcommand)]
    Image(Box<ImageCommand>),
    /// API keys; needs one with the scope admin
    #[command(subcommand)]
    Key(KeyCommand),
    /// Templates on this machine
    #[command(subcommand)]
    Template(TemplateCommand),
    /// The nightly rebuilds
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// The whole service
    #[command(subcommand)]
    Stack(StackCommand),
    /// Print a shell's completion script
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Start an image build
    Build(BuildOptions),
    /// List images, newest first
    List(ListOptions),
    /// List builds, newest first
    Builds(BuildsOptions),
    /// Show a build
    Status(StatusOptions),
    /// Print a build's log
    Logs(LogsOptions),
    /// Cancel a build that has not ended
    Cancel(CancelOptions),
    /// Deregister an image, and the other images of its build, and delete their snapshots
    Delete(DeleteOptions),
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and print it this once
    Create(CreateKeyOptions),
    /// List keys, newest first
    List(ListKeysOptions),
    /// Revoke a key
    Revoke(RevokeKeyOptions),
}

#[derive(ClapArgs)]
pub(crate) struct CreateKeyOptions {
    /// What people know it by
    #[arg(long)]
    pub(crate) label: String,
    /// What it may do; may be repeated. Only admin implies the others
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = ["read", "build", "delete", "admin"])]
    pub(crate) scopes: Vec<String>,
    /// Agent that its builds and images are limited to; may be repeated [default: no limit]
    #[arg(long = "provider", visible_alias = "agent", value_name = "PROVIDER")]
    pub(crate) providers: Vec<String>,
    /// Region that its builds and images are limited to; may be repeated [default: no limit]
    #[arg(long = "region", value_name = "REGION")]
    pub(crate) regions: Vec<String>,
    /// How long it lasts, in days, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub(crate) expires_in: Option<u32>,
}

#[derive(ClapArgs)]
pub(crate) struct ListKeysOptions {
    /// Keys per answer, 1 to 100 [default: the service's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: Option<u32>,
    /// Every key, not only the first answer's
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(ClapArgs)]
pub(crate) struct RevokeKeyOptions {
    /// The key's id, which is not the key
    #[arg(value_parser = key_id)]
    pub(crate) key_id: String,
}

#[derive(Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Do now what the schedule does at night: start the rebuilds, and delete older images of theirs that nobody uses
    Run(RunOptions),
}

#[derive(Subcommand)]
pub(crate) enum StackCommand {
    /// List everything in EC2 that carries the stack's tag; fails where some of it is billed, or holds what is
    Check,
}

#[derive(Subcommand)]
pub(crate) enum TemplateCommand {
    /// Show what a template declares, and whether the service would refuse it; works offline
    Check(CheckOptions),
    /// Upload a template, and print the source that a build names it by
    Upload(UploadOptions),
}

#[derive(ClapArgs)]
pub(crate) struct CheckOptions {
    /// A template (.pkr.hcl, .pkr.json, .json), an archive (.zip, .tar.gz, .tar), or a folder
    pub(crate) path: PathBuf,
    /// Judge it as one that the service fetches from elsewhere: nothing in it may run on the runner
    #[arg(long)]
    pub(crate) fetched: bool,
    /// Print the text as it would be built, with placeholders in place of a build's own tags
    #[arg(long)]
    pub(crate) tagged: bool,
    /// Packer variable to check against what the template declares; may be repeated
    #[arg(long = "var", value_name = "KEY=VALUE")]
    pub(crate) variables: Vec<String>,
    /// File with Packer variables to check, in HCL (.pkrvars.hcl) or JSON; may be repeated
    #[arg(long = "var-file", value_name = "FILE")]
    pub(crate) variable_files: Vec<PathBuf>,
}

#[derive(ClapArgs)]
pub(crate) struct UploadOptions {
    /// A template (.pkr.hcl, .pkr.json, .json), an archive (.zip, .tar.gz, .tar), or a folder, of which what .ciabignore and
    /// .gitignore name stays here
    pub(crate) path: PathBuf,
}

#[derive(ClapArgs)]
pub(crate) struct BuildOptions {
    /// Agent to install: claude-code, codex, gemini or cursor
    #[arg(long, visible_alias = "agent", default_value = "claude-code")]
    pub(crate) provider: String,
    /// AWS region of the image [default: the configuration's, then the service's]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Type of the build instance [default: the configuration's, then the service's]
    #[arg(long)]
    pub(crate) instance_type: Option<String>,
    /// Template: `builtin://name`, another source that the service fetches, or a file or folder of this machine, of which
    /// what .ciabignore and .gitignore name stays here
    #[arg(long, value_name = "SOURCE")]
    pub(crate) template: Option<String>,
    /// Packer variable; may be repeated, and wins over --var-file
    #[arg(long = "var", value_name = "KEY=VALUE")]
    pub(crate) variables: Vec<String>,
    /// File with Packer variables, in HCL (.pkrvars.hcl) or JSON; may be repeated, the last one wins
    #[arg(long = "var-file", value_name = "FILE")]
    pub(crate) variable_files: Vec<PathBuf>,
    /// Extra tag for the image; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    pub(crate) tags: Vec<String>,
    /// Wait for the build to end
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait for the build to end and show its log on stderr
    #[arg(long)]
    pub(crate) follow: bool,
    /// Build even where the same inputs have an image
    #[arg(long)]
    pub(crate) force: bool,
    /// Time limit of the build in seconds [default: the configuration's, then the service's]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// Key under which the service starts this build only once [default: a new one for each run]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(ClapArgs)]
pub(crate) struct ListOptions {
    /// Only images in this region; '' for every region [default: the configuration's]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Only images with this agent
    #[arg(long, visible_alias = "agent")]
    pub(crate) provider: Option<String>,
    /// Images per answer, 1 to 100 [default: the service's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: Option<u32>,
    /// Every image, not only the first answer's
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(ClapArgs)]
pub(crate) struct BuildsOptions {
    /// Only builds of this status: queued, building, succeeded or failed
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only builds with this agent
    #[arg(long, visible_alias = "agent")]
    pub(crate) provider: Option<String>,
    /// Builds per answer, 1 to 100 [default: the service's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) limit: Option<u32>,
    /// Every build, not only the first answer's
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(ClapArgs)]
pub(crate) struct RunOptions {
    /// Only this agent; may be repeated [default: those that the stack rebuilds]
    #[arg(long = "provider", visible_alias = "agent", value_name = "PROVIDER")]
    pub(crate) providers: Vec<String>,
    /// Only this region; may be repeated [default: those that the stack rebuilds in]
    #[arg(long = "region", value_name = "REGION")]
    pub(crate) regions: Vec<String>,
    /// Key under which the service does this only once [default: a new one for each run]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(ClapArgs)]
pub(crate) struct StatusOptions {
    /// The build's id, a UUID
    pub(crate) build_id: Uuid,
    /// Wait for the build to end
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(ClapArgs)]
pub(crate) struct LogsOptions {
    /// The build's id, a UUID
    pub(crate) build_id: Uuid,
    /// Keep printing until the build has ended; with `--output json`, one object a line
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(ClapArgs)]
pub(crate) struct CancelOptions {
    /// The build's id, a UUID
    pub(crate) build_id: Uuid,
}

#[derive(ClapArgs)]
pub(crate) struct DeleteOptions {
    /// The image's id, such as ami-0abcdef1234567890
    #[arg(value_parser = image_id)]
    pub(crate) image_id: String,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Only the form that keeps a slip (a build id, a name) from travelling: whether the image exists, the service knows.
fn image_id(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("ami-").unwrap_or_default();
    if rest.is_empty() || !rest.chars().all(|character| character.is_ascii_alphanumeric()) {
        return Err("an image id begins with `ami-`, such as ami-0abcdef1234567890".to_owned());
    }
    Ok(text.to_owned())
}

/// A number of days with its unit, so that nobody takes it for seconds.
fn days(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('d').and_then(|number| number.parse().ok());
    number.filter(|days| *days > 0).ok_or_else(|| "must be a number of days, such as 90d".to_owned())
}

/// Keeps a whole key that was given by mistake from travelling.
fn key_id(text: &str) -> Result<String, String> {
    if text.len() != 20 || !text.chars().all(|character| character.is_ascii_hexdigit()) {
        return Err("a key's id has 20 hexadecimal digits; `ciab key list` shows it".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn days_are_written_with_their_unit() {
        assert_eq!(days("90d"), Ok(90));
        for wrong in ["90", "d", "0d", "-1d", "1.5d", "90s", "12h", ""] {
            assert!(days(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_no_key_id() {
        assert!(key_id("019d2566fe4000000001").is_ok());
        for wrong in ["", "admin", "../../x", "ciab_019d2566fe4000000001_00"] {
            assert!(key_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_image_id_begins_with_ami() {
        assert!(image_id("ami-0abcdef1234567890").is_ok());
        assert!(image_id("ami-").is_err());
        assert!(image_id("snap-0123").is_err());
        assert!(image_id("ami-1/../2").is_err());
    }
}
