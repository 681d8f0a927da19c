//! What the runner is to AWS as its build: credentials for the build's files and for Packer, which the function `issue-credentials`
//! gives together. Kept and renewed here and nowhere else, so that one invocation serves whoever needs one of them.
//!
//! The machine's own identity may reach neither; it may ask the function, which wants the task token. Must never write a credential to a
//! log or an error.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use ciab_core::ids::BuildId;
use ciab_core::ports::{
    BuildCredentials, CredentialsIssuer, PortError, RenewedCredentials, Secret, TemporaryCredentials,
};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::log::Log;

/// Credentials with less left than this are renewed. SDKs ask again some minutes before the end, and what is stored last, after the
/// deadline, must find some that are good.
const LEAST_LEFT: SignedDuration = SignedDuration::from_mins(20);
/// Where no new ones are to be had, those before are given up to this long before their end.
const TOO_LITTLE: SignedDuration = SignedDuration::from_secs(10);
/// How long it is tried to get some where there are none.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a renewal may take: those before are still good, and somebody waits for them.
const LONGEST_RENEWAL: Duration = Duration::from_secs(10);
/// How long after a renewal in vain it is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// How long after a vain try for the first ones nobody else tries.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How often it is looked whether they should be renewed, where nobody asks for them.
const LOOK: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Kept {
    last: Option<BuildCredentials>,
    /// Before that, nobody tries.
    again_at: Option<Instant>,
    /// Why there are none.
    failed: Option<PortError>,
}

/// One build's credentials.
pub struct IssuedCredentials {
    issuer: Arc<dyn CredentialsIssuer>,
    build: BuildId,
    task_token: Secret,
    log: OnceLock<Log>,
    kept: Mutex<Kept>,
}

fn left(credentials: &BuildCredentials) -> SignedDuration {
    let ends = credentials.files.expires_at.min(credentials.packer.expires_at);
    ends.duration_since(Timestamp::now())
}

impl IssuedCredentials {
    /// Those of this build, for whoever knows this token. None are asked for yet.
    pub fn new(issuer: Arc<dyn CredentialsIssuer>, build: BuildId, task_token: &str) -> Self {
        let task_token = Secret::new(task_token);
        Self { issuer, build, task_token, log: OnceLock::new(), kept: Mutex::default() }
    }

    /// Masks what is issued from now on in this log: a template may print it.
    pub fn mask_in(&self, log: &Log) {
        // There is one log.
        let _ = self.log.set(log.clone());
    }

    /// Packer's.
    ///
    /// # Errors
    /// There are none, and none are to be had.
    pub async fn packer(&self) -> Result<TemporaryCredentials, PortError> {
        self.current().await.map(|current| current.packer)
    }

    /// Renews them early even where nobody asks: a Packer that says nothing for an hour leaves nothing to store until it ends. Never
    /// returns.
    pub async fn keep_fresh(&self) {
        loop {
            sleep(LOOK).await;
            if let Err(error) = self.current().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "there are no credentials of the build"
                );
            }
        }
    }

    async fn current(&self) -> Result<BuildCredentials, PortError> {
        let mut kept = self.kept.lock().await;
        let last = kept.last.clone().filter(|last| left(last) > TOO_LITTLE);
        let may_try = kept.again_at.is_none_or(|at| Instant::now() >= at);
        match last {
            Some(last) if left(&last) > LEAST_LEFT || !may_try => Ok(last),
            Some(last) => {
                // First, since whoever asks may give up in the middle: the next one must not wait as long.
                kept.again_at = Some(Instant::now() + RENEW_AGAIN);
                match timeout(LONGEST_RENEWAL, self.issue()).await {
                    Ok(Ok(new)) => return Ok(Self::keep(&mut kept, new)),
                    Ok(Err(error)) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the build's credentials were not renewed yet"
                    ),
                    Err(_) => tracing::warn!("the build's credentials were not renewed in time"),
                }
                Ok(last)
            }
            None => match &kept.failed {
                Some(failed) if !may_try => Err(failed.echo()),
                _ => match self.issue_patiently().await {
                    Ok(new) => Ok(Self::keep(&mut kept, new)),
                    Err(error) => {
                        kept.failed = Some(error.echo());
                        kept.again_at = Some(Instant::now() + ASK_AGAIN);
                        Err(error)
                    }
                },
            },
        }
    }

    fn keep(kept: &mut Kept, new: BuildCredentials) -> BuildCredentials {
        *kept = Kept { last: Some(new.clone()), ..Kept::default() };
        new
    }

    async fn issue_patiently(&self) -> Result<BuildCredentials, PortError> {
        let until = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(200);
        loop {
            match self.issue().await {
                Err(error @ PortError::Unavailable { .. }) if Instant::now() + pause < until => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the build's credentials were not given; asking again"
                    );
                    sleep(pause).await;
                }
                answer => return answer,
            }
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    async fn issue(&self) -> Result<BuildCredentials, PortError> {
        let new = self.issuer.issue(self.build, self.task_token.expose()).await?;
        if let Some(log) = self.log.get() {
            let secrets = [&new.files, &new.packer].map(|set| [&set.secret_access_key, &set.session_token]);
            log.add_secrets(secrets.concat().into_iter().map(|secret| secret.expose().to_owned()).collect());
        }
        Ok(new)
    }
}

/// Of a build's credentials those for its files.
pub struct BuildFiles(pub Arc<IssuedCredentials>);

