//! What the infrastructure says and what the code says are the same: routes, states, error names, settings.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use ciab_core::build::BuildStatus;
use ciab_core::clean_up::Output;
use ciab_core::event::{EventKind, SCHEMA};
use ciab_core::key::Scope;
use ciab_core::routes::{Access, ROUTES, access};
use ciab_core::step::StepError;
use serde_json::Value as Json;
use serde_norway::Value as Yaml;

const TEMPLATE: &str = include_str!("../../../infra/template.yaml");
const OPENAPI: &str = include_str!("../../../infra/openapi.yaml");
const EVENTS: &str = include_str!("../../../infra/events.schema.json");
const POLL_BUILDS: &str = include_str!("../../../functions/poll-builds/src/main.rs");
const PUBLISH_EVENTS: &str = include_str!("../../../functions/publish-events/src/main.rs");
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
        .map(|(method, path, folder, _)| ((*method).to_owned(), (*path).to_owned(), (*folder).to_owned()))
        .collect();
    assert_eq!(routed, known);
}

/// Method, path and operation, of all that the description has.
fn operations() -> Vec<(String, String, Yaml)> {
    let description: Yaml = serde_norway::from_str(OPENAPI).unwrap();
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_mapping().unwrap() {
        for (method, operation) in item.as_mapping().unwrap() {
            if method != "parameters" {
                let (method, path) = (method.as_str().unwrap(), path.as_str().unwrap());
                operations.push((method.to_uppercase(), path.to_owned(), operation.clone()));
            }
        }
    }
    operations
}

#[test]
fn the_description_has_the_routes_that_the_code_knows() {
    let described: BTreeSet<_> = operations().into_iter().map(|(method, path, _)| (method, path)).collect();
    let known: BTreeSet<_> = ROUTES
        .iter()
        .filter(|(method, ..)| *method != "$default")
        .map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(described, known);
}

#[test]
fn the_description_says_which_routes_need_no_key() {
    let mut open = BTreeSet::new();
    for function in functions().values() {
        for (_, event) in function["Properties"]["Events"].as_mapping().into_iter().flatten() {
            if event["Properties"]["Auth"]["Authorizer"] == "NONE" {
                open.insert(event["Properties"]["Path"].as_str().unwrap().to_owned());
            }
        }
    }
    for (method, path, operation) in operations() {
        let described = operation["security"].as_sequence().is_some_and(Vec::is_empty);
        assert_eq!(described, open.contains(&path), "{method} {path}");
        let asked = access(&format!("{method} {path}")).unwrap();
        let scope = operation["x-scope"].as_str().map(|scope| Access::Scope(scope.parse().unwrap()));
        assert_eq!(scope.unwrap_or(Access::Open), asked, "{method} {path}");
    }
}

/// The strings in a part of a source file.
fn strings_between<'a>(source: &'a str, begin: &str, end: &str) -> BTreeSet<&'a str> {
    let (_, rest) = source.split_once(begin).unwrap();
    let (part, _) = rest.split_once(end).unwrap();
    part.split('"').skip(1).step_by(2).collect()
}

