//! `Gate`: a waker that does not wake its own task for what that task is doing itself.
//!
//! A connection and the body that is read from it are polled together. Taking a frame out of the body makes hyper wake
//! the connection, so that it reads on; here that is the very task that is running and that will poll again until
//! nothing is left. Without the gate each frame would cost the task a second, useless turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

struct Passage {
    shut: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Passage {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.shut.load(Ordering::Relaxed) {
            self.task.wake();
        }
    }
}

/// Stands between a connection and the task that drives it.
pub(crate) struct Gate {
    passage: Arc<Passage>,
    waker: Waker,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let passage = Arc::new(Passage {
            shut: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        Self {
            waker: Arc::clone(&passage).into(),
            passage,
        }
    }

    /// What the connection is polled with, on behalf of the task of `context`.
    pub(crate) fn waker(&self, context: &Context<'_>) -> &Waker {
        self.passage.task.register(context.waker());
        &self.waker
    }

    /// Runs `work`; wakes that it causes are dropped. Afterwards the task must poll the connection again before it waits.
    pub(crate) fn quietly<T>(&self, work: impl FnOnce() -> T) -> T {
        self.passage.shut.store(true, Ordering::Relaxed);
        let outcome = work();
        self.passage.shut.store(false, Ordering::Relaxed);
        outcome
    }
}
