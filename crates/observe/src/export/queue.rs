//! The bounded hand-over from the data path to a pipeline: never blocks, drops what is too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::counts::Counts;

/// Items that may wait.
const MAX_ITEMS: usize = 4096;
/// Bytes that may wait, about.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Something that can be exported.
pub trait Item: Send + 'static {
    /// What the counts count: a trace is as many as it has spans.
    fn units(&self) -> u64;
    /// Bytes that it takes while it waits, about.
    fn size(&self) -> usize;
}

/// The data path's end; cheap to clone. The pipeline ends once all of them are gone and it has sent the rest.
#[derive(Debug)]
pub struct Queue<T> {
    sender: mpsc::Sender<T>,
    waiting: Arc<AtomicUsize>,
    counts: Counts,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            waiting: Arc::clone(&self.waiting),
            counts: self.counts.clone(),
        }
    }
}

/// The pipeline's end.
pub(super) struct Receiver<T> {
    items: mpsc::Receiver<T>,
    waiting: Arc<AtomicUsize>,
}

/// Both ends.
pub(super) fn channel<T: Item>(counts: Counts) -> (Queue<T>, Receiver<T>) {
    let (sender, items) = mpsc::channel(MAX_ITEMS);
    let waiting = Arc::new(AtomicUsize::new(0));
    let queue = Queue {
        sender,
        waiting: Arc::clone(&waiting),
        counts,
    };
    (queue, Receiver { items, waiting })
}

impl<T: Item> Queue<T> {
    /// Hands an item over, or drops and counts it.
    pub fn offer(&self, item: T) {
        let (size, units) = (item.size(), item.units());
        let before = self.waiting.fetch_add(size, Ordering::Relaxed);
        if before + size > MAX_BYTES || self.sender.try_send(item).is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            self.counts.queue_full.add(units);
        }
    }
}

impl<T: Item> Receiver<T> {
    /// The next item; `None` once all queues are gone and it is empty.
    pub(super) async fn next(&mut self) -> Option<T> {
        let item = self.items.recv().await?;
        self.waiting.fetch_sub(item.size(), Ordering::Relaxed);
        Some(item)
    }

    /// An item that is there already.
    pub(super) fn ready(&mut self) -> Option<T> {
        let item = self.items.try_recv().ok()?;
        self.waiting.fetch_sub(item.size(), Ordering::Relaxed);
        Some(item)
    }
}
