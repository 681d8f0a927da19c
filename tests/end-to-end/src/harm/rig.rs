//! A stack behind a proxy, and one build after another that is harmed on it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use local_stack::{Inventory, StackParts};
use serde_json::{Value, json};

use super::judgement::{self, Image};
use super::{Harm, Moment, Scenario, Step, Victim};
use crate::proxy::{Call, Counter, Fate, Pattern, Proxy, Trap};
use crate::{Answer, Scene, eventually, processes, templates};

const BUILD: &str = "/api/v1/images/build";

/// A stack whose poller comes every second, behind a proxy.
pub struct Rig {
    /// The stack.
    pub scene: Scene,
    /// What its functions, runner and Packer take for AWS.
    pub proxy: Proxy,
    polls: Counter,
    requests: AtomicUsize,
}

/// What came of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// The build's document at the end; null if there is none.
    pub build: Value,
    /// What of the build EC2 still holds, but for the AMI it succeeded with.
    pub leaked: Vec<String>,
    /// What is wrong, in words; empty if all is right.
    pub wrong: Vec<String>,
    /// Whether it was not yet right after two polls, and so looked at again when the build was called clean.
    pub at_last_look: bool,
    /// From the request to two polls after the end.
    pub seconds: f64,
}

/// Runs scenarios one after another on one stack. After one with something wrong the next gets a new stack, so that it is
/// not blamed for what is left; the old one's log is kept, and `told` what to say of it.
///
/// `each` is given every outcome while its stack is there.
pub fn run_all<'s>(
    parts: &StackParts,
    scenarios: impl IntoIterator<Item = &'s Scenario>,
    mut each: impl FnMut(&Rig, &Scenario, Outcome) -> Result<()>,
    mut told: impl FnMut(&str),
) -> Result<()> {
    let mut standing: Option<Rig> = None;
    for scenario in scenarios {
        let rig = match standing.take() {
            Some(rig) => rig,
            None => Rig::set(parts, &[])?,
        };
        let outcome = rig.run(scenario);
        let wrong = outcome.wrong.join("; ");
        if let Err(error) = each(&rig, scenario, outcome) {
            return rig.end(Err(error));
        }
        if wrong.is_empty() {
            standing = Some(rig);
        } else if let Err(error) = rig.end(Err(anyhow!("{}: {wrong}", scenario.name))) {
            told(&format!("{error:#}"));
        }
    }
    standing.map_or(Ok(()), |rig| rig.end(Ok(())))
}

impl Rig {
    /// Starts the stack. The arguments go to it.
    pub fn set(parts: &StackParts, arguments: &[&str]) -> Result<Self> {
        let proxy = Proxy::start()?;
        let scene = Scene::behind(&proxy, parts, &[&["--poll-interval", "1"], arguments].concat())?;
        // A poll's last call gives its lease back.
        let polls = proxy.count(Pattern::call("dynamodb.DeleteItem").containing("poll-builds"));
        Ok(Self { scene, proxy, polls, requests: AtomicUsize::new(0) })
    }

    /// Takes the stack down.
    pub fn end(self, outcome: Result<()>) -> Result<()> {
        self.scene.end(outcome)
    }

    /// Runs a scenario. What is wrong with the build is part of the outcome; an error is one of the machinery.
    pub fn run(&self, scenario: &Scenario) -> Outcome {
        let began = Instant::now();
        let mut outcome = self.try_run(scenario).unwrap_or_else(|error| Outcome {
            build: Value::Null,
            leaked: Vec::new(),
            wrong: vec![format!("{error:#}")],
            at_last_look: false,
            seconds: 0.0,
        });
        outcome.seconds = began.elapsed().as_secs_f64();
        outcome
    }

