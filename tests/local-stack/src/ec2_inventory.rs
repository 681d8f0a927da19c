//! What EC2 holds at one moment, to be compared with another: whatever a build leaves behind shows as a difference.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::ec2_api::Ec2Api;

/// A kind of resource, and how to list it.
struct Kind {
    name: &'static str,
    action: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    /// Where the ids are in the answer.
    ids: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "image",
        action: "DescribeImages",
        parameters: &[("Owner.1", "self")],
        ids: "imagesSet/item/imageId",
    },
    Kind {
        name: "snapshot",
        action: "DescribeSnapshots",
        parameters: &[("Owner.1", "self")],
        ids: "snapshotSet/item/snapshotId",
    },
    Kind { name: "volume", action: "DescribeVolumes", parameters: &[], ids: "volumeSet/item/volumeId" },
    Kind {
        name: "security group",
        action: "DescribeSecurityGroups",
        parameters: &[],
        ids: "securityGroupInfo/item/groupId",
    },
    Kind { name: "key pair", action: "DescribeKeyPairs", parameters: &[], ids: "keySet/item/keyName" },
    Kind {
        name: "instance",
        action: "DescribeInstances",
        parameters: &[
            ("Filter.1.Name", "instance-state-name"),
            ("Filter.1.Value.1", "pending"),
            ("Filter.1.Value.2", "running"),
            ("Filter.1.Value.3", "stopping"),
            ("Filter.1.Value.4", "stopped"),
            ("Filter.1.Value.5", "shutting-down"),
        ],
        ids: "reservationSet/item/instancesSet/item/instanceId",
    },
];

/// Every resource that costs something or stands in the way, each as "kind id".
#[derive(Debug, PartialEq, Eq)]
pub struct Inventory(BTreeSet<String>);

impl Inventory {
    /// Asks EC2 for all of it.
    pub fn take(ec2: &Ec2Api) -> Result<Self> {
        let mut found = BTreeSet::new();
        for kind in KINDS {
            let answer = ec2.call(kind.action, kind.parameters)?;
            found.extend(answer.texts(kind.ids).into_iter().map(|id| format!("{} {id}", kind.name)));
        }
        Ok(Self(found))
    }

    /// What is here and was not there before.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }

    /// Whether an image is among it.
    pub fn holds_image(&self, image_id: &str) -> bool {
        self.0.contains(&format!("image {image_id}"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_new_is_a_leftover_and_what_has_gone_is_not() {
        let inventory = |ids: &[&str]| Inventory(ids.iter().map(|id| (*id).to_owned()).collect());
        let before = inventory(&["image a", "key pair k"]);
        let after = inventory(&["key pair k", "volume v"]);
        assert_eq!(after.beyond(&before), ["volume v"]);
    }

    /// Runs where `cargo xtask test` says where moto's server is, and says so where it can't.
    #[test]
    fn what_a_build_would_leave_behind_is_found_in_moto() {
        let Some(server) = std::env::var_os("CIAB_TEST_MOTO_SERVER") else {
            eprintln!("skipped: CIAB_TEST_MOTO_SERVER is not set (cargo xtask test sets it)");
            return;
        };
        let moto = Moto::start(Path::new(&server));
        let ec2 = &moto.ec2;
        let before = Inventory::take(ec2).unwrap();
        let base = ec2.call("DescribeImages", &[]).unwrap().text("imagesSet/item/imageId").unwrap();
        let key = ec2.call("CreateKeyPair", &[("KeyName", "k")]).unwrap().text("keyMaterial").unwrap();
        assert!(key.contains("PRIVATE KEY"));
        let run = [("ImageId", base.as_str()), ("MinCount", "1"), ("MaxCount", "1"), ("KeyName", "k")];
        let instance = ec2.call("RunInstances", &run).unwrap().text("instancesSet/item/instanceId").unwrap();
        let image = [("InstanceId", instance.as_str()), ("Name", "n")];
        let image = ec2.call("CreateImage", &image).unwrap().text("imageId").unwrap();

        let during = Inventory::take(ec2).unwrap();
        let left = during.beyond(&before);
        assert!(during.holds_image(&image) && left.contains(&format!("instance {instance}")), "{left:?}");
        for kind in ["key pair k", "snapshot snap-", "volume vol-"] {
            assert!(left.iter().any(|item| item.starts_with(kind)), "no {kind} in {left:?}");
        }

        ec2.call("TerminateInstances", &[("InstanceId.1", &instance)]).unwrap();
        ec2.call("DeregisterImage", &[("ImageId", &image)]).unwrap();
        ec2.call("DeleteKeyPair", &[("KeyName", "k")]).unwrap();
        let left = Inventory::take(ec2).unwrap().beyond(&before);
        assert!(left.iter().all(|item| item.starts_with("snapshot ")), "{left:?}");
        assert_eq!(left.len(), 1, "only the image's snapshot outlives it: {left:?}");
        assert!(
            ec2.call("DeregisterImage", &[("ImageId", &image)])
                .unwrap_err()
                .to_string()
                .contains("InvalidAMIID")
        );
    }

    struct Moto {
        child: Child,
        ec2: Ec2Api,
    }

    impl Moto {
        fn start(server: &Path) -> Self {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let child = Command::new(server)
                .args(["-H", "127.0.0.1", "-p", &port.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let moto = Self { child, ec2: Ec2Api::new(&format!("http://127.0.0.1:{port}")).unwrap() };
            for _ in 0..300 {
                if moto.ec2.call("DescribeKeyPairs", &[]).is_ok() {
                    return moto;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            panic!("moto's server does not answer");
        }
    }

    impl Drop for Moto {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}
