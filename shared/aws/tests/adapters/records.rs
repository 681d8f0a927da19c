//! Build and image records: the same tests on moto and on Amazon's DynamoDB Local.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
    Projection, ProjectionType, ScalarAttributeType,
};
use ciab_aws::{DynamoRecords, RandomIdentifiers};
use ciab_core::build::{
    Artifact, BuildRecord, BuildStatus, Failure, Left, Origin, Phase, RunnerKind, Stage, TemplateReference,
};
use ciab_core::ids::{BuildId, ImageId, Provider};
use ciab_core::image::{ImageRecord, ImageStatus};
use ciab_core::ports::{
    BuildFilter, INVALID_NEXT_TOKEN, IdempotencyKey, Identifiers, ImageFilter, Lease, PortError, Records,
    Slot, Submission, Write,
};
use ciab_core::resource::{Resource, ResourceKind};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::servers::Server;

pub(crate) const TABLE: &str = "ciab-test";
/// The indexes and what they partition by, as infra/template.yaml has them.
const INDEXES: [(&str, &str); 5] = [
    ("active-builds", "active"),
    ("builds", "listed"),
    ("builds-by-status", "listed_by_status"),
    ("builds-by-provider", "listed_by_provider"),
    ("builds-by-status-and-provider", "listed_by_status_and_provider"),
];

/// Notes the operation of every request that is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        self.0.lock().unwrap().push(operation);
        Ok(())
    }
}

pub(crate) struct Table {
    pub(crate) records: DynamoRecords,
    pub(crate) client: Client,
    pub(crate) calls: Calls,
    _server: Server,
}

impl Table {
    pub(crate) async fn on(server: Server) -> Self {
        let config = server.config();
        let client = Client::new(&config);
        let text = |name| {
            AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap()
        };
        let key =
            |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
        let index = |(name, attribute)| {
            GlobalSecondaryIndex::builder()
                .index_name(name)
                .set_key_schema(Some(vec![key(attribute, KeyType::Hash), key("created_at", KeyType::Range)]))
                .projection(Projection::builder().projection_type(ProjectionType::All).build())
                .build()
                .unwrap()
        };
        let attributes =
            ["pk", "sk", "created_at"].into_iter().chain(INDEXES.map(|(_, attribute)| attribute));
        client
            .create_table()
            .table_name(TABLE)
            .billing_mode(BillingMode::PayPerRequest)
            .set_attribute_definitions(Some(attributes.map(text).collect()))
            .set_key_schema(Some(vec![key("pk", KeyType::Hash), key("sk", KeyType::Range)]))
            .set_global_secondary_indexes(Some(INDEXES.map(index).into()))
            .send()
            .await
            .unwrap();
        let calls = Calls::default();
        let counted = aws_sdk_dynamodb::config::Builder::from(&config).interceptor(calls.clone()).build();
        let records = DynamoRecords::with_client(Client::from_conf(counted), TABLE);
        Self { records, client, calls, _server: server }
    }

