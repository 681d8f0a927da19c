//! One build from bundle to report. The order of things, and nothing else.
//!
//! Must never report before the log, the ledger and the manifest are stored (or could not be): whoever reads the report
//! reads them next.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ciab_core::build::Artifact;
use ciab_core::life;
use ciab_core::ports::{ObjectStore, PortError, TaskTokens};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::bundle;
use crate::configuration::Configuration;
use crate::credentials::CredentialsEndpoint;
use crate::failure::{BuildFailure, FailureName};
use crate::install::{Downloads, InstallError, Installer};
use crate::issued_credentials::IssuedCredentials;
use crate::ledger::LedgerWriter;
use crate::log::{Log, Stream, Writer};
use crate::manifest::{self, Document, Seconds};
use crate::packer::{Packer, PackerError, Run};
use crate::redaction::Redaction;
use crate::report::{Reported, report, send_heartbeats};
use crate::sensitive_variables;
use crate::stop::{StopReason, StopSwitch};

/// How long log and ledger are tried to be stored before the report goes out all the same.
const LAST_WRITES: Duration = Duration::from_secs(10);
/// How long the manifest is, while the state machine waits: it is all that is left where the report is lost.
const LAST_MANIFEST: Duration = Duration::from_secs(120);
/// How long the bundle is tried to be fetched.
const FETCH: Duration = Duration::from_secs(60);
/// Shorter AWS keys are made up for a machine without AWS, and may be words that logs are full of.
const SHORTEST_AWS_SECRET: usize = 16;

/// What the runner needs of the world.
#[derive(Clone)]
pub struct Ports {
    /// The stack's bucket, as this build: its own files there.
    pub objects: Arc<dyn ObjectStore>,
    /// The stack's bucket, as any runner: Packer and its plugin.
    pub tools: Arc<dyn ObjectStore>,
    /// The state machine's tasks.
    pub tasks: Arc<dyn TaskTokens>,
    /// What is known to AWS as this build.
    pub credentials: Arc<IssuedCredentials>,
    /// Where Packer's releases are.
    pub downloads: Arc<dyn Downloads>,
}

/// What is known of a build beside its result.
#[derive(Debug, Default)]
struct Findings {
    packer_version: Option<String>,
    /// AMIs that Packer named, of a build that failed in part too.
    images: Vec<Artifact>,
    seconds: Seconds,
}

/// Runs the build and reports how it ended. `host_environment` is the runner's own environment.
pub async fn run(
    configuration: &Configuration,
    ports: &Ports,
    switch: &StopSwitch,
    host_environment: Vec<(OsString, OsString)>,
) -> Reported {
    let build_id = configuration.build_id;
    tracing::info!(deadline = %configuration.deadline, "the runner begins");
    let log = Log::new(secrets(configuration, &host_environment));
    ports.credentials.mask_in(&log);
    let writer = Writer::start(&log, ports.objects.clone(), build_id);
    let ledger = LedgerWriter::start(ports.objects.clone(), build_id);
    let heartbeats =
        tokio::spawn(send_heartbeats(ports.tasks.clone(), configuration.task_token.clone(), switch.clone()));
    let deadline = tokio::spawn(stop_at(configuration.deadline, switch.clone()));
    let credentials = ports.credentials.clone();
    let fresh = tokio::spawn(async move { credentials.keep_fresh().await });

    let mut findings = Findings::default();
    let build = Build { configuration, ports, switch, log: &log, ledger: &ledger };
    let result = build.run(host_environment, &mut findings).await;
    if let Err(failure) = &result {
        log.add(Stream::Runner, &failure.failure.message, false);
    }
    let document = Document {
        build_id,
        manifest: manifest::manifest_of(&result, findings.images),
        packer_version: findings.packer_version,
        seconds: findings.seconds,
    };
    let (log_stored, ledger_stored, manifest_stored) = tokio::join!(
        writer.finish(LAST_WRITES),
        ledger.finish(LAST_WRITES),
        manifest::store(ports.objects.as_ref(), &document, last_manifest(configuration.deadline)),
    );
    if !log_stored || !ledger_stored || !manifest_stored {
        let message = "not everything about the build could be stored";
        tracing::error!(log_stored, ledger_stored, manifest_stored, "{message}");
    }
    let reported = report(ports.tasks.as_ref(), &configuration.task_token, &result).await;
    let outcome = result.as_ref().map_or_else(|failure| failure.name.as_str(), |_| "Built");
    tracing::info!(outcome, reported = matches!(reported, Reported::Yes), "the runner ends");
    heartbeats.abort();
    deadline.abort();
    if !manifest_stored && !matches!(reported, Reported::Yes) {
        // Nobody knows yet how the build ended.
        manifest::store(ports.objects.as_ref(), &document, Instant::now() + LAST_MANIFEST).await;
    }
    fresh.abort();
    reported
}

/// What must not be shown, as far as it is known before the template is.
fn secrets(configuration: &Configuration, environment: &[(OsString, OsString)]) -> Redaction {
    let of_aws = environment
        .iter()
        .filter(|(name, _)| name == "AWS_SECRET_ACCESS_KEY" || name == "AWS_SESSION_TOKEN")
        .filter_map(|(_, value)| value.to_str())
        .filter(|value| value.len() >= SHORTEST_AWS_SECRET)
        .map(str::to_owned);
    Redaction::new(of_aws.chain([configuration.task_token.clone()]))
}

