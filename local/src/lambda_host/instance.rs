//! One process of a function, between Invoke on one side and the Runtime API on the other.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::Invoked;
use crate::process;

/// What the process is handed by `next`.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) request_id: String,
    pub(super) deadline_ms: u128,
    pub(super) payload: Bytes,
}

pub(super) enum Outcome {
    Answered(Invoked),
    /// The process ended before it answered; says how.
    Exited(String),
}

pub(super) struct Instance {
    id: String,
    pub(super) function_arn: String,
    to_process: mpsc::Sender<Invocation>,
    from_invoke: tokio::sync::Mutex<mpsc::Receiver<Invocation>>,
    /// The request under way and who waits for its answer.
    pending: Mutex<Option<(String, oneshot::Sender<Invoked>)>>,
    asked_for_work: watch::Sender<bool>,
    init_error: Mutex<Option<Invoked>>,
    exited: watch::Receiver<Option<String>>,
    kill: Notify,
}

impl Instance {
    pub(super) fn start(
        id: String,
        binary: &Path,
        log: &Path,
        environment: Vec<(String, String)>,
        function_arn: String,
    ) -> io::Result<Arc<Self>> {
        let mut command = process::command(binary);
        process::log_to(&mut command, log)?;
        // Lambda's processes see no more than this of their surroundings.
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "en_US.UTF-8")
            .env("TZ", ":UTC");
        command.envs(environment).current_dir("/");
        let mut child = command.spawn()?;
        let (to_process, from_invoke) = mpsc::channel(1);
        let (report_exit, exited) = watch::channel(None);
        let instance = Arc::new(Self {
            id,
            function_arn,
            to_process,
            from_invoke: tokio::sync::Mutex::new(from_invoke),
            pending: Mutex::new(None),
            asked_for_work: watch::Sender::new(false),
            init_error: Mutex::new(None),
            exited,
            kill: Notify::new(),
        });
        let watched = Arc::clone(&instance);
        tokio::spawn(async move {
            let how = tokio::select! {
                status = child.wait() => status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                () = watched.kill.notified() => {
                    let _ = child.kill().await;
                    "killed".to_owned()
                }
            };
            report_exit.send_replace(Some(how));
        });
        Ok(instance)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn has_exited(&self) -> bool {
        self.exited.borrow().is_some()
    }

    pub(super) fn kill(&self) {
        self.kill.notify_one();
    }

    /// Returns once the process has asked for its first invocation.
    pub(super) async fn ready(&self) -> Result<(), Invoked> {
        let mut asked = self.asked_for_work.subscribe();
        let how = tokio::select! {
            _ = asked.wait_for(|asked| *asked) => return Ok(()),
            how = self.exit() => how,
        };
        let reported = lock(&self.init_error).take();
        Err(reported.unwrap_or_else(|| Invoked::error("Runtime.ExitError", format!("Runtime exited: {how}"))))
    }

    /// Hands one invocation to the process and waits for the answer. The caller sees to the time limit.
    pub(super) async fn run(&self, request_id: &str, payload: Bytes, limit: Duration) -> Outcome {
        let (answer, answered) = oneshot::channel();
        *lock(&self.pending) = Some((request_id.to_owned(), answer));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let deadline_ms = (now + limit).as_millis();
        let invocation = Invocation { request_id: request_id.to_owned(), deadline_ms, payload };
        let exchange = async {
            // The receiver lives as long as this instance, so neither can fail before the process ends.
            let _ = self.to_process.send(invocation).await;
            match answered.await {
                Ok(invoked) => invoked,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            invoked = exchange => Outcome::Answered(invoked),
            how = self.exit() => Outcome::Exited(how),
        }
    }

    /// The process asks for work; answers when there is some.
    pub(super) async fn next(&self) -> Option<Invocation> {
        self.asked_for_work.send_replace(true);
        self.from_invoke.lock().await.recv().await
    }

    /// The process answers the request; false if it is not the one under way.
    pub(super) fn answer(&self, request_id: &str, invoked: Invoked) -> bool {
        let mut pending = lock(&self.pending);
        match pending.take() {
            Some((id, waiting)) if id == request_id => waiting.send(invoked).is_ok(),
            other => {
                *pending = other;
                false
            }
        }
    }

    pub(super) fn init_failed(&self, error: Invoked) {
        *lock(&self.init_error) = Some(error);
    }

    async fn exit(&self) -> String {
        let mut exited = self.exited.clone();
        let how = exited.wait_for(Option::is_some).await;
        how.ok().and_then(|how| how.clone()).unwrap_or_else(|| "unknown".to_owned())
    }
}

/// A panic while the lock was held leaves nothing half-done: each holder makes one assignment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
