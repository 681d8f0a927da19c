//! Heartbeats and the report, on a clock that the tests hold.

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ciab_runner::failure::{BuildFailure, FailureName};
use ciab_runner::report::{Reported, report, send_heartbeats};
use ciab_runner::stop::{StopReason, StopSwitch};
use tokio::time::sleep;
use world::{OneTask, TOKEN};

fn failed() -> Result<Vec<ciab_core::build::Artifact>, BuildFailure> {
    Err(BuildFailure::new(FailureName::PackerFailed, "it broke"))
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_goes_out_at_once_and_every_ten_seconds() {
    let task = Arc::new(OneTask::default());
    let beating = tokio::spawn(send_heartbeats(task.clone(), TOKEN.into(), StopSwitch::new()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(task.heartbeats.load(Ordering::SeqCst), 1);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(task.heartbeats.load(Ordering::SeqCst), 11);
    beating.abort();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_gone_stops_the_build() {
    let task = Arc::new(OneTask::default());
    let switch = StopSwitch::new();
    let beating = tokio::spawn(send_heartbeats(task.clone(), TOKEN.into(), switch.clone()));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(switch.reason(), None);
    task.gone.store(true, Ordering::SeqCst);
    let began = tokio::time::Instant::now();
    assert_eq!(switch.stopped().await, StopReason::TaskGone);
    assert!(began.elapsed() <= Duration::from_secs(12), "{:?}", began.elapsed());
    beating.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_becomes_known_a_moment_late_stops_nothing() {
    let task = Arc::new(OneTask::default());
    task.gone.store(true, Ordering::SeqCst);
    let switch = StopSwitch::new();
    let beating = tokio::spawn(send_heartbeats(task.clone(), TOKEN.into(), switch.clone()));
    sleep(Duration::from_secs(50)).await;
    task.gone.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(switch.reason(), None);
    beating.abort();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_never_becomes_known_stops_the_build() {
    let task = Arc::new(OneTask::default());
    task.gone.store(true, Ordering::SeqCst);
    let switch = StopSwitch::new();
    let began = tokio::time::Instant::now();
    let beating = tokio::spawn(send_heartbeats(task, TOKEN.into(), switch.clone()));
    assert_eq!(switch.stopped().await, StopReason::TaskGone);
    assert!(began.elapsed() <= Duration::from_secs(65), "{:?}", began.elapsed());
    beating.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_report_that_does_not_arrive_is_sent_again() {
    let task = OneTask::default();
    task.reports_to_lose.store(4, Ordering::SeqCst);
    assert!(matches!(report(&task, TOKEN, &failed()).await, Reported::Yes));
    assert_eq!(task.told.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_report_whose_answer_was_lost_counts_as_delivered() {
    let task = OneTask::default();
    task.answers_to_lose.store(1, Ordering::SeqCst);
    assert!(matches!(report(&task, TOKEN, &failed()).await, Reported::Yes));
    assert_eq!(task.told.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_nobody_waits_for_is_not_delivered() {
    let task = OneTask::default();
    task.gone.store(true, Ordering::SeqCst);
    assert!(matches!(report(&task, TOKEN, &failed()).await, Reported::NobodyWaits));
}

#[tokio::test(start_paused = true)]
async fn a_report_is_given_up_after_two_minutes() {
    let task = OneTask::default();
    task.reports_to_lose.store(u32::MAX, Ordering::SeqCst);
    let began = tokio::time::Instant::now();
    assert!(matches!(report(&task, TOKEN, &failed()).await, Reported::No(Some(_))));
    assert!(began.elapsed() <= Duration::from_secs(125));
}