async fn stop_at(deadline: Timestamp, switch: StopSwitch) {
    let left = deadline.duration_since(Timestamp::now());
    sleep(Duration::try_from(left).unwrap_or(Duration::ZERO)).await;
    switch.stop(StopReason::Deadline);
}

/// Until when the manifest is tried before the report: past the deadline and its grace nobody waits for the report, and
/// before it, heartbeats keep the state machine waiting.
fn last_manifest(deadline: Timestamp) -> Instant {
    let waits = (deadline + life::STOP_GRACE).duration_since(Timestamp::now());
    let waits = Duration::try_from(waits).unwrap_or(Duration::ZERO);
    Instant::now() + waits.clamp(LAST_WRITES, LAST_MANIFEST)
}

struct Build<'a> {
    configuration: &'a Configuration,
    ports: &'a Ports,
    switch: &'a StopSwitch,
    log: &'a Log,
    ledger: &'a LedgerWriter,
}

impl Build<'_> {
    async fn run(
        &self,
        host_environment: Vec<(OsString, OsString)>,
        findings: &mut Findings,
    ) -> Result<Vec<Artifact>, BuildFailure> {
        let began = Instant::now();
        if Timestamp::now() >= self.configuration.deadline {
            return Err(self.stopped(StopReason::Deadline));
        }
        let work = work_folder(self.configuration.work_dir.as_deref())
            .map_err(|error| runner_failed("no folder could be made for the build", &error))?;
        let brings_plugins = Packer::has_plugins_of_its_own(&host_environment);
        let mut packer = Packer::new(
            work.path(),
            host_environment,
            self.configuration.stop_grace,
            self.switch.clone(),
            self.log.clone(),
        )
        .map_err(|error| runner_failed("no folder could be made for the build", &error))?;

        let installer = Installer {
            wanted: &self.configuration.packer,
            objects: self.ports.tools.as_ref(),
            downloads: self.ports.downloads.as_ref(),
            log: self.log,
            switch: self.switch,
            work: work.path(),
        };
        let (version, prepared) =
            tokio::join!(installer.packer(&mut packer), self.identify_and_fetch(work.path()));
        let version = version.map_err(|error| self.not_installed(error))?;
        // The endpoint answers until the build is over.
        let (endpoint, template) = prepared?;
        for (name, value) in endpoint.variables() {
            packer.set(name, value);
        }
        packer.takes(template.target.clone());
        findings.seconds.fetch = Some(began.elapsed().as_secs_f64());
        findings.packer_version = Some(version.text.clone());

        if version.has_init() {
            let began = Instant::now();
            if version.bundles_no_plugins() && !brings_plugins && self.configuration.packer.auto_install {
                let plugins = installer.amazon_plugin().await.map_err(|error| self.not_installed(error))?;
                packer.set("PACKER_PLUGIN_PATH".into(), plugins.into());
            }
            self.install_plugins(&packer, &template).await?;
            findings.seconds.init = Some(began.elapsed().as_secs_f64());
        }

        let began = Instant::now();
        let run = packer.validate().await.map_err(|error| self.failure(error, Some("packer validate")))?;
        findings.seconds.validate = Some(began.elapsed().as_secs_f64());
        if !run.ended.status.success() {
            return Err(self.packer_failed(FailureName::TemplateInvalid, &run, Some("packer validate")));
        }

        let began = Instant::now();
        let run = packer.build(self.ledger).await;
        findings.seconds.build = Some(began.elapsed().as_secs_f64());
        let told = match &run {
            Ok(run) => Some(&run.told),
            Err(PackerError::Stopped { told, .. }) => Some(told.as_ref()),
            Err(PackerError::NotStarted { .. } | PackerError::NoVersion { .. }) => None,
        };
        findings.images = told.map(|told| told.images().to_vec()).unwrap_or_default();
        let run = run.map_err(|error| self.failure(error, None))?;
        if !run.ended.status.success() || run.told.error_count() > 0 {
            return Err(self.packer_failed(FailureName::PackerFailed, &run, None));
        }
        if run.told.images().is_empty() {
            return Err(BuildFailure::new(
                FailureName::PackerFailed,
                "Packer ended without an error but made no AMI: the template has no build with an Amazon source, \
                 or its source makes no image",
            ));
        }
        Ok(run.told.images().to_vec())
    }

    /// Those that the template asks for and that are not there: the Amazon plugin is, unless another version of it is meant.
    async fn install_plugins(
        &self,
        packer: &Packer,
        template: &bundle::Template,
    ) -> Result<(), BuildFailure> {
        const INIT: &str = "packer init";
        if template.target == bundle::Template::FOLDER {
            let run = packer.init().await.map_err(|error| self.failure(error, Some(INIT)))?;
            if !run.ended.status.success() {
                return Err(self.packer_failed(FailureName::PackerFailed, &run, Some(INIT)));
            }
        }
        Ok(())
    }

    /// The bundle is one of the build's own files: without credentials there is none.
    async fn identify_and_fetch(
        &self,
        work: &Path,
    ) -> Result<(CredentialsEndpoint, bundle::Template), BuildFailure> {
        let endpoint = CredentialsEndpoint::start(self.ports.credentials.clone(), self.log.clone());
        let endpoint = self.switch.unless_stopped(endpoint).await.map_err(|reason| self.stopped(reason))?;
        let endpoint = endpoint.map_err(|error| runner_failed("the build has no identity", &error))?;
        Ok((endpoint, self.fetch_and_unpack(work).await?))
    }

    async fn fetch_and_unpack(&self, work: &Path) -> Result<bundle::Template, BuildFailure> {
        let bundle = self.fetch().await?;
        let folder = work.to_owned();
        let unpacked = tokio::task::spawn_blocking(move || {
            let unpacked = bundle::unpack(&bundle, &folder)?;
            let template = folder.join(bundle::TEMPLATE_FOLDER);
            let secrets = sensitive_variables::values(&template, &folder.join(ciab_template::VARIABLES_FILE));
            Ok::<_, bundle::BundleError>((unpacked, secrets, bundle::may_have_post_processors(&template)))
        })
        .await
        .map_err(|error| runner_failed("the bundle could not be unpacked", &error))?;
        let (template, secrets, post_processed) =
            unpacked.map_err(|error| runner_failed("the bundle could not be unpacked", &error))?;
        // Before Packer reads them for the first time.
        self.log.add_secrets(secrets);
        self.ledger.post_processed(post_processed);
        Ok(template)
    }

    async fn fetch(&self) -> Result<Vec<u8>, BuildFailure> {
        let key = format!("builds/{}/template.tar.gz", self.configuration.build_id);
        let until = Instant::now() + FETCH;
        let mut pause = Duration::from_millis(200);
        loop {
            let got = self.switch.unless_stopped(self.ports.objects.get(&key)).await;
            match got.map_err(|reason| self.stopped(reason))? {
                Ok(Some(bundle)) => return Ok(bundle),
                Ok(None) => {
                    let message = format!("The bundle {key} is not in the bucket");
                    return Err(BuildFailure::new(FailureName::RunnerFailed, message));
                }
                Err(PortError::Unavailable { .. }) if Instant::now() + pause < until => sleep(pause).await,
                Err(error) => return Err(runner_failed("the bundle could not be fetched", &error)),
            }
            pause *= 2;
        }
    }

    fn not_installed(&self, error: InstallError) -> BuildFailure {
        match error {
            InstallError::Packer(error) => self.failure(error, None),
            InstallError::Stopped(reason) => self.stopped(reason),
            error => runner_failed("Packer could not be installed", &error),
        }
    }

    fn failure(&self, error: PackerError, step: Option<&str>) -> BuildFailure {
        match error {
            PackerError::Stopped { reason, told } => {
                let last = told.failed_or_last_step();
                let step = step.map(str::to_owned).or(last.step);
                self.stopped(reason).at(step.map(|step| self.log.masked(&step)), self.lines(last.last_lines))
            }
            PackerError::NotStarted { .. } | PackerError::NoVersion { .. } => {
                BuildFailure::new(FailureName::RunnerFailed, with_sources(&error))
            }
        }
    }

    fn stopped(&self, reason: StopReason) -> BuildFailure {
        match reason {
            StopReason::Deadline => BuildFailure::timed_out(self.configuration.timeout_secs),
            StopReason::TaskGone => BuildFailure::new(
                FailureName::RunnerFailed,
                "The state machine no longer waits for this build, so it was stopped",
            ),
            StopReason::Signal => BuildFailure::new(
                FailureName::RunnerFailed,
                "The runner was told to end before Packer had ended",
            ),
        }
    }

    fn packer_failed(&self, name: FailureName, run: &Run, step: Option<&str>) -> BuildFailure {
        let failed = run.told.failed_or_last_step();
        let message = run.told.complaint().unwrap_or_else(|| {
            let ended = run.ended.status;
            format!("Packer ended without saying why ({ended})")
        });
        let step = step.map(str::to_owned).or(failed.step);
        BuildFailure::new(name, self.log.masked(&message))
            .at(step.map(|step| self.log.masked(&step)), self.lines(failed.last_lines))
    }

    fn lines(&self, lines: Vec<String>) -> Vec<String> {
        lines.iter().map(|line| self.log.masked(line)).collect()
    }
}

/// A folder that nobody else has been in, and that goes when the build ends.
fn work_folder(below: Option<&Path>) -> io::Result<TempDir> {
    let mut folder = tempfile::Builder::new();
    folder.prefix("ciab-build-");
    let Some(below) = below else { return folder.tempdir() };
    std::fs::create_dir_all(below)?;
    folder.tempdir_in(below)
}

fn runner_failed(what: &str, error: &dyn Error) -> BuildFailure {
    BuildFailure::new(
        FailureName::RunnerFailed,
        format!("The runner failed: {what}: {}", with_sources(error)),
    )
}

/// The error with what it comes from, for one line.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
