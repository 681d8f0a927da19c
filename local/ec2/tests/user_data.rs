//! What an instance does by itself: runs its user data, switches itself off, and all that as a launch template says.

mod support;

use std::{path::PathBuf, time::Duration};

use support::{Stack, base64, call_service, eventually, only, text, texts};

const SOON: Duration = Duration::from_secs(10);

const TEMPLATE: &str = "test-template";

fn user_data(script: &str) -> String {
    base64(script.as_bytes())
}

/// A launch template of the base image, as the runner's is made.
fn make_launch_template(stack: &Stack, script: &str) {
    let image = stack.base_image();
    let script = user_data(script);
    let group = stack.call("CreateSecurityGroup", &[("GroupName", "runner"), ("GroupDescription", "runner")]);
    let group = only(&group, "groupId");
    let profile = call_service(
        &stack.moto_endpoint,
        ("iam", "2010-05-08"),
        "us-east-1",
        "CreateInstanceProfile",
        &[("InstanceProfileName", "runner")],
    );
    assert_eq!(profile.0, 200, "{}", text(&profile.1));
    let profile = only(&profile.1, "Arn");
    let data = [
        ("ImageId", image.as_str()),
        ("InstanceType", "t3.small"),
        ("UserData", script.as_str()),
        ("IamInstanceProfile.Arn", profile.as_str()),
        ("SecurityGroupId.1", group.as_str()),
        ("InstanceInitiatedShutdownBehavior", "terminate"),
        ("MetadataOptions.HttpTokens", "required"),
        ("BlockDeviceMapping.1.DeviceName", "/dev/sda1"),
        ("BlockDeviceMapping.1.Ebs.VolumeSize", "9"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "from"),
        ("TagSpecification.1.Tag.1.Value", "template"),
        ("TagSpecification.2.ResourceType", "volume"),
        ("TagSpecification.2.Tag.1.Key", "from"),
        ("TagSpecification.2.Tag.1.Value", "template"),
    ];
    let named: Vec<(String, &str)> =
        data.iter().map(|(name, value)| (format!("LaunchTemplateData.{name}"), *value)).collect();
    let mut parameters: Vec<(&str, &str)> =
        named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    parameters.push(("LaunchTemplateName", TEMPLATE));
    stack.call("CreateLaunchTemplate", &parameters);
}

/// Launches one instance from the template; its id.
fn launch(stack: &Stack, more: &[(&str, &str)]) -> String {
    let parameters = [
        ("LaunchTemplate.LaunchTemplateName", TEMPLATE),
        ("LaunchTemplate.Version", "$Latest"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
    ];
    only(&stack.call("RunInstances", &[&parameters[..], more].concat()), "instanceId")
}

#[test]
fn user_data_runs_once_as_root_at_the_first_boot() {
    let stack = Stack::start();
    let script = "#!/bin/sh\nid -un >>/root/ran\necho $PPID >>/root/ran\n";
    let (instance, address) = stack.run_instance(&stack.base_image(), &[("UserData", &user_data(script))]);
    let ran = || stack.ssh(&address, "sudo cat /root/ran").stdout;
    assert!(eventually(SOON, || ran().ends_with(b"root\n1\n")), "{:?}", ran());
    stack.call("StopInstances", &[("InstanceId.1", &instance)]);
    assert!(eventually(SOON, || stack.state_of(&instance) == "stopped"));
    stack.call("StartInstances", &[("InstanceId.1", &instance)]);
    assert_eq!(stack.output_of(&address, "sudo cat /root/ran"), "root\n1");
    assert_eq!(stack.output_of(&address, "ls /run/user-data 2>/dev/null || echo none"), "none");
}

#[test]
fn an_instance_that_switches_itself_off_stops_or_terminates_as_its_launch_said() {
    let stack = Stack::start();
    let image = stack.base_image();
    for command in ["shutdown -h now", "poweroff", "kill -TERM 1"] {
        for (behavior, state) in [("stop", "stopped"), ("terminate", "terminated")] {
            let script = user_data(&format!("#!/bin/sh\n{command}\n"));
            let how = [("InstanceInitiatedShutdownBehavior", behavior), ("UserData", script.as_str())];
            let (instance, _) = stack.run_instance(&image, &how);
            assert!(eventually(SOON, || stack.state_of(&instance) == state), "{command}: {behavior}");
            assert!(stack.launchers().is_empty(), "{command}: {behavior}");
        }
    }
}

#[test]
fn a_switch_off_at_another_time_than_now_is_refused_and_changes_nothing() {
    let stack = Stack::start();
    let (instance, address) = stack.run_instance(&stack.base_image(), &[]);
    let output = stack.ssh(&address, "sudo shutdown -h +5");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("+5"), "{output:?}");
    assert_eq!(stack.state_of(&instance), "running");
}

