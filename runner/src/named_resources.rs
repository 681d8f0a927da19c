//! Picks the names and ids of what Packer makes out of what it says, for the build's ledger.
//!
//! A ledger says where to look and is no proof (see `ciab_core::ledger`): a provisioner can print the same words. So this may
//! note too much, but must never miss what Packer's amazon builders name, and must never grow without bound.

use std::collections::BTreeSet;

use ciab_core::ledger::Ledger;

use crate::packer_output::{Event, Ui};

/// More of one kind than any build makes: beyond it, somebody prints ids to fill our memory.
const MOST_OF_A_KIND: usize = 200;

/// Notes what an event names. Tells whether that was new.
pub fn note(ledger: &mut Ledger, event: &Event) -> bool {
    match event {
        Event::Ui(ui) => note_ui(ledger, ui),
        Event::ArtifactId { images, .. } => images
            .iter()
            .fold(false, |new, image| add_id(&mut ledger.images, "ami-", image.image_id.as_str()) | new),
        Event::BuildError { .. }
        | Event::ErrorCount(_)
        | Event::Version(_)
        | Event::Other
        | Event::Unstructured(_) => false,
    }
}

fn note_ui(ledger: &mut Ledger, ui: &Ui) -> bool {
    let said = ui.said();
    if let Some(name) = said.strip_prefix("Creating temporary keypair: ") {
        return add_name(&mut ledger.key_pairs, name);
    }
    if let Some(name) = said.strip_prefix("Creating temporary security group for this instance: ") {
        return add_name(&mut ledger.security_groups, name);
    }
    if let Some(name) = said.strip_prefix("Creating temporary instance profile for this instance: ") {
        return add_name(&mut ledger.instance_profiles, name);
    }
    if let Some(name) = said.strip_prefix("Creating temporary role for this instance: ") {
        return add_name(&mut ledger.roles, name);
    }
    if let Some(id) = said.strip_prefix("Instance ID: ") {
        return add_id(&mut ledger.instances, "i-", id);
    }
    if let Some(id) = between(said, "Waiting for instance (", ")") {
        return add_id(&mut ledger.instances, "i-", id);
    }
    if let Some((_, id)) =
        said.strip_prefix("Creating AMI ").and_then(|rest| rest.rsplit_once(" from instance "))
    {
        return add_id(&mut ledger.instances, "i-", id);
    }
    if let Some(id) = said.strip_prefix("AMI: ") {
        return add_id(&mut ledger.images, "ami-", id);
    }
    if let Some(id) = said.strip_prefix("Created Spot Fleet launch template: ") {
        return add_id(&mut ledger.launch_templates, "lt-", id);
    }
    if let Some(id) = said.strip_prefix("Creating snapshot of EBS Volume ") {
        return add_id(&mut ledger.volumes, "vol-", id.trim_end_matches('.'));
    }
    if let Some(id) = said.strip_prefix("Volume ID: ") {
        return add_id(&mut ledger.volumes, "vol-", id);
    }
    if let Some(id) = said.strip_prefix("Snapshot ID: ").or_else(|| said.strip_prefix("Tagging snapshot: ")) {
        return add_id(&mut ledger.snapshots, "snap-", id);
    }
    // The first that is heard of a copy's id.
    if let Some(id) = between(said, "Adding tags to AMI (", ")") {
        return add_id(&mut ledger.images, "ami-", id);
    }
    // What Packer says when it could not take its group away.
    if let Some((_, id)) = said.rsplit_once("security group ID: ") {
        return add_id(&mut ledger.security_groups, "sg-", id);
    }
    false
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.split_once(after).map(|(inner, _)| inner)
}

fn add_id(set: &mut BTreeSet<String>, prefix: &str, id: &str) -> bool {
    let digits = id.trim().strip_prefix(prefix);
    let real = digits.is_some_and(|digits| {
        (8..=17).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())
    });
    real && set.len() < MOST_OF_A_KIND && set.insert(id.trim().to_owned())
}

