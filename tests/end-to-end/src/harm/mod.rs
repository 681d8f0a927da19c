//! What is done to builds, and what must come of it: one list for the tests and for `cargo xtask bench leaks`.
//!
//! Each scenario is a build to which something happens at moments that are known by what the build does, never by the
//! clock. What counts as right is the same for all: the status is true and stays, the record's proof holds, and after two
//! polls EC2 holds what it held before and a succeeded build's AMI, no more. Where something comes to light later (a call
//! that was under way for as long as the build was torn down, what Packer left beside an AMI), the last look that is made
//! before a build is called clean must have removed it.

mod bare;
mod judgement;
mod list;
mod rig;

pub use bare::BareOutcome;
pub use list::scenarios;
pub use rig::{Outcome, Rig, run_all};

use crate::proxy::Pattern;

/// One build and what happens to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What happens, for people.
    pub name: String,
    /// What the build's instance is there for.
    pub work: Work,
    /// What happens, in this order.
    pub steps: Vec<Step>,
    /// How the build has to end.
    pub end: End,
    /// How long the build may take, in seconds, where that matters.
    pub timeout_secs: Option<u32>,
    /// Whether it is among the few that the tests run.
    pub in_tests: bool,
}

/// One thing that happens, and when.
#[derive(Clone, Debug)]
pub struct Step {
    /// When.
    pub moment: Moment,
    /// What.
    pub harm: Harm,
}

/// What an instance does once Packer is connected to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Next to nothing.
    Brief,
    /// More than anybody waits for.
    Endless,
}

impl Work {
    /// What an endless one says when it begins.
    pub const BEGUN: &'static str = "provisioning has begun";

    /// As a provisioner's script.
    pub fn script(self) -> String {
        match self {
            Self::Brief => "true".to_owned(),
            Self::Endless => format!("echo {}; sleep 600", Self::BEGUN),
        }
    }
}

/// When something happens.
#[derive(Clone, Debug)]
pub enum Moment {
    /// The build's log has a line with this.
    Logged(&'static str),
    /// This call stands at the proxy: sent, and not yet made.
    Call(Pattern),
    /// The build has ended.
    Ended,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// These die, all at this moment; then the call that stood at the proxy is made after all.
    Kill(Vec<Victim>),
    /// The call is made, and its reply is lost.
    LoseReply,
    /// The API is asked to cancel the build by so many at once, and must say yes to each.
    Cancel {
        /// How many.
        by: usize,
    },
    /// The API is asked to cancel the build, and must say that it has ended.
    CancelTooLate,
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The runner's process alone.
    Runner,
    /// All of Packer.
    Packer,
    /// Every process on the runner's machine.
    Machine,
    /// The build's execution in the state machine's interpreter.
    Execution,
    /// The process whose call stands at the proxy.
    Caller,
}

/// How a build has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an AMI.
    Succeeded,
    /// Without one.
    Failed,
    /// Without one, and as cancelled.
    Cancelled,
    /// One or the other, as long as it is true.
    Either,
}
