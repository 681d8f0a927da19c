//! `cargo xtask package`: everything that a deployment uploads, from one `sam build`: the functions as zips, the runner, and the
//! template that names them.
//!
//! The functions are built by the same command that a user types, so that what is tested is what is deployed. Must never put
//! anything into a package that is not made from this checkout.

use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::{progress, setup, workspace};
use local_stack::process;

/// What the functions and the runner run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    #[value(name = "x86_64")]
    X86_64,
    Arm64,
}

impl Architecture {
    /// The machine's own.
    fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 }
    }

    /// The template's name for it, and ours.
    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    fn in_targets(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }
}

#[derive(Args)]
pub(crate) struct Options {
    /// What the functions run on; the template's parameter Architecture must say the same [default: this machine's]
    #[arg(long, value_enum)]
    architecture: Option<Architecture>,
}

/// Packages, and lists what there is on stdout.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let environment = setup::packaging()?;
    let architecture = options.architecture.unwrap_or_else(Architecture::native);
    Package::build(&environment, architecture, Linking::Optimized)?;
    Ok(ExitCode::SUCCESS)
}

/// How programs are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Linking {
    /// As the release profile says.
    Optimized,
    /// Without optimizing across crates, which is most of the work, makes programs smaller, and is not to change what they do.
    Quick,
}

impl Linking {
    /// Where its packages lie below the target folder: what is not to be deployed never takes the place of what is.
    fn folder(self) -> &'static str {
        match self {
            Self::Optimized => "package",
            Self::Quick => "package-for-tests",
        }
    }
}

/// What was packaged.
pub(crate) struct Package {
    folder: PathBuf,
    architecture: Architecture,
}

impl Package {
    /// For this machine, so that it can run here.
    pub(crate) fn for_this_machine(environment: &Path, linking: Linking) -> Result<Self> {
        Self::build(environment, Architecture::native(), linking)
    }

    fn build(environment: &Path, architecture: Architecture, linking: Linking) -> Result<Self> {
        let folder = build(environment, architecture, linking)?;
        Ok(Self { folder, architecture })
    }

    /// Puts what the zips hold, and the runner, into a folder beside them, each by its package's name; says which.
    pub(crate) fn unpack(&self) -> Result<PathBuf> {
        let unpacked = self.folder.join("unpacked");
        std::fs::create_dir_all(&unpacked).context("make a folder for what the zips hold")?;
        for function in workspace::functions()? {
            extract_bootstrap(&self.zip_of(&function), &unpacked.join(&function))?;
        }
        let runner = format!("runner/ciab-runner-{}", self.architecture.name());
        std::fs::copy(self.folder.join(runner), unpacked.join("ciab-runner")).context("copy the runner")?;
        Ok(unpacked)
    }

    fn zip_of(&self, function: &str) -> PathBuf {
        self.folder.join("functions").join(format!("{function}.zip"))
    }
}

fn build(environment: &Path, architecture: Architecture, linking: Linking) -> Result<PathBuf> {
    let installed = installed_targets()?;
    let needed = format!("{}-unknown-linux-gnu", architecture.in_targets());
    if !installed.contains(&needed) {
        bail!(
            "functions for {} need Rust's standard library for {needed}, which this toolchain does not have: \
             `rustup target add {needed}`, or choose --architecture",
            architecture.name()
        );
    }
    let folder = workspace::target_directory()?.join(linking.folder()).join(architecture.name());
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder.join("functions")).context("make the package's folder")?;
    std::fs::create_dir_all(folder.join("runner")).context("make the package's folder")?;

    let built = folder.join("sam");
    progress::step(&format!("sam build for {}", architecture.name()), || {
        let parameter = format!("Architecture={}", architecture.name());
        process::run_quietly(
            compiling(environment, "sam", linking)
                .arg("build")
                .arg("--build-dir")
                .arg(&built)
                .args(["--parameter-overrides", &parameter]),
        )
    })?;
    let mut template = std::fs::read_to_string(built.join("template.yaml")).context("read what sam built")?;
    let mut listed = Vec::new();
    for function in workspace::functions()? {
        let resource = resource_name(&function);
        let zip = folder.join("functions").join(format!("{function}.zip"));
        archive(&zip, &[("bootstrap", &built.join(&resource).join("bootstrap"), true)])?;
        let (from, to) = (format!("CodeUri: {resource}\n"), format!("CodeUri: functions/{function}.zip\n"));
        if template.matches(&from).count() != 1 {
            bail!("the template that sam built does not name {resource} once");
        }
        template = template.replace(&from, &to);
        listed.push(zip);
    }
    let definition = "build-image.asl.json";
    std::fs::copy(workspace::root().join("infra").join(definition), folder.join(definition))
        .context("copy the state machine")?;
    let template = with_architecture(&with_definition(&template, definition)?, architecture)?;
    std::fs::write(folder.join("template.yaml"), template).context("write the template")?;
    std::fs::remove_dir_all(&built).context("remove what sam built")?;

    for runner_architecture in [Architecture::X86_64, Architecture::Arm64] {
        let Some(target) = runner_target(runner_architecture, &installed) else {
            let name = runner_architecture.name();
            progress::note(&format!("no runner for {name}: this toolchain has no standard library for it"));
            continue;
        };
        let binary = build_runner(environment, &target, linking)?;
        let name = format!("ciab-runner-{}", runner_architecture.name());
        let alone = folder.join("runner").join(&name);
        std::fs::copy(&binary, &alone).context("copy the runner")?;
        let zip = folder.join("runner").join(format!("{name}.zip"));
        let buildspec = workspace::root().join("infra/buildspec.yml");
        archive(&zip, &[("ciab-runner", &alone, true), ("buildspec.yml", &buildspec, false)])?;
        listed.extend([zip, alone]);
    }
    tell(&folder, &listed)?;
    Ok(folder)
}

