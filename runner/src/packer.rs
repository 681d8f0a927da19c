//! Drives Packer: which commands with which arguments in which environment, and what its output means for the log, the
//! ledger and the build.
//!
//! Must never hand the runner's own variables (`CIAB_…`, the task token among them) to Packer: a template's provisioners
//! run there. Nor what the runner is known by to AWS: Packer has an identity of its own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciab_template::{VARIABLES_FILE, is_passed_to_packer};

use crate::bundle::{TEMPLATE_FOLDER, Template};
use crate::credentials::tells_identity;
use crate::ledger::LedgerWriter;
use crate::log::{Log, Stream};
use crate::packer_output::{Event, UiKind, decode};
use crate::process::{self, Ended, Program, RawLine, Source};
use crate::stop::{StopReason, StopSwitch};
use crate::told::Told;

/// The part of Packer's version that decides how it is driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackerVersion {
    /// As Packer prints it, such as `1.6.6`.
    pub text: String,
    major: u32,
    minor: u32,
}

impl PackerVersion {
    /// Reads `1.6.6` or `1.11.0-dev`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().trim_start_matches('v').split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some(Self { text: text.trim().trim_start_matches('v').to_owned(), major, minor })
    }

    /// Whether plugins have to be installed: from 1.10 on it has none built in.
    pub fn bundles_no_plugins(&self) -> bool {
        (self.major, self.minor) >= (1, 10)
    }

    /// Whether there is a `packer init`: from 1.7 on.
    pub fn has_init(&self) -> bool {
        (self.major, self.minor) >= (1, 7)
    }
}

/// Packer did not get to run to its own end.
#[derive(Debug, thiserror::Error)]
pub enum PackerError {
    /// It is not there, or cannot be executed.
    #[error("Packer could not be started (`{}`)", binary.display())]
    NotStarted {
        /// What was to be executed.
        binary: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It printed no version.
    #[error("`{}` does not tell a version of Packer", binary.display())]
    NoVersion {
        /// What was executed.
        binary: PathBuf,
    },
    /// The build was stopped, before this run of Packer or within it.
    #[error("the build was stopped")]
    Stopped {
        /// Why.
        reason: StopReason,
        /// What Packer had told until then.
        told: Box<Told>,
    },
}

/// One run of Packer.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub ended: Ended,
    /// What it told.
    pub told: Told,
}

/// Packer in a build's folder.
pub struct Packer {
    binary: PathBuf,
    folder: PathBuf,
    /// What it is given there: the folder, or a template in the legacy form.
    target: String,
    environment: Vec<(OsString, OsString)>,
    temporary_folder: PathBuf,
    stop_grace: Duration,
    switch: StopSwitch,
    log: Log,
}

impl Packer {
    /// Packer for the bundle that is unpacked in `work`: the one on the path. Makes the folders that it needs beside it.
    pub fn new(
        work: &Path,
        host_environment: impl IntoIterator<Item = (OsString, OsString)>,
        stop_grace: Duration,
        switch: StopSwitch,
        log: Log,
    ) -> io::Result<Self> {
        let temporary_folder = work.join("tmp");
        std::fs::create_dir_all(&temporary_folder)?;
        Ok(Self {
            binary: "packer".into(),
            folder: work.join(TEMPLATE_FOLDER),
            target: Template::FOLDER.to_owned(),
            environment: clean_environment(host_environment, work),
            temporary_folder,
            stop_grace,
            switch,
            log,
        })
    }

