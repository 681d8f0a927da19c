//! The one switch that ends a build early, and why it was thrown. The first reason stays.

use tokio::sync::watch;

/// Why a build is ended before Packer ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The deadline has come.
    Deadline,
    /// The state machine waits for this build no longer.
    TaskGone,
    /// The runner itself is told to end.
    Signal,
}

/// Throws the switch. Clones throw the same one.
#[derive(Debug, Clone)]
pub struct StopSwitch(watch::Sender<Option<StopReason>>);

impl StopSwitch {
    /// A switch that nobody has thrown.
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Ends the build, unless somebody has done so before.
    pub fn stop(&self, reason: StopReason) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason);
            }
            first
        });
    }

    /// Why the build is to end, once it is.
    pub fn reason(&self) -> Option<StopReason> {
        *self.0.borrow()
    }

    /// Waits until the build is to end.
    pub async fn stopped(&self) -> StopReason {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(reason) = *receiver.borrow_and_update() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                // The sender is `self`: it outlives this wait.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Does this, unless the build is to end before it is done: then it is given up, whatever it waits for.
    ///
    /// # Errors
    /// Why the build is to end.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, StopReason> {
        tokio::select! {
            done = work => Ok(done),
            reason = self.stopped() => Err(reason),
        }
    }
}

impl Default for StopSwitch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays() {
        let switch = StopSwitch::new();
        assert_eq!(switch.reason(), None);
        switch.clone().stop(StopReason::Deadline);
        switch.stop(StopReason::Signal);
        assert_eq!(switch.stopped().await, StopReason::Deadline);
    }
}
