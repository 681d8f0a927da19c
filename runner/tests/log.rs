//! The log's chunks, on a clock that the tests hold.

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ciab_runner::log::{CUT_MARK, LONGEST_LINE, Log, Stream, Writer};
use ciab_runner::redaction::Redaction;
use tokio::time::{advance, sleep};
use world::{MemoryObjects, build_id};

fn log() -> (Log, Arc<MemoryObjects>, Writer) {
    let log = Log::new(Redaction::new(["hunter2".to_owned()]));
    let objects = Arc::new(MemoryObjects::default());
    let writer = Writer::start(&log, objects.clone(), build_id());
    (log, objects, writer)
}

fn texts(objects: &MemoryObjects) -> Vec<String> {
    objects.log().into_iter().map(|line| line.text).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_lines_go_out_at_once_and_later_ones_within_a_second() {
    let (log, objects, writer) = log();
    log.add(Stream::Stdout, "first", false);
    sleep(Duration::from_millis(150)).await;
    assert_eq!(texts(&objects), ["first"]);

    log.add(Stream::Stdout, "second", false);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(texts(&objects), ["first"], "lines are gathered");
    log.add(Stream::Stdout, "third", false);
    sleep(Duration::from_millis(550)).await;
    assert_eq!(texts(&objects), ["first", "second", "third"]);
    assert_eq!(objects.writes.lock().unwrap().len(), 2);
    assert!(writer.finish(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_build_writes_nothing() {
    let (_log, objects, writer) = log();
    advance(Duration::from_secs(600)).await;
    assert!(writer.finish(Duration::from_secs(1)).await);
    assert!(objects.writes.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_cut_into_chunks_of_a_bounded_size() {
    let (log, objects, writer) = log();
    for n in 0..2_000 {
        log.add(Stream::Stdout, &format!("{n} {}", "x".repeat(1_000)), false);
    }
    assert!(writer.finish(Duration::from_secs(1)).await);
    assert_eq!(objects.log().len(), 2_000);
    let writes = objects.writes.lock().unwrap();
    assert!(writes.len() >= 7, "{}", writes.len());
    assert!(writes.iter().all(|(_, body)| body.len() < 300 * 1024));
}

#[tokio::test(start_paused = true)]
async fn no_chunk_is_ever_written_anew() {
    let (log, objects, writer) = log();
    for n in 0..20 {
        log.add(Stream::Stdout, &n.to_string(), false);
        sleep(Duration::from_millis(400)).await;
    }
    writer.finish(Duration::from_secs(1)).await;
    let mut keys: Vec<String> = objects.writes.lock().unwrap().iter().map(|(key, _)| key.clone()).collect();
    let written = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), written);
    assert_eq!(objects.log().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_comes_back_gets_every_line() {
    let (log, objects, writer) = log();
    objects.down.store(true, Ordering::SeqCst);
    log.add(Stream::Runner, "one", false);
    sleep(Duration::from_secs(30)).await;
    log.add(Stream::Runner, "two", false);
    objects.down.store(false, Ordering::SeqCst);
    assert!(writer.finish(Duration::from_secs(20)).await);
    assert_eq!(texts(&objects), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_stays_away_bounds_memory_and_does_not_hold_up_the_end() {
    let (log, objects, writer) = log();
    objects.down.store(true, Ordering::SeqCst);
    for _ in 0..10_000 {
        log.add(Stream::Stdout, &"x".repeat(8_000), false);
    }
    assert!(!writer.finish(Duration::from_secs(10)).await);
}

#[tokio::test(start_paused = true)]
async fn dropped_lines_are_told() {
    let (log, objects, writer) = log();
    for _ in 0..3_000 {
        log.add(Stream::Stdout, &"x".repeat(8_000), false);
    }
    sleep(Duration::from_secs(2)).await;
    log.add(Stream::Stdout, "last", false);
    assert!(writer.finish(Duration::from_secs(1)).await);
    let texts = texts(&objects);
    let note = &texts[texts.len() - 2];
    assert!(note.contains("lines were dropped"), "{note}");
    assert_eq!(texts.last().unwrap(), "last");
}

#[tokio::test(start_paused = true)]
async fn a_line_is_presentable() {
    let (log, objects, writer) = log();
    log.add(Stream::Stdout, "\n==> two\nlines\n", false);
    log.add(Stream::Stderr, "10%\r50%\r100%", false);
    log.add(Stream::Stdout, "\u{1b}[1;32mgreen\u{1b}[0m\u{7}", false);
    log.add(Stream::Stdout, "with hunter2", false);
    log.add(Stream::Stdout, &"ä".repeat(LONGEST_LINE), false);
    assert!(writer.finish(Duration::from_secs(1)).await);
    let mut texts = texts(&objects);
    let long = texts.pop().unwrap();
    assert_eq!(texts, ["==> two", "lines", "100%", "green", "with <sensitive>"]);
    assert!(long.ends_with(CUT_MARK) && long.len() <= LONGEST_LINE);
}
