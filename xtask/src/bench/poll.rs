//! What one poll costs with many active builds: calls to each of AWS's APIs, counted at a proxy, and time.
//!
//! The builds are copies of one real build's record in the table, taken while it was under way, each with an instance of
//! its own in EC2. What would say that their runners and executions are gone (CodeBuild and Step Functions) is answered by
//! the proxy as if they ran. The function, the table and EC2 are those of the stack; its time is a debug build's on moto.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use end_to_end::proxy::{Call, Fate, Pattern, Proxy};
use end_to_end::{Scene, eventually, templates};
use local_stack::{JsonApi, StackParts, interruption};
use serde::Serialize;
use serde_json::{Value, json};

use crate::progress;
use crate::setup;

/// Calls beyond those with few builds that a poll may make: one for so many builds. Pages have 100 or more.
const BUILDS_A_CALL: usize = 20;
const TABLE: &str = "ciab-local";
const STATE_MACHINE: &str = "arn:aws:states:us-east-1:123456789012:stateMachine:ciab-local-build-image";
/// What DynamoDB takes in one BatchWriteItem.
const WRITES_A_CALL: usize = 25;

#[derive(Args)]
pub(crate) struct Options {
    /// With how many active builds, in ascending order
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [10, 100, 1000])]
    builds: Vec<usize>,
    /// How many polls are made with each number; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    polls: u8,
    /// Print one JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// One poll with so many builds.
#[derive(Debug, Serialize)]
struct Row {
    builds: usize,
    /// By `service.operation`.
    calls: BTreeMap<String, usize>,
    all_calls: usize,
    /// What `all_calls` may be at most.
    budget: usize,
    seconds: f64,
    /// Of these, how long the stand-ins for AWS took to answer, by `service.operation`.
    waited: BTreeMap<String, f64>,
    ok: bool,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    rows: Vec<Row>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    ensure!(options.builds.is_sorted() && !options.builds.is_empty(), "--builds must ascend");
    let (tools, _) = setup::for_stack()?;
    // Instances that nobody connects to need no body.
    let parts = StackParts { root_filesystem: None, ..tools.parts() };
    let proxy = Proxy::start()?;
    // No poll comes but ours.
    let arguments = ["--poll-interval", "86400", "--set", "ConcurrentBuilds=500"];
    let scene = progress::step("start the local stack", || Scene::behind(&proxy, &parts, &arguments))?;
    let mut rows = Vec::new();
    let outcome = measure(&scene, &proxy, options, &mut rows);
    scene.end(outcome)?;
    Report { bench: "poll", rows }.print(options.json)
}

fn measure(scene: &Scene, proxy: &Proxy, options: &Options, rows: &mut Vec<Row>) -> Result<()> {
    let aws = JsonApi::new(scene.aws_endpoint_url())?;
    let model = progress::step("take the record of a build under way", || Model::take(scene, proxy, &aws))?;
    let most = options.builds.last().copied().unwrap_or_default();
    stand_in(proxy, most);
    let mut there = 0;
    for builds in &options.builds {
        progress::step(&format!("have {builds} active builds"), || model.copy(scene, &aws, there..*builds))?;
        there = *builds;
        let row = poll(scene, proxy, *builds, options.polls, rows.first())?;
        progress::note(&format!("{builds} builds: {} calls in {:.3} s", row.all_calls, row.seconds));
        rows.push(row);
    }
    Ok(())
}

/// The record of a build under way and the slots as they are then, in the table's own form.
struct Model {
    id: String,
    record: Value,
    slots: Value,
}

impl Model {
    fn take(scene: &Scene, proxy: &Proxy, aws: &JsonApi) -> Result<Self> {
        let trap = proxy.hold(Pattern::call("ec2.RunInstances").by("packer"));
        let template = templates::without_communicator();
        let id = scene.start_build(&json!({
            "provider": "codex", "template": {"type": "inline", "content": template}
        }))?;
        eventually("Packer launches an instance", || Ok(trap.caught()))?;
        let record = item(aws, &format!("BUILD#{id}"), "BUILD")?;
        let document = document(&record)?;
        let slots = item(aws, "SLOTS", "SLOTS")?;
        for (what, there) in [
            ("a runner", document["runner_id"].is_string()),
            ("a deadline", document["deadline"].is_string()),
            ("its place among the active", record["active"]["S"].is_string()),
            ("a slot", slots.to_string().contains(&id)),
        ] {
            ensure!(there, "a build under way has not {what}: {record} {slots}");
        }
        trap.decide(Fate::Pass);
        let build = scene.ended(&id)?;
        ensure!(build["status"] == "succeeded", "the build that was to be copied: {build:#}");
        // Polls look after it for a while yet.
        let key = json!({"pk": {"S": format!("BUILD#{id}")}, "sk": {"S": "BUILD"}});
        aws.call("dynamodb", "DynamoDB_20120810.DeleteItem", &json!({"TableName": TABLE, "Key": key}))?;
        Ok(Self { id, record, slots })
    }

