//! `prepare-build`: the first step of a build. Resolves the template, checks the variables, tags every Amazon source,
//! puts the bundle into the bucket.
//!
//! Everything that can be wrong with a template without running it is found here, before anything is paid for.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::build::BuildRecord;
use crate::build_image::BuildInput;
use crate::ids::BuildId;
use crate::life::STOP_GRACE;
use crate::ports::{Clock, ObjectStore, PortError, Records, Secrets, TemplateFetcher};
use crate::resolve_template::{Fetching, ResolveError, Resolver};
use crate::resource::{key_pair_name, tag};
use crate::settings::Settings;
use crate::step::{StepError, for_build, update};
use ciab_template::{
    ArchivedFile, Bundle, ParsedTemplate, StandardValues, TagOptions, TemplateSource, VARIABLES_FILE,
};

/// What it needs.
pub struct Deps {
    /// The operator's settings.
    pub settings: Settings,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Build records.
    pub records: Arc<dyn Records>,
    /// The bucket.
    pub objects: Arc<dyn ObjectStore>,
    /// Fetches templates from other people's servers.
    pub fetcher: Arc<dyn TemplateFetcher>,
    /// Where the operator keeps tokens for those.
    pub secrets: Arc<dyn Secrets>,
}

/// What the state machine hands over.
#[derive(Debug, Clone, Deserialize)]
pub struct Input {
    /// The build.
    pub build_id: BuildId,
}

/// What the state machine goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// The build.
    pub build_id: BuildId,
    /// Seconds after which the state machine stops waiting for the runner: the runner stops by itself before.
    pub run_packer_timeout_secs: i64,
    /// Seconds after which a runner that gives no sign of life is given up; less than the time-out, as Step Functions wants.
    pub heartbeat_secs: i64,
}

/// How long a runner may give no sign of life. It gives one every 10 seconds; CodeBuild takes minutes to start one.
const HEARTBEAT: SignedDuration = SignedDuration::from_secs(300);

/// How many places that run something on the runner an error names.
const LOCAL_EXECUTIONS_SHOWN: usize = 5;

/// The folder inside of the bundle that Packer is run in.
pub const TEMPLATE_FOLDER: &str = "template/";

/// Where a build's bundle stands in the bucket.
pub fn bundle_key(id: BuildId) -> String {
    format!("builds/{id}/template.tar.gz")
}

/// Does the step.
///
/// # Errors
/// `TemplateRejected` for the template's author; otherwise those that every step has.
pub async fn run(deps: &Deps, input: Input) -> Result<Output, StepError> {
    for_build(input.build_id, prepare_build(deps, input.build_id)).await
}

async fn prepare_build(deps: &Deps, id: BuildId) -> Result<Output, StepError> {
    let now = deps.clock.now();
    let record = update(&*deps.records, id, |record| record.start(now)).await?;
    let key = BuildInput::key(id);
    let asked = deps.objects.get(&key).await?.ok_or_else(|| unreadable("it is missing"))?;
    let asked: BuildInput = serde_json::from_slice(&asked).map_err(|error| unreadable(&error.to_string()))?;

    let authored = authored(deps, &record, &asked, now).await?;
    let prepared = prepare(&deps.settings, &record, &asked, &authored)?;
    deps.objects.put(&bundle_key(id), prepared.archive).await?;
    let record = update(&*deps.records, id, |record| {
        record.start(now)?;
        record.template.digest = Some(prepared.digest.clone());
        Ok(())
    })
    .await?;
    tracing::info!(template_digest = prepared.digest, "the build is prepared");
    let run_packer_timeout_secs = patience(&record, now).as_secs();
    let heartbeat_secs = HEARTBEAT.as_secs().min(run_packer_timeout_secs - 1);
    Ok(Output { build_id: id, run_packer_timeout_secs, heartbeat_secs })
}

fn unreadable(what: &str) -> PortError {
    PortError::Unreadable { service: "s3", operation: "GetObject", what: format!("input.json: {what}") }
}

/// How long the state machine waits for the runner. The runner stops Packer at the deadline and then has the stop's
/// grace; the poller is the next in line.
fn patience(record: &BuildRecord, now: Timestamp) -> SignedDuration {
    let deadline = record.deadline.unwrap_or(now);
    (deadline.duration_since(now) + STOP_GRACE).max(SignedDuration::from_secs(2))
}

