//! The machine images a build can start from on one machine.
//!
//! They carry the names that templates look for, and say in their descriptions what they really are.

use std::path::Path;

use serde_json::{Value, json};

/// Canonical's account, which templates give as the owner of Ubuntu's images.
const CANONICAL: &str = "099720109477";

struct BaseImage {
    id: &'static str,
    /// As EC2 names it.
    architecture: &'static str,
    /// As Ubuntu and Debian name it.
    debian_architecture: &'static str,
}

const BASE_IMAGES: [BaseImage; 2] = [
    BaseImage { id: "ami-0c1ab22040000a64d", architecture: "x86_64", debian_architecture: "amd64" },
    BaseImage { id: "ami-0c1ab22040000a64a", architecture: "arm64", debian_architecture: "arm64" },
];

/// The list for moto's `MOTO_AMIS_PATH`.
pub(crate) fn list(root_filesystem: Option<&Path>) -> Value {
    let what =
        root_filesystem.map_or_else(|| "nothing: instances exist in the API only".to_owned(), pretty_name);
    let image = |image: &BaseImage| {
        let architecture = image.debian_architecture;
        json!({
            "ami_id": image.id,
            "name": format!("ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{architecture}-server-20260101"),
            "description":
                format!("ciab-local's stand-in for Ubuntu 22.04 LTS ({architecture}), not Ubuntu itself: boots {what}"),
            "owner_id": CANONICAL,
            "public": true,
            "state": "available",
            "creation_date": "2026-01-01T00:00:00.000Z",
            "architecture": image.architecture,
            "virtualization_type": "hvm",
            "hypervisor": "xen",
            "image_type": "machine",
            "image_location": format!("amazon/ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{architecture}-server-20260101"),
            "root_device_name": "/dev/sda1",
            "root_device_type": "ebs",
            "platform": null,
            "sriov": "simple",
        })
    };
    Value::Array(BASE_IMAGES.iter().map(image).collect())
}

/// The base image of this machine's architecture.
pub(crate) fn of_this_machine() -> Option<&'static str> {
    let architecture = architecture_of_this_machine();
    BASE_IMAGES.iter().find(|base| base.architecture == architecture).map(|base| base.id)
}

/// The architecture of a base image, as EC2 names it; `None` if the image is none of ours.
pub(crate) fn architecture_of(image: &str) -> Option<&'static str> {
    BASE_IMAGES.iter().find(|base| base.id == image).map(|base| base.architecture)
}

/// This machine's architecture, as EC2 names it.
pub(crate) fn architecture_of_this_machine() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { std::env::consts::ARCH }
}

/// What a root file system calls itself.
fn pretty_name(root: &Path) -> String {
    std::fs::read_to_string(root.join("usr/lib/os-release"))
        .or_else(|_| std::fs::read_to_string(root.join("etc/os-release")))
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
            Some(line.trim_matches('"').to_owned())
        })
        .unwrap_or_else(|| "an unnamed root file system".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_image_has_ubuntus_name_and_says_what_it_is() {
        let list = list(None);
        assert_eq!(list[0]["name"], "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20260101");
        assert_eq!(list[0]["owner_id"], "099720109477");
        assert!(list[0]["description"].as_str().unwrap().contains("stand-in"));
        assert_eq!(architecture_of(list[1]["ami_id"].as_str().unwrap()), Some("arm64"));
    }
}
