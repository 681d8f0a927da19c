//! Time, tasks and chance: a world that runs by one seed, and the same way every time.
//!
//! One thread, virtual time, one source of randomness. A task only ever waits here, so that everything that happens between
//! two calls of a port is decided here: what comes first, what is late, who dies. Must never look at a real clock.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use ciab_core::ids::BuildId;
use ciab_core::ports::PortError;
use futures::future::LocalBoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::ec2::Ec2;
use crate::invariants::Truth;
use crate::services::{Bucket, Executions, Fleet, Tokens};
use crate::table::Table;
use crate::weather::Weather;

/// Milliseconds since the world began.
pub(crate) type Millis = i64;
/// A second.
pub(crate) const SECOND: Millis = 1_000;
/// A minute.
pub(crate) const MINUTE: Millis = 60_000;

pub(crate) type TaskId = u64;
pub(crate) type SignalId = u64;

thread_local! {
    /// Tasks that have not run yet. Not in the world, which ports share and which so must be `Sync`: what the core awaits is
    /// not `Send`, and a world never leaves its thread.
    static SPAWNED: RefCell<Vec<(TaskId, LocalBoxFuture<'static, ()>)>> = const { RefCell::new(Vec::new()) };
}

/// How a function's invocation ended: its answer, or an error's name and cause.
pub(crate) type Answer = Result<Value, (String, String)>;

/// The moment at which every world begins.
const BEGAN: i64 = 1_774_440_000;

/// The time of the world's clock, which is right; processes have clocks that are not.
pub(crate) fn timestamp(at: Millis) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_millis(BEGAN * SECOND + at)
}

#[derive(Debug, Default)]
struct Signal {
    fired: bool,
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Task {
    name: Arc<str>,
    /// What is to be answered when it dies.
    invocation: Option<SignalId>,
}

/// All that there is.
pub(crate) struct State {
    pub(crate) now: Millis,
    pub(crate) random: fastrand::Rng,
    pub(crate) weather: Weather,
    /// The adapter's bug that is planted.
    pub(crate) planted: Option<&'static str>,
    /// Whether faults have stopped.
    pub(crate) calm: bool,
    /// The first thing that was not as it must be.
    pub(crate) violation: Option<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) calls: u64,
    pub(crate) table: Table,
    pub(crate) bucket: Bucket,
    pub(crate) executions: Executions,
    pub(crate) tokens: Tokens,
    pub(crate) fleet: Fleet,
    pub(crate) ec2: Ec2,
    pub(crate) truth: Truth,
    sequence: u64,
    timers: BTreeMap<(Millis, u64), Waker>,
    signals: BTreeMap<SignalId, Signal>,
    answers: BTreeMap<SignalId, Answer>,
    killed: Vec<TaskId>,
    tasks: BTreeMap<TaskId, Task>,
    current: TaskId,
}

