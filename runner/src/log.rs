//! Writes a build's log into the bucket in numbered chunks while the build runs.
//!
//! A chunk is named by the number of its first line and never written anew with other content. A chunk goes out at most
//! a second after its first line, or as soon as it holds 256 kB; the first one at once. Nothing waits for the bucket: where it
//! cannot keep up, lines are dropped and a line says how many, since Packer must never be slowed down by its log.
//! Every line is masked before it is kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ciab_core::ids::BuildId;
use ciab_core::log::{Line, chunk_key, write_chunk};
use ciab_core::ports::ObjectStore;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::redaction::Redaction;

/// A line is cut to so many bytes.
pub const LONGEST_LINE: usize = 8 * 1024;
/// What stands at the end of a line that was cut.
pub const CUT_MARK: &str = " … (cut)";
/// A chunk goes out when it is this large.
const CHUNK_BYTES: usize = 256 * 1024;
/// A chunk goes out when it is this old.
const CHUNK_AGE: Duration = Duration::from_secs(1);
/// The first chunk goes out when it is this old: somebody watches.
const FIRST_CHUNK_AGE: Duration = Duration::from_millis(100);
/// Lines are dropped where this many bytes wait for the bucket.
const MOST_WAITING_BYTES: usize = 16 << 20;
/// What a line costs beside its text.
const LINE_COST: usize = 96;

/// Who printed a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Packer, and what provisioners print to stdout.
    Stdout,
    /// Packer's errors, and what provisioners print to stderr.
    Stderr,
    /// The runner itself.
    Runner,
}

impl Stream {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Runner => "runner",
        }
    }
}

/// The end that lines are put into. Clones share one log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    redaction: Redaction,
    waiting: VecDeque<Line>,
    waiting_bytes: usize,
    first_waits_since: Option<Instant>,
    dropped: u64,
    closed: bool,
}

impl Log {
    /// An empty log that masks what `redaction` holds.
    pub fn new(redaction: Redaction) -> Self {
        let state = Mutex::new(State { redaction, ..State::default() });
        Self { shared: Arc::new(Shared { state, changed: Notify::new() }) }
    }

    /// Masks these too from now on.
    pub fn add_secrets(&self, secrets: Vec<String>) {
        let mut state = self.state();
        state.redaction = std::mem::take(&mut state.redaction).and(secrets);
    }

    /// The text as the log would show it: without secrets.
    pub fn masked(&self, text: &str) -> String {
        self.state().redaction.apply(text)
    }

    /// Adds a text of one or more lines. `cut` says that its end is missing already.
    pub fn add(&self, stream: Stream, text: &str, cut: bool) {
        let at = jiff::Timestamp::now();
        let mut state = self.state();
        let masked = state.redaction.apply(text);
        // The end of a text that was cut may be the beginning of a secret: only its first line's beginning is shown.
        let most_lines = if cut { 1 } else { usize::MAX };
        for line in masked.trim_matches('\n').split('\n').take(most_lines) {
            state.add(Line { at, stream: stream.as_str().to_owned(), text: presentable(line, cut) });
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// No line comes any more.
    fn close(&self) {
        self.state().closed = true;
        self.shared.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, line: Line) {
        if self.waiting_bytes >= MOST_WAITING_BYTES {
            self.dropped += 1;
            return;
        }
        if self.dropped > 0 {
            let text =
                format!("({} lines were dropped: the log could not be stored fast enough)", self.dropped);
            self.dropped = 0;
            self.add(Line { at: line.at, stream: Stream::Runner.as_str().to_owned(), text });
        }
        self.waiting_bytes += line.text.len() + LINE_COST;
        self.waiting.push_back(line);
        self.first_waits_since.get_or_insert_with(Instant::now);
    }

    /// The lines of the next chunk; waits for nothing.
    fn take_chunk(&mut self) -> Vec<Line> {
        let mut bytes = 0;
        let mut lines = Vec::new();
        while bytes < CHUNK_BYTES
            && let Some(line) = self.waiting.pop_front()
        {
            bytes += line.text.len() + LINE_COST;
            lines.push(line);
        }
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        self.first_waits_since = (!self.waiting.is_empty()).then(Instant::now);
        lines
    }
}

/// A line without what a terminal would obey, and not too long.
fn presentable(line: &str, cut: bool) -> String {
    // Of a progress bar's many states the last one counts.
    let line = line.trim_end_matches('\r');
    let line = line.rsplit_once('\r').map_or(line, |(_, last)| last);
    let mut text = without_escape_sequences(line);
    if cut || text.len() > LONGEST_LINE {
        let end = text.floor_char_boundary(LONGEST_LINE - CUT_MARK.len());
        text.truncate(end);
        text.push_str(CUT_MARK);
    }
    text
}

fn without_escape_sequences(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' if characters.peek() == Some(&'[') => {
                characters.next();
                // ECMA-48: parameters, then one final character.
                while characters.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)).is_some() {}
                characters.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
            }
            '\t' => text.push('\t'),
            other if other.is_control() => {}
            other => text.push(other),
        }
    }
    text
}

/// Puts the log's chunks into the bucket until [`Writer::finish`].
pub struct Writer {
    log: Log,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    /// Starts to write.
    pub fn start(log: &Log, objects: Arc<dyn ObjectStore>, build_id: BuildId) -> Self {
        Self { log: log.clone(), task: tokio::spawn(write(log.clone(), objects, build_id)) }
    }

    /// Writes what is left, for at most `patience`. Tells whether all of it is stored.
    pub async fn finish(mut self, patience: Duration) -> bool {
        self.log.close();
        let ended = tokio::time::timeout(patience, &mut self.task).await;
        if ended.is_err() {
            self.task.abort();
        }
        matches!(ended, Ok(Ok(())))
    }
}

async fn write(log: Log, objects: Arc<dyn ObjectStore>, build_id: BuildId) {
    let mut first_line = 0_u64;
    loop {
        if !chunk_is_due(&log, if first_line == 0 { FIRST_CHUNK_AGE } else { CHUNK_AGE }).await {
            return;
        }
        let lines = log.state().take_chunk();
        let key = chunk_key(build_id, first_line);
        let body = write_chunk(&lines);
        let mut pause = Duration::from_millis(200);
        while let Err(error) = objects.put(&key, body.clone()).await {
            tracing::warn!(%key, error = &error as &dyn std::error::Error, "a chunk of the log was not stored; trying again");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
        first_line += lines.len() as u64;
    }
}

/// Waits until a chunk should go out. False when the log is closed and empty.
async fn chunk_is_due(log: &Log, age: Duration) -> bool {
    loop {
        let changed = log.shared.changed.notified();
        let (since, full, closed) = {
            let state = log.state();
            (state.first_waits_since, state.waiting_bytes >= CHUNK_BYTES, state.closed)
        };
        match since {
            Some(_) if full || closed => return true,
            Some(since) if since + age <= Instant::now() => return true,
            Some(since) => {
                tokio::select! {
                    () = changed => {}
                    () = sleep_until(since + age) => {}
                }
            }
            None if closed => return false,
            None => changed.await,
        }
    }
}
