//! RunInstances from a launch template: what the template says becomes parameters of the call.
//!
//! Corrects what moto lacks: of a launch template's data it applies image, type, key, groups and the instance's tags alone.
//! What the call itself says wins over the template, tag by tag and device by device, as in EC2.

use xmltree::Element;

use crate::{
    answer::{child_elements, items, text_at},
    moto::{Caller, MotoError},
    query::Query,
    service::Service,
};

/// The list of an answer, and what its items are called in a request, where that is not the list's name without `Set`.
const LISTS_OF_OTHER_NAMES: [(&str, &str); 3] = [
    ("groupSet", "SecurityGroupId"),
    ("groupIdSet", "SecurityGroupId"),
    ("ipv6AddressesSet", "Ipv6Addresses"),
];

/// Lists whose items are told apart by a value in them and not by their place.
const MERGED_LISTS: [(&str, &str); 2] =
    [("BlockDeviceMapping", "DeviceName"), ("TagSpecification", "ResourceType")];

impl Service {
    /// Completes a RunInstances call by its launch template, and tells that template's id; without one nothing changes.
    pub(crate) async fn apply_launch_template(
        &self,
        caller: &Caller,
        query: &mut Query,
    ) -> Result<Option<String>, MotoError> {
        let mut question = Query::new("DescribeLaunchTemplateVersions");
        for name in ["LaunchTemplateId", "LaunchTemplateName"] {
            if let Some(value) = query.get(&format!("LaunchTemplate.{name}")) {
                question.set(name, value.to_owned());
            }
        }
        if question.get("LaunchTemplateId").or(question.get("LaunchTemplateName")).is_none() {
            return Ok(None);
        }
        let version = query.get("LaunchTemplate.Version").unwrap_or("$Default").to_owned();
        let root = self.moto.call(caller, &question.with("LaunchTemplateVersion.1", version)).await?;
        let versions = items(&root, "launchTemplateVersionSet");
        if let Some(data) = versions.first().and_then(|version| version.get_child("launchTemplateData")) {
            merge(query, &parameters(data));
        }
        Ok(versions.first().and_then(|version| text_at(version, &["launchTemplateId"])))
    }
}

/// A launch template's data in the form of a request.
fn parameters(data: &Element) -> Query {
    let mut parameters = Query::default();
    flatten(data, "", &mut parameters);
    parameters
}

fn flatten(element: &Element, prefix: &str, parameters: &mut Query) {
    for child in child_elements(element) {
        let children = child_elements(child);
        if children.iter().any(|item| item.name == "item") {
            let name = format!("{prefix}{}", list_name(&child.name));
            for (number, item) in (1..).zip(children) {
                // The groups of a network interface are told with their names, and asked for by their ids.
                let id = text_at(item, &["groupId"]);
                match id.or_else(|| child_elements(item).is_empty().then(|| text_of(item))) {
                    Some(text) => parameters.set(format!("{name}.{number}"), text),
                    None => flatten(item, &format!("{name}.{number}."), parameters),
                }
            }
        } else if children.is_empty() {
            let text = text_of(child);
            if !text.is_empty() {
                parameters.set(format!("{prefix}{}", capitalized(&child.name)), text);
            }
        } else {
            flatten(child, &format!("{prefix}{}.", capitalized(&child.name)), parameters);
        }
    }
}

fn text_of(element: &Element) -> String {
    element.get_text().unwrap_or_default().into_owned()
}

fn list_name(name: &str) -> String {
    let other = LISTS_OF_OTHER_NAMES.iter().find(|(list, _)| *list == name);
    other
        .map_or_else(|| capitalized(name.strip_suffix("Set").unwrap_or(name)), |(_, item)| (*item).to_owned())
}

