//! The root file system that instances boot from: Debian as this machine has it, as small as an instance can be.
//!
//! Takes package sources, certificates and client configuration from this machine, so that what the machine can reach the
//! instance can reach. Knows no registry's address and copies no credentials.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use sha2::{Digest, Sha256};

/// What an instance needs to be one (sshd, sudo), and what `default-ec2` assumes of any Ubuntu image.
const PACKAGES: [&str; 8] =
    ["ca-certificates", "curl", "iproute2", "openssh-server", "procps", "sudo", "tzdata", "xz-utils"];

/// Changes whenever the steps below change what they make.
const RECIPE: &str = "2";

/// The commands that switch a machine off, which come with an init system, and instances have none. Process 1 takes SIGTERM
/// for the wish to shut down.
const POWER_COMMANDS: [&str; 3] = ["/usr/sbin/halt", "/usr/sbin/poweroff", "/usr/sbin/shutdown"];
const POWER_COMMAND: &str = "#!/bin/sh
# ciab-local's stand-in: switches the instance off at once, and knows no other time.
for argument; do
    case $argument in
    -h | -P | -H | -f | now | +0) ;;
    *)
        echo \"${0##*/}: '$argument' is not known here; 'now' is the only time\" >&2
        exit 1
        ;;
    esac
done
kill -TERM 1
";

/// Configuration of package clients, copied as it is, credentials excepted.
const CLIENT_CONFIGURATION: [&str; 3] = ["/etc/npmrc", "/usr/etc/npmrc", "/etc/pip.conf"];

/// The bundle that package clients check servers against.
const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Certificates this machine trusts beyond Debian's.
const LOCAL_CERTIFICATES: &str = "/usr/local/share/ca-certificates";

/// Variables that tell clients with a bundle of their own to use the machine's.
const CA_VARIABLES: [&str; 6] = [
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];

