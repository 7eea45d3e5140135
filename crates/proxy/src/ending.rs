//! The end of a drain, as exchanges in mid-air learn of it: a flag of the worker and the wakers of those who wait.
//!
//! Not a `Notify`: a stream asks at each of its events, and may pay no lock for the answer "not yet".

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::StatusCode;
use tollgate_base::Error;

/// A worker's end; shared by its exchanges.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    over: Cell<bool>,
    waiting: RefCell<Places>,
}

/// Wakers by place; a place that is given up is taken again first.
#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// What whoever is still open is told.
pub(crate) fn shutting_down() -> Error {
    Error::gateway(
        StatusCode::SERVICE_UNAVAILABLE,
        "shutdown",
        "the gateway is shutting down",
    )
}

impl Ending {
    /// The drain is over: whoever is still open says its last words now.
    pub(crate) fn announce(&self) {
        self.over.set(true);
        let wakers: Vec<Waker> = self
            .waiting
            .borrow_mut()
            .wakers
            .iter_mut()
            .filter_map(Option::take)
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// An ear for it.
    pub(crate) fn listen(self: &Rc<Self>) -> Ear {
        Ear {
            ending: self.clone(),
            place: None,
            registered: None,
        }
    }

    /// Runs `work` until the end comes; `None` when it did.
    pub(crate) async fn outrun<T>(self: &Rc<Self>, work: impl Future<Output = T>) -> Option<T> {
        let mut pinned = pin!(work);
        let mut ear = self.listen();
        poll_fn(|context| match pinned.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if ear.is_over() => Poll::Ready(None),
            Poll::Pending => {
                ear.wait(context);
                Poll::Pending
            }
        })
        .await
    }
}

/// Hears of the end once it has come.
#[derive(Debug)]
pub(crate) struct Ear {
    ending: Rc<Ending>,
    place: Option<usize>,
    registered: Option<Waker>,
}

impl Ear {
    /// Whether the end has come.
    pub(crate) fn is_over(&self) -> bool {
        self.ending.over.get()
    }

    /// Has this task woken when it comes.
    pub(crate) fn wait(&mut self, context: &Context<'_>) {
        let waker = context.waker();
        if self
            .registered
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            return;
        }
        self.registered = Some(waker.clone());
        let mut waiting = self.ending.waiting.borrow_mut();
        let place = *self.place.get_or_insert_with(|| waiting.take_place());
        if let Some(slot) = waiting.wakers.get_mut(place) {
            *slot = Some(waker.clone());
        }
    }
}

impl Places {
    fn take_place(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut waiting = self.ending.waiting.borrow_mut();
        let waker = waiting.wakers.get_mut(place).and_then(Option::take);
        waiting.free.push(place);
        // A waker may own a task, and what that drops may come here again.
        drop(waiting);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(ending: &Ending) -> usize {
        ending.waiting.borrow().wakers.iter().flatten().count()
    }

    #[test]
    fn whoever_waits_is_woken_and_whoever_is_gone_is_forgotten() {
        let ending = Rc::new(Ending::default());
        let (mut one, mut other) = (ending.listen(), ending.listen());
        let context = Context::from_waker(Waker::noop());
        one.wait(&context);
        other.wait(&context);
        other.wait(&context);
        assert_eq!(waiting(&ending), 2);
        drop(other);
        assert_eq!(waiting(&ending), 1);
        let mut third = ending.listen();
        third.wait(&context);
        assert_eq!(ending.waiting.borrow().wakers.len(), 2);
        assert!(!one.is_over());
        ending.announce();
        assert!(one.is_over());
        assert_eq!(waiting(&ending), 0);
    }

    #[tokio::test]
    async fn work_that_is_not_done_by_then_is_given_up() {
        let ending = Rc::new(Ending::default());
        assert_eq!(ending.outrun(async { 1 }).await, Some(1));
        let late = ending.outrun(std::future::pending::<()>());
        let announced = async { ending.announce() };
        assert_eq!(futures_util::future::join(late, announced).await, (None, ()));
        // What is ready at once needs no time.
        assert_eq!(ending.outrun(async { 2 }).await, Some(2));
    }
}
