//! The signal that the gateway is going down, and how far along it is.

use tokio::sync::watch;

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Not ready any more, accepting nothing new, finishing what is open.
    Draining,
    /// The drain time is over: what is still open ends now.
    Stopped,
}

/// Raises the signal.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// Observes the signal; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Phase>);

/// A fresh pair in [`Phase::Running`].
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Moves on to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }
}

impl Shutdown {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Completes once `phase` is reached; a vanished trigger counts as stopped.
    pub async fn reached(&mut self, phase: Phase) {
        let outcome = self.0.wait_for(|current| *current >= phase).await;
        drop(outcome);
    }
}
