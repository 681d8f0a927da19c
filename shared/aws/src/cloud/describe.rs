//! EC2's descriptions, always asked for by filter and to the last page.
//!
//! Must never ask by id: one id that is gone would fail the question for all the others.

use std::collections::BTreeSet;
use std::error::Error;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{Filter, Image, Instance, KeyPairInfo, SecurityGroup, Snapshot, Volume};
use ciab_core::ports::PortError;
use futures::future::try_join_all;

use super::call;

/// How many values EC2 takes in one filter.
const VALUES_PER_FILTER: usize = 200;

/// The states of an instance that costs something or holds something.
const ALIVE: [&str; 5] = ["pending", "running", "stopping", "stopped", "shutting-down"];

pub(super) fn filter(name: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(Into::into).collect())).build()
}

/// One filter for each 200 values; none for no values, because EC2 takes a filter without values for no filter at all.
fn filters(name: &str, values: BTreeSet<String>) -> Vec<Vec<Filter>> {
    let values: Vec<String> = values.into_iter().collect();
    values.chunks(VALUES_PER_FILTER).map(|chunk| vec![filter(name, chunk)]).collect()
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

pub(super) async fn instances(client: &Client, filters: Vec<Filter>) -> Result<Vec<Instance>, PortError> {
    let pages = client
        .describe_instances()
        .set_filters(Some(filters))
        .filters(filter("instance-state-name", ALIVE))
        .into_paginator()
        .items()
        .send();
    let reservations = collected("DescribeInstances", pages.collect::<Result<Vec<_>, _>>().await)?;
    Ok(reservations.into_iter().flat_map(|reservation| reservation.instances.unwrap_or_default()).collect())
}

pub(super) async fn volumes(client: &Client, filters: Vec<Filter>) -> Result<Vec<Volume>, PortError> {
    let pages = client.describe_volumes().set_filters(Some(filters)).into_paginator().items().send();
    collected("DescribeVolumes", pages.collect().await)
}

pub(super) async fn groups(client: &Client, filters: Vec<Filter>) -> Result<Vec<SecurityGroup>, PortError> {
    let pages = client.describe_security_groups().set_filters(Some(filters)).into_paginator().items().send();
    collected("DescribeSecurityGroups", pages.collect().await)
}

/// The one description that EC2 gives in one piece.
pub(super) async fn key_pairs(client: &Client, filters: Vec<Filter>) -> Result<Vec<KeyPairInfo>, PortError> {
    let answer = client
        .describe_key_pairs()
        .set_filters(Some(filters))
        .send()
        .await
        .map_err(|error| call("DescribeKeyPairs").failed(error))?;
    Ok(answer.key_pairs.unwrap_or_default())
}

/// Images of this account.
pub(super) async fn images(client: &Client, filters: Vec<Filter>) -> Result<Vec<Image>, PortError> {
    let pages =
        client.describe_images().owners("self").set_filters(Some(filters)).into_paginator().items().send();
    collected("DescribeImages", pages.collect().await)
}

/// Snapshots of this account.
pub(super) async fn snapshots(client: &Client, filters: Vec<Filter>) -> Result<Vec<Snapshot>, PortError> {
    let pages = client
        .describe_snapshots()
        .owner_ids("self")
        .set_filters(Some(filters))
        .into_paginator()
        .items()
        .send();
    collected("DescribeSnapshots", pages.collect().await)
}

/// `<kind>_by(client, name, values)`: all whose attribute `name` has one of the values; nothing is asked for no values.
macro_rules! by_values {
    ($($by:ident: $describe:ident -> $found:ty;)*) => {$(
        pub(super) async fn $by(
            client: &Client,
            name: &str,
            values: BTreeSet<String>,
        ) -> Result<Vec<$found>, PortError> {
            let asked = filters(name, values).into_iter().map(|filters| $describe(client, filters));
            Ok(try_join_all(asked).await?.into_iter().flatten().collect())
        }
    )*};
}

by_values! {
    instances_by: instances -> Instance;
    volumes_by: volumes -> Volume;
    groups_by: groups -> SecurityGroup;
    key_pairs_by: key_pairs -> KeyPairInfo;
    images_by: images -> Image;
    snapshots_by: snapshots -> Snapshot;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_no_values_and_many_values_are_asked_for_in_parts() {
        assert!(filters("volume-id", BTreeSet::new()).is_empty());
        let many: BTreeSet<String> = (0..450).map(|number| format!("vol-{number:08x}")).collect();
        let sizes: Vec<usize> =
            filters("volume-id", many).iter().map(|filters| filters[0].values().len()).collect();
        assert_eq!(sizes, [200, 200, 50]);
    }
}
