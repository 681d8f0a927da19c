//! Instances with a body: real processes, real SSH, real Packer.

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Stack, eventually, find, only, text, texts};

const SOON: Duration = Duration::from_secs(10);

const TEMPLATE: &str = r#"
source "amazon-ebs" "agent" {
  region                  = "us-east-1"
  custom_endpoint_ec2     = "ENDPOINT"
  skip_region_validation  = true
  skip_metadata_api_check = true
  ami_name                = "agent"
  instance_type           = "t3.micro"
  ssh_username            = "ubuntu"
  tags                    = { made = "by packer" }
  snapshot_tags           = { kept = "by packer" }
  source_ami_filter {
    filters = {
      name                = "ubuntu/images/*ubuntu-jammy-22.04-amd64-server-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
    most_recent = true
    owners      = ["099720109477"]
  }
}
build {
  sources = ["source.amazon-ebs.agent"]
  provisioner "shell" { inline = [PROVISION] }
}
"#;

fn template(provision: &str) -> String {
    TEMPLATE.replace("PROVISION", &format!("{provision:?}"))
}

/// Nothing of a build or an instance is left, in the API or on the machine.
fn assert_nothing_left(stack: &Stack) {
    let left = |action: &str, list: &str, parameters: &[(&str, &str)]| {
        let root = stack.call(action, parameters);
        let items = root.get_child(list).map(|list| list.children.len()).unwrap_or_default();
        assert_eq!(items, 0, "{}", text(&root));
    };
    left("DescribeImages", "imagesSet", &[("Owner.1", "self")]);
    left("DescribeSnapshots", "snapshotSet", &[("Owner.1", "self")]);
    left("DescribeVolumes", "volumeSet", &[]);
    left("DescribeNetworkInterfaces", "networkInterfaceSet", &[]);
    let gone = eventually(SOON, || {
        stack.launchers().is_empty()
            && stack.files_in("instances").is_empty()
            && stack.files_in("layers").is_empty()
            && stack.processes_with_our_mounts().is_empty()
    });
    let (instances, layers) = (stack.files_in("instances"), stack.files_in("layers"));
    assert!(gone, "{:?} {instances:?} {layers:?} {:?}", stack.launchers(), stack.processes_with_our_mounts());
}

#[test]
fn packer_builds_an_image_that_boots_again_and_leaves_nothing_when_deleted() {
    let stack = Stack::start();
    let output = stack.packer(&template("echo agent | sudo tee /etc/agent; uname -n")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let image = stack.call("DescribeImages", &[("Owner.1", "self")]);
    let (id, snapshot) = (only(&image, "imageId"), only(&image, "snapshotId"));
    assert_eq!(only(&image, "rootDeviceType"), "ebs");
    assert_eq!(texts(find(&image, "tagSet")[0], "value"), ["by packer"]);
    let described = stack.call("DescribeSnapshots", &[("SnapshotId.1", &snapshot)]);
    let source = only(&image, "sourceInstanceId");
    assert_eq!(only(&described, "description"), format!("Created by CreateImage({source}) for {id}"));

    let (instance, address) = stack.run_instance(&id, &[]);
    assert_eq!(stack.output_of(&address, "cat /etc/agent"), "agent");
    stack.terminate(&instance);
    assert_eq!(stack.state_of(&instance), "terminated");

    stack.call("DeregisterImage", &[("ImageId", &id)]);
    assert_eq!(stack.files_in("layers").len(), 1, "the snapshot still needs the layer");
    stack.call("DeleteSnapshot", &[("SnapshotId", &snapshot)]);
    assert_nothing_left(&stack);
    let (status, error) = stack.try_call("DescribeImages", &[("ImageId.1", &id)]);
    assert_eq!((status, only(&error, "Code").as_str()), (400, "InvalidAMIID.NotFound"));
}

#[test]
fn an_instance_is_reached_on_loopback_with_its_launch_key() {
    let stack = Stack::start();
    let image = stack.base_image();
    let (instance, address) = stack.run_instance(&image, &[]);
    let hostname = stack.output_of(&address, "sudo hostname");
    assert_eq!(hostname, format!("ip-{}", address.replace('.', "-")));

    let described = text(&stack.call("DescribeInstances", &[("InstanceId.1", &instance)]));
    let interfaces = text(&stack.call("DescribeNetworkInterfaces", &[]));
    for invented in [">10.", ">54.", "-54-214-", "ip-10-", "amazonaws.com<", ".internal<"] {
        assert!(!described.contains(invented) && !interfaces.contains(invented), "{described} {interfaces}");
    }
    stack.terminate(&instance);
    assert_nothing_left(&stack);
}

#[test]
fn an_instance_can_change_nothing_of_the_machine() {
    let stack = Stack::start();
    let (_, address) = stack.run_instance(&stack.base_image(), &[]);
    for attempt in [
        "echo x > /proc/sys/kernel/domainname",
        "mount -t tmpfs none /mnt",
        "mknod /dev/disk b 254 0",
        "date -s 2001-01-01",
    ] {
        let output = stack.ssh(&address, &format!("sudo sh -c '{attempt}'"));
        assert!(!output.status.success(), "{attempt} worked");
    }
    let init = stack.output_of(&address, "tr '\\0' ' ' </proc/1/cmdline");
    assert!(init.contains("ciab-instance-init"), "process 1 is the instance's own, not {init}");
}

#[test]
fn what_an_instance_wrote_is_there_after_stop_start_and_reboot() {
    let stack = Stack::start();
    let (instance, address) = stack.run_instance(&stack.base_image(), &[]);
    stack.output_of(&address, "echo kept | sudo tee /etc/kept");
    stack.call("StopInstances", &[("InstanceId.1", &instance)]);
    assert!(eventually(SOON, || stack.state_of(&instance) == "stopped"));
    assert!(stack.launchers().is_empty());
    stack.call("StartInstances", &[("InstanceId.1", &instance)]);
    assert_eq!(stack.output_of(&address, "cat /etc/kept"), "kept");
    let before = stack.output_of(&address, "stat -c %Y /run");
    stack.call("RebootInstances", &[("InstanceId.1", &instance)]);
    let rebooted = || {
        let after = stack.ssh(&address, "stat -c %Y /run; cat /etc/kept");
        let said = String::from_utf8(after.stdout).unwrap();
        after.status.success() && said.contains("kept") && !said.contains(&before)
    };
    assert!(eventually(SOON, rebooted));
    stack.terminate(&instance);
    for action in ["StartInstances", "StopInstances", "RebootInstances"] {
        let (status, error) = stack.try_call(action, &[("InstanceId.1", &instance)]);
        assert_eq!((status, only(&error, "Code").as_str()), (400, "IncorrectInstanceState"));
    }
    assert_nothing_left(&stack);
}

#[test]
fn an_instance_shut_down_from_within_stops_or_terminates_as_its_launch_said() {
    let stack = Stack::start();
    let image = stack.base_image();
    for (behavior, state) in [("stop", "stopped"), ("terminate", "terminated")] {
        let (instance, address) =
            stack.run_instance(&image, &[("InstanceInitiatedShutdownBehavior", behavior)]);
        stack.ssh(&address, "sudo kill -TERM 1");
        assert!(eventually(SOON, || stack.state_of(&instance) == state), "{behavior}");
        if state == "stopped" {
            stack.terminate(&instance);
        }
    }
    assert_nothing_left(&stack);
}

#[test]
fn an_image_can_be_made_of_a_running_instance_with_and_without_reboot() {
    let stack = Stack::start();
    let (instance, address) = stack.run_instance(&stack.base_image(), &[]);
    // A deletion and a renamed folder of the base are the hard parts for a layer.
    let change = "sudo rm /etc/issue; sudo mv /usr/share/zoneinfo/Etc /usr/share/zoneinfo/Moved; echo kept | sudo tee /etc/kept";
    stack.output_of(&address, change);
    let check = "test ! -e /etc/issue && test -e /usr/share/zoneinfo/Moved/UTC && test ! -e /usr/share/zoneinfo/Etc && cat /etc/kept";
    for no_reboot in ["true", "false"] {
        let parameters = [("InstanceId", instance.as_str()), ("Name", no_reboot), ("NoReboot", no_reboot)];
        let image = only(&stack.call("CreateImage", &parameters), "imageId");
        assert!(eventually(SOON, || stack.ssh(&address, "true").status.success()), "the instance goes on");
        assert_eq!(stack.output_of(&address, check), "kept");
        let (copy, copy_address) = stack.run_instance(&image, &[]);
        assert_eq!(stack.output_of(&copy_address, check), "kept", "NoReboot={no_reboot}");
        stack.terminate(&copy);
        stack.call("DeregisterImage", &[("ImageId", &image), ("DeleteAssociatedSnapshots", "true")]);
    }
    stack.terminate(&instance);
    assert_nothing_left(&stack);
}

#[test]
fn an_image_of_an_image_and_a_copy_in_another_region_outlive_their_source() {
    let stack = Stack::start();
    let (instance, address) = stack.run_instance(&stack.base_image(), &[]);
    stack.output_of(&address, "echo one | sudo tee /etc/one");
    let first = only(&stack.call("CreateImage", &[("InstanceId", &instance), ("Name", "first")]), "imageId");
    stack.terminate(&instance);

    let (instance, address) = stack.run_instance(&first, &[]);
    stack.output_of(&address, "echo two | sudo tee /etc/two");
    let second =
        only(&stack.call("CreateImage", &[("InstanceId", &instance), ("Name", "second")]), "imageId");
    stack.terminate(&instance);
    let copy = [("SourceImageId", second.as_str()), ("SourceRegion", "us-east-1"), ("Name", "copy")];
    let (status, copied) = support::call(&stack.endpoint, "eu-west-1", "CopyImage", &copy);
    assert_eq!(status, 200, "{}", text(&copied));
    let copied = only(&copied, "imageId");

    stack.call("DeregisterImage", &[("ImageId", &first), ("DeleteAssociatedSnapshots", "true")]);
    let (instance, address) = stack.run_instance(&second, &[]);
    assert_eq!(stack.output_of(&address, "cat /etc/one /etc/two"), "one\ntwo");
    stack.terminate(&instance);
    stack.call("DeregisterImage", &[("ImageId", &second), ("DeleteAssociatedSnapshots", "true")]);
    assert_eq!(stack.files_in("layers").len(), 2, "the copy needs both layers");
    let deregister = [("ImageId", copied.as_str()), ("DeleteAssociatedSnapshots", "true")];
    support::call(&stack.endpoint, "eu-west-1", "DeregisterImage", &deregister);
    assert_nothing_left(&stack);
}

#[test]
fn the_launch_key_opens_the_user_that_an_image_brings_along_too() {
    let stack = Stack::start();
    let (instance, address) = stack.run_instance(&stack.base_image(), &[]);
    assert!(!stack.ssh_as("ciab", &address, "true").status.success());
    stack.output_of(
        &address,
        "sudo useradd --create-home --shell /bin/bash ciab && rm ~/.ssh/authorized_keys",
    );
    let image = only(&stack.call("CreateImage", &[("InstanceId", &instance), ("Name", "users")]), "imageId");
    let (_, address) = stack.run_instance(&image, &[]);
    for user in ["ubuntu", "ciab"] {
        let output = stack.ssh_as(user, &address, "sudo id -u");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{user}");
    }
}

#[test]
fn a_killed_host_leaves_no_process_and_no_mount() {
    let mut stack = Stack::start_in_block(200);
    let (_, address) = stack.run_instance(&stack.base_image(), &[]);
    stack.output_of(&address, "sudo setsid sh -c 'sleep 600 & sleep 601' >/dev/null 2>&1 </dev/null &");
    let launchers = stack.launchers();
    assert_eq!(launchers.len(), 1);
    assert!(!stack.processes_with_our_mounts().is_empty());
    stack.end_edge(Signal::SIGKILL);
    let gone = eventually(SOON, || {
        stack.processes_with_our_mounts().is_empty()
            && !std::path::Path::new(&format!("/proc/{}", launchers[0])).exists()
    });
    assert!(gone, "{:?}", stack.processes_with_our_mounts());
    assert!(std::net::TcpStream::connect((address.as_str(), 22)).is_err());
}

#[test]
fn a_stack_that_is_stopped_leaves_nothing_at_all() {
    let mut stack = Stack::start();
    let (instance, _) = stack.run_instance(&stack.base_image(), &[]);
    stack.call("CreateImage", &[("InstanceId", &instance), ("Name", "kept until the end")]);
    stack.end_edge(Signal::SIGTERM);
    assert!(stack.processes_with_our_mounts().is_empty());
    assert!(!stack.work_dir().exists());
}

#[test]
fn two_stacks_live_side_by_side() {
    let (one, other) = (Stack::start(), Stack::start());
    let (_, first) = one.run_instance(&one.base_image(), &[]);
    let (_, second) = other.run_instance(&other.base_image(), &[]);
    assert_ne!(first.split('.').nth(1), second.split('.').nth(1), "{first} {second}");
    one.output_of(&first, "echo one | sudo tee /etc/which");
    other.output_of(&second, "echo other | sudo tee /etc/which");
    assert_eq!(one.output_of(&first, "cat /etc/which"), "one");
    assert_eq!(other.output_of(&second, "cat /etc/which"), "other");
}

#[test]
fn an_instance_whose_packer_was_killed_can_be_terminated() {
    use std::os::unix::process::CommandExt;
    let stack = Stack::start();
    let mut packer = stack
        .packer(&template("echo begun | sudo tee /etc/begun; sleep 600"))
        .process_group(0)
        .spawn()
        .unwrap();
    let has_begun = || {
        let files = stack.files_in("instances");
        files.iter().any(|instance| {
            stack.work_dir().join("instances").join(instance).join("upper/etc/begun").exists()
        })
    };
    assert!(eventually(SOON * 2, has_begun), "Packer provisions");
    let instances = stack.call("DescribeInstances", &[]);
    let id = find(&instances, "instancesSet")
        .iter()
        .filter(|set| text(set).contains("<name>running</name>"))
        .find_map(|set| texts(set, "instanceId").pop())
        .unwrap();
    // The whole group: Packer is a tree of processes.
    let group = nix::unistd::Pid::from_raw(i32::try_from(packer.id()).unwrap());
    nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
    packer.wait().unwrap();
    assert_eq!(stack.state_of(&id), "running");
    stack.terminate(&id);
    assert_eq!(stack.state_of(&id), "terminated");
    assert_nothing_left(&stack);
}