/// The template's files. What an earlier run of this step has found them to be stays what they are.
async fn authored(
    deps: &Deps,
    record: &BuildRecord,
    asked: &BuildInput,
    now: Timestamp,
) -> Result<Bundle, StepError> {
    let resolver = Resolver { settings: &deps.settings, objects: &*deps.objects };
    if let Some(digest) = &record.template.digest
        && let Some(kept) = resolver.kept(digest).await?
    {
        return Ok(kept);
    }
    let fetching = Fetching { fetcher: &*deps.fetcher, secrets: &*deps.secrets, now };
    resolver.resolve(&asked.template, &fetching).await.map_err(|error| match error {
        ResolveError::NotFound(message) | ResolveError::Rejected(message) => {
            StepError::TemplateRejected(message)
        }
        ResolveError::Unavailable(message) => StepError::TemplateUnavailable(message),
        ResolveError::Port(error) => error.into(),
    })
}

/// Whether a build of this record, input and template could be prepared; what `build-image` asks before it accepts.
///
/// # Errors
/// As [`run`].
pub fn check(
    settings: &Settings,
    record: &BuildRecord,
    input: &BuildInput,
    authored: &Bundle,
) -> Result<(), StepError> {
    prepare(settings, record, input, authored).map(drop)
}

struct Prepared {
    digest: String,
    archive: Vec<u8>,
}

fn prepare(
    settings: &Settings,
    record: &BuildRecord,
    input: &BuildInput,
    authored: &Bundle,
) -> Result<Prepared, StepError> {
    let digest = authored.digest();
    let template = ParsedTemplate::of(authored).map_err(rejected)?;
    let declared = template.summary().map_err(rejected)?.variables;
    refuse_local_execution(settings, &input.template.source, authored)?;

    ciab_template::check_variables(&declared, &input.variables).map_err(rejected)?;
    let mut variables = input.variables.clone();
    if matches!(input.template.source, TemplateSource::Builtin { .. }) {
        variables = ciab_template::fill_in(&declared, &variables, &settings.template_variables);
    }
    variables = ciab_template::standard_values(&declared, &variables, &standard_values(record, &digest));

    let tagged = template.tag(&tag_options(settings, record, &digest)).map_err(rejected)?;
    let variables_file = ArchivedFile {
        path: VARIABLES_FILE.to_owned(),
        bytes: ciab_template::variables_file(&variables),
        mode: 0o600,
    };
    let archive = tagged.to_tar_gz(TEMPLATE_FOLDER, &[variables_file]).map_err(rejected)?;
    Ok(Prepared { digest, archive })
}

/// A template is code, and some of it runs on the runner, beside the credentials there.
fn refuse_local_execution(
    settings: &Settings,
    source: &TemplateSource,
    authored: &Bundle,
) -> Result<(), StepError> {
    if settings.local_execution.allows(source) {
        return Ok(());
    }
    let found = ciab_template::local_execution(authored).map_err(rejected)?;
    if found.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = found.iter().take(LOCAL_EXECUTIONS_SHOWN).map(ToString::to_string).collect();
    let more = match found.len().saturating_sub(LOCAL_EXECUTIONS_SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Err(StepError::TemplateRejected(format!(
        "the operator of this stack does not allow local execution for a template from there: {}{more}",
        shown.join("; ")
    )))
}

fn rejected(error: impl std::error::Error) -> StepError {
    StepError::TemplateRejected(error.to_string())
}

fn standard_values(record: &BuildRecord, digest: &str) -> StandardValues {
    StandardValues {
        provider: record.provider.to_string(),
        region: record.region.to_string(),
        instance_type: record.instance_type.clone(),
        subnet_id: record.subnet_id.clone(),
        build_id: record.build_id.to_string(),
        template_digest: digest.to_owned(),
    }
}

fn tag_options(settings: &Settings, record: &BuildRecord, digest: &str) -> TagOptions {
    let end = record.deadline.unwrap_or(record.created_at) + STOP_GRACE;
    let tags = [
        (tag::MANAGED, "true".to_owned()),
        (tag::STACK, settings.stack.clone()),
        (tag::BUILD_ID, record.build_id.to_string()),
        (tag::PROVIDER, record.provider.to_string()),
        (tag::TEMPLATE_DIGEST, digest.to_owned()),
        (tag::EXPIRES_AT, Timestamp::from_second(end.as_second()).unwrap_or(end).to_string()),
    ];
    TagOptions {
        tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        image_tags: record.tags.clone(),
        packer_version: settings.packer_version,
        endpoint: settings.aws_endpoint.clone(),
        temporary_key_pair_name: Some(key_pair_name(record.build_id)),
    }
}
