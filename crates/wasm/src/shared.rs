//! What all modules of the process share: data with compare-and-swap, and queues.
//!
//! Higress gives every plugin the same empty `vm_id`, so there is one key space for all plugins and all workers; it
//! outlives instances and reloads.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Most items that wait in one queue.
const QUEUE_LIMIT: usize = 10_000;

/// What a value, a queue or an item counts beside its bytes: as much as it takes, so that many small ones are bounded too.
const ENTRY: usize = 96;

/// Why a value was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Somebody else has changed the value.
    CasMismatch,
    /// All values together are over the limit.
    Full,
    /// No such queue.
    Unknown,
}

/// Data and queues.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    values: HashMap<Vec<u8>, (Bytes, u32)>,
    last_cas: u32,
    by_name: HashMap<Vec<u8>, u32>,
    queues: HashMap<u32, Queue>,
    /// Of keys, values, names and items.
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Bytes>,
    /// Items that no consumer was told of yet.
    untold: usize,
    /// Who registered it; the last one is told.
    consumers: Vec<u64>,
}

impl Inner {
    /// Counts what comes for what goes.
    fn swap(&mut self, before: usize, after: usize, limit: usize) -> Result<(), Refused> {
        let bytes = self.bytes.saturating_sub(before).saturating_add(after);
        if bytes > limit && after > before {
            return Err(Refused::Full);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A value and its mark.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        self.lock().values.get(key).cloned()
    }

    /// Stores a value. A `cas` other than 0 must be the mark of what is stored, if anything is.
    pub(crate) fn set(&self, key: &[u8], value: Bytes, cas: u32, limit: usize) -> Result<(), Refused> {
        let mut inner = self.lock();
        let before = match inner.values.get(key) {
            Some((_, mark)) if cas != 0 && cas != *mark => return Err(Refused::CasMismatch),
            Some((old, _)) => ENTRY + key.len() + old.len(),
            None => 0,
        };
        inner.swap(before, ENTRY + key.len() + value.len(), limit)?;
        inner.last_cas = inner.last_cas.checked_add(1).unwrap_or(1);
        let mark = inner.last_cas;
        inner.values.insert(key.to_vec(), (value, mark));
        Ok(())
    }

    /// The queue of this name, made if there is none; what waits in it stays. A consumer is told of its items from now
    /// on, until another one registers it. True: items wait that nobody was told of.
    pub(crate) fn register(
        &self,
        name: &[u8],
        consumer: Option<u64>,
        limit: usize,
    ) -> Result<(u32, bool), Refused> {
        let mut inner = self.lock();
        let id = match inner.by_name.get(name) {
            Some(id) => *id,
            None => {
                inner.swap(0, ENTRY + name.len(), limit)?;
                let next = u32::try_from(inner.by_name.len()).unwrap_or(u32::MAX - 1) + 1;
                inner.by_name.insert(name.to_vec(), next);
                next
            }
        };
        let queue = inner.queues.entry(id).or_default();
        if let Some(consumer) = consumer {
            queue.consumers.retain(|other| *other != consumer);
            queue.consumers.push(consumer);
        }
        Ok((id, queue.untold > 0))
    }

    /// A consumer is told no more.
    pub(crate) fn leave(&self, id: u32, consumer: u64) {
        if let Some(queue) = self.lock().queues.get_mut(&id) {
            queue.consumers.retain(|other| *other != consumer);
        }
    }

    /// Whether this consumer is to be told of an item; it has been, then.
    pub(crate) fn take_ready(&self, id: u32, consumer: u64) -> bool {
        let mut inner = self.lock();
        match inner.queues.get_mut(&id) {
            Some(queue) if queue.untold > 0 && queue.consumers.last() == Some(&consumer) => {
                queue.untold -= 1;
                true
            }
            _ => false,
        }
    }

    /// The queue of this name.
    pub(crate) fn resolve(&self, name: &[u8]) -> Option<u32> {
        self.lock().by_name.get(name).copied()
    }

    /// Adds an item.
    pub(crate) fn enqueue(&self, id: u32, item: Bytes, limit: usize) -> Result<(), Refused> {
        let mut inner = self.lock();
        let waiting = inner.queues.get(&id).ok_or(Refused::Unknown)?.items.len();
        if waiting >= QUEUE_LIMIT {
            return Err(Refused::Full);
        }
        inner.swap(0, ENTRY + item.len(), limit)?;
        let queue = inner.queues.entry(id).or_default();
        queue.items.push_back(item);
        queue.untold = QUEUE_LIMIT.min(queue.untold + 1);
        Ok(())
    }

    /// Takes the oldest item; `None`: nothing waits.
    pub(crate) fn dequeue(&self, id: u32) -> Result<Option<Bytes>, Refused> {
        let mut inner = self.lock();
        let queue = inner.queues.get_mut(&id).ok_or(Refused::Unknown)?;
        let item = queue.items.pop_front();
        if let Some(item) = &item {
            inner.bytes -= ENTRY + item.len();
        }
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_mark_loses_and_no_mark_always_wins() {
        let shared = Shared::default();
        let set =
            |value: &'static str, cas| shared.set(b"k", Bytes::from_static(value.as_bytes()), cas, 1000);
        assert_eq!(set("absent keys take any mark", 7), Ok(()));
        let (_, first) = shared.get(b"k").unwrap();
        assert_eq!(set("b", first), Ok(()));
        assert_eq!(set("c", first), Err(Refused::CasMismatch));
        assert_eq!(set("", 0), Ok(()));
        assert_eq!(shared.get(b"k").unwrap().0, "");
        assert_eq!(shared.get(b"other"), None);
    }

    #[test]
    fn the_limit_counts_what_is_stored() {
        let shared = Shared::default();
        let limit = 2 * ENTRY + 10;
        let set = |key: &[u8], length| shared.set(key, Bytes::from(vec![0; length]), 0, limit);
        assert_eq!(set(b"a", 9 + ENTRY), Ok(()));
        assert_eq!(set(b"b", 0), Err(Refused::Full));
        assert_eq!(set(b"a", 3), Ok(()));
        assert_eq!(set(b"b", 5), Ok(()));
        assert_eq!(shared.register(b"c", None, limit), Err(Refused::Full));
    }

    #[test]
    fn queues_keep_order_and_outlive_a_second_registration() {
        let shared = Shared::default();
        let register = || shared.register(b"q", None, 1000).unwrap().0;
        let id = register();
        for item in ["1", "2"] {
            shared
                .enqueue(id, Bytes::from_static(item.as_bytes()), 1000)
                .unwrap();
        }
        assert_eq!((register(), shared.resolve(b"q")), (id, Some(id)));
        assert_eq!(shared.dequeue(id).unwrap().unwrap(), "1");
        assert_eq!(shared.dequeue(id).unwrap().unwrap(), "2");
        assert_eq!(shared.dequeue(id), Ok(None));
        assert_eq!(shared.dequeue(id + 1), Err(Refused::Unknown));
        assert_eq!(shared.resolve(b"r"), None);
    }
}