    async fn item_count(&self) -> i32 {
        self.client.scan().table_name(TABLE).consistent_read(true).send().await.unwrap().count
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn queued(created_at: &str) -> BuildRecord {
    BuildRecord {
        build_id: RandomIdentifiers.new_build_id(),
        revision: 0,
        origin: Origin::Rebuild,
        provider: Provider::ClaudeCode,
        region: "us-east-1".parse().unwrap(),
        instance_type: "t3.medium".into(),
        subnet_id: None,
        runner: RunnerKind::Codebuild,
        template: TemplateReference { source: "builtin://default-ec2".into(), digest: None },
        tags: [("team".to_owned(), "platform".to_owned())].into(),
        requested_by: Some("019d2566fe4000000001".into()),
        request_id: "JKJaXmPLvHcESHA=".parse().ok(),
        timeout_secs: 1800,
        created_at: time(created_at),
        started_at: None,
        deadline: None,
        completed_at: None,
        status: BuildStatus::Queued,
        phase: Phase::Queued,
        image_id: None,
        artifacts: Vec::new(),
        kept_snapshots: BTreeSet::new(),
        runner_requested_at: None,
        runner_id: None,
        task_tokens: BTreeSet::new(),
        failing_since: None,
        failure: None,
        doomed: false,
        leftovers: Default::default(),
        quiet_since: None,
        tried_at: None,
        clean: false,
    }
}

fn key(text: &str, digest: &str) -> IdempotencyKey {
    IdempotencyKey { key: text.into(), request_digest: digest.into() }
}

fn image(number: u32, region: &str, provider: Provider, created_at: Timestamp) -> ImageRecord {
    ImageRecord {
        image_id: image_id(number),
        provider,
        region: region.parse().unwrap(),
        status: ImageStatus::Available,
        created_at,
        build_id: RandomIdentifiers.new_build_id(),
        origin: Origin::Rebuild,
        name: format!("ciab-{number}"),
        template_digest: None,
        snapshots: vec!["snap-1".into()],
        provisioned: true,
    }
}

fn image_id(number: u32) -> ImageId {
    format!("ami-{number:017x}").parse().unwrap()
}

fn artifacts(image: &ImageRecord) -> Vec<Artifact> {
    vec![Artifact { region: image.region.clone(), image_id: image.image_id.clone() }]
}

fn snapshots(image: &ImageRecord) -> BTreeSet<String> {
    image.snapshots.iter().cloned().collect()
}

/// A build that has ended with this image, as it stands before it is written.
async fn succeeding(table: &Table, image: &ImageRecord) -> BuildRecord {
    let mut record = queued("2026-03-25T14:30:00Z");
    table.records.submit(&record, None).await.unwrap();
    record.region = image.region.clone();
    record.start(record.created_at).unwrap();
    record.succeed(artifacts(image), snapshots(image), image.created_at).unwrap();
    record
}

async fn what_was_submitted_is_read_back_as_it_was(table: Table) {
    let record = queued("2026-03-25T14:30:00.123456789Z");
    assert_eq!(table.records.submit(&record, None).await.unwrap(), Submission::Accepted);
    assert_eq!(table.records.build(record.build_id).await.unwrap(), Some(record));
    assert_eq!(table.records.build(RandomIdentifiers.new_build_id()).await.unwrap(), None);
    table.records.ready().await.unwrap();
}

async fn all_that_is_known_of_a_build_is_read_back_as_it_was(table: Table) {
    let mut record = queued("2026-03-25T14:30:00Z");
    table.records.submit(&record, None).await.unwrap();
    let now = time("2026-03-25T14:31:00.000000001Z");
    record.start(now).unwrap();
    record.runner_started("ciab-test-runner:1".into(), now).unwrap();
    record
        .begin_clean_up(
            Failure {
                step: Some("shell".into()),
                last_log_lines: vec!["a".into(), "b".into()],
                ..Failure::of(Stage::RunPacker, "broken")
            },
            now,
        )
        .unwrap();
    for kind in ResourceKind::ALL {
        record.leftovers.found.insert(&Resource::bare(kind, record.region.clone(), format!("{kind:?}-1")));
        record.leftovers.found.insert(&Resource::bare(kind, record.region.clone(), format!("{kind:?}-2")));
    }
    record.leftovers.removed.images.insert("Image-1".into());
    record.artifacts.push(Artifact { region: "eu-west-1".parse().unwrap(), image_id: image_id(1) });
    record.kept_snapshots.insert("snap-1".into());
    record.quiet_since = Some(now);
    record.tried_at = Some(now);
    assert_eq!(table.records.replace(&record).await.unwrap(), Write::Done);
    record.revision += 1;
    assert_eq!(table.records.build(record.build_id).await.unwrap(), Some(record.clone()));
    assert_eq!(table.records.active_builds(None).await.unwrap().items, [record]);
}

fn build_ids<const N: usize>() -> [BuildId; N] {
    std::array::from_fn(|_| RandomIdentifiers.new_build_id())
}

async fn as_many_builds_have_a_slot_as_there_are_slots(table: Table) {
    let records = &table.records;
    let [one, two, three] = build_ids();
    assert!(records.slots_taken().await.unwrap().is_empty());
    records.release_slot(one).await.unwrap();
    assert_eq!(records.take_slot(one, 0).await.unwrap(), Slot::Full, "there are none");
    assert_eq!(records.take_slot(one, 2).await.unwrap(), Slot::Taken);
    assert_eq!(records.take_slot(one, 2).await.unwrap(), Slot::Held, "its first answer may have been lost");
    assert_eq!(records.take_slot(two, 2).await.unwrap(), Slot::Taken);
    assert_eq!(records.take_slot(three, 2).await.unwrap(), Slot::Full);
    assert_eq!(records.take_slot(two, 2).await.unwrap(), Slot::Held);
    assert_eq!(records.take_slot(two, 1).await.unwrap(), Slot::Held, "however few there are by now");
    assert_eq!(records.slots_taken().await.unwrap(), [one, two].into());
    for _ in 0..2 {
        records.release_slot(one).await.unwrap();
    }
    assert_eq!(records.take_slot(three, 2).await.unwrap(), Slot::Taken);
    assert_eq!(records.slots_taken().await.unwrap(), [two, three].into());
    for build in [two, three] {
        records.release_slot(build).await.unwrap();
    }
    assert!(records.slots_taken().await.unwrap().is_empty());
    assert_eq!(records.take_slot(one, 1).await.unwrap(), Slot::Taken, "a set that became empty is as none");
    assert_eq!(records.take_slot(two, 1).await.unwrap(), Slot::Full);
}

async fn many_builds_at_once_never_have_more_slots_than_there_are(table: Table) {
    let builds: [BuildId; 24] = build_ids();
    let answers = join_all(builds.iter().map(|build| table.records.take_slot(*build, 5))).await;
    let taken: BTreeSet<BuildId> = builds
        .iter()
        .zip(answers)
        .filter(|(_, answer)| *answer.as_ref().unwrap() == Slot::Taken)
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(taken.len(), 5);
    assert_eq!(table.records.slots_taken().await.unwrap(), taken);
}

fn lease<'a>(holder: &'a str, now: &str, until: &str) -> Lease<'a> {
    Lease { name: "poll-builds", holder, now: time(now), until: time(until) }
}