/// A program of the environment, which finds the others of it, and asks the network for nothing but crates.
pub(crate) fn tool(environment: &Path, name: &str) -> Command {
    let mut command = Command::new(environment.join("bin").join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let ours = [environment.join("bin")].into_iter().chain(std::env::split_paths(&path));
    if let Ok(joined) = std::env::join_paths(ours) {
        command.env("PATH", joined);
    }
    command.current_dir(workspace::root()).env("SAM_CLI_TELEMETRY", "0");
    command
}

/// A program that has Cargo build what is released.
fn compiling(environment: &Path, name: &str, linking: Linking) -> Command {
    let mut command = tool(environment, name);
    if linking == Linking::Quick {
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    }
    command
}

fn build_runner(environment: &Path, target: &str, linking: Linking) -> Result<PathBuf> {
    progress::step(&format!("build the runner for {target}"), || {
        process::run_quietly(compiling(environment, "cargo-lambda", linking).args([
            "lambda",
            "build",
            "--locked",
            "--release",
            "--manifest-path",
            "runner/Cargo.toml",
            "--bin",
            "ciab-runner",
            "--target",
            target,
        ]))
    })?;
    Ok(workspace::target_directory()?.join("lambda/ciab-runner/bootstrap"))
}

/// Static, where the toolchain can; else for every system with glibc 2.26 or later, such as Amazon Linux 2 and 2023.
fn runner_target(architecture: Architecture, installed: &[String]) -> Option<String> {
    let architecture = architecture.in_targets();
    let (musl, gnu) =
        (format!("{architecture}-unknown-linux-musl"), format!("{architecture}-unknown-linux-gnu"));
    if installed.contains(&musl) {
        Some(musl)
    } else {
        installed.contains(&gnu).then(|| format!("{gnu}.2.26"))
    }
}

/// The targets that the toolchain has a standard library for.
fn installed_targets() -> Result<Vec<String>> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = process::capture(
        Command::new(rustc).args(["--print", "target-libdir"]).current_dir(workspace::root()),
    )?;
    // <sysroot>/lib/rustlib/<target>/lib
    let library = Path::new(printed.stdout.trim());
    let all = library.ancestors().nth(2).context("rustc names no folder of its libraries")?;
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(all).with_context(|| format!("list {}", all.display()))? {
        let entry = entry?;
        if entry.path().join("lib").is_dir() {
            targets.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(targets)
}

fn resource_name(folder: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_uppercase().chain(letters).collect::<String>())
            .unwrap_or_default()
    };
    folder.split('-').map(word).chain(["Function".to_owned()]).collect()
}

/// SAM points at the definition from its own folder; the package carries it beside the template.
fn with_definition(template: &str, definition: &str) -> Result<String> {
    let mut lines: Vec<String> = template.lines().map(str::to_owned).collect();
    let mut found = 0;
    for line in &mut lines {
        if let Some(at) = line.find("DefinitionUri: ") {
            *line = format!("{}DefinitionUri: {definition}", &line[..at]);
            found += 1;
        }
    }
    if found != 1 {
        bail!("the template that sam built has {found} state machines, and not one");
    }
    Ok(lines.join("\n") + "\n")
}