impl State {
    /// A number that was never given before.
    pub(crate) fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.random.f64() < probability
    }

    /// A number of milliseconds from the first to the second, both included.
    pub(crate) fn between(&mut self, least: Millis, most: Millis) -> Millis {
        if most <= least { least } else { self.random.i64(least..=most) }
    }

    /// A hexadecimal number of 17 digits: what EC2 puts behind `i-`.
    pub(crate) fn digits(&mut self) -> String {
        format!("{:017x}", self.random.u64(..) >> 4)
    }

    pub(crate) fn uuid(&mut self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.random.u128(..).to_be_bytes()).into_uuid()
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        let name = self.tasks.get(&self.current).map_or("world".into(), |task| task.name.clone());
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            let (seconds, millis) = (now / SECOND, now % SECOND);
            let (minutes, seconds) = (seconds / 60, seconds % 60);
            trace.push(format!("{minutes:>3}:{seconds:02}.{millis:03}  {name:<34} {}", what()));
        }
    }

    /// Says that something is not as it must be; the first word counts.
    pub(crate) fn violated(&mut self, what: impl Into<String>) {
        if self.violation.is_none() {
            let what = what.into();
            self.say(|| format!("VIOLATION {what}"));
            self.violation = Some(what);
        }
    }

    /// Starts a task.
    pub(crate) fn spawn(
        &mut self,
        name: impl Into<Arc<str>>,
        work: impl Future<Output = ()> + 'static,
    ) -> TaskId {
        let id = self.next();
        self.tasks.insert(id, Task { name: name.into(), invocation: None });
        SPAWNED.with_borrow_mut(|spawned| spawned.push((id, Box::pin(work))));
        id
    }

    pub(crate) fn current(&self) -> TaskId {
        self.current
    }

    /// Ends a task where it stands, at the next moment.
    pub(crate) fn kill(&mut self, task: TaskId) {
        self.killed.push(task);
    }

    /// Every task that runs under a name that begins so.
    pub(crate) fn tasks_named(&self, prefix: &str) -> Vec<TaskId> {
        self.tasks.iter().filter(|(_, task)| task.name.starts_with(prefix)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn signal(&mut self) -> SignalId {
        let id = self.next();
        self.signals.insert(id, Signal::default());
        id
    }

    pub(crate) fn fire(&mut self, signal: SignalId) {
        let signal = self.signals.entry(signal).or_default();
        signal.fired = true;
        for waker in signal.waiting.drain(..) {
            waker.wake();
        }
    }

    pub(crate) fn has_fired(&self, signal: SignalId) -> bool {
        self.signals.get(&signal).is_some_and(|signal| signal.fired)
    }

    /// Answers an invocation; the first answer counts.
    pub(crate) fn answer(&mut self, invocation: SignalId, answer: Answer) {
        self.answers.entry(invocation).or_insert(answer);
        self.fire(invocation);
    }

    pub(crate) fn answer_of(&self, invocation: SignalId) -> Option<Answer> {
        self.answers.get(&invocation).cloned()
    }
}

/// What a task is woken by.
struct TaskWaker {
    task: TaskId,
    shared: Arc<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        lock(&self.shared.ready).push_back(self.task);
    }
}

