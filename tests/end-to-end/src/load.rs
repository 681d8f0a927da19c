//! Many builds at once on few slots: whether all end right, in the order of their submission, and none is lost.
//!
//! The build is the shortest there is (an instance that nobody connects to), so that the queue is what is looked at. On a small
//! machine such builds end as fast as others are accepted: the runners of the first, one for each slot, are held until all
//! are accepted, so that the rest does wait.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use local_stack::StackParts;
use serde::Serialize;
use serde_json::{Value, json};

use crate::processes::{freeze_runner, thaw_runner};
use crate::{Scene, eventually, processes, templates};

/// How many, on how many slots.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Builds that are submitted at once.
    pub builds: usize,
    /// Builds that may run at once.
    pub slots: usize,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct LoadReport {
    /// Builds that were submitted at once.
    pub builds: usize,
    /// Builds that may run at once.
    pub slots: usize,
    /// Builds that the API accepted.
    pub accepted: usize,
    /// Builds that succeeded.
    pub succeeded: usize,
    /// The most builds that were under way at once, by what their records say.
    pub most_at_once: usize,
    /// The most Packers that were seen alive at once.
    pub most_packers: usize,
    /// From the first request to the last answer.
    pub submitted_seconds: f64,
    /// From the first request to the last build's end.
    pub seconds: f64,
    /// What was wrong, in words; empty if all was right.
    pub wrong: Vec<String>,
}

/// When a build came, began and ended, as its record says, in a form in which text sorts as time does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Times {
    created_at: String,
    started_at: String,
    completed_at: String,
}

impl Load {
    /// Runs it on a stack of its own.
    pub fn run(self, parts: &StackParts) -> Result<LoadReport> {
        let slots = format!("ConcurrentBuilds={}", self.slots);
        // Instances that nobody connects to need no body.
        let parts = StackParts { root_filesystem: None, ..parts.clone() };
        let scene = Scene::start(&parts, &["--poll-interval", "2", "--set", &slots])?;
        let mut report = None;
        let outcome = self.put_on(&scene).map(|made| report = Some(made));
        let went_wrong = report.as_ref().is_some_and(|report: &LoadReport| !report.wrong.is_empty());
        let logs = scene.end_with_logs(outcome, went_wrong)?;
        if let (Some(report), Some(logs)) = (&mut report, logs) {
            report.wrong.push(logs);
        }
        report.context("the load made no report")
    }

    fn put_on(self, scene: &Scene) -> Result<LoadReport> {
        let began = Instant::now();
        let mut ids = self.submit(scene, self.slots.min(self.builds))?;
        let held = hold(scene, &ids)?;
        ids.extend(self.submit(scene, self.builds - ids.len())?);
        for id in &held {
            thaw_runner(id)?;
        }
        let submitted_seconds = began.elapsed().as_secs_f64();
        let (builds, most_packers) = self.ended(scene, &ids)?;
        let seconds = began.elapsed().as_secs_f64();

        let mut wrong = Vec::new();
        if ids.len() < self.builds {
            wrong.push(format!("{} of {} builds were accepted", ids.len(), self.builds));
        }
        for (id, build) in &builds {
            if build["status"] != "succeeded" {
                wrong.push(format!("{id} is {}: {}", build["status"], build["error"]));
            }
        }
        let times: Vec<Times> = builds.values().map(times).collect::<Result<_>>()?;
        let most_at_once = most_at_once(&times);
        for (what, most) in [("builds were under way", most_at_once), ("Packers were alive", most_packers)] {
            if most > self.slots {
                wrong.push(format!("{most} {what} at once on {} slots", self.slots));
            }
        }
        wrong.extend(overtaken(&times, self.slots));
        wrong.extend(function_errors(scene)?);
        wrong.extend(left(scene, &builds)?);
        let succeeded = builds.values().filter(|build| build["status"] == "succeeded").count();
        Ok(LoadReport {
            builds: self.builds,
            slots: self.slots,
            accepted: ids.len(),
            succeeded,
            most_at_once,
            most_packers,
            submitted_seconds: rounded(submitted_seconds),
            seconds: rounded(seconds),
            wrong,
        })
    }

