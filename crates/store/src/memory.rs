//! The home in this process: exact across its workers, kept over reloads, bounded.
//!
//! Counters go when their window is over. When there are too many all the same, the least used go first: who floods
//! the gateway with fresh keys does not push out the counters of those who use it. Plain numbers stay.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tollgate_base::clock::{self, Instant};

use crate::{Count, Failure, Reservation, Settlement, Store};

/// Counters under as many locks, none of which is ever held across an await.
const SHARDS: usize = 64;
/// Counters in all, unless told otherwise.
const DEFAULT_CAPACITY: usize = 1 << 20;
/// A shard is not searched for old counters before it holds so many.
const FIRST_SWEEP: usize = 64;

/// Counters in this process's memory.
pub struct Memory {
    shards: Vec<Mutex<Shard>>,
    /// Keys are kept as 128 bits; the secret keeps anybody from making two alike.
    hashers: [RandomState; 2],
    /// Most counters a shard.
    capacity: usize,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<u128, Entry>,
    /// How many there may be before old ones are looked for.
    sweep_at: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    value: i64,
    /// `None`: a plain number.
    ends: Option<Instant>,
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Memory({})", self.len())
    }
}

impl Memory {
    /// Holds about so many counters at most.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hashers: [RandomState::new(), RandomState::new()],
            capacity: capacity.div_ceil(SHARDS).max(1),
        }
    }

    /// Counters and numbers at hand, those that are over included until somebody looks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `work` on the entry of `key` as it is now; what it returns first becomes the entry.
    fn with<T>(&self, key: &str, work: impl FnOnce(Option<Entry>, Instant) -> (Option<Entry>, T)) -> T {
        let [high, low] = [&self.hashers[0], &self.hashers[1]].map(|hasher| hasher.hash_one(key));
        let id = (u128::from(high) << 64) | u128::from(low);
        let now = clock::now();
        let Some(shard) = self.shards.get(low as usize % SHARDS) else {
            return work(None, now).1;
        };
        let mut shard = lock(shard);
        let known = shard.entries.get(&id).copied();
        let (entry, outcome) = work(known.filter(|entry| !entry.is_over(now)), now);
        match entry {
            Some(entry) => {
                if known.is_none() {
                    shard.make_room(self.capacity, now);
                }
                shard.entries.insert(id, entry);
            }
            None if known.is_some() => drop(shard.entries.remove(&id)),
            None => {}
        }
        outcome
    }

    /// The sum after adding to the counter's window, or to a fresh one.
    fn count(&self, key: &str, window: Duration, decide: impl FnOnce(u64) -> Option<u64>) -> (Count, bool) {
        self.with(key, |entry, now| {
            let current = entry.map_or(0, |entry| u64::try_from(entry.value).unwrap_or(0));
            let ends = entry.and_then(|entry| entry.ends).unwrap_or(now + window);
            let added = decide(current);
            let after = current.saturating_add(added.unwrap_or(0));
            let count = Count {
                current: after,
                reset: ends.saturating_duration_since(now),
            };
            let fresh = Entry {
                value: i64::try_from(after).unwrap_or(i64::MAX),
                ends: Some(ends),
            };
            (added.map_or(entry, |_| Some(fresh)), (count, added.is_some()))
        })
    }

    fn add_plain(&self, key: &str, delta: i64) -> i64 {
        self.with(key, |entry, _| {
            let value = entry.map_or(0, |entry| entry.value).saturating_add(delta);
            (Some(Entry { value, ends: None }), value)
        })
    }
}

impl Shard {
    fn make_room(&mut self, capacity: usize, now: Instant) {
        if self.entries.len() < self.sweep_at.clamp(FIRST_SWEEP.min(capacity), capacity) {
            return;
        }
        self.entries.retain(|_, entry| !entry.is_over(now));
        if self.entries.len() >= capacity {
            self.drop_least_used();
        }
        self.sweep_at = self.entries.len() * 2;
    }

