//! `Alarm`: one tokio timer that is moved rather than made anew.
//!
//! A deadline that moves later costs nothing until the old one is reached: only then is the timer armed again. The
//! timer is also not polled while the same task already waits on it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Sleep, sleep_until};
use tollgate_base::clock::{self, Instant};

/// A re-usable timer; costs nothing before its first use.
#[derive(Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// The task that the timer will wake.
    registered: Option<Waker>,
}

impl Alarm {
    /// Ready once `deadline` is reached; otherwise the task is woken then.
    pub(crate) fn poll_until(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let now = clock::now();
        if now >= deadline {
            return Poll::Ready(());
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        let armed = sleep.deadline();
        if armed > deadline || armed <= now {
            sleep.as_mut().reset(deadline);
            self.registered = None;
        }
        let waiting = self
            .registered
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()));
        if waiting {
            return Poll::Pending;
        }
        match sleep.as_mut().poll(context) {
            Poll::Ready(()) => {
                self.registered = None;
                // The timer wheel rounds to milliseconds, so it is the clock that decides.
                context.waker().wake_by_ref();
            }
            Poll::Pending => self.registered = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}
