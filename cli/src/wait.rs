//! Waiting for a build to end, and reading its log meanwhile.
//!
//! A wait outlives lost connections and a service that fails for a while. It ends with the build's final status, or says
//! that it lost track; it never takes trouble on the way for the build's failure.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::client::{self, Client};
use crate::document::{Build, Status};
use crate::exit::{Failure, to_cancel, to_follow};
use crate::output::Printer;
use crate::pace::{Pace, Patience, outage_delay};

/// How long a build that was just accepted may still be unknown to a read.
const FRESH: Duration = Duration::from_secs(10);
/// How long after a build's end its last log lines may take to arrive.
const LOG_DRAIN: Duration = Duration::from_secs(10);
/// An outage shorter than this is not worth a word.
const UNREMARKABLE: Duration = Duration::from_secs(3);
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// What a wait should know about the build.
pub(crate) struct Wait {
    pub(crate) build_id: Uuid,
    /// Show the log on stderr.
    pub(crate) follow: bool,
    pub(crate) patience: Patience,
}

/// Polls until the build's status is final and gives its document.
pub(crate) async fn until_final(
    client: &Client,
    printer: &mut Printer,
    wait: &Wait,
) -> Result<Build, Failure> {
    let build_id = wait.build_id;
    let start = Instant::now();
    let mut pace = Pace::new();
    let mut outage = Outage::new(start);
    let mut last_queued = start;
    let mut last_status: Option<Status> = None;
    let mut tail = wait.follow.then(|| LogTail::new(build_id));
    if !wait.follow {
        printer.start_progress(&format!("Build {build_id}"));
    }
    loop {
        if let Some(log) = &mut tail {
            match log.read(client, |line| printer.progress_line(line)).await {
                Ok(true) => pace.news(),
                Ok(false) => {}
                // The status asked for next tells how it stands; a log that isn't there is no reason to stop waiting.
                Err(error) if error.passes() || error.is_not_found() => {}
                Err(error) => {
                    printer
                        .warning(&format!("the log can't be read, and the wait goes on without it: {error}"));
                    tail = None;
                }
            }
        }
        let pause = match client.build(build_id, false).await {
            Ok(build) => {
                outage.end(printer);
                if last_status != Some(build.status) {
                    pace.news();
                }
                printer.set_progress(&format!("Build {build_id}: {}", build.progress()));
                if build.status.is_final() {
                    if let Some(log) = &mut tail {
                        drain(client, printer, log).await;
                    }
                    printer.end_progress();
                    return Ok(build);
                }
                if build.status == Status::Queued {
                    last_queued = Instant::now();
                }
                last_status = Some(build.status);
                pace.pause()
            }
            Err(error) if error.passes() || (error.is_not_found() && start.elapsed() < FRESH) => {
                outage.note(printer, &error)
            }
            Err(source) => {
                printer.end_progress();
                return Err(Failure::LostTrack { build_id, source });
            }
        };
        let since_start = |at: Instant| at.duration_since(start);
        if wait.patience.is_over(start.elapsed(), since_start(outage.last_answer), since_start(last_queued)) {
            printer.end_progress();
            let last_status = last_status.map_or("unknown", Status::name).to_owned();
            return Err(Failure::TooLong { build_id, waited_secs: start.elapsed().as_secs(), last_status });
        }
        sleep(pause).await;
    }
}

/// Reads what is left of the log of a build that has ended.
async fn drain(client: &Client, printer: &Printer, log: &mut LogTail) {
    let start = Instant::now();
    let mut pace = Pace::new();
    while !log.is_complete() {
        if let Err(error) = log.read(client, |line| printer.progress_line(line)).await
            && !error.passes()
        {
            return;
        }
        if log.is_complete() {
            return;
        }
        if start.elapsed() > LOG_DRAIN {
            printer.note("The end of the log has not arrived.");
            return;
        }
        sleep(pace.pause()).await;
    }
}

/// A build's log, read from the start on, each line once.
pub(crate) struct LogTail {
    build_id: Uuid,
    offset: u64,
    complete: bool,
}

impl LogTail {
    pub(crate) fn new(build_id: Uuid) -> Self {
        Self { build_id, offset: 0, complete: false }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Hands on all lines there are now, and tells whether there were any. What was handed on before an error is not
    /// read again.
    pub(crate) async fn read(
        &mut self,
        client: &Client,
        mut each: impl FnMut(&Value),
    ) -> Result<bool, client::Error> {
        let before = self.offset;
        while !self.complete {
            let page = client.log(self.build_id, self.offset).await?;
            self.offset = page.next_offset;
            page.lines.iter().for_each(&mut each);
            if page.lines.is_empty() {
                // A page that has lines may not be the last, whatever it says of the log: only an empty one ends it.
                self.complete = page.complete;
                break;
            }
        }
        Ok(self.offset > before)
    }
}

/// A time without answers: how long it lasts, and what the user hears of it.
pub(crate) struct Outage {
    pub(crate) last_answer: Instant,
    attempts: u32,
    noted: Option<Instant>,
}

impl Outage {
    pub(crate) fn new(start: Instant) -> Self {
        Self { last_answer: start, attempts: 0, noted: None }
    }

    pub(crate) fn end(&mut self, printer: &Printer) {
        if self.noted.is_some() {
            printer.note("The service answers again.");
        }
        *self = Self::new(Instant::now());
    }

    /// Counts one failed attempt and gives the pause before the next.
    pub(crate) fn note(&mut self, printer: &Printer, error: &client::Error) -> Duration {
        self.attempts += 1;
        let due = self.noted.is_none_or(|noted| noted.elapsed() > NOTE_EVERY);
        if self.last_answer.elapsed() > UNREMARKABLE && due {
            printer.note(&format!(
                "No answer about the build: {error}. The build does not need this connection; still waiting."
            ));
            self.noted = Some(Instant::now());
        }
        outage_delay(self.attempts, error.retry_after())
    }
}

/// Runs the work until Ctrl-C. The build goes on without this program, and the hints say how to come back to it.
pub(crate) async fn unless_interrupted<T>(
    hints: impl FnOnce() -> Vec<String>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted { hints: hints() }),
    }
}

/// The hints for a build that goes on.
pub(crate) fn goes_on(build_id: Uuid) -> Vec<String> {
    let goes_on = std::iter::once(format!("build {build_id} goes on"));
    goes_on.chain(to_follow(build_id)).chain([to_cancel(build_id)]).collect()
}