    /// Half of the counters, those with the lowest values.
    fn drop_least_used(&mut self) {
        let counters = self.entries.values().filter(|entry| entry.ends.is_some());
        let mut values: Vec<i64> = counters.map(|entry| entry.value).collect();
        let middle = values.len() / 2;
        if middle == 0 {
            return;
        }
        let (_, median, _) = values.select_nth_unstable(middle);
        let (median, mut surplus) = (*median, middle);
        self.entries.retain(|_, entry| {
            let goes = surplus > 0 && entry.ends.is_some() && entry.value <= median;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for Memory {
    async fn take(&self, key: &str, limit: u64, window: Duration) -> Result<Count, Failure> {
        Ok(self
            .count(key, window, |current| (current <= limit).then_some(1))
            .0)
    }

    async fn read(&self, key: &str, window: Duration) -> Result<Count, Failure> {
        Ok(self.count(key, window, |_| None).0)
    }

    async fn reserve(
        &self,
        key: &str,
        limit: u64,
        window: Duration,
        amount: u64,
    ) -> Result<Reservation, Failure> {
        let amount = amount.min(limit);
        let fits = |current: u64| current.saturating_add(amount) <= limit;
        let (count, granted) = self.count(key, window, |current| fits(current).then_some(amount));
        Ok(match granted {
            true => Reservation::Granted {
                amount,
                ends: clock::now() + count.reset,
            },
            false => Reservation::Refused(count),
        })
    }

    async fn get(&self, key: &str) -> Result<Option<i64>, Failure> {
        Ok(self.with(key, |entry, _| (entry, entry.map(|entry| entry.value))))
    }

    async fn set(&self, key: &str, value: i64) -> Result<(), Failure> {
        self.with(key, |_, _| (Some(Entry { value, ends: None }), ()));
        Ok(())
    }

    async fn add(&self, key: &str, delta: i64) -> Result<i64, Failure> {
        Ok(self.add_plain(key, delta))
    }

    fn settle(&self, settlement: Settlement) {
        match settlement {
            Settlement::Charge {
                key,
                limit,
                window,
                amount,
            } => {
                self.count(&key, window, |current| (current <= limit).then_some(amount));
            }
            Settlement::Correct { key, delta, ends } => self.with(&key, |entry, now| {
                // A window that began after the reservation's has nothing to do with it.
                let same =
                    entry.filter(|entry| now < ends && entry.ends.is_some_and(|own| own <= ends + SLACK));
                let corrected = same.map(|entry| Entry {
                    value: entry.value.saturating_add(delta).max(0),
                    ..entry
                });
                (corrected.or(entry), ())
            }),
            Settlement::Spend { key, amount } => {
                self.add_plain(&key, i64::try_from(amount).unwrap_or(i64::MAX).saturating_neg());
            }
        }
    }
}

/// Between reading the clock for the window and for the reservation.
const SLACK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_window_begins_with_its_first_count_and_ends_sharply() {
        let memory = Memory::default();
        let take = || async { memory.take("k", 2, MINUTE).await.unwrap() };
        assert_eq!(
            take().await,
            Count {
                current: 1,
                reset: MINUTE
            }
        );
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!((take().await.current, take().await.current), (2, 3));
        assert_eq!(take().await.current, 3, "above the limit nothing is counted");
        assert_eq!(take().await.reset, Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        let read = memory.read("k", MINUTE).await.unwrap();
        assert_eq!(
            read,
            Count {
                current: 0,
                reset: MINUTE
            }
        );
        assert_eq!(take().await.current, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn reservations_never_go_over_and_are_corrected_within_their_window_only() {
        let memory = Memory::default();
        let granted = memory.reserve("k", 100, MINUTE, 60).await.unwrap();
        let Reservation::Granted { amount: 60, ends } = granted else {
            panic!("{granted:?}");
        };
        let refused = memory.reserve("k", 100, MINUTE, 41).await.unwrap();
        assert!(matches!(refused, Reservation::Refused(Count { current: 60, .. })));
        memory.settle(Settlement::Correct {
            key: "k".into(),
            delta: -50,
            ends,
        });
        assert_eq!(memory.read("k", MINUTE).await.unwrap().current, 10);
        tokio::time::advance(MINUTE).await;
        // More than the limit: alone in its window it gets in.
        let whole = memory.reserve("k", 100, MINUTE, 1000).await.unwrap();
        assert!(
            matches!(whole, Reservation::Granted { amount: 100, .. }),
            "{whole:?}"
        );
        memory.settle(Settlement::Correct {
            key: "k".into(),
            delta: -50,
            ends,
        });
        assert_eq!(memory.read("k", MINUTE).await.unwrap().current, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn charges_and_plain_numbers() {
        let memory = Memory::default();
        let charge = |amount| {
            memory.settle(Settlement::Charge {
                key: "k".into(),
                limit: 10,
                window: MINUTE,
                amount,
            });
        };
        charge(10);
        charge(5);
        charge(5);
        assert_eq!(memory.read("k", MINUTE).await.unwrap().current, 15);
        assert_eq!(memory.get("q").await.unwrap(), None);
        memory.set("q", 7).await.unwrap();
        assert_eq!(memory.add("q", -3).await.unwrap(), 4);
        memory.settle(Settlement::Spend {
            key: "q".into(),
            amount: 10,
        });
        assert_eq!(memory.get("q").await.unwrap(), Some(-6));
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(memory.get("q").await.unwrap(), Some(-6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_million_keys_are_bounded_and_those_in_use_outlast_a_flood() {
        let memory = Memory::with_capacity(64 * 256);
        memory.set("quota", 5).await.unwrap();
        for _ in 0..3 {
            memory.take("in use", 1000, MINUTE).await.unwrap();
        }
        for key in 0..1_000_000 {
            memory.take(&key.to_string(), 1, MINUTE).await.unwrap();
        }
        assert!(memory.len() <= 64 * 256, "{}", memory.len());
        assert_eq!(memory.read("in use", MINUTE).await.unwrap().current, 3);
        assert_eq!(memory.get("quota").await.unwrap(), Some(5));
        tokio::time::advance(MINUTE).await;
        for key in 0..64 * 200 {
            memory
                .take(&format!("later {key}"), 1, Duration::from_secs(1))
                .await
                .unwrap();
        }
        assert!(memory.len() < 64 * 256, "those that are over make room");
    }

    #[test]
    fn threads_share_it_exactly() {
        let memory = Memory::default();
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let granted =
                            |_: &i32| memory.count("k", MINUTE, |current| (current < 10).then_some(1)).1;
                        (0..200).filter(granted).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 10);
    }
}