    /// Lets it be this program from now on, by path or by a name that is looked up in `PATH`.
    pub fn uses(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Sets a variable of its environment, over what was there.
    pub fn set(&mut self, name: OsString, value: OsString) {
        self.environment.retain(|(given, _)| *given != name);
        self.environment.push((name, value));
    }

    /// Whether the operator says by the environment where plugins are.
    pub fn has_plugins_of_its_own(host_environment: &[(OsString, OsString)]) -> bool {
        host_environment.iter().any(|(name, _)| name == "PACKER_PLUGIN_PATH" || name == "PACKER_CONFIG_DIR")
    }

    /// Lets it build this from now on: `.` or a file in the template's folder.
    pub fn takes(&mut self, target: String) {
        self.target = target;
    }

    /// Asks for the version.
    pub async fn version(&self) -> Result<PackerVersion, PackerError> {
        // Anywhere but in the template's folder: it need not be there yet.
        let run = self.run_in(&self.temporary_folder, &["version".into()], None).await?;
        run.told
            .version()
            .and_then(PackerVersion::parse)
            .ok_or_else(|| PackerError::NoVersion { binary: self.binary.clone() })
    }

    /// Installs the plugins that the template asks for.
    pub async fn init(&self) -> Result<Run, PackerError> {
        self.run_in(&self.folder, &["init".into(), (&self.target).into()], None).await
    }

    /// Lets Packer check the template with its variables.
    pub async fn validate(&self) -> Result<Run, PackerError> {
        self.run_in(&self.folder, &["validate".into(), variables(), (&self.target).into()], None).await
    }

    /// Builds.
    pub async fn build(&self, ledger: &LedgerWriter) -> Result<Run, PackerError> {
        let arguments = ["build".into(), "-color=false".into(), variables(), (&self.target).into()];
        self.run_in(&self.folder, &arguments, Some(ledger)).await
    }

    async fn run_in(
        &self,
        folder: &Path,
        arguments: &[OsString],
        ledger: Option<&LedgerWriter>,
    ) -> Result<Run, PackerError> {
        if let Some(reason) = self.switch.reason() {
            return Err(PackerError::Stopped { reason, told: Box::default() });
        }
        let program = Program {
            binary: self.binary.clone(),
            arguments: [OsString::from("-machine-readable")]
                .into_iter()
                .chain(arguments.iter().cloned())
                .collect(),
            folder: folder.to_owned(),
            environment: self.environment.clone(),
            temporary_folder: self.temporary_folder.clone(),
        };
        let mut told = Told::default();
        // A Packer that is told to stop removes its AMI and leaves the copies in other regions, which nothing proves ours any
        // more. Killed, it leaves both: by the AMI its copies are known, and clean-up removes them all.
        let copies = || ledger.is_some_and(LedgerWriter::has_copies);
        let grace = || if copies() { Duration::ZERO } else { self.stop_grace };
        let ended = process::run(&program, &self.switch, grace, |line| {
            self.take(&line, &mut told, ledger);
        })
        .await
        .map_err(|source| PackerError::NotStarted { binary: self.binary.clone(), source })?;
        match ended.stopped {
            // What succeeded in spite of being told to stop has succeeded.
            Some(reason) if !ended.status.success() => {
                if ended.killed && copies() {
                    let why = "Packer was killed: left to itself it would leave copies in other regions.";
                    self.log.add(Stream::Runner, why, false);
                } else if ended.killed {
                    self.log.add(Stream::Runner, "Packer did not stop in time and was killed.", false);
                }
                Err(PackerError::Stopped { reason, told: Box::new(told) })
            }
            _ => Ok(Run { ended, told }),
        }
    }

    fn take(&self, line: &RawLine, told: &mut Told, ledger: Option<&LedgerWriter>) {
        if line.source == Source::Stderr {
            told.hear_stderr(&line.text);
            self.log.add(Stream::Stderr, &line.text, line.cut);
            return;
        }
        let event = decode(&line.text);
        told.hear(&event);
        if let Some(ledger) = ledger {
            ledger.note(&event);
        }
        match &event {
            Event::Ui(ui) => {
                let stream = match ui.kind {
                    UiKind::Say | UiKind::Message => Stream::Stdout,
                    UiKind::Error => Stream::Stderr,
                };
                self.log.add(stream, &ui.text, line.cut);
            }
            Event::Unstructured(text) => self.log.add(Stream::Stdout, text, line.cut),
            Event::ArtifactId { .. }
            | Event::BuildError { .. }
            | Event::ErrorCount(_)
            | Event::Version(_)
            | Event::Other => {}
        }
    }
}

fn variables() -> OsString {
    format!("-var-file=../{VARIABLES_FILE}").into()
}

fn is_handed_on(name: &str) -> bool {
    is_passed_to_packer(name) && !tells_identity(name)
}

/// The environment that Packer gets: what is on the list, and folders of the build's own.
fn clean_environment(
    host: impl IntoIterator<Item = (OsString, OsString)>,
    work: &Path,
) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<(OsString, OsString)> =
        host.into_iter().filter(|(name, _)| name.to_str().is_some_and(is_handed_on)).collect();
    let defaults = [
        ("HOME", work.join("home").into_os_string()),
        ("PACKER_CACHE_DIR", work.join("packer-cache").into_os_string()),
        ("PACKER_CONFIG_DIR", work.join("packer-config").into_os_string()),
        // No question to HashiCorp for newer versions.
        ("CHECKPOINT_DISABLE", OsString::from("1")),
    ];
    for (name, value) in defaults {
        if !environment.iter().any(|(given, _)| given == OsStr::new(name)) {
            environment.push((name.into(), value));
        }
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let host = pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        clean_environment(host, Path::new("/build"))
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn the_runners_own_variables_never_reach_packer() {
        let environment = environment(&[
            ("CIAB_TASK_TOKEN", "secret"),
            ("CIAB_BUILD_ID", "b"),
            ("RUST_LOG", "debug"),
            ("PKR_VAR_password", "p"),
            ("LD_PRELOAD", "/evil.so"),
            ("PATH", "/bin"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_SECRET_ACCESS_KEY", "the runner's"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/the-runners"),
            ("HTTPS_PROXY", "http://proxy"),
            ("PACKER_PLUGIN_PATH", "/plugins"),
        ]);
        let mut names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "AWS_REGION",
                "CHECKPOINT_DISABLE",
                "HOME",
                "HTTPS_PROXY",
                "PACKER_CACHE_DIR",
                "PACKER_CONFIG_DIR",
                "PACKER_PLUGIN_PATH",
                "PATH"
            ]
        );
    }

    #[test]
    fn folders_that_the_operator_chose_stay() {
        let environment = environment(&[("PACKER_CONFIG_DIR", "/plugins"), ("HOME", "/root")]);
        assert!(environment.contains(&("PACKER_CONFIG_DIR".into(), "/plugins".into())));
        assert!(environment.contains(&("HOME".into(), "/root".into())));
        assert!(environment.contains(&("PACKER_CACHE_DIR".into(), "/build/packer-cache".into())));
    }

    #[test]
    fn init_exists_from_1_7_on() {
        for (text, has_init) in
            [("1.6.6", false), ("1.7.0", true), ("v1.11.2", true), ("2.0.0-dev", true), ("0.12.3", false)]
        {
            assert_eq!(PackerVersion::parse(text).unwrap().has_init(), has_init, "{text}");
        }
        assert_eq!(PackerVersion::parse("Packer"), None);
    }
}