    fn try_run(&self, scenario: &Scenario) -> Result<Outcome> {
        let before = Inventory::take(&self.scene.ec2)?;
        // Before the build, so that no call can come too early.
        let traps: Vec<Option<Trap>> = scenario.steps.iter().map(|step| self.trap(step)).collect();
        let template = templates::with_script(&scenario.work.script());
        let mut request = json!({"provider": "codex", "template": {"type": "inline", "content": template}});
        if let Some(seconds) = scenario.timeout_secs {
            request["timeout_secs"] = json!(seconds);
        }
        let key = format!("request-{}", self.requests.fetch_add(1, Ordering::Relaxed));
        thread::scope(|scope| {
            // The call may be the request's own: whoever waits for the answer cannot kill in the meantime.
            let submitted = scope.spawn(|| self.submit(&request, &key));
            let mut build_id = None;
            let mut id = || -> Result<String> {
                if build_id.is_none() {
                    build_id = Some(self.submit(&request, &key)?.text("build_id")?);
                }
                build_id.clone().context("the build has no id")
            };
            for (step, trap) in scenario.steps.iter().zip(&traps) {
                let call = self.wait_for(step, trap.as_ref(), &mut id)?;
                self.harm(step, call.as_ref(), &mut id)?;
                if let Some(trap) = trap {
                    trap.decide(match step.harm {
                        Harm::LoseReply => Fate::LoseReply,
                        Harm::Kill(_) | Harm::Cancel { .. } | Harm::CancelTooLate => Fate::Pass,
                    });
                }
            }
            submitted.join().map_err(|_| anyhow!("the request's thread panicked"))??;
            let id = id()?;
            self.scene.ended(&id)?;
            self.two_polls()?;
            let outcome = self.outcome(scenario, &id, &before)?;
            if outcome.wrong.is_empty() {
                return Ok(outcome);
            }
            // Until nobody looks after it any more.
            let outcome = eventually("the build is right or called clean", || {
                let clean = self.scene.build(&id)?["leftovers"]["clean"] == true;
                let outcome = self.outcome(scenario, &id, &before)?;
                Ok((clean || outcome.wrong.is_empty()).then_some(outcome))
            })?;
            Ok(Outcome { at_last_look: true, ..outcome })
        })
    }

    fn trap(&self, step: &Step) -> Option<Trap> {
        match &step.moment {
            Moment::Call(pattern) => Some(self.proxy.hold(pattern.clone())),
            Moment::Logged(_) | Moment::Ended => None,
        }
    }

    /// Asks until the request is accepted: the same key gives the same build, however often it takes.
    fn submit(&self, request: &Value, key: &str) -> Result<Answer> {
        eventually("the build is accepted", || {
            let headers = [("content-type", "application/json"), ("idempotency-key", key)];
            let answer = self.scene.api.send("POST", BUILD, &headers, &request.to_string())?;
            ensure!(answer.status == 202 || answer.status >= 500, "the build was refused: {answer:?}");
            Ok((answer.status == 202).then_some(answer))
        })
    }

    fn wait_for(
        &self,
        step: &Step,
        trap: Option<&Trap>,
        id: &mut impl FnMut() -> Result<String>,
    ) -> Result<Option<Call>> {
        match (&step.moment, trap) {
            (Moment::Call(pattern), Some(trap)) => {
                let what = format!("{} is called", pattern.call);
                let mut looked = Instant::now();
                eventually(&what, || {
                    if let Some(call) = trap.caught() {
                        return Ok(Some(Some(call)));
                    }
                    // A build that has ended makes no call any more; but asking is not free.
                    if looked.elapsed().as_secs() >= 2 {
                        looked = Instant::now();
                        let build = self.scene.build(&id()?)?;
                        let over = matches!(build["status"].as_str(), Some("succeeded" | "failed"));
                        ensure!(
                            !over || trap.caught().is_some(),
                            "the build ended and {what} never: {build}"
                        );
                    }
                    Ok(None)
                })
            }
            (Moment::Logged(text), _) => {
                let id = id()?;
                eventually(&format!("`{text}` is logged"), || {
                    if self.scene.log(&id)?.iter().any(|line| line.contains(text)) {
                        return Ok(Some(None));
                    }
                    let build = self.scene.build(&id)?;
                    let over = matches!(build["status"].as_str(), Some("succeeded" | "failed"));
                    ensure!(!over, "the build ended and `{text}` was never logged: {build}");
                    Ok(None)
                })
            }
            (Moment::Ended, _) => self.scene.ended(&id()?).map(|_| None),
            (Moment::Call(_), None) => bail!("nobody waits for the call"),
        }
    }

