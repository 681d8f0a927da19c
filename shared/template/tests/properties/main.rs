//! For any template of any form: tagging only adds, adds only where it means to, and adds nothing the second time; and
//! what Packer takes, it takes tagged.

#![expect(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

mod hcl;
mod json;
mod packer;

use std::collections::BTreeMap;

use ciab_template::{PackerVersion, TagOptions};

/// Every Amazon builder, and one that is none.
const KINDS: [&str; 6] =
    ["amazon-ebs", "amazon-ebssurrogate", "amazon-ebsvolume", "amazon-chroot", "amazon-instance", "null"];

/// What tagging may set in a source.
const OURS: [&str; 11] = [
    "run_tags",
    "run_volume_tags",
    "tags",
    "snapshot_tags",
    "root_volume_tags",
    "spot_tags",
    "shutdown_behavior",
    "temporary_key_pair_name",
    "custom_endpoint_ec2",
    "skip_region_validation",
    "skip_metadata_api_check",
];

const TAGS: [(&str, &str); 2] = [("ciab:build-id", "0e7f"), ("ciab:expires-at", "2026-01-01T00:00:00Z")];

fn options(endpoint: bool) -> TagOptions {
    TagOptions {
        tags: TAGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        image_tags: BTreeMap::from([("Our ${own}".to_owned(), "x".to_owned())]),
        packer_version: PackerVersion { major: 1, minor: 11, patch: 0 },
        endpoint: endpoint.then(|| "http://127.0.0.1:9".to_owned()),
        temporary_key_pair_name: Some("ciab-0e7f".to_owned()),
    }
}

/// Whether `whole` is `part` with something added.
fn only_adds(part: &str, whole: &str) -> bool {
    let mut rest = whole.chars();
    part.chars().all(|wanted| rest.any(|character| character == wanted))
}