async fn a_lease_is_one_holders_until_its_time_is_over_or_it_is_given_back(table: Table) {
    let records = &table.records;
    let take = async |holder, now, until| records.take_lease(&lease(holder, now, until)).await.unwrap();
    assert!(take("one", "2026-03-25T14:30:00Z", "2026-03-25T14:30:45Z").await);
    assert!(!take("two", "2026-03-25T14:30:44.999Z", "2026-03-25T14:31:45Z").await);
    assert!(take("one", "2026-03-25T14:30:40Z", "2026-03-25T14:31:25Z").await, "it prolongs its own");
    assert!(!take("two", "2026-03-25T14:30:45Z", "2026-03-25T14:31:45Z").await);
    assert!(take("two", "2026-03-25T14:31:25Z", "2026-03-25T14:32:10Z").await, "its time is over");
    assert!(!take("one", "2026-03-25T14:31:26Z", "2026-03-25T14:32:10Z").await);

    records.release_lease("poll-builds", "one").await.unwrap();
    assert!(!take("one", "2026-03-25T14:31:26Z", "2026-03-25T14:32:10Z").await, "it gave back another's");
    for _ in 0..2 {
        records.release_lease("poll-builds", "two").await.unwrap();
    }
    assert!(take("one", "2026-03-25T14:31:26Z", "2026-03-25T14:32:10Z").await);
    let other = Lease { name: "another", ..lease("two", "2026-03-25T14:31:26Z", "2026-03-25T14:32:10Z") };
    assert!(records.take_lease(&other).await.unwrap(), "a lease of another name is another lease");
}