    fn harm(&self, step: &Step, call: Option<&Call>, id: &mut impl FnMut() -> Result<String>) -> Result<()> {
        match &step.harm {
            Harm::LoseReply => Ok(()),
            Harm::Kill(victims) => victims.iter().try_for_each(|victim| match victim {
                Victim::Runner => processes::kill_runner_alone(&id()?),
                Victim::Packer => processes::kill_packers_group(&id()?),
                Victim::Machine => processes::kill_runners_machine(&id()?),
                Victim::Execution => self.scene.stop_execution(&id()?),
                Victim::Caller => call
                    .and_then(Call::caller)
                    .context("the process whose call stands at the proxy is gone already")?
                    .kill(),
            }),
            Harm::Cancel { by } => {
                let id = id()?;
                let answers: Vec<_> = thread::scope(|scope| {
                    let callers: Vec<_> = (0..*by).map(|_| scope.spawn(|| self.cancel(&id))).collect();
                    callers.into_iter().map(thread::ScopedJoinHandle::join).collect()
                });
                answers.into_iter().try_for_each(|answer| {
                    let answer = answer.map_err(|_| anyhow!("a caller panicked"))??;
                    ensure!(answer.status == 202, "the cancellation was answered with {answer:?}");
                    Ok(())
                })
            }
            Harm::CancelTooLate => {
                let answer = self.cancel(&id()?)?;
                ensure!((answer.status, answer.code()) == (409, "build_ended"), "{answer:?}");
                Ok(())
            }
        }
    }

    fn cancel(&self, id: &str) -> Result<Answer> {
        self.scene.api.send("POST", &format!("/api/v1/images/builds/{id}/cancel"), &[], "")
    }

    /// Returns when two polls that began after this have ended: the third has begun.
    pub fn two_polls(&self) -> Result<()> {
        let before = self.polls.value();
        eventually("two polls", || Ok((self.polls.value() >= before + 3).then_some(())))
    }

    fn outcome(&self, scenario: &Scenario, id: &str, before: &Inventory) -> Result<Outcome> {
        let build = self.scene.build(id)?;
        let left = Inventory::take(&self.scene.ec2)?.beyond(before);
        let image = match build["image_id"].as_str() {
            Some(image_id) => self.image(image_id)?,
            None => None,
        };
        let wrong = judgement::wrong(&build, image.as_ref(), &left, scenario.end);
        let leaked = judgement::leaked(&build, image.as_ref(), &left);
        Ok(Outcome { build, leaked, wrong, at_last_look: false, seconds: 0.0 })
    }

    fn image(&self, image_id: &str) -> Result<Option<Image>> {
        let filter = [("Filter.1.Name", "image-id"), ("Filter.1.Value.1", image_id)];
        let answer = self.scene.ec2.call("DescribeImages", &filter)?;
        let Some(state) = answer.text("imagesSet/item/imageState") else { return Ok(None) };
        let keys = answer.texts("imagesSet/item/tagSet/item/key");
        let values = answer.texts("imagesSet/item/tagSet/item/value");
        let build_id =
            keys.iter().zip(values).find(|(key, _)| *key == "ciab:build-id").map(|(_, value)| value);
        let snapshots = answer.texts("imagesSet/item/blockDeviceMapping/item/ebs/snapshotId");
        Ok(Some(Image { state, build_id: build_id.unwrap_or_default(), snapshots }))
    }
}
