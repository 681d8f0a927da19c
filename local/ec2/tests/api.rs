//! Where moto differs from EC2, and what is seen of instances that exist in the API only.

mod support;

use support::{KEY_NAME, Stack, find, only, text, texts};

#[test]
fn a_machine_that_cannot_host_instances_marks_its_images_as_not_provisioned() {
    let stack = Stack::without_bodies();
    let (instance, address) = stack.run_instance(&stack.base_image(), &[]);
    assert!(address.starts_with("127."), "{address}");
    assert_eq!(stack.state_of(&instance), "running");
    stack.call("StopInstances", &[("InstanceId.1", &instance)]);
    let image = only(&stack.call("CreateImage", &[("InstanceId", &instance), ("Name", "hollow")]), "imageId");
    let described = stack.call("DescribeImages", &[("ImageId.1", &image)]);
    let tags = find(&described, "tagSet")[0];
    assert_eq!((only(tags, "key").as_str(), only(tags, "value").as_str()), ("ciab:provisioned", "false"));
    stack.terminate(&instance);
    assert_eq!(stack.state_of(&instance), "terminated");
}

#[test]
fn the_same_client_token_gives_the_same_instance_and_never_a_second_one() {
    let stack = Stack::without_bodies();
    let image = stack.base_image();
    let (first, _) = stack.run_instance(&image, &[("ClientToken", "once")]);
    let (again, _) = stack.run_instance(&image, &[("ClientToken", "once")]);
    assert_eq!(first, again);
    let (other, _) = stack.run_instance(&image, &[("ClientToken", "twice")]);
    assert_ne!(first, other);
    let parameters =
        [("ImageId", image.as_str()), ("MinCount", "2"), ("MaxCount", "2"), ("ClientToken", "once")];
    let (status, error) = stack.try_call("RunInstances", &parameters);
    assert_eq!((status, only(&error, "Code").as_str()), (400, "IdempotentParameterMismatch"));
    assert_eq!(texts(&stack.call("DescribeInstances", &[]), "reservationId").len(), 2);
}

#[test]
fn an_unknown_key_pair_launches_nothing() {
    let stack = Stack::without_bodies();
    let image = stack.base_image();
    let parameters =
        [("ImageId", image.as_str()), ("MinCount", "1"), ("MaxCount", "1"), ("KeyName", "no such")];
    let (status, error) = stack.try_call("RunInstances", &parameters);
    assert_eq!((status, only(&error, "Code").as_str()), (400, "InvalidKeyPair.NotFound"));
    assert!(texts(&stack.call("DescribeInstances", &[]), "instanceId").is_empty());
}

#[test]
fn tags_given_at_creation_are_on_everything_created() {
    let stack = Stack::without_bodies();
    let image = stack.base_image();
    let tags = |number: u8, kind: &str| {
        let name = |field: &str| format!("TagSpecification.{number}.{field}");
        vec![
            (name("ResourceType"), kind.to_owned()),
            (name("Tag.1.Key"), "build".to_owned()),
            (name("Tag.1.Value"), kind.to_owned()),
        ]
    };
    let call = |action: &str, plain: &[(&str, &str)], kinds: &[&str]| {
        let owned: Vec<_> = (1..).zip(kinds).flat_map(|(number, kind)| tags(number, kind)).collect();
        let tagged = owned.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        stack.call(action, &plain.iter().copied().chain(tagged).collect::<Vec<_>>())
    };
    let group = [("GroupName", "group"), ("GroupDescription", "a group")];
    call("CreateSecurityGroup", &group, &["security-group"]);
    call("CreateKeyPair", &[("KeyName", "pair")], &["key-pair"]);
    let launch = [("ImageId", image.as_str()), ("MinCount", "1"), ("MaxCount", "1"), ("KeyName", KEY_NAME)];
    let instance = only(&call("RunInstances", &launch, &["instance", "volume"]), "instanceId");
    let create = [("InstanceId", instance.as_str()), ("Name", "tagged")];
    let made = only(&call("CreateImage", &create, &["image", "snapshot"]), "imageId");
    let copy = [("SourceImageId", made.as_str()), ("SourceRegion", "us-east-1"), ("Name", "copied")];
    call("CopyImage", &copy, &["image", "snapshot"]);

    let described = stack.call("DescribeTags", &[("Filter.1.Name", "key"), ("Filter.1.Value.1", "build")]);
    let mut kinds = texts(&described, "resourceType");
    kinds.sort();
    let expected =
        ["image", "image", "instance", "key-pair", "security-group", "snapshot", "snapshot", "volume"];
    assert_eq!(kinds, expected, "{}", text(&described));
}