/// The directory of an unfinished build, before the number of its process.
const BUILDING: &str = ".building-";

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootFilesystemError {
    /// The machine is no Debian, or has no sources for its packages.
    #[error("{0}")]
    NotDebian(String),
    /// A file can't be read or written.
    #[error("can't use {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The tool that builds it is missing.
    #[error("can't run unshare and mmdebstrap (Debian's packages `util-linux` and `mmdebstrap` have them)")]
    NoBuilder(#[source] io::Error),
    /// The tool that builds it failed.
    #[error("mmdebstrap could not build the root file system; it ended with: {0}")]
    Builder(String),
}

trait At<T> {
    fn at(self, path: &Path) -> Result<T, RootFilesystemError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, RootFilesystemError> {
        self.map_err(|source| RootFilesystemError::Io { path: path.to_owned(), source })
    }
}

/// All that decides what is built. Equal recipes give equal root file systems.
struct Recipe {
    suite: String,
    sources: String,
    /// Path inside the root file system, and text.
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// Builds the root file system unless `cache` has one of the same recipe; gives its directory. Takes about 15 seconds, and
/// 200 MB of disk. Two at once are fine: each builds, one wins.
pub async fn build_root_filesystem(cache: &Path) -> Result<PathBuf, RootFilesystemError> {
    let recipe = Recipe::of_this_machine()?;
    let finished = cache.join(format!("root-filesystem-{}", recipe.digest()));
    // The name says which recipe; that it exists says that it is complete.
    if finished.is_dir() {
        return Ok(finished);
    }
    fs::create_dir_all(cache).at(cache)?;
    remove_abandoned(cache)?;
    let building = cache.join(format!("{BUILDING}{}", std::process::id()));
    remove(&building)?;
    fs::create_dir(&building).at(&building)?;
    let outcome = build(&recipe, &building).await;
    if outcome.is_ok() {
        match fs::rename(building.join("root"), &finished) {
            Err(_) if finished.is_dir() => {}
            other => other.at(&finished)?,
        }
    }
    remove(&building)?;
    outcome.map(|()| finished)
}

async fn build(recipe: &Recipe, building: &Path) -> Result<(), RootFilesystemError> {
    let root = building.join("root");
    let sources = building.join("debian.sources");
    fs::write(&sources, &recipe.sources).at(&sources)?;
    // Its mounts of /proc, /sys and /dev live in a namespace of its own: if it is killed they go with it, and whoever
    // removes the folder afterwards does not reach the machine's through them.
    let output = tokio::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--", "mmdebstrap"])
        .args(["--mode=root", "--format=directory", "--variant=minbase", "--quiet"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        // Documentation and translations are half of the files and of no use to an instance.
        .arg("--dpkgopt=path-exclude=/usr/share/man/*")
        .arg("--dpkgopt=path-exclude=/usr/share/locale/*")
        .arg("--dpkgopt=path-exclude=/usr/share/doc/*")
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .arg("--dpkgopt=force-unsafe-io")
        .arg(&recipe.suite)
        .arg(&root)
        .arg(&sources)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(RootFilesystemError::NoBuilder)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let mut last: Vec<&str> = said.lines().rev().take(5).collect();
        last.reverse();
        return Err(RootFilesystemError::Builder(last.join("; ")));
    }
    for (path, text) in &recipe.files {
        let inside = root.join(path.strip_prefix("/").unwrap_or(path));
        if let Some(parent) = inside.parent() {
            fs::create_dir_all(parent).at(parent)?;
        }
        fs::write(&inside, text).at(&inside)?;
    }
    for path in POWER_COMMANDS.map(|path| root.join(path.trim_start_matches('/'))) {
        fs::write(&path, POWER_COMMAND).at(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at(&path)?;
    }
    // Every instance makes its own.
    for entry in fs::read_dir(root.join("etc/ssh")).at(&root)? {
        let path = entry.at(&root)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh_host_")) {
            fs::remove_file(&path).at(&path)?;
        }
    }
    Ok(())
}

impl Recipe {
    fn of_this_machine() -> Result<Self, RootFilesystemError> {
        let release = fs::read_to_string("/etc/os-release").at(Path::new("/etc/os-release"))?;
        let value = |name: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        let suite = value("VERSION_CODENAME")
            .filter(|_| value("ID").as_deref() == Some("debian"))
            .ok_or_else(|| {
                RootFilesystemError::NotDebian("a root file system can be built on Debian only".to_owned())
            })?;
        let sources = debian_sources(Path::new("/etc/apt"), &suite)?;
        if sources.is_empty() {
            let message = format!("apt's configuration names no source for Debian {suite}");
            return Err(RootFilesystemError::NotDebian(message));
        }
        let mut files = vec![(PathBuf::from(CA_BUNDLE), fs::read(CA_BUNDLE).at(Path::new(CA_BUNDLE))?)];
        for certificate in files_in(Path::new(LOCAL_CERTIFICATES), "crt") {
            let text = fs::read(&certificate).at(&certificate)?;
            files.push((certificate, text));
        }
        for path in CLIENT_CONFIGURATION.map(PathBuf::from) {
            if let Ok(text) = fs::read_to_string(&path) {
                files.push((path, without_credentials(&text).into_bytes()));
            }
        }
        files.push((
            PathBuf::from("/etc/environment"),
            ca_variables(|name| std::env::var(name).ok()).into_bytes(),
        ));
        Ok(Self { suite, sources, files })
    }

    fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for part in [RECIPE, &self.suite, &self.sources, &PACKAGES.join(",")] {
            digest.update(part);
            digest.update([0]);
        }
        for (path, text) in &self.files {
            digest.update(path.to_string_lossy().as_bytes());
            digest.update([0]);
            digest.update(text);
            digest.update([0]);
        }
        digest.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
            // Writing to a string can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

fn files_in(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|actual| actual == extension))
        .collect();
    files.sort();
    files
}

/// The machine's sources for Debian itself, in one of apt's two forms; those of third parties are left out, as they may
/// need keys and reach of their own.
fn debian_sources(apt: &Path, suite: &str) -> Result<String, RootFilesystemError> {
    let mut kept = Vec::new();
    for path in files_in(&apt.join("sources.list.d"), "sources") {
        let text = fs::read_to_string(&path).at(&path)?;
        kept.extend(text.split("\n\n").filter(|stanza| is_of_suite(stanza, suite)).map(without_comments));
    }
    if !kept.is_empty() {
        return Ok(kept.join("\n\n") + "\n");
    }
    let lists = [apt.join("sources.list")].into_iter().chain(files_in(&apt.join("sources.list.d"), "list"));
    for path in lists {
        let text = fs::read_to_string(&path).unwrap_or_default();
        kept.extend(text.lines().filter(|line| is_of_suite_line(line, suite)).map(str::to_owned));
    }
    Ok(kept.join("\n") + if kept.is_empty() { "" } else { "\n" })
}

fn is_of_suite(stanza: &str, suite: &str) -> bool {
    let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
    let is_binary = field("Types:").is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb"));
    let is_enabled = field("Enabled:").is_none_or(|enabled| enabled.trim() != "no");
    is_binary && is_enabled && field("Suites:").is_some_and(|suites| is_debian_suite(suites, suite))
}

fn is_of_suite_line(line: &str, suite: &str) -> bool {
    let mut words = line.split_whitespace();
    if words.next() != Some("deb") {
        return false;
    }
    // `deb [signed-by=… arch=…] address suite components`
    let rest: Vec<&str> = line.rsplit(']').next().unwrap_or(line).split_whitespace().collect();
    let place = rest.iter().position(|word| word.contains("://")).map(|address| address + 1);
    place.and_then(|place| rest.get(place)).is_some_and(|suites| is_debian_suite(suites, suite))
}

/// `bookworm`, `bookworm-updates`, `bookworm-security`, …
fn is_debian_suite(suites: &str, suite: &str) -> bool {
    let variants = ["", "-updates", "-security", "-backports"];
    let mut given = suites.split_whitespace().peekable();
    given.peek().is_some()
        && given.all(|given| given.strip_prefix(suite).is_some_and(|variant| variants.contains(&variant)))
}

fn without_comments(stanza: &str) -> String {
    let lines: Vec<&str> = stanza.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    lines.join("\n")
}

/// Leaves out every line that can hold a secret: tokens and passwords, and addresses with a name in them.
fn without_credentials(text: &str) -> String {
    let is_secret = |line: &str| {
        let lower = line.to_lowercase();
        ["_auth", "_password", "password", "token", "username", "_key"]
            .iter()
            .any(|word| lower.contains(word))
            || line
                .split("://")
                .skip(1)
                .any(|rest| rest.split('/').next().is_some_and(|host| host.contains('@')))
    };
    text.lines().filter(|line| !is_secret(line)).map(|line| format!("{line}\n")).collect()
}

/// For `/etc/environment`: the variables that are set here and lead to the bundle that the instance has too.
fn ca_variables(value: impl Fn(&str) -> Option<String>) -> String {
    let set = CA_VARIABLES.into_iter().filter(|name| value(name).as_deref() == Some(CA_BUNDLE));
    set.map(|name| format!("{name}={CA_BUNDLE}\n")).collect()
}

/// A build that was killed leaves its directory, named after its process.
fn remove_abandoned(cache: &Path) -> Result<(), RootFilesystemError> {
    for entry in fs::read_dir(cache).at(cache)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(BUILDING).is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<(), RootFilesystemError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(directory),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_of_debian_itself_are_taken() {
        let apt = tempfile::tempdir().unwrap();
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        let debian = "Types: deb\n# a comment\nURIs: http://archive.invalid/debian\nSuites: bookworm bookworm-updates\n\
            Components: main\n\nTypes: deb\nURIs: http://archive.invalid/other\nSuites: nodistro\nComponents: main\n";
        fs::write(parts.join("debian.sources"), debian).unwrap();
        let sources = debian_sources(apt.path(), "bookworm").unwrap();
        assert!(
            sources.contains("bookworm-updates") && !sources.contains("nodistro") && !sources.contains('#')
        );
    }

    #[test]
    fn the_older_form_of_sources_is_understood_too() {
        assert!(is_of_suite_line(
            "deb [signed-by=/k.gpg arch=amd64] http://a.invalid/debian bookworm main",
            "bookworm"
        ));
        assert!(is_of_suite_line("deb http://a.invalid/debian-security bookworm-security main", "bookworm"));
        assert!(!is_of_suite_line("deb http://a.invalid/apt cloud-sdk-bookworm main", "bookworm"));
        assert!(!is_of_suite_line("deb-src http://a.invalid/debian bookworm main", "bookworm"));
    }

    #[test]
    fn no_credential_is_copied() {
        let text = "registry=https://r.invalid/\n//r.invalid/:_authToken=abc\nindex-url = https://me:pw@r.invalid/simple\n";
        assert_eq!(without_credentials(text), "registry=https://r.invalid/\n");
    }

    #[test]
    fn only_variables_that_lead_to_the_copied_bundle_are_set() {
        let environment = ca_variables(|name| {
            (name == "PIP_CERT").then(|| CA_BUNDLE.to_owned()).or(Some("/other".to_owned()))
        });
        assert_eq!(environment, format!("PIP_CERT={CA_BUNDLE}\n"));
    }
}
