//! What all modules of the process share: data with compare-and-swap, and queues.
//!
//! Higress gives every plugin the same empty `vm_id`, so there is one key space for all plugins and all workers; it
//! outlives instances and reloads.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Most items that wait in one queue.
const QUEUE_LIMIT: usize = 10_000;

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
pub(crate) struct Shared {
    data: Mutex<Data>,
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Data {
    values: HashMap<Vec<u8>, (Bytes, u32)>,
    last_cas: u32,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queues {
    by_name: HashMap<Vec<u8>, u32>,
    items: HashMap<u32, VecDeque<Bytes>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A value and its mark.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        lock(&self.data).values.get(key).cloned()
    }

    /// Stores a value. A `cas` other than 0 must be the mark of what is stored, if anything is.
    pub(crate) fn set(&self, key: &[u8], value: Bytes, cas: u32, limit: usize) -> Result<(), Refused> {
        let mut data = lock(&self.data);
        let before = match data.values.get(key) {
            Some((_, mark)) if cas != 0 && cas != *mark => return Err(Refused::CasMismatch),
            Some((old, _)) => key.len() + old.len(),
            None => 0,
        };
        let after = data.bytes - before + key.len() + value.len();
        if after > limit {
            return Err(Refused::Full);
        }
        data.bytes = after;
        data.last_cas = data.last_cas.checked_add(1).unwrap_or(1);
        let mark = data.last_cas;
        data.values.insert(key.to_vec(), (value, mark));
        Ok(())
    }

    /// The queue of this name, made if there is none; what waits in it stays.
    pub(crate) fn register(&self, name: &[u8]) -> u32 {
        let mut queues = lock(&self.queues);
        let next = u32::try_from(queues.by_name.len()).unwrap_or(u32::MAX - 1) + 1;
        let id = *queues.by_name.entry(name.to_vec()).or_insert(next);
        queues.items.entry(id).or_default();
        id
    }

    /// The queue of this name.
    pub(crate) fn resolve(&self, name: &[u8]) -> Option<u32> {
        lock(&self.queues).by_name.get(name).copied()
    }

    /// Adds an item.
    pub(crate) fn enqueue(&self, id: u32, item: Bytes) -> Result<(), Refused> {
        let mut queues = lock(&self.queues);
        let items = queues.items.get_mut(&id).ok_or(Refused::Unknown)?;
        if items.len() >= QUEUE_LIMIT {
            return Err(Refused::Full);
        }
        items.push_back(item);
        Ok(())
    }

    /// Takes the oldest item; `None`: nothing waits.
    pub(crate) fn dequeue(&self, id: u32) -> Result<Option<Bytes>, Refused> {
        let mut queues = lock(&self.queues);
        let items = queues.items.get_mut(&id).ok_or(Refused::Unknown)?;
        Ok(items.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_mark_loses_and_no_mark_always_wins() {
        let shared = Shared::default();
        let set = |value: &'static str, cas| shared.set(b"k", Bytes::from_static(value.as_bytes()), cas, 100);
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
        let set = |key: &[u8], length| shared.set(key, Bytes::from(vec![0; length]), 0, 10);
        assert_eq!(set(b"a", 9), Ok(()));
        assert_eq!(set(b"b", 0), Err(Refused::Full));
        assert_eq!(set(b"a", 3), Ok(()));
        assert_eq!(set(b"b", 5), Ok(()));
    }

    #[test]
    fn queues_keep_order_and_outlive_a_second_registration() {
        let shared = Shared::default();
        let id = shared.register(b"q");
        shared.enqueue(id, Bytes::from_static(b"1")).unwrap();
        shared.enqueue(id, Bytes::from_static(b"2")).unwrap();
        assert_eq!((shared.register(b"q"), shared.resolve(b"q")), (id, Some(id)));
        assert_eq!(shared.dequeue(id).unwrap().unwrap(), "1");
        assert_eq!(shared.dequeue(id).unwrap().unwrap(), "2");
        assert_eq!(shared.dequeue(id), Ok(None));
        assert_eq!(shared.dequeue(id + 1), Err(Refused::Unknown));
        assert_eq!(shared.resolve(b"r"), None);
    }
}