async fn of_many_that_want_a_lease_at_once_one_gets_it(table: Table) {
    let holders: Vec<String> = (0..8).map(|_| RandomIdentifiers.new_holder()).collect();
    let wanted: Vec<_> =
        holders.iter().map(|holder| lease(holder, "2026-03-25T14:30:00Z", "2026-03-25T14:30:45Z")).collect();
    let answers = join_all(wanted.iter().map(|lease| table.records.take_lease(lease))).await;
    assert_eq!(answers.into_iter().filter(|answer| *answer.as_ref().unwrap()).count(), 1);
}

async fn a_submission_whose_answer_was_lost_is_accepted_again(table: Table) {
    let with_key = queued("2026-03-25T14:30:00Z");
    let without_key = queued("2026-03-25T14:30:00Z");
    let once = key("once", "digest");
    for _ in 0..2 {
        assert_eq!(table.records.submit(&with_key, Some(&once)).await.unwrap(), Submission::Accepted);
        assert_eq!(table.records.submit(&without_key, None).await.unwrap(), Submission::Accepted);
    }
    let mut started = without_key.clone();
    started.start(started.created_at).unwrap();
    assert_eq!(table.records.replace(&started).await.unwrap(), Write::Done);
    assert_eq!(table.records.submit(&without_key, None).await.unwrap(), Submission::Accepted);
    let stored = table.records.build(without_key.build_id).await.unwrap().unwrap();
    assert_eq!(stored.status, BuildStatus::Building, "a late repetition changes nothing");
}

async fn another_build_with_the_same_id_is_refused(table: Table) {
    let record = queued("2026-03-25T14:30:00Z");
    table.records.submit(&record, None).await.unwrap();
    let other = BuildRecord { created_at: time("2026-03-25T14:31:00Z"), ..record };
    let refused = table.records.submit(&other, None).await.unwrap_err();
    assert!(matches!(&refused, PortError::Refused { code, .. } if code == "BuildIdTaken"), "{refused:?}");
}

async fn one_key_gives_one_build(table: Table) {
    let first = queued("2026-03-25T14:30:00Z");
    let second = queued("2026-03-25T14:30:01Z");
    assert_eq!(table.records.submit(&first, Some(&key("k", "digest"))).await.unwrap(), Submission::Accepted);
    assert_eq!(
        table.records.submit(&second, Some(&key("k", "digest"))).await.unwrap(),
        Submission::Repeated(Box::new(first))
    );
    assert_eq!(
        table.records.submit(&second, Some(&key("k", "another"))).await.unwrap(),
        Submission::KeyReused
    );
    assert_eq!(table.records.build(second.build_id).await.unwrap(), None, "nothing of the second is written");
}

async fn many_submissions_of_one_key_at_once_give_one_build(table: Table) {
    let builds: Vec<BuildRecord> = (0..8).map(|_| queued("2026-03-25T14:30:00Z")).collect();
    let once = key("k", "digest");
    let answers = join_all(builds.iter().map(|build| table.records.submit(build, Some(&once)))).await;
    let mut accepted = Vec::new();
    let mut repeated = Vec::new();
    for (build, answer) in builds.iter().zip(answers) {
        match answer.unwrap() {
            Submission::Accepted => accepted.push(build.clone()),
            Submission::Repeated(earlier) => repeated.push(*earlier),
            Submission::KeyReused => panic!("the request is the same"),
        }
    }
    assert_eq!(accepted.len(), 1);
    assert_eq!(repeated, vec![accepted[0].clone(); 7]);
    assert_eq!(table.item_count().await, 2, "one build and one key");
}

async fn a_key_is_free_again_after_a_day_even_where_it_still_stands_in_the_table(table: Table) {
    let first = queued("2026-03-25T14:30:00Z");
    let later = queued("2026-03-26T14:30:00Z");
    table.records.submit(&first, Some(&key("k", "digest"))).await.unwrap();
    assert_eq!(table.records.submit(&later, Some(&key("k", "another"))).await.unwrap(), Submission::Accepted);
    assert_eq!(
        table.records.submit(&first, Some(&key("k", "digest"))).await.unwrap(),
        Submission::KeyReused,
        "the key now is the later build's"
    );
}