#[test]
fn an_image_tells_what_it_comes_from_and_is_found_by_it() {
    let stack = Stack::without_bodies();
    let base = stack.base_image();
    let (instance, _) = stack.run_instance(&base, &[]);
    let made = only(&stack.call("CreateImage", &[("InstanceId", &instance), ("Name", "made")]), "imageId");
    let copy = [("SourceImageId", made.as_str()), ("SourceRegion", "us-east-1"), ("Name", "copied")];
    let copied = only(&stack.call("CopyImage", &copy), "imageId");
    for (source, image) in [(&base, &made), (&made, &copied)] {
        let by_source = [("Filter.1.Name", "source-image-id"), ("Filter.1.Value.1", source.as_str())];
        let found = stack.call("DescribeImages", &by_source);
        assert_eq!(only(&found, "imageId"), *image);
        assert_eq!(only(&found, "sourceImageId"), *source);
        assert_eq!(only(&found, "sourceImageRegion"), "us-east-1");
    }
    let snapshots = stack.call("DescribeSnapshots", &[("Owner.1", "self")]);
    let said = format!("Copied for DestinationAmi {copied} from SourceAmi {made} for SourceSnapshot snap-");
    let descriptions = texts(&snapshots, "description");
    assert_eq!(descriptions.iter().filter(|text| text.starts_with(&said)).count(), 1, "{descriptions:?}");
}

#[test]
fn an_image_name_is_taken_once() {
    let stack = Stack::without_bodies();
    let (instance, _) = stack.run_instance(&stack.base_image(), &[]);
    let parameters = [("InstanceId", instance.as_str()), ("Name", "taken")];
    stack.call("CreateImage", &parameters);
    let (status, error) = stack.try_call("CreateImage", &parameters);
    assert_eq!((status, only(&error, "Code").as_str()), (400, "InvalidAMIName.Duplicate"));
}

#[test]
fn a_terminated_instance_takes_its_root_volume_and_interface_along() {
    let stack = Stack::without_bodies();
    let resized =
        [("BlockDeviceMapping.1.DeviceName", "/dev/sda1"), ("BlockDeviceMapping.1.Ebs.VolumeSize", "20")];
    let (instance, _) = stack.run_instance(&stack.base_image(), &resized);
    assert_eq!(only(&stack.call("DescribeVolumes", &[]), "size"), "20");
    stack.terminate(&instance);
    assert!(texts(&stack.call("DescribeVolumes", &[]), "volumeId").is_empty());
    assert!(texts(&stack.call("DescribeNetworkInterfaces", &[]), "networkInterfaceId").is_empty());
}

#[test]
fn a_protected_instance_is_not_terminated() {
    let stack = Stack::without_bodies();
    let (instance, _) = stack.run_instance(&stack.base_image(), &[]);
    let protect = [("InstanceId", instance.as_str()), ("DisableApiTermination.Value", "true")];
    stack.call("ModifyInstanceAttribute", &protect);
    let (status, _) = stack.try_call("TerminateInstances", &[("InstanceId.1", &instance)]);
    assert_eq!(status, 400);
    assert_eq!(stack.state_of(&instance), "running");
}

#[test]
fn an_elastic_address_is_one_that_nobody_listens_on() {
    let stack = Stack::without_bodies();
    let address = only(&stack.call("AllocateAddress", &[("Domain", "vpc")]), "publicIp");
    assert!(address.starts_with("127.") && address.ends_with(".0.1"), "{address}");
}
