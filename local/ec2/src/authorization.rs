//! What has to be known of EC2 to judge whether a call is allowed: what a launch really asks for, and whose tags a thing has.
//!
//! Must never decide: it tells, and who asks judges.

use std::collections::BTreeMap;

use crate::{
    Ec2,
    answer::{items, text_at},
    moto::{Caller, MotoError},
    query::Query,
};

impl Ec2 {
    /// A RunInstances call with what its launch template adds, and the template's id if it names one. A template that is not
    /// there adds nothing: the call fails by itself.
    pub async fn launched(&self, region: &str, mut call: Query) -> (Query, Option<String>) {
        let template = self.service.apply_launch_template(&Caller::in_region(region), &mut call).await;
        (call, template.unwrap_or_default())
    }

    /// The tags of a thing; none for what does not exist. A key pair and a launch template may be named by their names.
    pub async fn tags(&self, region: &str, kind: &str, id: &str) -> BTreeMap<String, String> {
        let found = match kind {
            "key-pair" if !id.starts_with("key-") => {
                self.tags_in(region, "DescribeKeyPairs", ("KeyName.1", id), "keySet").await
            }
            "launch-template" if !id.starts_with("lt-") => {
                self.tags_in(
                    region,
                    "DescribeLaunchTemplates",
                    ("LaunchTemplateName.1", id),
                    "launchTemplates",
                )
                .await
            }
            _ => self.described_tags(region, id).await,
        };
        found.unwrap_or_default()
    }

    async fn tags_in(
        &self,
        region: &str,
        action: &str,
        (name, id): (&str, &str),
        list: &str,
    ) -> Result<BTreeMap<String, String>, MotoError> {
        let root =
            self.service.moto.call(&Caller::in_region(region), &Query::new(action).with(name, id)).await?;
        Ok(items(&root, list).iter().flat_map(|item| items(item, "tagSet")).filter_map(tag).collect())
    }

    async fn described_tags(&self, region: &str, id: &str) -> Result<BTreeMap<String, String>, MotoError> {
        let question =
            Query::new("DescribeTags").with("Filter.1.Name", "resource-id").with("Filter.1.Value.1", id);
        let root = self.service.moto.call(&Caller::in_region(region), &question).await?;
        Ok(items(&root, "tagSet").into_iter().filter_map(tag).collect())
    }
}

fn tag(item: &xmltree::Element) -> Option<(String, String)> {
    Some((text_at(item, &["key"])?, text_at(item, &["value"]).unwrap_or_default()))
}
