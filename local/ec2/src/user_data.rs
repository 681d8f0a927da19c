//! User data, as cloud-init takes it: a script with `#!` runs once, as root, at the instance's first boot.
//!
//! Everything else that cloud-init reads (cloud-config, archives) is not known here.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::query::Query;

/// Whether the instance of a launch has an instance profile.
pub(crate) fn has_profile(launch: &Query) -> bool {
    ["Arn", "Name"].iter().any(|name| launch.get(&format!("IamInstanceProfile.{name}")).is_some())
}

/// The script that the instance of a launch runs at its first boot, if its user data is one.
pub(crate) fn script(launch: &Query) -> Option<String> {
    let encoded: String =
        launch.get("UserData")?.chars().filter(|character| !character.is_whitespace()).collect();
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let script = text.filter(|text| text.starts_with("#!"));
    if script.is_none() {
        tracing::warn!("an instance's user data is no script that begins with `#!`, so nothing reads it");
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(user_data: &str) -> Query {
        Query::new("RunInstances").with("UserData", STANDARD.encode(user_data))
    }

    #[test]
    fn only_a_script_is_run() {
        assert_eq!(script(&launch("#!/bin/sh\ntrue\n")).as_deref(), Some("#!/bin/sh\ntrue\n"));
        assert_eq!(script(&launch("#cloud-config\n{}\n")), None);
        assert_eq!(script(&Query::new("RunInstances")), None);
    }
}
