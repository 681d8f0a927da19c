//! What goes wrong in one world, and how often: chosen once by the seed, so that some worlds are quiet but for one thing,
//! and in others everything fails at once.

use crate::world::{MINUTE, Millis, SECOND};

/// How late EC2, the index and the listings show a change, at the most. A read may be from a replica that is as much behind
/// again. What a build's second look rests on: twice this, a snapshot's late start and a clock that is off stay under a minute.
const LONGEST_LAG: Millis = 15 * SECOND;

/// The faults of a world. Probabilities are per call where nothing else is said.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// Refused before it acted.
    pub(crate) throttled: f64,
    /// Acted, and the reply lost.
    pub(crate) lost: f64,
    /// The calling function dies, before or after the call acted.
    pub(crate) dies: f64,
    /// On its way for seconds or minutes.
    pub(crate) slow: f64,
    /// How far a process's clock is off at most.
    pub(crate) skew: Millis,
    /// How late EC2, the index and the listings show a change, at most.
    pub(crate) lag: Millis,
    /// An invocation fails without having run, or runs and is told as failed; per invocation.
    pub(crate) invocation_fails: f64,
    /// An invocation happens twice, the second time at once or much later; per invocation.
    pub(crate) duplicated: f64,
    /// An execution ends by somebody's hand; per execution.
    pub(crate) execution_ends: f64,
    /// A runner dies at some moment; per runner.
    pub(crate) runner_dies: f64,
    /// A runner hangs at some moment, perhaps for ever; per runner.
    pub(crate) runner_hangs: f64,
    /// Packer fails by itself; per build.
    pub(crate) packer_fails: f64,
    /// When no poll happens.
    pub(crate) no_polls: Option<(Millis, Millis)>,
    /// When a region answers nothing.
    pub(crate) outage: Option<(usize, Millis, Millis)>,
    /// A second poll at the same time; per poll.
    pub(crate) second_poll: f64,
    /// A build is cancelled; per build.
    pub(crate) cancelled: f64,
    /// A finished image is deleted; per build.
    pub(crate) deleted: f64,
    /// How many builds run at once.
    pub(crate) slots: u32,
    /// How many builds are asked for.
    pub(crate) builds: usize,
    /// Within what time.
    pub(crate) rush: Millis,
    /// When faults stop.
    pub(crate) calm_at: Millis,
    /// Whether then the poller alone is alive.
    pub(crate) poller_alone: bool,
}

impl Weather {
    pub(crate) fn of(random: &mut fastrand::Rng) -> Self {
        let mut one_of = |choices: &[f64]| choices[random.usize(0..choices.len())];
        let rates = [0.0, 0.0, 0.005, 0.02, 0.08];
        let (throttled, lost, dies) = (one_of(&rates), one_of(&rates), one_of(&[0.0, 0.0, 0.01, 0.05, 0.15]));
        let slow = one_of(&[0.0, 0.002, 0.01]);
        let invocation_fails = one_of(&[0.0, 0.0, 0.03, 0.15]);
        let duplicated = one_of(&[0.0, 0.2, 0.6]);
        let execution_ends = one_of(&[0.0, 0.0, 0.3]);
        let runner_dies = one_of(&[0.0, 0.0, 0.3, 0.9]);
        let runner_hangs = one_of(&[0.0, 0.2, 0.5]);
        let packer_fails = one_of(&[0.0, 0.2]);
        let second_poll = one_of(&[0.0, 0.0, 0.3]);
        let cancelled = one_of(&[0.0, 0.0, 0.3, 0.8]);
        let deleted = one_of(&[0.0, 0.3]);
        let calm_at = random.i64(8..=30) * MINUTE;
        let mut window = |likely: f64, longest: i64| {
            (random.f64() < likely).then(|| {
                let from = random.i64(0..calm_at);
                (from, (from + random.i64(1..=longest) * MINUTE).min(calm_at))
            })
        };
        let no_polls = window(0.4, 12);
        let outage = window(0.2, 20);
        Self {
            throttled,
            lost,
            dies,
            slow,
            skew: [0, SECOND, 3 * SECOND][random.usize(0..3)],
            lag: [0, 2 * SECOND, LONGEST_LAG, LONGEST_LAG][random.usize(0..4)],
            invocation_fails,
            duplicated,
            execution_ends,
            runner_dies,
            runner_hangs,
            packer_fails,
            no_polls,
            outage: outage.map(|(from, to)| (random.usize(0..3), from, to)),
            second_poll,
            cancelled,
            deleted,
            slots: random.u32(1..=3),
            builds: random.usize(1..=5),
            rush: [SECOND, 4 * MINUTE][random.usize(0..2)],
            calm_at,
            poller_alone: random.bool(),
        }
    }
}
