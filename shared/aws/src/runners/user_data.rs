//! The script that a runner on EC2 boots into: `infra/runner-user-data.sh` with this build's values.
//!
//! Must never let a value become code: the script reads them as lines of text, and one that is more than a line is refused.

use ciab_core::ports::RunnerOrder;

use super::ec2::Ec2RunnerSettings;

const SCRIPT: &str = include_str!("../../../../infra/runner-user-data.sh");
/// The line of the script that the values take the place of.
const PLACE: &str = "@VALUES@\n";
/// EC2 takes 16 KiB of user data, before it is encoded.
const LONGEST: usize = 16 * 1024;

/// A value that cannot be handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidUserData {
    #[error("{0} holds a control character")]
    NotOneLine(&'static str),
    #[error("the user data has {0} bytes; {LONGEST} are allowed")]
    TooLong(usize),
}

/// The script for one order.
pub(super) fn user_data(
    order: &RunnerOrder,
    region: &str,
    settings: &Ec2RunnerSettings,
) -> Result<String, InvalidUserData> {
    let values = [
        ("AWS_REGION", region.to_owned()),
        ("CIAB_BUCKET", settings.bucket.clone()),
        ("CIAB_BUILD_ID", order.build_id.to_string()),
        ("CIAB_DEADLINE", order.deadline.to_string()),
        ("CIAB_REGION", order.region.to_string()),
        ("CIAB_REQUEST_ID", order.request_id.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("CIAB_RUNNER_SHA256", settings.runner_sha256.clone().unwrap_or_default()),
        ("CIAB_TASK_TOKEN", order.task_token.clone()),
        ("CIAB_TIMEOUT_SECS", order.timeout_secs.to_string()),
        ("RUST_LOG", settings.log_filter.clone()),
    ];
    let mut lines = String::new();
    for (name, value) in values.into_iter().chain(settings.variables.iter().cloned()) {
        if value.chars().any(char::is_control) {
            return Err(InvalidUserData::NotOneLine(name));
        }
        lines.push_str(&format!("{name}={value}\n"));
    }
    let script = SCRIPT.replacen(PLACE, &lines, 1);
    if script.len() > LONGEST {
        return Err(InvalidUserData::TooLong(script.len()));
    }
    Ok(script)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn order() -> RunnerOrder {
        RunnerOrder {
            build_id: "550e8400-e29b-41d4-a716-446655440000".parse().unwrap(),
            request_id: "JKJaXmPLvHcESHA=".parse().ok(),
            kind: ciab_core::build::RunnerKind::Ec2,
            task_token: "token".into(),
            deadline: "2026-03-25T15:00:05Z".parse().unwrap(),
            timeout_secs: 1800,
            region: "eu-west-1".parse().unwrap(),
        }
    }

    pub(crate) fn settings() -> Ec2RunnerSettings {
        Ec2RunnerSettings {
            launch_template: "prod-runner".into(),
            stack: "prod".into(),
            bucket: "prod-123456789012".into(),
            runner_sha256: None,
            log_filter: "info".into(),
            variables: vec![("CIAB_PACKER_VERSION", "1.11.2".to_owned())],
        }
    }

    #[test]
    fn the_runner_is_told_all_that_it_needs_between_the_marks() {
        let script = user_data(&order(), "us-east-1", &settings()).unwrap();
        let (_, rest) = script.split_once("<<'END_OF_VALUES'\n").unwrap();
        let (values, _) = rest.split_once("END_OF_VALUES\n").unwrap();
        let expected = "AWS_REGION=us-east-1\nCIAB_BUCKET=prod-123456789012\n\
            CIAB_BUILD_ID=550e8400-e29b-41d4-a716-446655440000\nCIAB_DEADLINE=2026-03-25T15:00:05Z\nCIAB_REGION=eu-west-1\n\
             CIAB_REQUEST_ID=JKJaXmPLvHcESHA=\nCIAB_RUNNER_SHA256=\nCIAB_TASK_TOKEN=token\nCIAB_TIMEOUT_SECS=1800\nRUST_LOG=info\n\
             CIAB_PACKER_VERSION=1.11.2\n";
        assert_eq!(values, expected);
    }

    #[test]
    fn no_value_ends_the_text_that_it_stands_in() {
        let mut order = order();
        order.task_token = "token\nEND_OF_VALUES\nrm -rf /".into();
        let refused = user_data(&order, "us-east-1", &settings()).unwrap_err();
        assert_eq!(refused, InvalidUserData::NotOneLine("CIAB_TASK_TOKEN"));
    }

    #[test]
    fn the_longest_task_token_fits() {
        let mut order = order();
        // Step Functions' limit for a task token.
        order.task_token = "t".repeat(2048);
        user_data(&order, "us-east-1", &settings()).unwrap();
        order.task_token = "t".repeat(LONGEST);
        assert!(matches!(user_data(&order, "us-east-1", &settings()), Err(InvalidUserData::TooLong(_))));
    }
}