fn add_name(set: &mut BTreeSet<String>, said: &str) -> bool {
    // Some builders end the line with ` ...`.
    let name = said.trim().trim_end_matches(" ...");
    let real =
        !name.is_empty() && name.len() <= 255 && !name.chars().any(|c| c.is_control() || c.is_whitespace());
    real && set.len() < MOST_OF_A_KIND && set.insert(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packer_output::decode;

    fn ledger_of(lines: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        for line in lines {
            note(&mut ledger, &decode(line));
        }
        ledger
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn everything_that_an_ebs_build_names_is_noted() {
        // Packer 1.6.6's own words.
        let named = ledger_of(&[
            "1,,ui,message,    amazon-ebs.x: Found Image ID: ami-03cf127a",
            "1,,ui,say,==> amazon-ebs.x: Creating temporary keypair: packer_6b044afb-b6d9-8446-2bce-7c5b02a8fb30",
            "1,,ui,say,==> amazon-ebs.x: Creating temporary security group for this instance: packer_6b044afb-84bd",
            "1,,ui,message,    amazon-ebs.x: Instance ID: i-7dcd771ee65adaf97",
            "1,,ui,say,==> amazon-ebs.x: Creating AMI a b from instance i-7dcd771ee65adaf97",
            "1,,ui,message,    amazon-ebs.x: AMI: ami-36aade65c918a2930",
            "1,,ui,say,==> amazon-ebs.x: Adding tags to AMI (ami-4a13358aaf0c20c7c)...",
            "1,,ui,say,==> amazon-ebs.x: Tagging snapshot: snap-d9eb891c163dc15fb",
            "1,amazon-ebs.x,artifact,0,id,us-east-1:ami-36aade65c918a2930%!(PACKER_COMMA)us-west-2:ami-5784c36a81e39fc70",
        ]);
        assert_eq!(named.key_pairs, set(&["packer_6b044afb-b6d9-8446-2bce-7c5b02a8fb30"]));
        assert_eq!(named.security_groups, set(&["packer_6b044afb-84bd"]));
        assert_eq!(named.instances, set(&["i-7dcd771ee65adaf97"]));
        assert_eq!(
            named.images,
            set(&["ami-36aade65c918a2930", "ami-4a13358aaf0c20c7c", "ami-5784c36a81e39fc70"])
        );
        assert_eq!(named.snapshots, set(&["snap-d9eb891c163dc15fb"]));
    }

    #[test]
    fn newer_plugins_that_say_instead_of_message_are_understood() {
        let named = ledger_of(&[
            "1,,ui,say,==> amazon-ebs.x: Instance ID: i-0123456789abcdef0",
            "1,,ui,say,==> amazon-ebs.x: Created Spot Fleet launch template: lt-0123456789abcdef0",
            "1,,ui,say,==> amazon-ebs.x: Creating temporary instance profile for this instance: packer-1",
            "1,,ui,say,==> amazon-ebs.x: Creating temporary role for this instance: packer-1",
            "1,,ui,say,==> amazon-ebssurrogate.x: Creating snapshot of EBS Volume vol-0123456789abcdef0...",
            "1,,ui,error,==> amazon-ebs.x: Error cleaning up security group. Please delete the group manually: err: x; security group ID: sg-0123456789abcdef0",
        ]);
        assert_eq!(named.instances, set(&["i-0123456789abcdef0"]));
        assert_eq!(named.launch_templates, set(&["lt-0123456789abcdef0"]));
        assert_eq!(named.instance_profiles, set(&["packer-1"]));
        assert_eq!(named.roles, set(&["packer-1"]));
        assert_eq!(named.volumes, set(&["vol-0123456789abcdef0"]));
        assert_eq!(named.security_groups, set(&["sg-0123456789abcdef0"]));
    }

    #[test]
    fn the_source_image_is_not_the_builds_own() {
        let named = ledger_of(&["1,,ui,message,    amazon-ebs.x: Found Image ID: ami-03cf127a"]);
        assert_eq!(named, Ledger::default());
    }

    #[test]
    fn what_is_no_id_is_not_noted() {
        let named = ledger_of(&[
            "1,,ui,message,    amazon-ebs.x: AMI: ami-../../x",
            "1,,ui,message,    amazon-ebs.x: Instance ID: none",
            "1,,ui,say,==> amazon-ebs.x: Creating temporary keypair: ",
        ]);
        assert_eq!(named, Ledger::default());
    }

    #[test]
    fn a_flood_of_ids_is_bounded() {
        let mut named = Ledger::default();
        for n in 0..10_000_u64 {
            note(&mut named, &decode(&format!("1,,ui,message,    x.y: Instance ID: i-{n:017x}")));
        }
        assert_eq!(named.instances.len(), MOST_OF_A_KIND);
    }

    #[test]
    fn only_news_is_news() {
        let mut named = Ledger::default();
        let event = decode("1,,ui,message,    x.y: Instance ID: i-0123456789abcdef0");
        assert!(note(&mut named, &event));
        assert!(!note(&mut named, &event));
    }
}