    /// Writes copies with these numbers, and launches an instance for each.
    fn copy(&self, scene: &Scene, aws: &JsonApi, numbers: std::ops::Range<usize>) -> Result<()> {
        let all = 0..numbers.end;
        let numbers: Vec<usize> = numbers.collect();
        for some in numbers.chunks(WRITES_A_CALL) {
            let writes: Result<Vec<Value>> = some
                .iter()
                .map(|number| Ok(json!({"PutRequest": {"Item": self.record_of(*number)?}})))
                .collect();
            let request = json!({"RequestItems": {TABLE: writes?}});
            let answer = aws.call("dynamodb", "DynamoDB_20120810.BatchWriteItem", &request)?;
            let left = &answer["UnprocessedItems"];
            ensure!(left.as_object().is_none_or(serde_json::Map::is_empty), "not written: {left}");
        }
        let mut slots = self.slots.clone();
        let ids: BTreeSet<String> = all.map(id).collect();
        let set = slots.as_object_mut().context("the slots are no item")?;
        for value in set.values_mut().filter(|value| value.to_string().contains(&self.id)) {
            *value = json!({"SS": ids});
        }
        aws.call("dynamodb", "DynamoDB_20120810.PutItem", &json!({"TableName": TABLE, "Item": slots}))?;
        let image = scene
            .ec2
            .call("DescribeImages", &[("Filter.1.Name", "architecture"), ("Filter.1.Value.1", "x86_64")])?
            .text("imagesSet/item/imageId")
            .context("EC2 offers no base image")?;
        for number in numbers {
            interruption::pause(std::time::Duration::ZERO)?;
            let id = id(number);
            scene.ec2.call(
                "RunInstances",
                &[
                    ("ImageId", image.as_str()),
                    ("MinCount", "1"),
                    ("MaxCount", "1"),
                    ("TagSpecification.1.ResourceType", "instance"),
                    ("TagSpecification.1.Tag.1.Key", "ciab:stack"),
                    ("TagSpecification.1.Tag.1.Value", TABLE),
                    ("TagSpecification.1.Tag.2.Key", "ciab:build-id"),
                    ("TagSpecification.1.Tag.2.Value", &id),
                ],
            )?;
        }
        Ok(())
    }

    /// The record under another id, with a runner of its own and all the time there is.
    fn record_of(&self, number: usize) -> Result<Value> {
        let mut record: Value =
            serde_json::from_str(&self.record.to_string().replace(&self.id, &id(number)))?;
        let mut document = document(&record)?;
        document["runner_id"] = json!(runner(number));
        document["deadline"] = json!("2099-01-01T00:00:00Z");
        record["record"] = json!({"S": document.to_string()});
        Ok(record)
    }
}

/// The build's record, which its item holds as one document.
fn document(item: &Value) -> Result<Value> {
    let text = item["record"]["S"].as_str().context("the build's item has no record")?;
    Ok(serde_json::from_str(text)?)
}

fn item(aws: &JsonApi, partition: &str, sort: &str) -> Result<Value> {
    let key = json!({"pk": {"S": partition}, "sk": {"S": sort}});
    let request = json!({"TableName": TABLE, "Key": key, "ConsistentRead": true});
    let item = aws.call("dynamodb", "DynamoDB_20120810.GetItem", &request)?["Item"].take();
    ensure!(item.is_object(), "the table has no {partition}");
    Ok(item)
}

fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn runner(number: usize) -> String {
    format!("ciab-local-runner:{}", id(number))
}

/// Answers for the services that would know better.
fn stand_in(proxy: &Proxy, executions: usize) {
    proxy.answer(Pattern::call("codebuild.BatchGetBuilds"), |call| {
        let request: Value = serde_json::from_str(&call.body).unwrap_or_default();
        let runs = |id: &Value| json!({"id": id, "buildStatus": "IN_PROGRESS", "buildComplete": false});
        let builds: Vec<Value> = request["ids"].as_array().into_iter().flatten().map(runs).collect();
        json!({"builds": builds, "buildsNotFound": []}).to_string()
    });
    proxy.answer(Pattern::call("states.ListExecutions"), move |call| page(call, executions).to_string());
}

/// A page of running executions; the token is the number of the next.
fn page(call: &Call, executions: usize) -> Value {
    let request: Value = serde_json::from_str(&call.body).unwrap_or_default();
    let most = request["maxResults"].as_u64().map_or(100, |most| usize::try_from(most).unwrap_or(1000));
    let from: usize = request["nextToken"].as_str().and_then(|token| token.parse().ok()).unwrap_or_default();
    let to = executions.min(from + most);
    let runs = |number| {
        let name = id(number);
        let arn = format!("{}:{name}", STATE_MACHINE.replace(":stateMachine:", ":execution:"));
        json!({
            "executionArn": arn, "stateMachineArn": STATE_MACHINE, "name": name, "status": "RUNNING",
            "startDate": 1_767_225_600.0,
        })
    };
    let mut page = json!({"executions": (from..to).map(runs).collect::<Vec<_>>()});
    if to < executions {
        page["nextToken"] = json!(to.to_string());
    }
    page
}

