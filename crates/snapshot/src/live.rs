//! `Live`: the one hand-over point between configuration and data plane.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::Snapshot;

/// The snapshot in force. A request loads it once and keeps that generation to its end.
#[derive(Debug, Clone)]
pub struct Live(Arc<ArcSwap<Snapshot>>);

impl Live {
    /// Starts with `first`.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// The generation in force.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Replaces it; requests in flight keep theirs.
    pub fn publish(&self, next: Snapshot) {
        self.0.store(Arc::new(next));
    }
}
