//! The end of a drain, as answers in mid-stream learn of it: a flag of the worker and the wakers of those who wait.
//!
//! Not a `Notify`: a stream asks at each of its events, and may pay no lock for the answer "not yet".

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};

/// A worker's end; shared by its streams.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    over: Cell<bool>,
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waker>>,
}

impl Ending {
    /// The drain is over: whoever is still open says its last words now.
    pub(crate) fn announce(&self) {
        self.over.set(true);
        let woken = std::mem::take(&mut *self.waiting.borrow_mut());
        woken.into_values().for_each(Waker::wake);
    }

    /// A stream's ear.
    pub(crate) fn listen(self: &Rc<Self>) -> Ear {
        let number = self.next.get();
        self.next.set(number + 1);
        Ear {
            ending: self.clone(),
            number,
            registered: None,
        }
    }
}

/// Hears of the end once it has come.
#[derive(Debug)]
pub(crate) struct Ear {
    ending: Rc<Ending>,
    number: u64,
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
        self.ending
            .waiting
            .borrow_mut()
            .insert(self.number, waker.clone());
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if self.registered.is_some() {
            self.ending.waiting.borrow_mut().remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_woken_and_whoever_is_gone_is_forgotten() {
        let ending = Rc::new(Ending::default());
        let (mut one, mut other) = (ending.listen(), ending.listen());
        let context = Context::from_waker(Waker::noop());
        one.wait(&context);
        other.wait(&context);
        other.wait(&context);
        assert_eq!(ending.waiting.borrow().len(), 2);
        drop(other);
        assert_eq!(ending.waiting.borrow().len(), 1);
        assert!(!one.is_over());
        ending.announce();
        assert!(one.is_over());
        assert!(ending.waiting.borrow().is_empty());
    }
}
