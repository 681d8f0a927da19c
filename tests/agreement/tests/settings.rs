//! Every setting has one name in template and code, and the keys of the configuration file are parameters.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_norway::Value as Yaml;

const TEMPLATE: &str = include_str!("../../../infra/template.yaml");

/// What start-runner says of each build, and nothing of the stack's.
const OF_A_BUILD: [&str; 6] = [
    "CIAB_BUILD_ID",
    "CIAB_DEADLINE",
    "CIAB_REGION",
    "CIAB_REQUEST_ID",
    "CIAB_TASK_TOKEN",
    "CIAB_TIMEOUT_SECS",
];
/// What a deployed stack leaves at its default.
const OF_NOBODY: [&str; 1] = ["CIAB_STOP_GRACE_SECS"];

fn template() -> Yaml {
    serde_norway::from_str(TEMPLATE).unwrap()
}

/// Name and value of what a function gets, by itself or with all others.
fn variables(of: &Yaml) -> BTreeMap<String, Yaml> {
    let variables = of["Environment"]["Variables"].as_mapping().into_iter().flatten();
    variables.map(|(name, value)| (name.as_str().unwrap().to_owned(), value.clone())).collect()
}

fn of_all_functions() -> BTreeMap<String, Yaml> {
    variables(&template()["Globals"]["Function"])
}

fn of_runners() -> BTreeMap<String, Yaml> {
    let project =
        &template()["Resources"]["RunnerProject"]["Properties"]["Environment"]["EnvironmentVariables"];
    let variables = project.as_sequence().unwrap().iter();
    variables.map(|one| (one["Name"].as_str().unwrap().to_owned(), one["Value"].clone())).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every variable that is named, as a whole string, in what is deployed.
fn named_in_code() -> BTreeSet<String> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let name = Regex::new(r#""(CIAB_[A-Z0-9_]+)""#).unwrap();
    let mut files = Vec::new();
    for folder in ["shared", "functions", "runner"] {
        sources(&root.join(folder), &mut files);
    }
    let deployed = files.iter().filter(|path| path.iter().any(|part| part == "src"));
    let texts = deployed.map(|path| std::fs::read_to_string(path).unwrap());
    texts
        .flat_map(|text| name.captures_iter(&text).map(|found| found[1].to_owned()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_template_sets_what_the_code_reads_and_nothing_else() {
    let mut set: BTreeSet<String> = of_all_functions().into_keys().chain(of_runners().into_keys()).collect();
    for (_, resource) in template()["Resources"].as_mapping().unwrap() {
        if resource["Type"] == "AWS::Serverless::Function" {
            set.extend(variables(&resource["Properties"]).into_keys());
        }
    }
    set.remove("RUST_LOG");
    let mut read = named_in_code();
    for name in OF_A_BUILD.iter().chain(&OF_NOBODY) {
        assert!(read.remove(*name), "nothing reads {name} any more");
    }
    let (unset, unread): (Vec<_>, Vec<_>) =
        (read.difference(&set).collect(), set.difference(&read).collect());
    assert!(
        unset.is_empty() && unread.is_empty(),
        "not in the template: {unset:?}; read by nobody: {unread:?}"
    );
}

#[test]
fn runners_of_both_kinds_are_told_the_same() {
    let wiring = include_str!("../../../shared/lambda/src/wiring.rs");
    let (_, list) = wiring.split_once("const RUNNER_VARIABLES").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let handed_on: BTreeSet<String> =
        list.split('"').filter(|text| text.starts_with("CIAB_")).map(str::to_owned).collect();
    let in_codebuild = of_runners();
    // start-runner hands these on by itself.
    let by_itself = ["CIAB_BUCKET".to_owned(), "RUST_LOG".to_owned()];
    let told: BTreeSet<String> =
        in_codebuild.keys().filter(|name| !by_itself.contains(name)).cloned().collect();
    assert_eq!(handed_on, told);
    let mut of_start_runner = of_all_functions();
    of_start_runner.extend(variables(&template()["Resources"]["StartRunnerFunction"]["Properties"]));
    for (name, value) in in_codebuild {
        assert_eq!(of_start_runner.get(&name), Some(&value), "{name}");
    }
}

/// The `[packer]` table's keys: which parameter each one is, its default, one more value that can be and one that cannot.
#[test]
fn every_key_of_the_configuration_file_is_a_parameter_with_its_default_and_a_check() {
    let keys = [
        // On the path, if it is the version that the stack asks for: `packer` itself would be taken whatever its version.
        ("binary_path", "PackerBinaryPath", "", "/usr/bin/packer", "a packer"),
        ("auto_install", "PackerAutoInstall", "true", "false", "yes"),
        ("work_dir", "PackerWorkDir", "/tmp/ciab-packer", "/var/tmp/p", "packer"),
        ("default_region", "DefaultRegion", "us-east-1", "us-gov-west-1", "Frankfurt"),
        ("build_instance_type", "BuildInstanceType", "t3.medium", "m7i-flex.large", "large"),
        ("build_subnet_id", "BuildSubnetId", "", "subnet-0123456789abcdef0", "10.0.0.0/24"),
        ("build_timeout_secs", "BuildTimeoutSecs", "1800", "28800", "28801"),
        (
            "template_source",
            "TemplateSource",
            "builtin://default-ec2",
            "git::https://h.example/r//p?ref=v1",
            "x.pkr.hcl",
        ),
    ];
    let client = include_str!("../../../cli/src/config.rs");
    let (_, list) = client.split_once("const PACKER_KEYS").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let listed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(listed, keys.map(|key| key.0), "the keys that the client knows");
    for (key, parameter, default, possible, impossible) in keys {
        let declaration = &template()["Parameters"][parameter];
        for value in [default, possible] {
            assert!(takes(declaration, value), "{key}: {parameter} does not take `{value}`");
        }
        assert!(!takes(declaration, impossible), "{key}: {parameter} takes `{impossible}`");
        let given = match &declaration["Default"] {
            Yaml::Number(number) => number.to_string(),
            text => text.as_str().unwrap().to_owned(),
        };
        assert_eq!(given, default, "{key}: the default of {parameter}");
    }
}

/// Whether CloudFormation would take the value.
fn takes(declaration: &Yaml, value: &str) -> bool {
    let bound = |name: &str| declaration[name].as_i64();
    let in_bounds = value.parse::<i64>().is_ok_and(|number| {
        bound("MinValue").is_none_or(|least| number >= least)
            && bound("MaxValue").is_none_or(|most| number <= most)
    });
    let matches = |pattern: &Yaml| {
        pattern
            .as_str()
            .is_none_or(|pattern| Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(value))
    };
    let is_listed = |values: &Yaml| {
        values.as_sequence().is_none_or(|values| values.iter().any(|one| one.as_str() == Some(value)))
    };
    (declaration["Type"] != "Number" || in_bounds)
        && matches(&declaration["AllowedPattern"])
        && is_listed(&declaration["AllowedValues"])
}
