//! Which of the runner's variables Packer gets, and which of those a template may read: one place for the runner, which
//! hands them on, and for the search for local execution, which judges `env()`.

/// These everybody may know.
const HARMLESS: [&str; 8] = [
    "PATH",
    "HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NO_PROXY",
    "no_proxy",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
];

/// A password may be part of these.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];

/// All that begins with one of these is handed on too: credentials for AWS are the first of them.
const PREFIXES: [&str; 2] = ["AWS_", "PACKER_"];

/// Whether a variable of the runner is handed on to Packer.
pub fn is_passed_to_packer(name: &str) -> bool {
    HARMLESS.contains(&name) || may_hold_a_credential(name)
}

/// Whether a variable that Packer gets may hold something that a template's author must not learn. Any that Packer does not
/// get is empty there, and harms nobody.
pub(crate) fn may_hold_a_credential(name: &str) -> bool {
    let is_guarded = PROXIES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    is_guarded && !HARMLESS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_a_credential_is_passed_and_may_not_be_read() {
        for name in
            ["AWS_SECRET_ACCESS_KEY", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "PACKER_X", "https_proxy"]
        {
            assert!(is_passed_to_packer(name) && may_hold_a_credential(name), "{name}");
        }
    }

    #[test]
    fn what_is_harmless_is_passed_and_may_be_read() {
        for name in ["PATH", "HOME", "AWS_REGION", "no_proxy"] {
            assert!(is_passed_to_packer(name) && !may_hold_a_credential(name), "{name}");
        }
    }

    #[test]
    fn the_runners_own_variables_are_not_passed() {
        for name in ["CIAB_TASK_TOKEN", "PKR_VAR_x", "LD_PRELOAD", "RUST_LOG", "", "aws_region", "XAWS_"] {
            assert!(!is_passed_to_packer(name) && !may_hold_a_credential(name), "{name}");
        }
    }
}