/// What is packaged is of one architecture, which a deployment need not be told again.
fn with_architecture(template: &str, architecture: Architecture) -> Result<String> {
    let mut lines: Vec<String> = template.lines().map(str::to_owned).collect();
    let declared =
        lines.iter().position(|line| line == "  Architecture:").context("no parameter Architecture")?;
    let of_it = lines.iter_mut().skip(declared + 1).take_while(|line| line.starts_with("    "));
    let default = of_it.into_iter().find(|line| line.starts_with("    Default: "));
    *default.context("the parameter Architecture has no default")? =
        format!("    Default: {}", architecture.name());
    Ok(lines.join("\n") + "\n")
}

/// The same bytes for the same contents, so that an unchanged function is not uploaded again.
fn archive(path: &Path, files: &[(&str, &Path, bool)]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut archive = ZipWriter::new(file);
    for (name, from, executable) in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(if *executable { 0o755 } else { 0o644 });
        archive.start_file(*name, options)?;
        let mut bytes = Vec::new();
        File::open(from)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .with_context(|| format!("read {}", from.display()))?;
        archive.write_all(&bytes)?;
    }
    archive.finish().with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// As Lambda does: the file with that name, which may be executed.
fn extract_bootstrap(zip: &Path, to: &Path) -> Result<()> {
    let file = File::open(zip).with_context(|| format!("open {}", zip.display()))?;
    let mut archive = ZipArchive::new(file).with_context(|| format!("read {}", zip.display()))?;
    let mut bootstrap =
        archive.by_name("bootstrap").with_context(|| format!("look into {}", zip.display()))?;
    let mode = bootstrap.unix_mode().unwrap_or_default();
    let mut extracted = File::create(to).with_context(|| format!("create {}", to.display()))?;
    std::io::copy(&mut bootstrap, &mut extracted).with_context(|| format!("write {}", to.display()))?;
    extracted.set_permissions(Permissions::from_mode(mode & 0o777)).context("let it be executed")
}

/// Lists sizes and digests, and keeps the digests beside the files.
fn tell(folder: &Path, files: &[PathBuf]) -> Result<()> {
    let mut sums = String::new();
    let mut out = std::io::stdout().lock();
    for path in files {
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let name = path.strip_prefix(folder).unwrap_or(path).display();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "{:>9.1} KiB  {name}", bytes.len() as f64 / 1024.0)?;
        sums += &format!("{digest}  {name}\n");
    }
    std::fs::write(folder.join("SHA256SUMS"), sums).context("write the digests")?;
    writeln!(out, "in {}", folder.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zip_holds_what_lambda_executes_and_is_the_same_twice() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("built");
        std::fs::write(&from, "#!/bin/sh\nexit 0\n").unwrap();
        let (one, other) = (folder.path().join("1.zip"), folder.path().join("2.zip"));
        archive(&one, &[("bootstrap", &from, true)]).unwrap();
        archive(&other, &[("bootstrap", &from, true)]).unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&other).unwrap());
        let extracted = folder.path().join("extracted");
        extract_bootstrap(&one, &extracted).unwrap();
        assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&extracted).unwrap());
        assert_eq!(std::fs::metadata(extracted).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn the_runner_is_static_where_that_can_be() {
        let targets = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let gnu = targets(&["x86_64-unknown-linux-gnu"]);
        let both = targets(&["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"]);
        let runner = |installed: &[String]| runner_target(Architecture::X86_64, installed);
        assert_eq!(runner(&gnu).as_deref(), Some("x86_64-unknown-linux-gnu.2.26"));
        assert_eq!(runner(&both).as_deref(), Some("x86_64-unknown-linux-musl"));
        assert_eq!(runner_target(Architecture::Arm64, &both), None);
    }

    #[test]
    fn the_definition_is_looked_for_beside_the_template() {
        let template = "A:\n  DefinitionUri: ../../../infra/build-image.asl.json\n  B: 1\n";
        let changed = with_definition(template, "build-image.asl.json").unwrap();
        assert_eq!(changed, "A:\n  DefinitionUri: build-image.asl.json\n  B: 1\n");
        assert!(with_definition("A: 1\n", "x").is_err());
        let template =
            "Parameters:\n  Architecture:\n    Type: String\n    Default: arm64\n  Other:\n    Default: x\n";
        let changed = with_architecture(template, Architecture::X86_64).unwrap();
        assert_eq!(changed, template.replace("arm64", "x86_64"));
        assert!(
            with_architecture(
                "  Architecture:\n    Type: String\n  Other:\n    Default: x\n",
                Architecture::Arm64
            )
            .is_err()
        );
        assert_eq!(resource_name("poll-builds"), "PollBuildsFunction");
    }
}