async fn the_first_of_two_writers_wins_and_the_second_is_told(table: Table) {
    let record = queued("2026-03-25T14:30:00Z");
    table.records.submit(&record, None).await.unwrap();
    let mut one = record.clone();
    one.start(time("2026-03-25T14:30:01Z")).unwrap();
    let mut other = record.clone();
    other.begin_clean_up(Failure::timed_out(1800), time("2026-03-25T14:30:01Z")).unwrap();

    assert_eq!(table.records.replace(&one).await.unwrap(), Write::Done);
    assert_eq!(table.records.replace(&other).await.unwrap(), Write::Conflict);
    assert_eq!(
        table.records.replace(&one).await.unwrap(),
        Write::Done,
        "its first answer may have been lost"
    );
    let stored = table.records.build(record.build_id).await.unwrap().unwrap();
    assert_eq!(stored, BuildRecord { revision: 1, ..one });
    assert_eq!(
        table.records.replace(&queued("2026-03-25T14:30:00Z")).await.unwrap(),
        Write::Conflict,
        "a build that was never submitted is not written"
    );
}

async fn a_builds_end_and_its_images_are_written_together_or_not_at_all(table: Table) {
    let made = image(1, "us-east-1", Provider::Codex, time("2026-03-25T15:00:00Z"));
    let record = succeeding(&table, &made).await;
    let stale = BuildRecord { revision: 7, ..record.clone() };
    let write =
        async |record| table.records.replace_with_images(record, std::slice::from_ref(&made)).await.unwrap();

    assert_eq!(write(&stale).await, Write::Conflict);
    assert_eq!(table.records.image(&made.image_id).await.unwrap(), None);
    assert_eq!(write(&record).await, Write::Done);
    assert_eq!(write(&record).await, Write::Done, "its first answer may have been lost");
    assert_eq!(table.records.image(&made.image_id).await.unwrap(), Some(made));
    assert_eq!(table.records.build(record.build_id).await.unwrap().unwrap().status, BuildStatus::Succeeded);
}

async fn active_builds_are_listed_oldest_first_until_nothing_of_them_is_left(table: Table) {
    let times = ["2026-03-25T14:30:00.5Z", "2026-03-25T14:30:00Z", "2026-03-25T14:30:00.25Z"];
    let mut builds = times.map(queued);
    for build in &builds {
        table.records.submit(build, None).await.unwrap();
    }
    builds.sort_by_key(|build| build.created_at);
    let active = async || -> Vec<_> {
        let page = table.records.active_builds(None).await.unwrap();
        assert_eq!(page.next, None);
        page.items.into_iter().map(|build| build.build_id).collect()
    };
    assert_eq!(active().await, builds.each_ref().map(|build| build.build_id));

    let mut failing = builds[0].clone();
    let broken = Failure::of(Stage::RunPacker, "broken");
    failing.begin_clean_up(broken, time("2026-03-25T15:29:00Z")).unwrap();
    failing.fail(Left::Something, time("2026-03-25T15:30:00Z")).unwrap();
    table.records.replace(&failing).await.unwrap();
    assert_eq!(active().await.len(), 3, "failed, but something of it is left");
    failing.revision += 1;
    failing.clean = true;
    table.records.replace(&failing).await.unwrap();
    assert_eq!(active().await, [builds[1].build_id, builds[2].build_id]);
}

async fn many_active_builds_come_in_pages(table: Table) {
    let began = time("2026-03-25T14:30:00Z");
    let mut expected = Vec::new();
    for number in 0..230 {
        let mut build = queued("2026-03-25T14:30:00Z");
        build.created_at = began + SignedDuration::from_millis(number);
        table.records.submit(&build, None).await.unwrap();
        expected.push(build.build_id);
    }
    let mut seen = Vec::new();
    let mut next = None;
    for _ in 0..3 {
        let page = table.records.active_builds(next.as_deref()).await.unwrap();
        seen.extend(page.items.into_iter().map(|build| build.build_id));
        next = page.next;
    }
    assert_eq!(next, None);
    assert_eq!(seen, expected);
}

