//! `publish-events`: tells the outside world of every change of a build, from the stream of the table, so that what was written
//! is told, whatever died right after the write.
//!
//! Told at least once, and in the order of the writes, as far as the bus keeps to it within one call. Must never call again past a
//! change that could not be told: what comes after it waits until it is.

use std::sync::Arc;

use crate::event::{BuildEvent, Change, Ended};
use crate::ports::{EVENTS_AT_ONCE, Events};
use crate::spans;

/// What it needs.
pub struct Deps {
    /// The stack's name.
    pub stack: String,
    /// Where events go.
    pub events: Arc<dyn Events>,
}

/// How far it came.
#[derive(Debug, Default)]
pub struct Output {
    /// How many of the changes, from the first one on, are told in full.
    pub told: usize,
    /// The builds that ended by these.
    pub ended: Vec<Ended>,
}

/// Tells the changes, in their order.
pub async fn run(deps: &Deps, changes: &[Change]) -> Output {
    let events: Vec<(usize, BuildEvent)> = changes
        .iter()
        .enumerate()
        .flat_map(|(at, change)| change.events(&deps.stack).into_iter().map(move |event| (at, event)))
        .collect();
    let mut output = Output { told: changes.len(), ..Output::default() };
    let mut rest = events.as_slice();
    while !rest.is_empty() {
        let some: Vec<BuildEvent> =
            rest.iter().take(EVENTS_AT_ONCE).map(|(_, event)| event.clone()).collect();
        let accepted = match deps.events.publish(&some).await {
            Ok(accepted) => accepted.min(some.len()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                let first = rest.first().and_then(|(at, _)| changes.get(*at));
                let _of_first = first.map(|change| spans::of_build(&change.new).entered());
                tracing::error!(error, "events could not be published; the stream brings them again");
                0
            }
        };
        rest = &rest[accepted..];
        if accepted < some.len() {
            // The change whose event was not taken is told anew as a whole.
            output.told = rest.first().map_or(output.told, |(at, _)| *at);
            break;
        }
    }
    output.ended = changes[..output.told].iter().filter_map(Change::ended).collect();
    output
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::build::BuildRecord;
    use crate::build::tests::{building, made, queued, time};
    use crate::ports::PortError;

    /// Takes so many events in all, and then no more.
    #[derive(Default)]
    struct Bus {
        takes: usize,
        calls: Mutex<Vec<Vec<String>>>,
        is_down: bool,
    }

    #[async_trait]
    impl Events for Bus {
        async fn publish(&self, events: &[BuildEvent]) -> Result<usize, PortError> {
            let mut calls = self.calls.lock().unwrap();
            let taken: usize = calls.iter().map(Vec::len).sum();
            calls.push(events.iter().map(|event| event.event_id().to_owned()).collect());
            if self.is_down {
                let source = "no answer".into();
                return Err(PortError::Unavailable { service: "events", operation: "PutEvents", source });
            }
            Ok(self.takes.saturating_sub(taken).min(events.len()))
        }
    }

    fn new(revision: u64) -> Change {
        let record = BuildRecord { revision, ..queued() };
        Change { old: None, new: record, at: time("2026-03-25T14:30:00Z") }
    }

    async fn tell(bus: Bus, changes: &[Change]) -> (Output, Vec<Vec<String>>) {
        let bus = Arc::new(bus);
        let output = run(&Deps { stack: "prod".into(), events: bus.clone() }, changes).await;
        let calls = bus.calls.lock().unwrap().clone();
        (output, calls)
    }

    #[tokio::test]
    async fn events_are_published_in_order_ten_at_a_time() {
        let changes: Vec<Change> = (0..23).map(new).collect();
        let (output, calls) = tell(Bus { takes: 100, ..Bus::default() }, &changes).await;
        assert_eq!(output.told, 23);
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 3]);
        let expected: Vec<String> = (0..23).map(|revision| format!("/{revision}/state")).collect();
        let all = calls.concat();
        assert!(all.iter().zip(&expected).all(|(id, end)| id.ends_with(end)), "{all:?}");
    }

    #[tokio::test]
    async fn nothing_is_told_past_a_change_that_was_not() {
        let changes: Vec<Change> = (0..23).map(new).collect();
        let (output, calls) = tell(Bus { takes: 12, ..Bus::default() }, &changes).await;
        assert_eq!((output.told, calls.len()), (12, 2));
    }

    #[tokio::test]
    async fn of_a_bus_that_does_not_answer_nothing_counts_as_told() {
        let (output, _) = tell(Bus { is_down: true, ..Bus::default() }, &[new(0), new(1)]).await;
        assert_eq!(output.told, 0);
    }

    #[tokio::test]
    async fn what_has_nothing_to_tell_is_done_with_and_makes_no_call() {
        let quiet = Change { old: Some(queued()), ..new(0) };
        let (output, calls) = tell(Bus::default(), &[quiet.clone(), quiet]).await;
        assert_eq!((output.told, calls.len()), (2, 0));
    }

    #[tokio::test]
    async fn a_build_counts_as_ended_once_that_is_told() {
        let old = building();
        let mut record = old.clone();
        record
            .succeed(made("ami-0abcdef1234567890"), Default::default(), time("2026-03-25T14:40:00Z"))
            .unwrap();
        let ended = Change { old: Some(old), new: record, at: time("2026-03-25T14:40:00Z") };
        let (output, _) = tell(Bus { takes: 2, ..Bus::default() }, &[new(0), ended.clone()]).await;
        assert_eq!(output.ended.len(), 1);
        let (output, _) = tell(Bus { takes: 1, ..Bus::default() }, &[new(0), ended]).await;
        assert_eq!((output.told, output.ended.len()), (1, 0));
    }
}
