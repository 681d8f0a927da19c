//! What a client may see of moto's answers: the true state of an instance's body, and no address but loopback ones.
//!
//! Pure. Knows answers by the names of their elements, so an answer nobody thought of is rewritten as well.

use std::net::Ipv4Addr;

use xmltree::{Element, XMLNode};

use crate::answer::{self, child_elements, text_at};

/// Elements whose text is an address or a name that would be dialled or looked up.
const ADDRESSES: [&str; 15] = [
    "carrierIp",
    "customerOwnedIp",
    "dnsName",
    "ipAddress",
    "ipv6Address",
    "natGatewayIp",
    "outsideIpAddress",
    "primaryIpv6",
    "privateDnsName",
    "privateIp",
    "privateIpAddress",
    "publicDnsName",
    "publicIp",
    "publicIpAddress",
    "publicIpv4Address",
];

/// Bits of text without which an answer has nothing to rewrite: cheaper than reading it.
const TELLTALES: [&str; 6] = ["Ip>", "pAddress>", "v4Address>", "v6Address>", "Ipv6>", "nsName>"];

/// What an instance's body is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyState {
    /// No process: stopped, or an instance that exists in the API only.
    Absent,
    /// Its processes run, sshd does not answer yet.
    Starting,
    /// sshd answers.
    Running,
    /// It was asked to end, so as to be started again later.
    Stopping,
    /// It was asked to end for good.
    Terminating,
}

/// What is shown of an instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstanceView {
    pub(crate) address: Ipv4Addr,
    pub(crate) body: BodyState,
}

/// The state to show: moto changes state at once, a body takes its time, and a client must see the slower of the two.
///
/// `running` says that the machine is switched on, not that its sshd answers, as in EC2.
pub(crate) fn visible_state(moto: &str, body: BodyState) -> Option<(&'static str, &'static str)> {
    match (moto, body) {
        ("terminated" | "shutting-down", BodyState::Absent) => None,
        ("terminated", _) | (_, BodyState::Terminating) => Some(("32", "shutting-down")),
        ("stopped", BodyState::Starting | BodyState::Running | BodyState::Stopping) => {
            Some(("64", "stopping"))
        }
        _ => None,
    }
}

/// Whether an answer has anything that [`rewrite`] would change.
pub(crate) fn is_concerned(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return true };
    text.contains("nstanceState>") || TELLTALES.iter().any(|telltale| text.contains(telltale))
}

/// Rewrites an answer. `view` tells what is known of an instance; `address` stands for every address that belongs to none.
pub(crate) fn rewrite(
    element: &mut Element,
    address: Ipv4Addr,
    view: &mut dyn FnMut(&str) -> Option<InstanceView>,
) {
    let instance = text_at(element, &["instanceId"])
        .or_else(|| text_at(element, &["attachment", "instanceId"]))
        .and_then(|id| view(&id));
    let address = instance.map_or(address, |instance| instance.address);
    if let Some(instance) = instance {
        show_state(element, instance.body);
        if text_at(element, &["instanceState", "name"]).as_deref() == Some("terminated") {
            // EC2 keeps showing a terminated instance for a while, but it has no network any more.
            element.children.retain(|node| {
                node.as_element().is_none_or(|child| {
                    !ADDRESSES.contains(&child.name.as_str()) && child.name != "networkInterfaceSet"
                })
            });
        }
    }
    for child in element.children.iter_mut().filter_map(XMLNode::as_mut_element) {
        let is_leaf = child_elements(child).is_empty();
        if is_leaf && ADDRESSES.contains(&child.name.as_str()) {
            if child.get_text().is_some_and(|text| !text.is_empty()) {
                child.children = vec![XMLNode::Text(address.to_string())];
            }
        } else {
            rewrite(child, address, view);
        }
    }
}

fn show_state(instance: &mut Element, body: BodyState) {
    // `instanceState` in descriptions; answers to Stop, Start and Terminate have `currentState`, which moto gets right.
    let Some(moto) = text_at(instance, &["instanceState", "name"]) else { return };
    let Some((code, name)) = visible_state(&moto, body) else { return };
    if let Some(state) = instance.get_mut_child("instanceState") {
        answer::set_text(state, "code", code);
        answer::set_text(state, "name", name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCES: &str = "<R><reservationSet><item><instancesSet><item>\
        <networkInterfaceSet><item><association><publicDnsName>ip-54-214-202-243.ec2.internal</publicDnsName>\
        <publicIp>54.214.202.243</publicIp></association><privateIpAddressesSet><item><privateIpAddress>10.249.228.220\
        </privateIpAddress></item></privateIpAddressesSet></item></networkInterfaceSet>\
        <instanceId>i-1</instanceId><instanceState><code>16</code><name>running</name></instanceState>\
        <privateDnsName>ip-10-249-228-220.ec2.internal</privateDnsName><dnsName>ec2-54-214-202-243.compute-1.amazonaws.com\
        </dnsName><privateIpAddress>10.249.228.220</privateIpAddress><ipAddress>54.214.202.243</ipAddress>\
        </item></instancesSet></item></reservationSet></R>";

    fn rewritten(text: &str, body: BodyState) -> String {
        let mut root = answer::parse(text.as_bytes()).unwrap();
        assert!(is_concerned(text.as_bytes()));
        rewrite(&mut root, Ipv4Addr::new(127, 9, 0, 1), &mut |id| {
            (id == "i-1").then_some(InstanceView { address: Ipv4Addr::new(127, 9, 0, 2), body })
        });
        String::from_utf8(answer::write(&root).to_vec()).unwrap()
    }

    #[test]
    fn no_invented_address_or_name_is_left() {
        let text = rewritten(INSTANCES, BodyState::Running);
        for invented in ["54.214", "54-214", "10.249", "10-249"] {
            assert!(!text.contains(invented), "{text}");
        }
        assert_eq!(text.matches("127.9.0.2").count(), 7);
    }

    #[test]
    fn an_address_without_an_instance_becomes_one_nobody_listens_on() {
        let text = "<R><addressesSet><item><publicIp>54.214.1.2</publicIp></item></addressesSet></R>";
        assert!(rewritten(text, BodyState::Running).contains("<publicIp>127.9.0.1</publicIp>"));
    }

    #[test]
    fn an_interface_has_the_address_of_the_instance_it_is_attached_to() {
        let text = "<R><item><attachment><instanceId>i-1</instanceId></attachment>\
            <privateIpAddress>10.1.2.3</privateIpAddress></item></R>";
        assert!(
            rewritten(text, BodyState::Running).contains("<privateIpAddress>127.9.0.2</privateIpAddress>")
        );
    }

    #[test]
    fn an_instance_runs_from_when_it_is_switched_on() {
        assert!(rewritten(INSTANCES, BodyState::Starting).contains("<code>16</code><name>running</name>"));
    }

    #[test]
    fn an_instance_is_terminated_only_once_its_body_is_gone() {
        let terminated = INSTANCES.replace("running", "terminated");
        assert!(rewritten(&terminated, BodyState::Running).contains("shutting-down"));
        let gone = rewritten(&terminated, BodyState::Absent);
        assert!(gone.contains("<name>terminated</name>") && !gone.contains("127.9"), "{gone}");
    }

    #[test]
    fn an_instance_is_stopped_only_once_its_body_is_gone() {
        assert_eq!(visible_state("stopped", BodyState::Stopping), Some(("64", "stopping")));
        assert_eq!(visible_state("stopped", BodyState::Absent), None);
        assert_eq!(visible_state("running", BodyState::Stopping), None);
    }
}