/// Polls so often: the calls of the last poll, the median time.
fn poll(scene: &Scene, proxy: &Proxy, builds: usize, polls: u8, first: Option<&Row>) -> Result<Row> {
    let mut times = Vec::new();
    let (mut calls, mut waited) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..polls {
        let (before, waited_before) = (proxy.calls(), proxy.waited());
        let began = Instant::now();
        let said = scene.invoke("poll-builds", &json!({}))?;
        times.push(began.elapsed().as_secs_f64());
        ensure!(
            said["looked_at"] == builds && said["failed"] == 0 && said["acted_on"] == 0,
            "a poll of {builds} builds that need nothing said {said}"
        );
        calls = proxy
            .calls()
            .into_iter()
            .map(|(name, count)| (name.clone(), count - before.get(&name).copied().unwrap_or_default()))
            .filter(|(_, count)| *count > 0)
            .collect();
        waited = proxy
            .waited()
            .into_iter()
            .map(|(name, time)| {
                (
                    name.clone(),
                    rounded((time - waited_before.get(&name).copied().unwrap_or_default()).as_secs_f64()),
                )
            })
            .filter(|(_, seconds)| *seconds > 0.0)
            .collect();
    }
    times.sort_by(f64::total_cmp);
    let all_calls = calls.values().sum();
    let budget = first.map_or(all_calls, |first| first.all_calls + builds.div_ceil(BUILDS_A_CALL));
    let seconds = rounded(times[times.len() / 2]);
    Ok(Row { builds, calls, all_calls, budget, seconds, waited, ok: all_calls <= budget })
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl Report {
    fn print(&self, json: bool) -> Result<ExitCode> {
        let text = if json { serde_json::to_string(self)? + "\n" } else { self.to_table() };
        std::io::stdout().write_all(text.as_bytes()).context("print the results")?;
        Ok(self.code())
    }

    fn code(&self) -> ExitCode {
        if self.rows.iter().all(|row| row.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn to_table(&self) -> String {
        let names: BTreeSet<&String> = self.rows.iter().flat_map(|row| row.calls.keys()).collect();
        let width = names.iter().map(|name| name.len()).max().unwrap_or_default().max(22) + 2;
        let line = |what: &str, value: &dyn Fn(&Row) -> String| {
            let values: String = self.rows.iter().map(|row| format!("  {:>10}", value(row))).collect();
            format!("{what:width$}{values}")
        };
        let mut lines = vec![line("one poll, active builds", &|row| row.builds.to_string())];
        for name in names {
            lines.push(line(name, &|row| row.calls.get(name).copied().unwrap_or_default().to_string()));
        }
        lines.push(line("calls", &|row| row.all_calls.to_string()));
        lines.push(line("budget", &|row| row.budget.to_string()));
        lines.push(line("verdict", &|row| if row.ok { "ok" } else { "MISSED" }.to_owned()));
        lines.push(line("time", &|row| format!("{:.3} s", row.seconds)));
        let waits: BTreeSet<&String> = self.rows.iter().flat_map(|row| row.waited.keys()).collect();
        for name in waits {
            let waited = |row: &Row| row.waited.get(name).copied().unwrap_or_default();
            lines.push(line(&format!("  {name}"), &|row| format!("{:.3} s", waited(row))));
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(builds: usize, calls: usize, budget: usize) -> Row {
        let calls_by_name = BTreeMap::from([("ec2.DescribeInstances".to_owned(), calls)]);
        Row {
            builds,
            calls: calls_by_name,
            all_calls: calls,
            budget,
            seconds: 0.1,
            waited: BTreeMap::new(),
            ok: calls <= budget,
        }
    }

    #[test]
    fn more_calls_than_pages_explain_miss_the_budget() {
        let code = |rows| Report { bench: "poll", rows }.code();
        assert_eq!(code(vec![row(10, 9, 9), row(1000, 40, 59)]), ExitCode::SUCCESS);
        assert_eq!(code(vec![row(10, 9, 9), row(1000, 1009, 59)]), ExitCode::FAILURE);
    }

    #[test]
    fn the_table_has_a_column_for_each_number_of_builds() {
        let table = Report { bench: "poll", rows: vec![row(10, 1, 9), row(1000, 2, 59)] }.to_table();
        let line = table.lines().find(|line| line.starts_with("ec2.DescribeInstances")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["ec2.DescribeInstances", "1", "2"]);
    }
}