async fn builds_are_listed_newest_first_by_every_filter_and_in_pages(table: Table) {
    let began = time("2026-03-25T14:30:00Z");
    let mut expected = Vec::new();
    for number in 0..60_i64 {
        let provider = if number % 3 == 0 { Provider::Codex } else { Provider::ClaudeCode };
        let created_at = began + SignedDuration::from_millis(number / 2 * 250);
        let mut build = BuildRecord { provider, created_at, ..queued("2026-03-25T14:30:00Z") };
        table.records.submit(&build, None).await.unwrap();
        if number % 4 == 0 {
            build.start(created_at).unwrap();
            assert_eq!(table.records.replace(&build).await.unwrap(), Write::Done);
            build.revision += 1;
        }
        expected.push(build);
    }
    // An image has a status and a provider too, and is no build.
    let made = image(1, "us-east-1", Provider::Codex, time("2026-03-25T15:00:00Z"));
    let mut ended = succeeding(&table, &made).await;
    table.records.replace_with_images(&ended, std::slice::from_ref(&made)).await.unwrap();
    ended.revision += 1;
    expected.push(ended);

    let (status, provider) = (Some(BuildStatus::Building), Some(Provider::Codex));
    let filters = [
        BuildFilter::default(),
        BuildFilter { status, provider: None },
        BuildFilter { status: None, provider },
        BuildFilter { status, provider },
        BuildFilter { status: Some(BuildStatus::Succeeded), provider: None },
        BuildFilter { status: Some(BuildStatus::Failed), provider: None },
    ];
    for filter in filters {
        let wanted: BTreeSet<BuildId> = expected
            .iter()
            .filter(|build| filter.status.is_none_or(|status| status == build.status))
            .filter(|build| filter.provider.is_none_or(|provider| provider == build.provider))
            .map(|build| build.build_id)
            .collect();
        for limit in [1, 7, 100] {
            let mut seen = Vec::new();
            let mut next = None;
            let mut pages = 0;
            loop {
                table.calls.take();
                let page = table.records.builds(&filter, limit, next.as_deref()).await.unwrap();
                assert_eq!(table.calls.take(), ["Query"], "a page costs one call");
                pages += 1;
                assert!(page.items.len() <= limit as usize);
                seen.extend(page.items);
                next = page.next;
                if next.is_none() {
                    break;
                }
                assert!(pages <= 70, "{filter:?} does not end");
            }
            assert!(seen.is_sorted_by(|a, b| a.created_at >= b.created_at), "{filter:?} by {limit}");
            assert!(seen.iter().all(|build| expected.contains(build)), "{filter:?} by {limit}");
            assert_eq!(seen.len(), wanted.len(), "{filter:?} by {limit}");
            let seen: BTreeSet<BuildId> = seen.iter().map(|build| build.build_id).collect();
            assert_eq!(seen, wanted, "{filter:?} by {limit}");
            assert_eq!(pages, wanted.len().div_ceil(limit as usize).max(1), "{filter:?} by {limit}");
        }
    }
}

async fn images_are_listed_newest_first_by_every_filter_and_in_pages(table: Table) {
    let began = time("2026-03-25T14:30:00Z");
    let mut expected = Vec::new();
    for number in 0..130_u32 {
        let region = if number % 2 == 0 { "us-east-1" } else { "eu-west-1" };
        let provider = if number % 3 == 0 { Provider::Codex } else { Provider::ClaudeCode };
        let at = began + SignedDuration::from_millis(i64::from(number) * 250);
        let made = image(number, region, provider, at);
        let record = succeeding(&table, &made).await;
        table.records.replace_with_images(&record, std::slice::from_ref(&made)).await.unwrap();
        expected.push(made);
    }
    expected.reverse();
    let region = Some("eu-west-1".parse().unwrap());
    let filters = [
        ImageFilter::default(),
        ImageFilter { region: region.clone(), provider: None },
        ImageFilter { region: None, provider: Some(Provider::Codex) },
        ImageFilter { region, provider: Some(Provider::Codex) },
    ];
    for filter in filters {
        let wanted: Vec<&ImageRecord> = expected
            .iter()
            .filter(|image| filter.region.as_ref().is_none_or(|region| *region == image.region))
            .filter(|image| filter.provider.is_none_or(|provider| provider == image.provider))
            .collect();
        for limit in [1, 7, 13, 100] {
            let mut seen = Vec::new();
            let mut next = None;
            let mut pages = 0;
            loop {
                let page = table.records.images(&filter, limit, next.as_deref()).await.unwrap();
                pages += 1;
                assert!(page.items.len() <= limit as usize);
                seen.extend(page.items);
                next = page.next;
                if next.is_none() {
                    break;
                }
                assert!(pages <= 130, "{filter:?} does not end");
            }
            assert_eq!(seen.iter().collect::<Vec<_>>(), wanted, "{filter:?} by {limit}");
            assert_eq!(pages, wanted.len().div_ceil(limit as usize), "{filter:?} by {limit}");
        }
    }
}

