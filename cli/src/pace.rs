//! How often to ask, and how long to go on asking. Pure: time comes in as durations since the start of the wait.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(300);
const WITH_NEWS: Duration = Duration::from_secs(1);
const SLOWEST: Duration = Duration::from_secs(2);
/// A build may end during an outage: whoever waits should not learn it long after the service is back.
const SLOWEST_RETRY: Duration = Duration::from_secs(4);
/// An overloaded service may ask for more, but a build's end should not be learnt minutes late.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause between two polls: short at first, so that a short build's end is seen at once.
#[derive(Debug)]
pub(crate) struct Pace {
    next: Duration,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// Something new came: more is likely to come soon.
    pub(crate) fn news(&mut self) {
        self.next = self.next.min(WITH_NEWS);
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.mul_f64(1.25).min(SLOWEST);
        pause
    }
}

/// The pause before trying a failed request again; `attempt` counts from 1.
pub(crate) fn retry_delay(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(6);
    Duration::from_millis(250 * 2_u64.pow(doublings)).min(SLOWEST_RETRY)
}

/// The same while waiting for a build, where the service's own wish counts for more.
pub(crate) fn outage_delay(attempt: u32, retry_after: Option<Duration>) -> Duration {
    retry_delay(attempt).max(retry_after.unwrap_or_default()).min(LONGEST_PAUSE)
}

/// How long to wait for a build. The service ends a build at its deadline; a wait that goes on much longer than that has
/// no end to wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Longest time without any answer.
    outage: Duration,
    /// Longest time since the build was last seen queued: it may queue for as long as others build.
    building: Duration,
    /// Longest time in all.
    all: Duration,
}

/// Beyond the deadline: the clean-up, the poll after it, and clocks that differ.
const SLACK: Duration = Duration::from_secs(15 * 60);
const USUAL_TIMEOUT: Duration = Duration::from_secs(1800);
/// The longest a build can be allowed to take on CodeBuild.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(8 * 3600);
const LONGEST_WAIT: Duration = Duration::from_secs(48 * 3600);

impl Patience {
    /// For a build with this time limit; where the service chose the limit, it may be any.
    pub(crate) fn for_build(timeout_secs: Option<u64>) -> Self {
        let known = timeout_secs.map(Duration::from_secs);
        Self {
            outage: known.unwrap_or(USUAL_TIMEOUT).saturating_add(SLACK),
            building: known.unwrap_or(LONGEST_TIMEOUT).saturating_add(SLACK),
            all: LONGEST_WAIT.max(known.unwrap_or_default().saturating_add(SLACK)),
        }
    }

    /// All three are times since the wait began.
    pub(crate) fn is_over(&self, now: Duration, last_answer: Duration, last_queued: Duration) -> bool {
        now.saturating_sub(last_answer) > self.outage
            || now.saturating_sub(last_queued) > self.building
            || now > self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn polls_start_close_together_and_slow_down_to_two_seconds() {
        let mut pace = Pace::new();
        let pauses: Vec<Duration> = (0..12).map(|_| pace.pause()).collect();
        assert_eq!(pauses[0], Duration::from_millis(300));
        assert!(pauses.is_sorted());
        assert_eq!(pauses[11], Duration::from_secs(2));
    }

    #[test]
    fn news_brings_the_next_poll_nearer() {
        let mut pace = Pace::new();
        for _ in 0..20 {
            pace.pause();
        }
        pace.news();
        assert_eq!(pace.pause(), Duration::from_secs(1));
    }

    #[test]
    fn retries_back_off_and_stop_growing() {
        assert_eq!(retry_delay(1), Duration::from_millis(250));
        assert_eq!(retry_delay(3), Duration::from_secs(1));
        assert_eq!(retry_delay(1000), Duration::from_secs(4));
    }

    #[test]
    fn the_service_may_ask_for_a_longer_pause_within_reason() {
        assert_eq!(outage_delay(1, Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(outage_delay(1, Some(Duration::from_secs(86_400))), Duration::from_secs(60));
    }

    #[test]
    fn a_wait_outlives_the_builds_own_time_limit_by_a_margin() {
        let patience = Patience::for_build(Some(600));
        assert!(!patience.is_over(24 * MINUTE, 24 * MINUTE, Duration::ZERO));
        assert!(patience.is_over(26 * MINUTE, 26 * MINUTE, Duration::ZERO));
    }

    #[test]
    fn time_in_the_queue_does_not_count_against_the_build() {
        let patience = Patience::for_build(Some(600));
        assert!(!patience.is_over(300 * MINUTE, 300 * MINUTE, 290 * MINUTE));
    }

    #[test]
    fn an_outage_is_borne_as_long_as_the_build_could_take() {
        let patience = Patience::for_build(None);
        assert!(!patience.is_over(44 * MINUTE, Duration::ZERO, Duration::ZERO));
        assert!(patience.is_over(46 * MINUTE, Duration::ZERO, Duration::ZERO));
    }
}