fn capitalized(name: &str) -> String {
    let mut characters = name.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Adds to `call` what it leaves open.
fn merge(call: &mut Query, template: &Query) {
    for (list, key) in MERGED_LISTS {
        merge_list(call, template, list, key);
    }
    let own: Vec<String> = call.names().map(|name| first_part(name).to_owned()).collect();
    for (name, value) in template.iter() {
        let is_merged = MERGED_LISTS.iter().any(|(list, _)| first_part(name) == *list);
        if !is_merged && !own.iter().any(|own| own == first_part(name)) {
            call.set(name, value);
        }
    }
}

/// `NetworkInterface` of `NetworkInterface.1.SubnetId`.
fn first_part(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Adds the template's items that the call has none like; of tags, each that the call has none like.
fn merge_list(call: &mut Query, template: &Query, list: &str, key: &str) {
    for theirs in template.structures(list) {
        let named = template.get(&format!("{theirs}.{key}")).map(str::to_owned);
        let ours = call
            .structures(list)
            .into_iter()
            .find(|ours| call.get(&format!("{ours}.{key}")) == named.as_deref());
        match ours {
            None => {
                let next = format!("{list}.{}", call.structures(list).len() + 1);
                call.copy(template, &theirs, &next);
            }
            Some(ours) if list == "TagSpecification" => {
                for tag in template.structures(&format!("{theirs}.Tag")) {
                    let own = call.structures(&format!("{ours}.Tag"));
                    let name = template.get(&format!("{tag}.Key"));
                    if !own.iter().any(|own| call.get(&format!("{own}.Key")) == name) {
                        call.copy(template, &tag, &format!("{ours}.Tag.{}", own.len() + 1));
                    }
                }
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer;

    const DATA: &str = "<launchTemplateData><imageId>ami-1</imageId><userData>IyE=</userData><keyName/>\
        <iamInstanceProfile><arn>arn:1</arn></iamInstanceProfile>\
        <instanceInitiatedShutdownBehavior>terminate</instanceInitiatedShutdownBehavior>\
        <securityGroupIdSet><item>sg-1</item></securityGroupIdSet>\
        <networkInterfaceSet><item><deviceIndex>0</deviceIndex><groupSet><item>sg-2</item></groupSet>\
        <subnetId>subnet-1</subnetId></item></networkInterfaceSet>\
        <blockDeviceMappingSet><item><deviceName>/dev/sda1</deviceName><ebs><volumeSize>8</volumeSize></ebs></item>\
        </blockDeviceMappingSet>\
        <tagSpecificationSet><item><resourceType>instance</resourceType><tagSet><item><key>a</key><value>theirs</value></item>\
        <item><key>b</key><value>theirs</value></item></tagSet></item><item><resourceType>volume</resourceType><tagSet>\
        <item><key>a</key><value>theirs</value></item></tagSet></item></tagSpecificationSet></launchTemplateData>";

    fn merged(call: &str) -> Query {
        let mut call = Query::parse(None, call.as_bytes());
        merge(&mut call, &parameters(&answer::parse(DATA.as_bytes()).unwrap()));
        call
    }

    #[test]
    fn a_call_gets_what_the_template_says() {
        let call = merged("Action=RunInstances");
        for (name, value) in [
            ("ImageId", "ami-1"),
            ("UserData", "IyE="),
            ("IamInstanceProfile.Arn", "arn:1"),
            ("InstanceInitiatedShutdownBehavior", "terminate"),
            ("SecurityGroupId.1", "sg-1"),
            ("NetworkInterface.1.DeviceIndex", "0"),
            ("NetworkInterface.1.SecurityGroupId.1", "sg-2"),
            ("NetworkInterface.1.SubnetId", "subnet-1"),
            ("BlockDeviceMapping.1.Ebs.VolumeSize", "8"),
            ("TagSpecification.2.Tag.1.Value", "theirs"),
        ] {
            assert_eq!(call.get(name), Some(value), "{name}");
        }
        assert_eq!(call.get("KeyName"), None);
    }

    #[test]
    fn what_the_call_says_itself_wins() {
        let call = merged(
            "ImageId=ami-2&IamInstanceProfile.Name=mine&BlockDeviceMapping.1.DeviceName=/dev/sda1\
             &BlockDeviceMapping.1.Ebs.VolumeSize=20&TagSpecification.1.ResourceType=instance\
             &TagSpecification.1.Tag.1.Key=a&TagSpecification.1.Tag.1.Value=mine",
        );
        assert_eq!(call.get("ImageId"), Some("ami-2"));
        assert_eq!(call.get("IamInstanceProfile.Arn"), None);
        assert_eq!(call.get("BlockDeviceMapping.1.Ebs.VolumeSize"), Some("20"));
        assert_eq!(call.get("TagSpecification.1.Tag.1.Value"), Some("mine"));
        assert_eq!(call.get("TagSpecification.1.Tag.2.Key"), Some("b"));
        assert_eq!(call.get("TagSpecification.2.ResourceType"), Some("volume"));
    }
}
