//! The bucket, the state machine's service, the services that run runners, and clocks.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use ciab_core::build::RunnerKind;
use ciab_core::ids::{BuildId, Region};
use ciab_core::ports::{
    Clock, ExecutionState, FetchError, Fetched, Identifiers, ObjectStore, PortError, RunnerOrder,
    RunnerState, Runners, Secret, Secrets, TaskState, TaskTokens, TemplateFetcher, Workflows,
};
use ciab_core::resource::{Resource, ResourceKind, tag};
use ciab_template::TemplateSource;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::STACK;
use crate::runner;
use crate::state_machine;
use crate::world::{MINUTE, Millis, Process, SECOND, SignalId, State, TaskId, World, short, timestamp};

/// How long CodeBuild remembers an idempotency token.
const TOKEN_LIFE: Millis = 5 * MINUTE;

/// The bucket's objects.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
}

/// No build of these worlds has a template that must be fetched.
#[async_trait]
impl TemplateFetcher for Process {
    async fn fetch(
        &self,
        source: &TemplateSource,
        _known: Option<&str>,
        _credential: Option<&Secret>,
    ) -> Result<Fetched, FetchError> {
        Err(FetchError::Refused(format!("nothing is fetched in here, and not {source}")))
    }
}

#[async_trait]
impl Secrets for Process {
    async fn secret(&self, _name: &str) -> Result<Option<Secret>, PortError> {
        Ok(None)
    }
}

#[async_trait]
impl ObjectStore for Process {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError> {
        let got = self
            .call("s3", "GetObject", &key, |state| Ok(Object(state.bucket.objects.get(key).cloned())))
            .await?;
        Ok(got.0)
    }

    async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), PortError> {
        self.call("s3", "PutObject", &key, |state| {
            state.bucket.objects.insert(key.to_owned(), body);
            Ok(())
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, PortError> {
        self.call("s3", "ListObjectsV2", &prefix, |state| {
            Ok(state.bucket.objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
        })
        .await
    }

    async fn ready(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// An object's bytes, which are not for a trace.
struct Object(Option<Vec<u8>>);

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(bytes) => write!(f, "{} bytes", bytes.len()),
            None => f.write_str("no such object"),
        }
    }
}

/// An execution of the state machine.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) began: Millis,
    pub(crate) ended: Option<Millis>,
    /// From when on its start is shown, and how much later its end.
    shown: Millis,
    lag: Millis,
    task: TaskId,
}

/// The executions, by their builds.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    pub(crate) all: BTreeMap<BuildId, Execution>,
}

impl State {
    fn shown_execution(&self, id: BuildId) -> ExecutionState {
        match self.executions.all.get(&id) {
            Some(execution) if execution.shown <= self.now => {
                if execution.ended.is_some_and(|at| at + execution.lag <= self.now) {
                    ExecutionState::Ended
                } else {
                    ExecutionState::Running { since: timestamp(execution.began) }
                }
            }
            _ => ExecutionState::Absent,
        }
    }

    /// Ends an execution: nobody waits for its tasks any more. What its functions are doing they go on with.
    pub(crate) fn end_execution(&mut self, id: BuildId) {
        let now = self.now;
        let Some(execution) = self.executions.all.get_mut(&id) else { return };
        if execution.ended.is_none() {
            execution.ended = Some(now);
            let task = execution.task;
            self.kill(task);
            for token in self.tokens.all.values_mut().filter(|token| token.build == id) {
                token.open = false;
            }
        }
    }
}

#[async_trait]
impl Workflows for Process {
    async fn start(&self, id: BuildId) -> Result<(), PortError> {
        let world = self.world.clone();
        self.call("states", "StartExecution", &short(id), |state| {
            let is_new = !state.executions.all.contains_key(&id);
            if is_new {
                let (now, lag) = (state.now, state.lag());
                let shown = now + state.lag();
                let execution = Execution { began: now, ended: None, shown, lag, task: 0 };
                state.executions.all.insert(id, execution);
                state.begin_execution(id, &world);
            }
            Ok(())
        })
        .await
    }

    async fn running(&self) -> Result<BTreeMap<BuildId, Timestamp>, PortError> {
        self.call("states", "ListExecutions", &"", |state| {
            let ids: Vec<BuildId> = state.executions.all.keys().copied().collect();
            Ok(ids
                .into_iter()
                .filter_map(|id| match state.shown_execution(id) {
                    ExecutionState::Running { since } => Some((id, since)),
                    ExecutionState::Absent | ExecutionState::Ended => None,
                })
                .collect())
        })
        .await
    }

