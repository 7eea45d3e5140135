//! `Spend`: what each consumer has used today and this month (UTC), for budgets.
//!
//! Counted at settlement, in the same step as the metrics and before the ledger's thread sees the entry, so whoever asks
//! next knows of it. After a start it is filled from the ledger. Holds no request and reads no file.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::Offset;

use crate::cost::Amount;

/// Consumers are spread over this many locks.
const SHARDS: usize = 16;
/// Consumers kept a shard; beyond it those that used nothing this month are forgotten first.
const MOST: usize = 8_192;

/// Use of one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Requests, those without a model too.
    pub requests: u64,
    /// Tokens in all, as the vendors total them.
    pub tokens: u64,
    /// Money, in the price table's currency; models without a price cost nothing.
    pub cost: Amount,
}

impl Spent {
    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            cost: self.cost.plus(other.cost),
        }
    }
}

/// A day and its month, as numbers that grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Period {
    /// Days since 1970.
    day: i64,
    /// Months since year 0.
    month: i64,
}

impl Period {
    fn of(time: SystemTime) -> Self {
        let Ok(stamp) = Timestamp::try_from(time) else {
            return Self::default();
        };
        let date = Offset::UTC.to_datetime(stamp);
        Self {
            day: stamp.as_second().div_euclid(86_400),
            month: i64::from(date.year()) * 12 + i64::from(date.month()),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    period: Period,
    day: Spent,
    month: Spent,
}

impl Sums {
    /// Puts the periods forward, never back: a clock that jumps loses no money.
    fn turn(&mut self, now: Period) {
        if now.month > self.period.month {
            self.month = Spent::default();
            self.period.month = now.month;
        }
        if now.day > self.period.day {
            self.day = Spent::default();
            self.period.day = now.day;
        }
    }
}

type Shard = HashMap<Box<str>, Sums>;

/// Use by consumer; cheap to clone, shared by the process.
#[derive(Debug, Clone, Default)]
pub struct Spend(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Spend {
    /// What `consumer` has used today.
    #[must_use]
    pub fn day(&self, consumer: &str) -> Spent {
        self.read(consumer, tollgate_base::clock::wall()).day
    }

    /// What `consumer` has used this month.
    #[must_use]
    pub fn month(&self, consumer: &str) -> Spent {
        self.read(consumer, tollgate_base::clock::wall()).month
    }

    /// Adds one request's use at `time`, its settlement.
    pub fn add(&self, consumer: &str, time: SystemTime, used: Spent) {
        self.change(consumer, time, |sums| {
            sums.day = sums.day.plus(used);
            sums.month = sums.month.plus(used);
        });
    }

    /// Adds what the ledger knows of the current periods, at the start.
    pub fn restore(&self, consumer: &str, now: SystemTime, day: Spent, month: Spent) {
        self.change(consumer, now, |sums| {
            sums.day = sums.day.plus(day);
            sums.month = sums.month.plus(month);
        });
    }

    fn read(&self, consumer: &str, now: SystemTime) -> Sums {
        let known = self.shard(consumer).get(consumer).copied();
        let mut sums = known.unwrap_or_default();
        sums.turn(Period::of(now));
        sums
    }

    fn change(&self, consumer: &str, time: SystemTime, change: impl FnOnce(&mut Sums)) {
        let period = Period::of(time);
        let mut shard = self.shard(consumer);
        if let Some(sums) = shard.get_mut(consumer) {
            sums.turn(period);
            change(sums);
            return;
        }
        if shard.len() >= MOST {
            make_room(&mut shard, period);
        }
        let sums = shard.entry(consumer.into()).or_default();
        sums.turn(period);
        change(sums);
    }

    fn shard(&self, consumer: &str) -> MutexGuard<'_, Shard> {
        let hash = self.0.hasher.hash_one(consumer);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        let [first, ..] = &self.0.shards;
        let shard = self.0.shards.get(index).unwrap_or(first);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets consumers of earlier months; when there are none, the eighth that used least.
fn make_room(shard: &mut Shard, now: Period) {
    shard.retain(|_, sums| sums.period.month >= now.month);
    if shard.len() < MOST {
        return;
    }
    let weight = |sums: &Sums| (sums.month.cost, sums.month.tokens);
    let mut weights: Vec<_> = shard.values().map(weight).collect();
    let (_, limit, _) = weights.select_nth_unstable(MOST / 8);
    let (limit, mut excess) = (*limit, MOST / 8);
    shard.retain(|_, sums| {
        let goes = excess > 0 && weight(sums) <= limit;
        excess -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn used(cost: u64) -> Spent {
        Spent {
            requests: 1,
            tokens: 10,
            cost: Amount(cost),
        }
    }

    #[test]
    fn days_and_months_begin_at_midnight_utc() {
        let spend = Spend::default();
        spend.add("ann", at("2026-11-29T23:59:59Z"), used(5));
        spend.add("ann", at("2026-11-30T00:00:00Z"), used(7));
        spend.add("bob", at("2026-11-30T00:00:00Z"), used(1));
        let now = at("2026-11-30T12:00:00Z");
        assert_eq!(spend.read("ann", now).day, used(7));
        assert_eq!(spend.read("ann", now).month.cost, Amount(12));
        assert_eq!(spend.read("bob", now).month, used(1));
        assert_eq!(spend.read("eve", now).month, Spent::default());
        let later = at("2026-12-01T00:00:00Z");
        assert_eq!(
            (spend.read("ann", later).day, spend.read("ann", later).month),
            Default::default()
        );
        // A clock that goes back finds what was there.
        spend.add("ann", now - Duration::from_secs(86_400), used(1));
        assert_eq!(spend.read("ann", now).month.cost, Amount(13));
    }

    #[test]
    fn what_the_ledger_knows_is_added_to_what_came_meanwhile() {
        let spend = Spend::default();
        let now = tollgate_base::clock::wall();
        spend.add("ann", now, used(1));
        spend.restore("ann", now, used(10), used(100));
        assert_eq!(spend.day("ann").cost, Amount(11));
        assert_eq!(spend.month("ann").cost, Amount(101));
    }

    #[test]
    fn memory_is_bounded_and_the_big_ones_stay() {
        let spend = Spend::default();
        let now = at("2026-11-30T12:00:00Z");
        spend.add("big", now, used(1_000_000));
        for number in 0..200_000 {
            spend.add(&format!("consumer-{number}"), now, used(1));
        }
        let all: usize = spend
            .0
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert!(all <= SHARDS * MOST);
        assert_eq!(spend.read("big", now).month.cost, Amount(1_000_000));
    }
}