#[async_trait]
impl RenewedCredentials for BuildFiles {
    async fn current(&self) -> Result<TemporaryCredentials, PortError> {
        self.0.current().await.map(|current| current.files)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const BUILD: &str = "550e8400-e29b-41d4-a716-446655440000";

    enum Answer {
        Minutes(i64),
        Unavailable,
        Refused,
        Never,
    }

    /// Gives these answers one after the other, and the last one from then on.
    struct Function {
        answers: Mutex<Vec<Answer>>,
        asked: AtomicU32,
    }

    #[async_trait]
    impl CredentialsIssuer for Function {
        async fn issue(&self, build: BuildId, task_token: &str) -> Result<BuildCredentials, PortError> {
            assert_eq!((build.to_string().as_str(), task_token), (BUILD, "token"));
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let minutes = {
                let mut answers = self.answers.lock().unwrap();
                let (service, operation) = ("lambda", "Invoke");
                let minutes = match answers[0] {
                    Answer::Minutes(minutes) => Ok(Some(minutes)),
                    Answer::Never => Ok(None),
                    Answer::Unavailable => {
                        Err(PortError::Unavailable { service, operation, source: "throttled".into() })
                    }
                    Answer::Refused => {
                        let (code, source) = ("CredentialsRefused".to_owned(), "no".into());
                        Err(PortError::Refused { service, operation, code, source })
                    }
                };
                if answers.len() > 1 {
                    answers.remove(0);
                }
                minutes?
            };
            let Some(minutes) = minutes else { return std::future::pending().await };
            let set = |whose: &str| TemporaryCredentials {
                access_key_id: format!("ASIA{whose}{number}"),
                secret_access_key: Secret::new("secret"),
                session_token: Secret::new("session"),
                expires_at: Timestamp::now() + SignedDuration::from_mins(minutes),
            };
            Ok(BuildCredentials { files: set("FILES"), packer: set("PACKER") })
        }
    }

    fn credentials(answers: Vec<Answer>) -> (Arc<Function>, Arc<IssuedCredentials>) {
        let function = Arc::new(Function { answers: Mutex::new(answers), asked: AtomicU32::new(0) });
        let issued = IssuedCredentials::new(function.clone(), BUILD.parse().unwrap(), "token");
        (function, Arc::new(issued))
    }

    async fn key(issued: &IssuedCredentials) -> String {
        issued.packer().await.unwrap().access_key_id
    }

    #[tokio::test]
    async fn one_invocation_serves_files_and_packer() {
        let (function, issued) = credentials(vec![Answer::Minutes(60)]);
        let files = BuildFiles(issued.clone());
        let (packer, files) = tokio::join!(issued.packer(), files.current());
        assert_eq!(packer.unwrap().access_key_id, "ASIAPACKER1");
        assert_eq!(files.unwrap().access_key_id, "ASIAFILES1");
        assert_eq!(function.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn with_less_than_twenty_minutes_left_they_are_renewed() {
        let (_, issued) = credentials(vec![Answer::Minutes(21), Answer::Minutes(19), Answer::Minutes(60)]);
        assert_eq!(key(&issued).await, "ASIAPACKER1");
        assert_eq!(key(&issued).await, "ASIAPACKER1");
        let (_, issued) = credentials(vec![Answer::Minutes(19), Answer::Minutes(60)]);
        assert_eq!(key(&issued).await, "ASIAPACKER1");
        assert_eq!(key(&issued).await, "ASIAPACKER2");
        assert_eq!(key(&issued).await, "ASIAPACKER2");
    }

    #[tokio::test(start_paused = true)]
    async fn while_they_cannot_be_renewed_those_before_are_given_and_it_is_tried_now_and_then() {
        let (function, issued) =
            credentials(vec![Answer::Minutes(19), Answer::Unavailable, Answer::Refused, Answer::Minutes(60)]);
        for _ in 0..5 {
            assert_eq!(key(&issued).await, "ASIAPACKER1");
        }
        assert_eq!(function.asked.load(Ordering::SeqCst), 2);
        sleep(RENEW_AGAIN).await;
        assert_eq!(key(&issued).await, "ASIAPACKER1", "a refusal takes nothing away");
        sleep(RENEW_AGAIN).await;
        assert_eq!(key(&issued).await, "ASIAPACKER4");
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_does_not_answer_holds_nobody_up_for_long() {
        let (_, issued) = credentials(vec![Answer::Minutes(19), Answer::Never]);
        assert_eq!(key(&issued).await, "ASIAPACKER1");
        // Somebody gives up in the middle of the renewal.
        assert!(timeout(Duration::from_secs(1), issued.packer()).await.is_err());
        let began = Instant::now();
        assert_eq!(key(&issued).await, "ASIAPACKER1");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_ones_are_waited_for_within_bounds() {
        let (_, issued) = credentials(vec![Answer::Unavailable, Answer::Unavailable, Answer::Minutes(60)]);
        assert_eq!(key(&issued).await, "ASIAPACKER3");
        let (function, issued) = credentials(vec![Answer::Unavailable]);
        let began = Instant::now();
        assert!(issued.packer().await.is_err());
        assert!(began.elapsed() <= PATIENCE, "{:?}", began.elapsed());
        let asked = function.asked.load(Ordering::SeqCst);
        assert!(issued.packer().await.is_err());
        assert_eq!(function.asked.load(Ordering::SeqCst), asked, "not at once again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_at_once() {
        let (function, issued) = credentials(vec![Answer::Refused]);
        let began = Instant::now();
        let refused = issued.packer().await.unwrap_err();
        assert!(matches!(refused, PortError::Refused { .. }), "{refused:?}");
        assert_eq!((began.elapsed(), function.asked.load(Ordering::SeqCst)), (Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_renewed_where_nobody_asks() {
        let (function, issued) = credentials(vec![Answer::Minutes(19), Answer::Minutes(60)]);
        key(&issued).await;
        let _ = timeout(LOOK * 3, issued.keep_fresh()).await;
        assert_eq!(function.asked.load(Ordering::SeqCst), 2);
    }
}