    /// A build takes a second or two of one processor.
    fn patience(self) -> Duration {
        Duration::from_secs(120 + 6 * self.builds as u64)
    }

    /// All requests at the same moment; the ids of those that were accepted.
    fn submit(self, scene: &Scene, builds: usize) -> Result<Vec<String>> {
        let template = templates::without_communicator();
        let request = json!({
            "provider": "codex", "force": true, "template": {"type": "inline", "content": template}
        });
        // All of them on a machine of two processors: the last answer comes late.
        let api = scene.api.patient(self.patience());
        let start = Barrier::new(builds);
        let answers: Vec<Result<String>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..builds)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let answer = api.post("/api/v1/images/build", &request)?;
                        ensure!(answer.status == 202, "a build was not accepted: {answer:?}");
                        answer.text("build_id")
                    })
                })
                .collect();
            let joined = clients.into_iter().map(|client| client.join());
            joined.map(|answer| answer.map_err(|_| anyhow!("a client panicked")).flatten()).collect()
        });
        answers.into_iter().collect()
    }

    /// Waits for all ends; the documents, and the most Packers that were alive meanwhile.
    fn ended(self, scene: &Scene, ids: &[String]) -> Result<(BTreeMap<String, Value>, usize)> {
        let patience = self.patience();
        let began = Instant::now();
        let mut ended = BTreeMap::new();
        let mut most_packers = 0;
        while ended.len() < ids.len() {
            for id in ids {
                most_packers = most_packers.max(processes::packers_of(scene.aws_endpoint_url())?);
                if ended.contains_key(id) {
                    continue;
                }
                let build = scene.build(id)?;
                if matches!(build["status"].as_str(), Some("succeeded" | "failed")) {
                    ended.insert(id.clone(), build);
                } else if build["status"] == "queued" {
                    // Those after it have hardly ended before it.
                    break;
                }
            }
            ensure!(
                began.elapsed() < patience,
                "{} of {} builds have ended within {} s",
                ended.len(),
                ids.len(),
                patience.as_secs()
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok((ended, most_packers))
    }
}

/// Holds the runner of each of these builds as soon as it is there; those that it held, as some may have ended before.
fn hold(scene: &Scene, ids: &[String]) -> Result<Vec<String>> {
    let mut held = Vec::new();
    for id in ids {
        let is_held = eventually("a runner is held", || {
            if freeze_runner(id).is_ok() {
                return Ok(Some(true));
            }
            let build = scene.build(id)?;
            Ok(matches!(build["status"].as_str(), Some("succeeded" | "failed")).then_some(false))
        })?;
        if is_held {
            held.push(id.clone());
        }
    }
    Ok(held)
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

fn times(build: &Value) -> Result<Times> {
    let text =
        |field: &str| build[field].as_str().map(sortable).with_context(|| format!("no {field} in {build:#}"));
    Ok(Times {
        created_at: text("created_at")?,
        started_at: text("started_at")?,
        completed_at: text("completed_at")?,
    })
}

/// A time of RFC 3339 in UTC with all nine digits of its fraction, which are written as far as they are needed.
fn sortable(time: &str) -> String {
    let time = time.trim_end_matches('Z');
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{seconds}.{fraction:0<9}")
}

/// The most builds between their start and their end at any moment.
fn most_at_once(times: &[Times]) -> usize {
    let under_way =
        |at: &str| times.iter().filter(|other| *other.started_at <= *at && *at < *other.completed_at).count();
    times.iter().map(|one| under_way(&one.started_at)).max().unwrap_or_default()
}

/// Whoever began before more builds that came earlier than can have been dispatched and not yet begun. Slots are given in
/// order; those that have one at the same time begin as their processes get to it.
fn overtaken(times: &[Times], slots: usize) -> Vec<String> {
    let overtook = |one: &Times| {
        let waited = |other: &&Times| other.created_at < one.created_at && other.started_at > one.started_at;
        times.iter().filter(waited).count()
    };
    times
        .iter()
        .map(|one| (one, overtook(one)))
        .filter(|(_, count)| *count >= slots)
        .map(|(one, count)| {
            format!("the build of {} began at {} before {count} earlier ones", one.created_at, one.started_at)
        })
        .collect()
}

/// What functions or their host complained about.
fn function_errors(scene: &Scene) -> Result<Vec<String>> {
    let Some(folder) = scene.directory() else { return Ok(Vec::new()) };
    let mut errors = Vec::new();
    for entry in fs::read_dir(folder.join("logs/functions")).context("list the functions' logs")? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let error = |line: &&str| line.contains(r#""level":"ERROR""#) || line.contains("panicked at");
        errors.extend(text.lines().filter(error).map(|line| format!("{name}: {line}")));
    }
    // The host says of which function a process died, or an invocation failed or took too long.
    let host = fs::read_to_string(folder.join("stack.log"))?;
    errors.extend(host.lines().filter(|line| line.contains("function=")).map(str::to_owned));
    Ok(errors)
}

/// What EC2 holds beyond the images of these builds, once it has had time to.
fn left(scene: &Scene, builds: &BTreeMap<String, Value>) -> Result<Option<String>> {
    let images: Vec<&str> = builds.values().filter_map(|build| build["image_id"].as_str()).collect();
    let mut kept: Vec<String> = images.iter().map(|id| format!("image {id}")).collect();
    let answer = scene.ec2.call("DescribeImages", &[("Owner.1", "self")])?;
    let snapshots = answer.texts("imagesSet/item/blockDeviceMapping/item/ebs/snapshotId");
    kept.extend(snapshots.into_iter().map(|id| format!("snapshot {id}")));
    let beyond = || -> Result<Vec<String>> {
        Ok(scene.leftovers()?.into_iter().filter(|item| !kept.contains(item)).collect())
    };
    match eventually("nothing is left", || Ok(beyond()?.is_empty().then_some(()))) {
        Ok(()) => Ok(None),
        Err(_) => Ok(Some(format!("left: {}", beyond()?.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(created_at: &str, started_at: &str, completed_at: &str) -> Times {
        Times {
            created_at: created_at.to_owned(),
            started_at: started_at.to_owned(),
            completed_at: completed_at.to_owned(),
        }
    }

    #[test]
    fn times_sort_whatever_their_fractions() {
        let mut times =
            ["2026-03-25T14:30:00Z", "2026-03-25T14:30:00.5Z", "2026-03-25T14:30:00.25Z"].map(sortable);
        times.sort();
        assert_eq!(times[0], "2026-03-25T14:30:00.000000000");
        assert_eq!(times[2], "2026-03-25T14:30:00.500000000");
    }

    #[test]
    fn builds_are_counted_between_start_and_end() {
        let times = [build("0", "1", "3"), build("0", "2", "4"), build("0", "3", "5")];
        assert_eq!(most_at_once(&times), 2, "one that ends as another starts is not beside it");
        assert_eq!(most_at_once(&[]), 0);
    }

    #[test]
    fn one_may_begin_before_those_that_have_slots_too_and_no_more() {
        let times = [build("1", "7", "9"), build("2", "6", "9"), build("3", "5", "9")];
        assert!(overtaken(&times, 3).is_empty());
        let complaints = overtaken(&times, 2);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("of 3 began at 5 before 2 earlier"), "{complaints:?}");
        // Slots of one: strictly in order.
        assert_eq!(overtaken(&[build("1", "6", "9"), build("2", "5", "9")], 1).len(), 1);
    }
}
