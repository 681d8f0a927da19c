//! What the infrastructure says and what the code says are the same: routes, states, error names, settings.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use ciab_core::build::BuildStatus;
use ciab_core::clean_up::Output;
use ciab_core::routes::ROUTES;
use ciab_core::step::StepError;
use serde_json::Value as Json;
use serde_norway::Value as Yaml;

const TEMPLATE: &str = include_str!("../../../infra/template.yaml");
const STATE_MACHINE: &str = include_str!("../../../infra/build-image.asl.json");

/// The errors that the runner reports by the task token.
const RUNNER_ERRORS: [&str; 4] = ["TemplateInvalid", "PackerFailed", "BuildTimedOut", "RunnerFailed"];

fn functions() -> BTreeMap<String, Yaml> {
    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    let resources = template["Resources"].as_mapping().unwrap();
    resources
        .iter()
        .filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function")
        .map(|(_, resource)| {
            let uri = resource["Properties"]["CodeUri"].as_str().unwrap();
            (uri.rsplit('/').next().unwrap().to_owned(), resource.clone())
        })
        .collect()
}

fn states() -> serde_json::Map<String, Json> {
    let machine: Json = serde_json::from_str(STATE_MACHINE).unwrap();
    machine["States"].as_object().unwrap().clone()
}

fn camel(folder: &str) -> String {
    folder.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

#[test]
fn the_template_routes_what_the_code_knows() {
    let mut routed = BTreeSet::new();
    for (folder, function) in functions() {
        for (_, event) in function["Properties"]["Events"].as_mapping().into_iter().flatten() {
            if event["Type"] != "HttpApi" {
                continue;
            }
            let properties = &event["Properties"];
            let method = properties["Method"].as_str().unwrap_or("$default").to_owned();
            routed.insert((
                method,
                properties["Path"].as_str().unwrap_or_default().to_owned(),
                folder.clone(),
            ));
        }
    }
    let known: BTreeSet<_> = ROUTES
        .iter()
        .map(|(method, path, folder)| ((*method).to_owned(), (*path).to_owned(), (*folder).to_owned()))
        .collect();
    assert_eq!(routed, known);
}

#[test]
fn a_function_its_folder_and_its_resource_carry_one_name() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../functions");
    let folders: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    assert_eq!(functions().into_keys().collect::<BTreeSet<_>>(), folders);
    for folder in &folders {
        let resource = &template["Resources"][format!("{}Function", camel(folder)).as_str()];
        assert_eq!(resource["Metadata"]["BuildProperties"]["Binary"].as_str(), Some(folder.as_str()));
    }
    for step in ["prepare-build", "finish-build", "clean-up"] {
        assert!(states().contains_key(&camel(step)), "no state {}", camel(step));
    }
}

#[test]
fn every_error_that_the_state_machine_matches_exists() {
    for (state, definition) in states() {
        for rule in ["Retry", "Catch"] {
            for matcher in definition[rule].as_array().into_iter().flatten() {
                for name in matcher["ErrorEquals"].as_array().unwrap() {
                    let name = name.as_str().unwrap();
                    let known = name.starts_with("States.")
                        || name.starts_with("Lambda.")
                        || StepError::NAMES.contains(&name)
                        || RUNNER_ERRORS.contains(&name);
                    assert!(known, "{state} matches {name}, which nothing reports");
                }
            }
        }
    }
}

#[test]
fn errors_that_pass_by_themselves_are_tried_again() {
    let retried = |state: &str| -> BTreeSet<String> {
        let state = states()[state].clone();
        let names = state["Retry"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|rule| rule["ErrorEquals"].as_array().unwrap().clone());
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    for (state, name) in [
        ("PrepareBuild", "ServiceUnavailable"),
        ("PrepareBuild", "RecordContended"),
        ("FinishBuild", "ImageNotReady"),
        ("FinishBuild", "ServiceUnavailable"),
        ("FinishBuild", "RecordContended"),
        ("CleanUp", "LeftoversRemain"),
        ("CleanUp", "ServiceUnavailable"),
        ("CleanUp", "RecordContended"),
    ] {
        assert!(retried(state).contains(name), "{state} gives up at the first {name}");
    }
}

/// What a function's role may do.
fn actions(function: &Yaml) -> BTreeSet<String> {
    let mut actions = BTreeSet::new();
    for policy in function["Properties"]["Policies"].as_sequence().into_iter().flatten() {
        for statement in policy["Statement"].as_sequence().into_iter().flatten() {
            match &statement["Action"] {
                Yaml::String(action) => actions.extend([action.clone()]),
                several => {
                    let several = several.as_sequence().into_iter().flatten();
                    actions.extend(several.filter_map(Yaml::as_str).map(str::to_owned));
                }
            }
        }
    }
    actions
}

#[test]
fn whoever_cancels_a_build_may_do_all_that_clean_up_does() {
    let functions = functions();
    let (cancelling, cleaning) = (actions(&functions["cancel-build"]), actions(&functions["clean-up"]));
    assert!(cleaning.contains("ec2:TerminateInstances"), "the rights are no longer found in the template");
    let missing: Vec<_> = cleaning.difference(&cancelling).collect();
    assert!(missing.is_empty(), "cancel-build may not {missing:?}");
}

#[test]
fn the_alarm_watches_a_metric_that_is_written() {
    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    let alarm = &template["Resources"]["LeftoversAlarm"]["Properties"];
    let dimensions = alarm["Dimensions"].as_sequence().unwrap();
    assert_eq!(dimensions.len(), 1, "a metric with another set of dimensions is another metric");
    let metrics = include_str!("../../../shared/lambda/src/metrics.rs");
    let constant =
        |name: &str, value: &Yaml| format!("const {name}: &str = \"{}\";", value.as_str().unwrap());
    for constant in
        [constant("NAMESPACE", &alarm["Namespace"]), constant("DIMENSION", &dimensions[0]["Name"])]
    {
        assert!(metrics.contains(&constant), "nothing is written under {constant}");
    }
    let written = include_str!("../../../functions/poll-builds/src/main.rs");
    let metric = format!("\"{}\"", alarm["MetricName"].as_str().unwrap());
    assert!(written.contains(&metric), "poll-builds writes no {metric}");
}

#[test]
fn every_setting_that_the_code_reads_is_in_the_template() {
    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    let variables = template["Globals"]["Function"]["Environment"]["Variables"].as_mapping().unwrap();
    let given: BTreeSet<&str> = variables.keys().filter_map(Yaml::as_str).collect();
    let source = include_str!("../../../shared/core/src/settings.rs");
    let read: BTreeSet<&str> =
        source.split('"').filter(|text| text.starts_with("CIAB_") && !text.contains(' ')).collect();
    assert!(read.len() > 5, "the settings are no longer found in the source");
    let missing: Vec<_> = read.difference(&given).collect();
    assert!(missing.is_empty(), "not in the template: {missing:?}");
}

#[test]
fn an_execution_succeeds_where_clean_up_says_that_the_build_did() {
    let states = states();
    let rule = &states["HowItEnded"]["Choices"][0];
    let said = serde_json::to_value(Output { status: BuildStatus::Succeeded }).unwrap();
    assert_eq!(states["CleanUp"]["ResultSelector"]["status.$"], "$.Payload.status");
    assert_eq!(rule["StringEquals"], said["status"]);
    assert_eq!(states[rule["Next"].as_str().unwrap()]["Type"], "Succeed");
    assert_eq!(states["HowItEnded"]["Default"], "BuildFailed");
}