    async fn state(&self, id: BuildId) -> Result<ExecutionState, PortError> {
        self.call("states", "DescribeExecution", &short(id), |state| Ok(state.shown_execution(id))).await
    }

    async fn stop(&self, id: BuildId) -> Result<(), PortError> {
        self.call("states", "StopExecution", &short(id), |state| {
            state.end_execution(id);
            Ok(())
        })
        .await
    }

    async fn ready(&self) -> Result<(), PortError> {
        Ok(())
    }
}

impl State {
    fn begin_execution(&mut self, id: BuildId, world: &World) {
        if self.calm && self.weather.poller_alone {
            // There is nobody to work on it.
            return;
        }
        let task = self.spawn(format!("state machine {}", short(id)), state_machine::run(world.clone(), id));
        if let Some(execution) = self.executions.all.get_mut(&id) {
            execution.task = task;
        }
        let likely = self.weather.execution_ends;
        if !self.calm && self.chance(likely) {
            let after = self.between(0, 8 * MINUTE);
            let world = world.clone();
            self.spawn("somebody", async move {
                world.sleep(after).await;
                world.state(|state| {
                    if !state.calm {
                        state.say(|| format!("ends the execution {}", short(id)));
                        state.end_execution(id);
                    }
                });
            });
        }
    }
}

/// A task token.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) build: BuildId,
    pub(crate) open: bool,
    pub(crate) heard: Millis,
    pub(crate) result: Option<Result<Value, (String, String)>>,
    /// Fired with the result.
    pub(crate) signal: SignalId,
}

/// All task tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) all: BTreeMap<String, Token>,
}

impl State {
    fn report(&mut self, token: &str, result: Result<Value, (String, String)>) -> TaskState {
        match self.tokens.all.get_mut(token) {
            Some(token) if token.open => {
                token.open = false;
                token.result = Some(result);
                let signal = token.signal;
                self.fire(signal);
                TaskState::Open
            }
            _ => TaskState::Gone,
        }
    }
}

#[async_trait]
impl TaskTokens for Process {
    async fn heartbeat(&self, token: &str) -> Result<TaskState, PortError> {
        self.call("states", "SendTaskHeartbeat", &token, |state| {
            let now = state.now;
            Ok(match state.tokens.all.get_mut(token) {
                Some(token) if token.open => {
                    token.heard = now;
                    TaskState::Open
                }
                _ => TaskState::Gone,
            })
        })
        .await
    }

    async fn succeed(&self, token: &str, output: &Value) -> Result<TaskState, PortError> {
        self.call("states", "SendTaskSuccess", &token, |state| Ok(state.report(token, Ok(output.clone()))))
            .await
    }

    async fn fail(&self, token: &str, error: &str, cause: &str) -> Result<TaskState, PortError> {
        self.call("states", "SendTaskFailure", &token, |state| {
            Ok(state.report(token, Err((error.to_owned(), cause.to_owned()))))
        })
        .await
    }
}

/// A runner, on CodeBuild or on an instance of its own.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) build: BuildId,
    pub(crate) kind: RunnerKind,
    pub(crate) region: Region,
    pub(crate) asked: Millis,
    /// From when on services show it.
    pub(crate) shown: Millis,
    /// When it ended, and whether it had reported.
    pub(crate) ended: Option<(Millis, bool)>,
    pub(crate) tasks: Vec<TaskId>,
    /// Whether it stands still.
    pub(crate) hangs: bool,
    /// Fired when it is to stop Packer, and why.
    pub(crate) stop: SignalId,
    pub(crate) stop_reason: Option<runner::StopReason>,
}

/// All runners.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) runners: BTreeMap<String, Runner>,
}

impl State {
    fn start_runner(&mut self, order: &RunnerOrder, world: &World) -> String {
        let now = self.now;
        let life = if order.kind == RunnerKind::Codebuild { TOKEN_LIFE } else { Millis::MAX };
        let forgets = self.planted == Some("StartBuild has no idempotency token");
        let same = |runner: &Runner| runner.build == order.build_id && now - runner.asked < life && !forgets;
        if let Some((id, _)) = self.fleet.runners.iter().find(|(_, runner)| same(runner)) {
            return id.clone();
        }
        let id = match order.kind {
            RunnerKind::Codebuild => format!("runner:{}", self.uuid()),
            RunnerKind::Ec2 => format!("i-{}", self.digits()),
        };
        let (shown, stop) = (now + self.lag(), self.signal());
        let runner = Runner {
            build: order.build_id,
            kind: order.kind,
            region: order.region.clone(),
            asked: now,
            shown,
            ended: None,
            tasks: Vec::new(),
            hangs: false,
            stop,
            stop_reason: None,
        };
        self.fleet.runners.insert(id.clone(), runner);
        self.judge_launch(order.build_id);
        runner::start(self, world, &id, order);
        id
    }