struct Shared {
    state: Mutex<State>,
    ready: Mutex<VecDeque<TaskId>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The world; clones are the same one.
#[derive(Clone)]
pub(crate) struct World(Arc<Shared>);

impl World {
    pub(crate) fn new(seed: u64, planted: Option<&'static str>, traced: bool) -> Self {
        // A world before it may have ended in the middle.
        drop(SPAWNED.take());
        let mut random = fastrand::Rng::with_seed(seed);
        let weather = Weather::of(&mut random);
        let state = State {
            now: 0,
            random,
            weather,
            planted,
            calm: false,
            violation: None,
            trace: traced.then(Vec::new),
            calls: 0,
            table: Table::default(),
            bucket: Bucket::default(),
            executions: Executions::default(),
            tokens: Tokens::default(),
            fleet: Fleet::default(),
            ec2: Ec2::default(),
            truth: Truth::default(),
            sequence: 0,
            timers: BTreeMap::new(),
            signals: BTreeMap::new(),
            answers: BTreeMap::new(),
            killed: Vec::new(),
            tasks: BTreeMap::new(),
            current: 0,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), ready: Mutex::default() }))
    }

    /// Ends it. What still waits for a time or a signal holds the world, which holds it: neither would ever be freed.
    pub(crate) fn let_go(&self) {
        let waits = self.state(|state| {
            let signals = std::mem::take(&mut state.signals);
            (std::mem::take(&mut state.timers), signals, std::mem::take(&mut state.answers))
        });
        // Outside of the lock: a waker that goes may want to look at the world.
        drop(waits);
        drop(SPAWNED.take());
    }

    pub(crate) fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut lock(&self.0.state))
    }

    /// Starts a task.
    pub(crate) fn spawn(
        &self,
        name: impl Into<Arc<str>>,
        invocation: Option<SignalId>,
        work: impl Future<Output = ()> + 'static,
    ) -> TaskId {
        self.state(|state| {
            let id = state.spawn(name, work);
            if let Some(task) = state.tasks.get_mut(&id) {
                task.invocation = invocation;
            }
            id
        })
    }

    /// Invokes a function: a process of its own, which dies when its time is over. Answers what its answer comes by.
    pub(crate) fn invoke<F>(
        &self,
        name: &str,
        limit: Millis,
        body: impl FnOnce(Arc<Process>) -> F + 'static,
    ) -> SignalId
    where
        F: Future<Output = Answer> + 'static,
    {
        let (invocation, skew, start) = self.state(|state| {
            let most = state.weather.skew;
            let skew = state.between(-most, most);
            (state.signal(), skew, state.between(1, 150))
        });
        let name: Arc<str> = format!("{name} #{invocation}").into();
        let process = Arc::new(Process { world: self.clone(), skew, is_function: true });
        let world = self.clone();
        let task = self.spawn(name, Some(invocation), async move {
            world.sleep(start).await;
            let answer = body(process).await;
            world.state(|state| {
                state.say(|| format!("answers {answer:?}"));
                state.answer(invocation, answer);
            });
        });
        let world = self.clone();
        self.spawn("lambda", None, async move {
            if !world.wait(&[invocation], Some(limit)).await {
                world.state(|state| state.kill(task));
            }
        });
        invocation
    }

    pub(crate) fn sleep(&self, millis: Millis) -> Wait<'_> {
        self.wait(&[], Some(millis))
    }

    /// Waits for one of the signals, at most so long. Tells whether one came.
    pub(crate) fn wait<'a>(&self, signals: &'a [SignalId], at_most: Option<Millis>) -> Wait<'a> {
        let until = at_most.map(|millis| self.state(|state| state.now) + millis.max(0));
        Wait { world: self.clone(), signals, until, registered: false }
    }

    /// Runs until the time has come, or something is not as it must be.
    pub(crate) fn run_until(&self, tasks: &mut Tasks, until: Millis) {
        loop {
            self.run_ready(tasks);
            let woken = self.state(|state| {
                if state.violation.is_some() {
                    return None;
                }
                let key = *state.timers.keys().next()?;
                if key.0 > until {
                    return None;
                }
                state.now = state.now.max(key.0);
                state.timers.remove(&key)
            });
            match woken {
                Some(waker) => waker.wake(),
                None => break,
            }
        }
        self.state(|state| {
            if state.violation.is_none() {
                state.now = state.now.max(until);
            }
        });
    }

    fn run_ready(&self, tasks: &mut Tasks) {
        loop {
            let spawned = SPAWNED.take();
            let killed = self.state(|state| std::mem::take(&mut state.killed));
            for (id, future) in spawned {
                let waker = Waker::from(Arc::new(TaskWaker { task: id, shared: self.0.clone() }));
                tasks.0.insert(id, (future, waker.clone()));
                waker.wake();
            }
            for id in killed {
                let future = tasks.0.remove(&id);
                drop(future);
                self.state(|state| state.bury(id));
            }
            if self.state(|state| state.violation.is_some()) {
                return;
            }
            let Some(id) = lock(&self.0.ready).pop_front() else { break };
            let Some((future, waker)) = tasks.0.get_mut(&id) else { continue };
            self.state(|state| state.current = id);
            let waker = waker.clone();
            let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            if ended {
                tasks.0.remove(&id);
            }
            self.state(|state| {
                state.current = 0;
                if ended {
                    state.tasks.remove(&id);
                }
            });
        }
    }
}

impl State {
    fn bury(&mut self, task: TaskId) {
        let Some(task) = self.tasks.remove(&task) else { return };
        self.say(|| format!("{} died", task.name));
        if let Some(invocation) = task.invocation {
            let cause = r#"{"errorType":"Runtime.ExitError","errorMessage":"the process ended"}"#;
            self.answer(invocation, Err(("Lambda.Unknown".to_owned(), cause.to_owned())));
        }
    }
}

/// The tasks' futures; beside the world, since a future that is dropped may want to look at it.
#[derive(Default)]
pub(crate) struct Tasks(BTreeMap<TaskId, (LocalBoxFuture<'static, ()>, Waker)>);

/// A wait for a time or a signal. True where a signal came.
pub(crate) struct Wait<'a> {
    world: World,
    signals: &'a [SignalId],
    until: Option<Millis>,
    registered: bool,
}

impl Future for Wait<'_> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let world = self.world.clone();
        world.state(|state| {
            if self.signals.iter().any(|signal| state.has_fired(*signal)) {
                return Poll::Ready(true);
            }
            if self.until.is_some_and(|until| state.now >= until) {
                return Poll::Ready(false);
            }
            if !self.registered {
                self.registered = true;
                for signal in self.signals {
                    state.signals.entry(*signal).or_default().waiting.push(context.waker().clone());
                }
                if let Some(until) = self.until {
                    let key = (until, state.next());
                    state.timers.insert(key, context.waker().clone());
                }
            }
            Poll::Pending
        })
    }
}

