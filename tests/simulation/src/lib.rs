//! Lives of builds in a pretend AWS where everything goes wrong: the real core, every fault that can be thought of, and what
//! must always hold. One seed is one world; the same seed is the same world, call by call.
//!
//! Must never touch the network, a file, a clock, or randomness beyond its seed.

#![warn(missing_docs)]

mod clients;
mod ec2;
mod invariants;
mod many;
mod parts;
mod runner;
mod services;
mod state_machine;
mod table;
mod weather;
mod world;

use std::collections::BTreeMap;
use std::fmt;

use ciab_core::resource::ResourceKind;

pub use many::{Summary, run_many};
use world::{MINUTE, Millis, SECOND, State, Tasks, World};

/// The stack's name.
pub(crate) const STACK: &str = "prod";
/// Another stack in the same account.
pub(crate) const OTHER_STACK: &str = "staging";

/// How one world ended.
#[derive(Debug, Clone)]
pub struct Life {
    /// Its seed.
    pub seed: u64,
    /// What was not as it must be; none where all was.
    pub violation: Option<String>,
    /// What happened, where it was asked for.
    pub trace: Vec<String>,
    /// Calls to services.
    pub calls: u64,
    /// Builds that succeeded, and that failed.
    pub ended: (usize, usize),
    /// Minutes from the moment at which faults stopped until every build was called clean.
    pub minutes_to_settle: i64,
    /// Minutes for which something of a build was left beyond its deadline and the grace after it, or beyond the moment at
    /// which faults stopped if that is later.
    pub minutes_late: i64,
    /// Things that were left and that nobody could have known of, by kind.
    pub unprovable: BTreeMap<ResourceKind, usize>,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        match &self.violation {
            Some(violation) => write!(f, "seed {}: {violation}", self.seed),
            None => write!(f, "seed {}: all held", self.seed),
        }
    }
}

/// What a world is run with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A bug of an adapter that is planted.
    pub planted: Option<&'static str>,
    /// Whether to write down what happens.
    pub traced: bool,
}

/// Minutes that pass after the faults have stopped, before all must have settled: a build's time-out (15 minutes), its grace,
/// five minutes to start and five to finish, the tear-down's fifteen, for each round of builds that wait for slots; and twice
/// the pause between two tries.
const MINUTES_A_ROUND: Millis = 45;

/// Runs the world of a seed to its end.
pub fn run(seed: u64, options: Options) -> Life {
    let world = World::new(seed, options.planted, options.traced);
    let mut tasks = Tasks::default();
    let (builds, calm_at) = world.state(|state| {
        let weather = state.weather.clone();
        state.say(|| format!("{weather:?}"));
        (weather.builds, weather.calm_at)
    });
    for number in 0..builds {
        world.spawn("client", None, clients::submitter(world.clone(), number));
    }
    world.spawn("schedule", None, clients::schedule(world.clone()));
    world.run_until(&mut tasks, calm_at);
    world.state(|state| state.calm_down(&world));
    let rounds = world.state(|state| {
        let records = i64::try_from(state.table.builds.len()).unwrap_or(i64::MAX);
        records / i64::from(state.weather.slots) + 1
    });
    let last = calm_at + (rounds * MINUTES_A_ROUND + 10) * MINUTE;
    let mut until = calm_at;
    while until < last && !world.state(|state| state.violation.is_some() || state.has_come_to_rest()) {
        until += 20 * SECOND;
        world.run_until(&mut tasks, until);
        world.state(State::look_for_leaks);
    }
    world.state(|state| {
        if state.violation.is_none() {
            state.judge_end();
        }
    });
    drop(tasks);
    let life = world.state(|state| state.life(seed));
    world.let_go();
    life
}

impl State {
    /// Faults stop. In some worlds everything but the poller has died by then.
    fn calm_down(&mut self, world: &World) {
        self.say(|| "faults stop".to_owned());
        self.calm = true;
        if !self.weather.poller_alone {
            return;
        }
        self.say(|| "from here on the poller is alone".to_owned());
        for name in ["state machine", "build-image", "cancel-build", "delete-image", "client", "a repeated"] {
            self.kill_named(name);
        }
        for name in ["PrepareBuild", "RunPacker", "FinishBuild", "CleanUp"] {
            self.kill_named(name);
        }
        let ids: Vec<_> = self.executions.all.keys().copied().collect();
        for id in ids {
            // Step Functions may say that it ended, or that it runs for ever.
            if self.random.bool() {
                self.end_execution(id);
            }
        }
        let runners: Vec<String> = self.fleet.runners.keys().cloned().collect();
        for runner in runners {
            if self.random.bool() {
                self.end_runner(&runner, false, world);
            }
        }
    }

    fn kill_named(&mut self, prefix: &str) {
        for task in self.tasks_named(prefix) {
            self.kill(task);
        }
    }

    /// Whether nothing will happen any more but polls.
    fn has_come_to_rest(&self) -> bool {
        self.is_settled() && self.tasks_named("client").is_empty() && self.tasks_named("somebody").is_empty()
    }

    fn life(&mut self, seed: u64) -> Life {
        let ended = |status| self.table.builds.values().filter(|record| record.status == status).count();
        let settled = self.truth.clean_at.values().copied().max().unwrap_or(0);
        Life {
            seed,
            violation: self.violation.take(),
            calls: self.calls,
            ended: (
                ended(ciab_core::build::BuildStatus::Succeeded),
                ended(ciab_core::build::BuildStatus::Failed),
            ),
            minutes_late: self.truth.late.values().copied().max().unwrap_or(0) / MINUTE,
            minutes_to_settle: (settled - self.weather.calm_at).max(0) / MINUTE,
            unprovable: self.truth.unprovable.clone(),
            trace: self.trace.take().unwrap_or_default(),
        }
    }
}