async fn a_token_of_our_own_making_is_needed_to_go_on(table: Table) {
    for token in ["", "IMAGES", "eyJwayI6IklNQUdFUyJ9", "../../x"] {
        let errors = [
            table.records.images(&ImageFilter::default(), 10, Some(token)).await.unwrap_err(),
            table.records.active_builds(Some(token)).await.unwrap_err(),
            table.records.builds(&BuildFilter::default(), 10, Some(token)).await.unwrap_err(),
        ];
        for error in errors {
            assert!(
                matches!(&error, PortError::Refused { code, .. } if code == INVALID_NEXT_TOKEN),
                "{error:?}"
            );
        }
    }
    assert_eq!(table.calls.take(), Vec::<String>::new(), "the table was not asked");
}

async fn a_removed_image_leaves_every_listing_and_may_be_removed_twice(table: Table) {
    let made = image(1, "us-east-1", Provider::Codex, time("2026-03-25T15:00:00Z"));
    let record = succeeding(&table, &made).await;
    table.records.replace_with_images(&record, std::slice::from_ref(&made)).await.unwrap();
    assert_eq!(table.item_count().await, 6);
    table.records.remove_image(&made).await.unwrap();
    table.records.remove_image(&made).await.unwrap();
    assert_eq!(table.records.image(&made.image_id).await.unwrap(), None);
    assert_eq!(table.item_count().await, 1, "only the build is left");
}

async fn an_active_build_that_nobody_can_read_hides_no_other(table: Table) {
    let readable = queued("2026-03-25T14:30:00Z");
    table.records.submit(&readable, None).await.unwrap();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    table
        .client
        .put_item()
        .table_name(TABLE)
        .item("pk", text("BUILD#broken"))
        .item("sk", text("BUILD"))
        .item("active", text("1"))
        .item("created_at", text("2026-03-25T14:00:00.000000000Z"))
        .send()
        .await
        .unwrap();
    assert_eq!(table.records.active_builds(None).await.unwrap().items, [readable]);
}