#[test]
fn what_a_launch_template_says_holds_and_what_the_call_says_wins() {
    let stack = Stack::start();
    make_launch_template(&stack, "#!/bin/sh\nshutdown -h now\n");
    let instance = launch(&stack, &[("InstanceType", "t3.large")]);
    assert!(eventually(SOON, || stack.state_of(&instance) == "terminated"));

    let instance = launch(&stack, &[("UserData", &user_data("#!/bin/sh\ntrue\n"))]);
    let described = stack.call("DescribeInstances", &[("InstanceId.1", &instance)]);
    assert_eq!(only(&described, "instanceType"), "t3.small");
    assert_eq!(texts(&described, "httpTokens"), ["required"]);
    let mut groups = texts(&described, "groupName");
    groups.retain(|group| !group.is_empty());
    assert!(!groups.is_empty() && groups.iter().all(|group| group == "runner"), "{groups:?}");
    let filter = [("Filter.1.Name", "attachment.instance-id"), ("Filter.1.Value.1", instance.as_str())];
    let volumes = stack.call("DescribeVolumes", &filter);
    assert_eq!(only(&volumes, "size"), "9", "one volume: {}", text(&volumes));
    for of in [&described, &volumes] {
        assert!(text(of).contains("<key>from</key><value>template</value>"), "{}", text(of));
    }
    assert_eq!(
        stack.state_of(&instance),
        "running",
        "the call's own user data is run, and not the template's"
    );
    stack.terminate(&instance);
    assert!(texts(&stack.call("DescribeVolumes", &[]), "volumeId").is_empty(), "the root volume goes too");
}

#[test]
fn a_launch_template_that_is_not_there_is_ec2s_own_error() {
    let stack = Stack::without_bodies();
    let parameters = [("LaunchTemplate.LaunchTemplateName", "none"), ("MinCount", "1"), ("MaxCount", "1")];
    let (status, error) = stack.try_call("RunInstances", &parameters);
    assert_eq!((status, only(&error, "Code").as_str()), (400, "InvalidLaunchTemplateName.NotFoundException"));
}

#[test]
fn only_an_instance_with_a_profile_finds_what_the_profile_gives() {
    let consoles = tempfile::tempdir().unwrap();
    let program = consoles.path().join("greet");
    std::fs::write(&program, "#!/bin/sh\necho \"greeted $1\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let folder = consoles.path().display().to_string();
    let stack = Stack::start_with_arguments(&[
        "--consoles",
        &folder,
        "--profile-environment",
        "GREETED=user data",
        "--profile-programs",
        &program.display().to_string(),
    ]);
    let script = "#!/bin/sh\n/run/host/greet \"${GREETED:-nobody}\"; echo x >>/run/host/greet; echo end\nshutdown -h now\n";
    make_launch_template(&stack, script);
    let with = launch(&stack, &[]);
    let (without, _) = stack.run_instance(
        &stack.base_image(),
        &[("UserData", &user_data(script)), ("InstanceInitiatedShutdownBehavior", "terminate")],
    );
    let console = |instance: &str| {
        let path: PathBuf = consoles.path().join(format!("{instance}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    };
    for instance in [&with, &without] {
        assert!(eventually(SOON, || stack.state_of(instance) == "terminated"), "{}", console(instance));
        assert!(
            console(instance).contains("end"),
            "the console outlives its instance: {}",
            console(instance)
        );
    }
    assert!(console(&with).contains("greeted user data"), "{}", console(&with));
    assert!(!console(&without).contains("greeted"), "{}", console(&without));
    assert!(
        !std::fs::read_to_string(&program).unwrap().ends_with("x\n"),
        "the machine's program is read-only"
    );
}