    /// Ends a runner and all that runs on it. What it asked for last may still arrive, some seconds later.
    pub(crate) fn end_runner(&mut self, id: &str, reported: bool, world: &World) {
        let now = self.now;
        let Some(runner) = self.fleet.runners.get_mut(id) else { return };
        if runner.ended.is_none() {
            runner.ended = Some((now, reported));
            let tasks = std::mem::take(&mut runner.tasks);
            self.say(|| format!("the runner {id} ends (reported: {reported})"));
            let after = if self.random.bool() { 0 } else { self.between(0, 4 * SECOND) };
            let world = world.clone();
            self.spawn("runners", async move {
                world.sleep(after).await;
                world.state(|state| {
                    for task in tasks {
                        state.kill(task);
                    }
                });
            });
        }
    }

    /// The instances that runners are.
    pub(crate) fn runner_instances(&self, region: &Region) -> Vec<Resource> {
        let here = self.fleet.runners.iter().filter(|(_, runner)| {
            runner.kind == RunnerKind::Ec2
                && runner.region == *region
                && runner.ended.is_none()
                && runner.shown <= self.now
        });
        here.map(|(id, runner)| {
            let mut instance = Resource::bare(ResourceKind::Instance, region.clone(), id);
            instance.tags = BTreeMap::from([
                (tag::STACK.to_owned(), STACK.to_owned()),
                (tag::RUNNER_OF.to_owned(), runner.build.to_string()),
            ]);
            instance
        })
        .collect()
    }
}

#[async_trait]
impl Runners for Process {
    async fn start(&self, order: &RunnerOrder) -> Result<String, PortError> {
        let world = self.world.clone();
        let about = format!("{} for {}", order.kind.as_str(), short(order.build_id));
        self.call("runners", "Start", &about, |state| Ok(state.start_runner(order, &world))).await
    }

    async fn of_builds(
        &self,
        kind: RunnerKind,
        builds: &BTreeSet<BuildId>,
    ) -> Result<BTreeMap<BuildId, BTreeSet<String>>, PortError> {
        self.call("runners", "List", &"", |state| {
            let mut of: BTreeMap<BuildId, BTreeSet<String>> = BTreeMap::new();
            for (id, runner) in &state.fleet.runners {
                if runner.kind == kind && builds.contains(&runner.build) && runner.shown <= state.now {
                    of.entry(runner.build).or_default().insert(id.clone());
                }
            }
            Ok(of)
        })
        .await
    }

    async fn states(&self, ids: &BTreeSet<String>) -> Result<BTreeMap<String, RunnerState>, PortError> {
        self.call("runners", "Describe", &"", |state| {
            let state_of = |id: &String| match state.fleet.runners.get(id) {
                Some(runner) if runner.shown <= state.now => match runner.ended {
                    None => RunnerState::Running,
                    Some((at, reported)) => RunnerState::Ended {
                        at: timestamp(at),
                        // An instance that is gone says nothing of how its work ended.
                        reported: reported && runner.kind == RunnerKind::Codebuild,
                    },
                },
                _ => RunnerState::Absent,
            };
            Ok(ids.iter().map(|id| (id.clone(), state_of(id))).collect())
        })
        .await
    }

    async fn stop(&self, id: &str) -> Result<(), PortError> {
        let world = self.world.clone();
        self.call("runners", "Stop", &id, |state| {
            let Some(runner) = state.fleet.runners.get(id) else { return Ok(()) };
            if runner.ended.is_none() {
                // An instance that shuts down tells what runs on it; CodeBuild tells nothing.
                let told = runner.kind == RunnerKind::Ec2 && state.random.bool();
                let after = state.between(0, 20 * SECOND);
                if told {
                    state.stop_packer(id, runner::StopReason::Signal);
                }
                let id = id.to_owned();
                state.spawn("runners", async move {
                    world.sleep(after).await;
                    world.state(|state| state.end_runner(&id, false, &world));
                });
            }
            Ok(())
        })
        .await
    }
}

impl Clock for Process {
    fn now(&self) -> Timestamp {
        self.world.state(|state| timestamp(state.now)) + SignedDuration::from_millis(self.skew)
    }
}

impl Identifiers for Process {
    fn new_build_id(&self) -> BuildId {
        BuildId::new(self.world.state(State::uuid))
    }

    fn new_holder(&self) -> String {
        self.world.state(|state| format!("poll {}", state.next()))
    }
}
