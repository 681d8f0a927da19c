//! The command line, and the checks that find what is missing before anything is started.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use ciab_local_ec2::Ec2;
use clap::{Args, Parser, Subcommand};

use crate::template::{self, StackIdentity, StackTemplate};

/// The SSM parameter of the newest Amazon Linux 2023.
const AMAZON_LINUX: &str = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64";

/// The whole stack on one machine.
#[derive(Parser)]
#[command(name = "ciab-local", version, about)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start the stack in the foreground; Ctrl-C stops it and removes all it made
    Up(Box<Up>),
    /// Make the root file system that instances boot from, unless the folder has one of the same recipe; prints its path
    RootFilesystem(RootFilesystem),
    /// Compare what the roles of template.yaml may do with what they did while tests ran; prints what does not agree
    Permissions(Permissions),
}

#[derive(Args, Clone)]
pub(crate) struct Permissions {
    /// Folder of template.yaml
    #[arg(long, value_name = "DIR", default_value = "infra")]
    infra: PathBuf,
    /// What `up --called-actions` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) called: PathBuf,
    /// Why a role may do what no test has it do: YAML, by role and action
    #[arg(long, value_name = "FILE")]
    pub(crate) reasons: PathBuf,
}

impl Permissions {
    pub(crate) fn template(&self) -> anyhow::Result<StackTemplate> {
        Ok(template::read(&self.infra, &identity(), &BTreeMap::new())?)
    }
}

#[derive(Args, Clone)]
pub(crate) struct RootFilesystem {
    /// Where root file systems are kept, each in a folder of its own
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Clone)]
pub(crate) struct Up {
    /// Port of the HTTP API on 127.0.0.1 (0 takes a free one); every other port is a free one
    #[arg(long, env = "CIAB_LOCAL_GATEWAY_PORT", default_value_t = 9090)]
    pub(crate) gateway_port: u16,
    /// Folder of the function binaries, each named as its folder in functions/ (build-image, …)
    #[arg(long, env = "CIAB_LOCAL_FUNCTIONS_DIR", value_name = "DIR")]
    pub(crate) functions_dir: PathBuf,
    /// The runner's binary, ciab-runner
    #[arg(long, env = "CIAB_LOCAL_RUNNER", value_name = "FILE")]
    pub(crate) runner: PathBuf,
    /// Folder of template.yaml, build-image.asl.json and buildspec.yml
    #[arg(long, env = "CIAB_LOCAL_INFRA", value_name = "DIR", default_value = "infra")]
    pub(crate) infra: PathBuf,
    /// moto's server; a bare name is looked up in PATH
    #[arg(long, env = "CIAB_LOCAL_MOTO_SERVER", value_name = "FILE", default_value = "moto_server")]
    pub(crate) moto_server: PathBuf,
    /// Packer; a bare name is looked up in PATH
    #[arg(long, env = "CIAB_LOCAL_PACKER", value_name = "FILE", default_value = "packer")]
    pub(crate) packer: PathBuf,
    /// Root file system of instances; without it, instances exist in EC2's API only and nothing is provisioned
    #[arg(long, env = "CIAB_LOCAL_ROOT_FILESYSTEM", value_name = "DIR")]
    pub(crate) root_filesystem: Option<PathBuf>,
    /// Where logs and builds go, and where logs stay; without it, a temporary folder that goes with the stack
    #[arg(long, env = "CIAB_LOCAL_WORK_DIR", value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,
    /// How often poll-builds runs, in seconds; without it, as often as template.yaml says
    #[arg(long, env = "CIAB_LOCAL_POLL_INTERVAL", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) poll_interval: Option<Duration>,
    /// Written once the stack is ready, as one JSON object; removed when it stops
    #[arg(long, env = "CIAB_LOCAL_READY_FILE", value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// What functions, runner and Packer are given as AWS's endpoint instead of the stack's own: for tests that put a
    /// proxy before it, which passes on to the `aws_endpoint_url` of the ready file
    #[arg(long, value_name = "URL", hide = true, value_parser = loopback_url)]
    pub(crate) advertise_endpoint: Option<String>,
    /// Certificates, in PEM, of the authorities that functions trust when they fetch templates, in place of the machine's own
    #[arg(long, env = "CIAB_LOCAL_CERTIFICATES", value_name = "FILE")]
    pub(crate) certificates: Option<PathBuf>,
    /// Appends what each role of template.yaml calls, and what it is denied, one JSON object a line
    #[arg(long, env = "CIAB_LOCAL_CALLED_ACTIONS", value_name = "FILE", overrides_with = "called_actions")]
    pub(crate) called_actions: Option<PathBuf>,
    /// A value for a parameter of template.yaml; may be repeated
    #[arg(long = "set", value_name = "PARAMETER=VALUE", value_parser = assignment)]
    pub(crate) parameters: Vec<(String, String)>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(100) {
        return Err("must be at least 0.1".to_owned());
    }
    Ok(duration)
}