/// Who calls: a process with a clock of its own. Its ports are those of the domain.
pub(crate) struct Process {
    pub(crate) world: World,
    /// How far its clock is off.
    pub(crate) skew: Millis,
    /// Whether it may die at a call: runners die by a plan of their own.
    pub(crate) is_function: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused,
    DiesBefore,
    DiesAfter,
    ReplyLost,
}

pub(crate) fn unavailable(service: &'static str, operation: &'static str, why: &str) -> PortError {
    PortError::Unavailable { service, operation, source: why.into() }
}

impl Process {
    /// One call to a service: it takes its time, and may be refused, die with its caller before or after it acted, or act and
    /// never be answered.
    pub(crate) async fn call<T: std::fmt::Debug + Send>(
        &self,
        service: &'static str,
        operation: &'static str,
        about: &(dyn Display + Sync),
        act: impl FnOnce(&mut State) -> Result<T, PortError> + Send,
    ) -> Result<T, PortError> {
        let (there, back) = self.world.state(|state| {
            state.calls += 1;
            (state.latency(), state.latency())
        });
        self.world.sleep(there).await;
        let fate = self.world.state(|state| state.fate(self.is_function));
        let answer = self.world.state(|state| match fate {
            Fate::DiesBefore => {
                state.say(|| format!("{service} {operation} {about}: dies before it acts"));
                state.kill(state.current());
                None
            }
            Fate::Refused => {
                state.say(|| format!("{service} {operation} {about}: throttled"));
                Some(Err(unavailable(service, operation, "throttled")))
            }
            Fate::Answered | Fate::DiesAfter | Fate::ReplyLost => {
                let answer = act(state);
                let told: String = match state.trace {
                    Some(_) => format!("{answer:?}").chars().take(140).collect(),
                    None => String::new(),
                };
                state.say(|| match fate {
                    Fate::DiesAfter => format!("{service} {operation} {about}: {told}, and dies"),
                    Fate::ReplyLost => format!("{service} {operation} {about}: {told}, reply lost"),
                    _ => format!("{service} {operation} {about}: {told}"),
                });
                state.check();
                match fate {
                    Fate::DiesAfter => {
                        state.kill(state.current());
                        None
                    }
                    Fate::ReplyLost => Some(Err(unavailable(service, operation, "the reply was lost"))),
                    _ => Some(answer),
                }
            }
        });
        let Some(answer) = answer else { return std::future::pending().await };
        self.world.sleep(back).await;
        answer
    }
}

impl State {
    /// How long a call is on its way.
    fn latency(&mut self) -> Millis {
        if self.calm {
            return self.between(1, 30);
        }
        let slow = self.weather.slow;
        if self.chance(slow) {
            // A stalled process or connection.
            let most = if self.chance(0.2) { 100 * SECOND } else { 15 * SECOND };
            self.between(SECOND, most)
        } else if self.chance(0.1) {
            self.between(50, 1_500)
        } else {
            self.between(1, 50)
        }
    }

    fn fate(&mut self, may_die: bool) -> Fate {
        if self.calm {
            return Fate::Answered;
        }
        let (throttled, lost, dies) = (self.weather.throttled, self.weather.lost, self.weather.dies);
        if self.chance(throttled) {
            Fate::Refused
        } else if self.chance(lost) {
            Fate::ReplyLost
        } else if may_die && self.chance(dies) {
            if self.random.bool() { Fate::DiesBefore } else { Fate::DiesAfter }
        } else {
            Fate::Answered
        }
    }
}

/// A build's name in a trace.
pub(crate) fn short(id: BuildId) -> String {
    id.to_string()[..8].to_owned()
}
