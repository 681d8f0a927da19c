//! EC2's descriptions, always asked for by filter and to the last page.
//!
//! Must never ask by id: one id that is gone would fail the question for all the others.

use std::collections::BTreeSet;
use std::error::Error;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{
    Filter, Image, Instance, KeyPairInfo, LaunchTemplate, LaunchTemplateVersion, SecurityGroup, Snapshot,
    Volume,
};
use ciab_core::ports::PortError;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::call;

/// How many values EC2 takes in one filter.
const VALUES_PER_FILTER: usize = 200;
/// How many questions of one kind are asked at once: EC2 throttles who asks more.
const QUESTIONS_AT_ONCE: usize = 4;
/// What EC2 gives at most in one page.
const PAGE: i32 = 1_000;
const PAGE_OF_LAUNCH_TEMPLATES: i32 = 200;

/// The filters of one call.
pub(super) type Question = Vec<Filter>;

/// The states of an instance that costs something or holds something.
const ALIVE: [&str; 5] = ["pending", "running", "stopping", "stopped", "shutting-down"];

pub(super) fn filter(name: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(Into::into).collect())).build()
}

/// Instances that are not terminated.
pub(super) fn alive() -> Filter {
    filter("instance-state-name", ALIVE)
}

/// Whose attribute `name` has one of the values: one question for each 200 values; none for no values, because EC2 takes a
/// filter without values for no filter at all.
pub(super) fn by(name: &str, values: &BTreeSet<String>) -> Vec<Question> {
    let values: Vec<String> = values.iter().cloned().collect();
    values.chunks(VALUES_PER_FILTER).map(|chunk| vec![filter(name, chunk)]).collect()
}

async fn one_instances(client: &Client, question: Question) -> Result<Vec<Instance>, PortError> {
    let pages = client
        .describe_instances()
        .set_filters(Some(question))
        .into_paginator()
        .page_size(PAGE)
        .items()
        .send();
    let reservations = collected("DescribeInstances", pages.collect::<Result<Vec<_>, _>>().await)?;
    Ok(reservations.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default()).collect())
}

async fn one_volumes(client: &Client, question: Question) -> Result<Vec<Volume>, PortError> {
    let volumes = client.describe_volumes().set_filters(Some(question));
    let pages = volumes.into_paginator().page_size(PAGE).items().send();
    collected("DescribeVolumes", pages.collect().await)
}

async fn one_groups(client: &Client, question: Question) -> Result<Vec<SecurityGroup>, PortError> {
    let groups = client.describe_security_groups().set_filters(Some(question));
    let pages = groups.into_paginator().page_size(PAGE).items().send();
    collected("DescribeSecurityGroups", pages.collect().await)
}

/// The one description that EC2 gives in one piece.
async fn one_key_pairs(client: &Client, question: Question) -> Result<Vec<KeyPairInfo>, PortError> {
    let answer = client.describe_key_pairs().set_filters(Some(question)).send().await;
    collected("DescribeKeyPairs", answer.map(|answer| answer.key_pairs.unwrap_or_default()))
}

/// Images of this account.
async fn one_images(client: &Client, question: Question) -> Result<Vec<Image>, PortError> {
    let images = client.describe_images().owners("self").set_filters(Some(question));
    let pages = images.into_paginator().page_size(PAGE).items().send();
    collected("DescribeImages", pages.collect().await)
}

/// Snapshots of this account.
async fn one_snapshots(client: &Client, question: Question) -> Result<Vec<Snapshot>, PortError> {
    let snapshots = client.describe_snapshots().owner_ids("self").set_filters(Some(question));
    let pages = snapshots.into_paginator().page_size(PAGE).items().send();
    collected("DescribeSnapshots", pages.collect().await)
}

async fn one_launch_templates(client: &Client, question: Question) -> Result<Vec<LaunchTemplate>, PortError> {
    let templates = client.describe_launch_templates().set_filters(Some(question));
    let pages = templates.into_paginator().page_size(PAGE_OF_LAUNCH_TEMPLATES).items().send();
    collected("DescribeLaunchTemplates", pages.collect().await)
}

/// The newest and the default version of every launch template that the question is true of.
async fn one_launch_template_versions(
    client: &Client,
    question: Question,
) -> Result<Vec<LaunchTemplateVersion>, PortError> {
    let versions = client.describe_launch_template_versions().versions("$Latest").versions("$Default");
    let versions = versions.set_filters(Some(question));
    let pages = versions.into_paginator().page_size(PAGE_OF_LAUNCH_TEMPLATES).items().send();
    collected("DescribeLaunchTemplateVersions", pages.collect().await)
}

fn collected<T, E>(
    operation: &'static str,
    answer: Result<Vec<T>, SdkError<E, HttpResponse>>,
) -> Result<Vec<T>, PortError>
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    answer.map_err(|error| call(operation).failed(error))
}

/// `<kind>(client, questions)`: the answers to all of them. One thing may be in several.
macro_rules! each_question {
    ($($all:ident: $one:ident -> $found:ty;)*) => {$(
        pub(super) async fn $all(
            client: &Client,
            questions: Vec<Question>,
        ) -> Result<Vec<$found>, PortError> {
            let asked: Vec<_> = questions.into_iter().map(|question| $one(client, question)).collect();
            let answers: Vec<Vec<$found>> =
                stream::iter(asked).buffered(QUESTIONS_AT_ONCE).try_collect().await?;
            Ok(answers.into_iter().flatten().collect())
        }
    )*};
}

each_question! {
    instances: one_instances -> Instance;
    volumes: one_volumes -> Volume;
    groups: one_groups -> SecurityGroup;
    key_pairs: one_key_pairs -> KeyPairInfo;
    images: one_images -> Image;
    snapshots: one_snapshots -> Snapshot;
    launch_templates: one_launch_templates -> LaunchTemplate;
    launch_template_versions: one_launch_template_versions -> LaunchTemplateVersion;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_no_values_and_many_values_are_asked_for_in_parts() {
        assert!(by("volume-id", &BTreeSet::new()).is_empty());
        let many: BTreeSet<String> = (0..450).map(|number| format!("vol-{number:08x}")).collect();
        let sizes: Vec<usize> =
            by("volume-id", &many).iter().map(|filters| filters[0].values().len()).collect();
        assert_eq!(sizes, [200, 200, 50]);
    }
}
