//! `Share`: what one call of a module holds in memory, of all that the calls of its instance may hold: its request, and
//! its answer as it comes.
//!
//! It outlives the instance, as its call does, and is given back with it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::generation::Generation;
use crate::limits::Bound;
use crate::state::State;

/// Bytes that the calls of one instance hold.
pub(crate) type Total = Rc<Cell<usize>>;

/// One call's part of them.
pub(crate) struct Share {
    total: Total,
    bytes: usize,
    generation: Arc<Generation>,
}

impl Share {
    /// Nothing yet.
    pub(crate) fn new(state: &State) -> Self {
        Self {
            total: state.call_bytes.clone(),
            bytes: 0,
            generation: state.generation.clone(),
        }
    }

    /// Takes so many bytes more. False: the instance's calls would hold too many; nothing is taken then.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let total = self.total.get().saturating_add(bytes);
        if total > self.generation.host.limits.call_bytes {
            self.generation.metrics.beyond(Bound::CallBytes);
            return false;
        }
        self.total.set(total);
        self.bytes += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.total.set(self.total.get().saturating_sub(self.bytes));
    }
}
