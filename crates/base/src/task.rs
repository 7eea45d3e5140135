//! Tasks with an owner: who spawns one says what it is for, and a panic in it is logged, not swallowed.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use tokio::task::JoinHandle;

/// A task of the background runtime; ends when the handle is aborted or the runtime stops.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<F>(purpose: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let guard = PanicNote(purpose);
    tokio::spawn(async move {
        let output = future.await;
        guard.finished();
        output
    })
}

/// A task of a worker's own thread; never leaves it.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn_local<F>(purpose: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let guard = PanicNote(purpose);
    tokio::task::spawn_local(async move {
        let output = future.await;
        guard.finished();
        output
    })
}

/// Runs `work` and turns a panic into `None`, so that one bad piece cannot take its neighbours down.
pub fn catch<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Says so when a task ends by a panic.
struct PanicNote(&'static str);

impl PanicNote {
    fn finished(self) {}
}

impl Drop for PanicNote {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.0, "task panicked");
        }
    }
}