/// `http://` and an address of this machine with a port: nothing of the stack may leave the machine.
fn loopback_url(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").and_then(|address| address.parse::<SocketAddr>().ok());
    match address {
        Some(address) if address.ip().is_loopback() && address.port() != 0 => Ok(text.to_owned()),
        _ => {
            Err("must be http:// with a loopback address and a port, such as http://127.0.0.1:4566"
                .to_owned())
        }
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must have the form Parameter=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A command line whose files are there and whose template is understood.
pub(crate) struct Settings {
    pub(crate) up: Up,
    pub(crate) template: StackTemplate,
    pub(crate) identity: StackIdentity,
}

impl Settings {
    /// Whether builds use the Packer that `--packer` names, as on any machine whose distribution has one, and none is downloaded.
    /// A `--set PackerBinaryPath=…` has the last word: empty, and the runner looks for one by the stack's parameters.
    pub(crate) fn packer_serves(&self) -> bool {
        !self.up.parameters.iter().any(|(name, _)| name == "PackerBinaryPath")
    }

    pub(crate) fn check(mut up: Up) -> anyhow::Result<Self> {
        let identity = identity();
        up.packer = program(&up.packer, "--packer")?;
        // What differs from a deployed stack by default; --set has the last word.
        let mut parameters = BTreeMap::from([
            ("PackerVersion".to_owned(), packer_version(&up.packer)?),
            ("TemplateVariables".to_owned(), r#"{"toolchains":"distro"}"#.to_owned()),
        ]);
        parameters.extend(up.parameters.iter().cloned());
        let template = template::read(&up.infra, &identity, &parameters)
            .with_context(|| format!("{} is no stack to start", up.infra.display()))?;
        if !up.infra.join("buildspec.yml").is_file() {
            bail!("{} has no buildspec.yml", up.infra.display());
        }
        let missing: Vec<&str> = template
            .functions
            .iter()
            .map(|function| function.folder.as_str())
            .filter(|folder| !is_executable(&up.functions_dir.join(folder)))
            .collect();
        if !missing.is_empty() {
            bail!(
                "{} has no binary for {}; build them first (cargo build --workspace)",
                up.functions_dir.display(),
                missing.join(", ")
            );
        }
        up.functions_dir = absolute(&up.functions_dir)?;
        up.infra = absolute(&up.infra)?;
        up.runner = program(&up.runner, "--runner")?;
        up.moto_server = program(&up.moto_server, "--moto-server")?;
        program(Path::new("sh"), "builds need it")?;
        if let Some(folder) = &up.root_filesystem {
            if !folder.is_dir() {
                bail!("--root-filesystem {} is no folder", folder.display());
            }
            up.root_filesystem = Some(absolute(folder)?);
        }
        Ok(Self { up, template, identity })
    }
}

fn identity() -> StackIdentity {
    StackIdentity {
        stack_name: "ciab-local".to_owned(),
        region: "us-east-1".to_owned(),
        account: crate::ACCOUNT.to_owned(),
        // The same stand-in for every machine image there is.
        public_parameters: BTreeMap::from([(
            AMAZON_LINUX.to_owned(),
            Ec2::base_image().unwrap_or_default().to_owned(),
        )]),
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("{} cannot be found", path.display()))
}

/// A path as it is, a bare name from PATH.
fn program(path: &Path, why: &str) -> anyhow::Result<PathBuf> {
    if path.components().count() > 1 {
        if !is_executable(path) {
            bail!("{} is no executable file ({why})", path.display());
        }
        return absolute(path);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join(path)).find(|path| is_executable(path));
    found.with_context(|| format!("{} is not in PATH ({why})", path.display()))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The version of the Packer that will run, which decides what a template may hold.
fn packer_version(packer: &Path) -> anyhow::Result<String> {
    let output = std::process::Command::new(packer)
        .arg("version")
        // It would ask its maker for news.
        .env("CHECKPOINT_DISABLE", "1")
        .output()
        .with_context(|| format!("{} cannot be run", packer.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().next().and_then(|line| line.trim().strip_prefix("Packer v"));
    version
        .map(str::to_owned)
        .with_context(|| format!("{} version said `{}`: no version of Packer", packer.display(), text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_can_be_advertised() {
        assert_eq!(loopback_url("http://127.0.0.1:4566").unwrap(), "http://127.0.0.1:4566");
        for refused in [
            "127.0.0.1:4566",
            "https://127.0.0.1:1",
            "http://127.0.0.1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:1/x",
            "http://10.0.0.1:80",
            "http://localhost:80",
        ] {
            assert!(loopback_url(refused).unwrap_err().contains("http://127.0.0.1:4566"), "{refused}");
        }
    }
}