#[test]
fn the_description_has_the_error_names_and_fields_that_the_code_has() {
    let description: Yaml = serde_norway::from_str(OPENAPI).unwrap();
    let schemas = &description["components"]["schemas"];
    let codes = schemas["ErrorCode"]["enum"].as_sequence().unwrap().iter().map(|code| code.as_str().unwrap());
    let api = include_str!("../../../shared/core/src/api.rs");
    assert_eq!(codes.collect::<BTreeSet<_>>(), strings_between(api, "pub fn code(", "/// The status code"));

    let fields = schemas["BuildRequest"]["properties"].as_mapping().unwrap().keys();
    let request = include_str!("../../../shared/core/src/request.rs");
    let known = strings_between(request, "const FIELDS:", "];");
    assert_eq!(fields.map(|field| field.as_str().unwrap()).collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_description_names_values_that_the_code_reads() {
    fn each<T: serde::de::DeserializeOwned>(schema: &str) {
        let description: Yaml = serde_norway::from_str(OPENAPI).unwrap();
        let values = description["components"]["schemas"][schema]["enum"].as_sequence().unwrap().clone();
        for value in values {
            assert!(serde_norway::from_value::<T>(value.clone()).is_ok(), "{schema}: {value:?}");
        }
    }
    each::<BuildStatus>("BuildStatus");
    each::<ciab_core::build::Phase>("Phase");
    each::<ciab_core::build::Stage>("Stage");
    each::<ciab_core::build::RunnerKind>("Runner");
    each::<ciab_core::ids::Provider>("Provider");
    each::<Scope>("Scope");
    each::<ciab_core::build::Origin>("Origin");
    each::<ciab_core::resource::ResourceKind>("ResourceKind");
}

/// What the contract says of scopes, said once more: a new route must get the right one, and be open in one place only if it is
/// in the other.
#[test]
fn every_route_asks_for_the_scope_of_what_it_does() {
    let mut open = BTreeSet::new();
    for function in functions().values() {
        for (_, event) in function["Properties"]["Events"].as_mapping().into_iter().flatten() {
            if event["Properties"]["Auth"]["Authorizer"] == "NONE" {
                open.insert(event["Properties"]["Path"].as_str().unwrap().to_owned());
            }
        }
    }
    for (method, path, _, access) in ROUTES {
        let is_admins = path.starts_with("/api/v1/images/keys") || path == "/api/v1/images/rebuilds";
        let expected = match method {
            _ if open.contains(path) => Access::Open,
            "$default" => Access::AnyKey,
            _ if is_admins => Access::Scope(Scope::Admin),
            "GET" => Access::Scope(Scope::Read),
            "POST" => Access::Scope(Scope::Build),
            "DELETE" => Access::Scope(Scope::Delete),
            other => panic!("nothing is said of {other}"),
        };
        assert_eq!(access, expected, "{method} {path}");
    }
    assert_eq!(open, ["/health".to_owned(), "/ready".to_owned()].into());
}

#[test]
fn the_first_admin_key_is_read_by_the_authorizer_alone_and_keys_by_who_needs_them() {
    let items = include_str!("../../../shared/aws/src/records/items.rs");
    assert!(items.contains("const KEYS: &str = \"KEYS\";"), "keys stand elsewhere in the table");
    for (folder, function) in functions() {
        let policies = serde_norway::to_string(&function["Properties"]["Policies"]).unwrap();
        let reads = policies.contains("-admin-key");
        assert_eq!(reads, folder == "authorize-request", "{folder}");
        let of_keys_alone = ["authorize-request", "manage-keys"].contains(&folder.as_str());
        for policy in function["Properties"]["Policies"].as_sequence().into_iter().flatten() {
            for statement in policy["Statement"].as_sequence().into_iter().flatten() {
                let is_tables = serde_norway::to_string(&statement["Action"]).unwrap().contains("dynamodb:");
                let keys = &statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"];
                if is_tables && of_keys_alone {
                    assert_eq!(*keys, "KEYS", "{folder} may look at more than keys");
                }
            }
        }
    }
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

/// A record takes the task token of every try that there can be.
#[test]
fn a_record_has_room_for_the_token_of_each_try_of_run_packer() {
    let build = include_str!("../../../shared/core/src/build.rs");
    let (_, most) = build.split_once("const MOST_TASK_TOKENS: usize = ").unwrap();
    let most: u64 = most.split(';').next().unwrap().parse().unwrap();
    let retries = states()["RunPacker"]["Retry"].as_array().unwrap().clone();
    let retries: u64 = retries.iter().map(|rule| rule["MaxAttempts"].as_u64().unwrap()).sum();
    assert!(retries > 0 && retries < most, "{retries} retries, {most} tokens");
}

/// What a build's roles are worth rests on who may begin their sessions.
#[test]
fn only_issue_credentials_is_trusted_with_the_roles_of_a_build() {
    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    let roles = template["Resources"].as_mapping().unwrap().iter();
    let mut of_builds = 0;
    for (name, role) in roles.filter(|(_, resource)| resource["Type"] == "AWS::IAM::Role") {
        for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"].as_sequence().unwrap() {
            let principal = &statement["Principal"];
            if principal.get("Service").is_none() {
                assert_eq!(text(&principal["AWS"]), "IssueCredentialsFunctionRole.Arn", "{name:?}");
                of_builds += 1;
            }
        }
    }
    assert_eq!(of_builds, 2, "the roles of a build's files and of Packer");
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

#[test]
fn whoever_cancels_a_build_may_do_all_that_clean_up_does() {
    let functions = functions();
    let policies = |folder: &str| functions[folder]["Properties"]["Policies"].as_sequence().unwrap().clone();
    let is_shared = |policy: &Yaml| matches!(policy, Yaml::Tagged(tagged) if tagged.tag == "Ref");
    let (cancelling, cleaning) = (policies("cancel-build"), policies("clean-up"));
    assert!(cleaning.iter().all(is_shared), "clean-up has rights of its own: {cleaning:?}");
    for policies in [cancelling, policies("poll-builds")] {
        let missing: Vec<_> = cleaning.iter().filter(|policy| !policies.contains(policy)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

/// Those of the template, by their logical names.
fn alarms() -> BTreeMap<String, Yaml> {
    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    let resources = template["Resources"].as_mapping().unwrap();
    resources
        .iter()
        .filter(|(_, resource)| resource["Type"] == "AWS::CloudWatch::Alarm")
        .map(|(name, resource)| (name.as_str().unwrap().to_owned(), resource["Properties"].clone()))
        .collect()
}

/// The text of a value that may stand behind a tag such as `!Sub`.
fn text(value: &Yaml) -> &str {
    match value {
        Yaml::Tagged(tagged) => tagged.value.as_str().unwrap(),
        plain => plain.as_str().unwrap(),
    }
}

/// What `metrics.rs` calls this.
fn metrics_constant(name: &str) -> &'static str {
    let source = include_str!("../../../shared/lambda/src/metrics.rs");
    let (_, value) = source.split_once(&format!("const {name}: &str = \"")).unwrap();
    value.split('"').next().unwrap()
}

fn is_written(metric: &str) -> bool {
    [POLL_BUILDS, PUBLISH_EVENTS].iter().any(|source| source.contains(&format!("(\"{metric}\", ")))
}

#[test]
fn alarms_watch_metrics_that_are_written() {
    let mut ours = 0;
    for (name, alarm) in alarms() {
        if alarm["Namespace"] != metrics_constant("NAMESPACE") {
            let namespace = alarm["Namespace"].as_str().unwrap();
            assert!(namespace.starts_with("AWS/"), "{name}: nobody writes under {namespace}");
            continue;
        }
        ours += 1;
        let dimensions = alarm["Dimensions"].as_sequence().unwrap();
        assert_eq!(dimensions.len(), 1, "{name}: a metric with another set of dimensions is another metric");
        assert_eq!(dimensions[0]["Name"], metrics_constant("DIMENSION"), "{name}");
        let metric = alarm["MetricName"].as_str().unwrap();
        assert!(is_written(metric), "{name}: nobody writes {metric}");
    }
    assert_eq!(ours, 3, "leftovers, the poller, and failed builds");
}

#[test]
fn the_dashboard_shows_metrics_that_are_written_and_functions_that_exist() {
    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    let body = text(&template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]);
    let body: Json = serde_json::from_str(body).unwrap();
    let (mut ours, mut shown) = (0, BTreeSet::new());
    for widget in body["widgets"].as_array().unwrap() {
        for metric in widget["properties"]["metrics"].as_array().unwrap() {
            let part = |at: usize| metric[at].as_str().unwrap();
            if part(0) == metrics_constant("NAMESPACE") {
                ours += 1;
                assert!(is_written(part(1)), "nobody writes {metric}");
                assert_eq!((part(2), part(3)), (metrics_constant("DIMENSION"), "${AWS::StackName}"));
            } else if part(0) == "AWS/Lambda" {
                shown.insert(part(3).strip_prefix("${AWS::StackName}-").unwrap().to_owned());
            }
        }
    }
    assert!(ours >= 10, "the metrics are no longer shown");
    assert_eq!(shown, functions().into_keys().collect());
}

#[test]
fn every_alarm_is_told_about_and_says_what_it_means() {
    let operations = include_str!("../../../docs/OPERATIONS.md");
    let alarms = alarms();
    assert!(alarms.len() > 10, "the alarms are no longer found in the template");
    for (name, alarm) in alarms {
        for actions in ["AlarmActions", "OKActions"] {
            let Yaml::Tagged(choice) = &alarm[actions] else { panic!("{name} has no {actions}") };
            assert_eq!(choice.value[0], "AlarmsAreTold", "{name}");
        }
        assert!(text(&alarm["AlarmDescription"]).len() > 60, "{name} does not say what it means");
        let ending = text(&alarm["AlarmName"]).strip_prefix("${AWS::StackName}").unwrap().to_owned();
        let ending = if ending.ends_with("-errors") { "-<function>-errors".to_owned() } else { ending };
        assert!(operations.contains(&format!("`{ending}`")), "docs/OPERATIONS.md says nothing of {ending}");
    }
}

#[test]
fn what_is_said_to_cost_money_all_the_time_is_what_there_is() {
    let costs = include_str!("../../../docs/COSTS.md");
    let metrics = POLL_BUILDS.lines().filter(|line| line.trim_start().starts_with("(\"")).count();
    for part in [format!("| {} × alarm |", alarms().len()), format!("| {metrics} × metric |")] {
        assert!(costs.contains(&part), "docs/COSTS.md does not say {part}");
    }
}

/// Whoever subscribes goes by names: those of the code, of the rule, of the role and of the schema are the same.
#[test]
fn events_go_by_the_names_that_their_schema_says() {
    let schema: Json = serde_json::from_str(EVENTS).unwrap();
    let adapter = include_str!("../../../shared/aws/src/events.rs");
    let source = schema["properties"]["source"]["const"].as_str().unwrap();
    assert!(adapter.contains(&format!("const SOURCE: &str = \"{source}\";")), "{source}");

    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    let pattern = &template["Resources"]["BuildsEndedRule"]["Properties"]["EventPattern"];
    assert_eq!(pattern["source"][0], source);
    let policies = &functions()["publish-events"]["Properties"]["Policies"];
    assert_eq!(policies[0]["Statement"][0]["Condition"]["StringEquals"]["events:source"], source);

    let kinds = [EventKind::StateChange, EventKind::CleanUpChange].map(EventKind::detail_type);
    assert_eq!(schema["properties"]["detail-type"]["enum"], serde_json::json!(kinds));
    assert_eq!(pattern["detail-type"][0], EventKind::StateChange.detail_type());
    assert_eq!(schema["$defs"]["detail"]["properties"]["schema"]["const"], SCHEMA);
    let ends: Vec<BuildStatus> = serde_norway::from_value(pattern["detail"]["status"].clone()).unwrap();
    assert!(ends.iter().all(|status| status.is_final()), "{ends:?}");
}

#[test]
fn the_schema_of_events_names_the_values_that_the_code_has() {
    /// What serde expects in the place of something else it says in its error.
    fn each<T: serde::de::DeserializeOwned>(values: &Json) {
        let error = serde_json::from_value::<T>("?".into()).err().unwrap().to_string();
        let expected: BTreeSet<&str> = error.split('`').skip(1).step_by(2).skip(1).collect();
        let named: BTreeSet<&str> = values.as_array().unwrap().iter().filter_map(Json::as_str).collect();
        assert_eq!(named, expected, "{error}");
    }
    let schema: Json = serde_json::from_str(EVENTS).unwrap();
    let fields = &schema["$defs"]["detail"]["properties"];
    let failure = &fields["failure"]["oneOf"][1]["properties"];
    each::<BuildStatus>(&schema["$defs"]["status"]["enum"]);
    each::<ciab_core::build::Phase>(&schema["$defs"]["phase"]["enum"]);
    each::<ciab_core::build::Stage>(&failure["stage"]["enum"]);
    each::<ciab_core::build::FailureKind>(&failure["kind"]["enum"]);
    each::<ciab_core::build::RunnerKind>(&fields["runner"]["enum"]);
    each::<ciab_core::build::Origin>(&fields["origin"]["enum"]);
    each::<ciab_core::ids::Provider>(&fields["provider"]["enum"]);
}

/// The local stack hands over what the template's filter lets through, and so a build's sort key must be what it says.
#[test]
fn the_stream_invokes_for_builds_alone() {
    let items = include_str!("../../../shared/aws/src/records/items.rs");
    assert!(items.contains("sort: \"BUILD\".into()"), "builds stand elsewhere in the table");
    let changes = &functions()["publish-events"]["Properties"]["Events"]["Changes"]["Properties"];
    let pattern: Json =
        serde_json::from_str(changes["FilterCriteria"]["Filters"][0]["Pattern"].as_str().unwrap()).unwrap();
    assert_eq!(pattern["dynamodb"]["Keys"]["sk"]["S"], serde_json::json!(["BUILD"]));
    assert_eq!(changes["StartingPosition"], "TRIM_HORIZON", "what was written first is told too");
}

/// A step of a build answers with an error where it only wants to be asked again.
#[test]
fn a_function_that_is_no_step_of_a_build_has_an_alarm_for_its_errors() {
    let alarms = alarms();
    let steps = states();
    for folder in functions().keys() {
        let name = camel(folder);
        let is_step = steps.contains_key(&name) || folder == "start-runner";
        let alarm = alarms.get(&format!("{name}ErrorsAlarm"));
        assert_eq!(alarm.is_some(), !is_step, "{folder}");
        if let Some(alarm) = alarm {
            assert_eq!(text(&alarm["Dimensions"][0]["Value"]), format!("{name}Function"));
            assert_eq!(text(&alarm["AlarmName"]), format!("${{AWS::StackName}}-{folder}-errors"));
        }
    }
}

#[test]
fn every_check_that_checkov_leaves_out_has_a_reason() {
    let settings = include_str!("../../../infra/checkov.yaml");
    let (_, skipped) = settings.split_once("skip-check:\n").unwrap();
    let mut lines = skipped.lines().peekable();
    let mut checks = BTreeSet::new();
    while lines.peek().is_some() {
        let mut reason = String::new();
        while let Some(comment) = lines.next_if(|line| line.trim_start().starts_with('#')) {
            reason += comment.trim_start().trim_start_matches('#');
        }
        let check = lines.next().unwrap().trim_start().strip_prefix("- ").unwrap();
        assert!(reason.len() > 15, "{check} is left out without a reason");
        assert!(checks.insert(check), "{check} is left out twice");
    }
    assert!(checks.len() > 5, "the checks are no longer found in infra/checkov.yaml");
}

/// Whoever deploys reads of every parameter, and of none that does not exist.
#[test]
fn the_documentation_lists_the_parameters_that_there_are() {
    let template: Yaml = serde_norway::from_str(TEMPLATE).unwrap();
    let declared = template["Parameters"].as_mapping().unwrap();
    let documentation = include_str!("../../../docs/DEPLOY.md");
    let table = documentation.split("\n## ").find(|section| section.starts_with("Parameters\n")).unwrap();
    let mut listed = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
        let (name, default) = (cells[0], cells[1]);
        let declaration = &template["Parameters"][name];
        let value = match &declaration["Default"] {
            Yaml::Null => "none".to_owned(),
            Yaml::Number(number) => number.to_string(),
            other => other.as_str().unwrap().to_owned(),
        };
        assert_eq!(default, if value.is_empty() { "empty" } else { &value }, "the default of {name}");
        let description = declaration["Description"].as_str().unwrap();
        assert!(cells[2].starts_with(description), "what {name} is: {}", cells[2]);
        listed.insert(name);
    }
    assert_eq!(listed, declared.keys().filter_map(Yaml::as_str).collect());
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