async fn each_pattern_costs_what_the_design_allows(table: Table) {
    let Table { records, calls, .. } = &table;
    let made = image(1, "us-east-1", Provider::Codex, time("2026-03-25T15:00:00Z"));
    let mut record = queued("2026-03-25T14:30:00Z");

    records.submit(&record, Some(&key("k", "digest"))).await.unwrap();
    assert_eq!(calls.take(), ["TransactWriteItems"], "submit a build");
    records.build(record.build_id).await.unwrap();
    assert_eq!(calls.take(), ["GetItem"], "build by id");
    record.start(record.created_at).unwrap();
    records.replace(&record).await.unwrap();
    assert_eq!(calls.take(), ["PutItem"], "replace a build");
    records.active_builds(None).await.unwrap();
    assert_eq!(calls.take(), ["Query"], "active builds");
    records.builds(&BuildFilter::default(), 100, None).await.unwrap();
    assert_eq!(calls.take(), ["Query"], "builds");
    record.revision += 1;
    record.succeed(artifacts(&made), snapshots(&made), made.created_at).unwrap();
    records.replace_with_images(&record, std::slice::from_ref(&made)).await.unwrap();
    assert_eq!(calls.take(), ["TransactWriteItems"], "a build's end with its images");
    records.images(&ImageFilter::default(), 100, None).await.unwrap();
    assert_eq!(calls.take(), ["Query"], "images");
    records.image(&made.image_id).await.unwrap();
    assert_eq!(calls.take(), ["GetItem"], "image by id");
    records.remove_image(&made).await.unwrap();
    assert_eq!(calls.take(), ["TransactWriteItems"], "remove an image");
    records.ready().await.unwrap();
    assert_eq!(calls.take(), ["GetItem"], "ready");

    assert_eq!(records.take_slot(record.build_id, 1).await.unwrap(), Slot::Taken);
    assert_eq!(calls.take(), ["UpdateItem"], "take a slot");
    assert_eq!(records.take_slot(made.build_id, 1).await.unwrap(), Slot::Full);
    assert_eq!(calls.take(), ["UpdateItem", "GetItem"], "ask in vain for a slot");
    records.slots_taken().await.unwrap();
    assert_eq!(calls.take(), ["GetItem"], "slots");
    records.release_slot(record.build_id).await.unwrap();
    assert_eq!(calls.take(), ["UpdateItem"], "give a slot back");
    let lease = lease("one", "2026-03-25T14:30:00Z", "2026-03-25T14:30:45Z");
    assert!(records.take_lease(&lease).await.unwrap());
    assert_eq!(calls.take(), ["UpdateItem"], "take a lease");
    records.release_lease("poll-builds", "one").await.unwrap();
    assert_eq!(calls.take(), ["DeleteItem"], "give a lease back");
}

/// Each of the tests above once for each server.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod on_moto {
            $(#[tokio::test] async fn $test() { super::$test(super::Table::on(super::Server::moto()).await).await; })*
        }
        mod on_dynamodb_local {
            $(#[tokio::test] async fn $test() {
                super::$test(super::Table::on(super::Server::dynamodb_local()).await).await;
            })*
        }
    };
}

on_both! {
    what_was_submitted_is_read_back_as_it_was
    all_that_is_known_of_a_build_is_read_back_as_it_was
    as_many_builds_have_a_slot_as_there_are_slots
    a_lease_is_one_holders_until_its_time_is_over_or_it_is_given_back
    a_submission_whose_answer_was_lost_is_accepted_again
    another_build_with_the_same_id_is_refused
    one_key_gives_one_build
    a_key_is_free_again_after_a_day_even_where_it_still_stands_in_the_table
    the_first_of_two_writers_wins_and_the_second_is_told
    a_builds_end_and_its_images_are_written_together_or_not_at_all
    active_builds_are_listed_oldest_first_until_nothing_of_them_is_left
    many_active_builds_come_in_pages
    builds_are_listed_newest_first_by_every_filter_and_in_pages
    images_are_listed_newest_first_by_every_filter_and_in_pages
    a_token_of_our_own_making_is_needed_to_go_on
    a_removed_image_leaves_every_listing_and_may_be_removed_twice
    an_active_build_that_nobody_can_read_hides_no_other
    each_pattern_costs_what_the_design_allows
}

/// moto looks at a condition and writes in two steps, so that two writers at once may both see it hold.
mod on_dynamodb_local_alone {
    use super::{Server, Table};

    #[tokio::test]
    async fn many_submissions_of_one_key_at_once_give_one_build() {
        let table = Table::on(Server::dynamodb_local()).await;
        super::many_submissions_of_one_key_at_once_give_one_build(table).await;
    }

    #[tokio::test]
    async fn many_builds_at_once_never_have_more_slots_than_there_are() {
        let table = Table::on(Server::dynamodb_local()).await;
        super::many_builds_at_once_never_have_more_slots_than_there_are(table).await;
    }

    #[tokio::test]
    async fn of_many_that_want_a_lease_at_once_one_gets_it() {
        let table = Table::on(Server::dynamodb_local()).await;
        super::of_many_that_want_a_lease_at_once_one_gets_it(table).await;
    }
}
