//! Handles: what the data path holds. Cloning shares the cell; counting is one relaxed atomic operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// This many more.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, or takes away what is negative.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more for as long as the result lives: an open connection, a running request.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.add(1);
        Held(self.clone())
    }
}

/// One unit of a gauge; given back when dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// Envoy's default upper bounds, as they are printed, in milliseconds.
pub(super) const BOUND_TEXTS: [&str; 19] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000",
    "60000", "300000", "600000", "1800000", "3600000",
];

/// The same in microseconds.
const BOUNDS: [u64; 19] = [
    500,
    1_000,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

/// Durations in Envoy's default buckets; shown in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// Each counts its own range; the last one is beyond the highest bound.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_microseconds: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let index = BOUNDS.partition_point(|bound| *bound < microseconds);
        if let Some(bucket) = self.0.counts.get(index) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// Sum of all durations, in microseconds.
    #[must_use]
    pub fn sum_microseconds(&self) -> u64 {
        self.0.sum_microseconds.load(Ordering::Relaxed)
    }

    /// Each bucket's own count, the one beyond the highest bound last.
    pub(super) fn counts(&self) -> [u64; BOUNDS.len() + 1] {
        self.0
            .counts
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_the_bounds() {
        for (text, bound) in BOUND_TEXTS.iter().zip(BOUNDS) {
            let milliseconds: f64 = text.parse().unwrap();
            assert_eq!((milliseconds * 1000.0) as u64, bound);
        }
    }

    #[test]
    fn an_upper_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for microseconds in [0, 500, 501, 1_000, 3_600_000_000, 3_600_000_001] {
            histogram.observe(Duration::from_micros(microseconds));
        }
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[18], counts[19]), (2, 2, 1, 1));
        assert_eq!(histogram.count(), 6);
        assert_eq!(histogram.sum_microseconds(), 7_200_002_002);
    }

    #[test]
    fn a_held_unit_is_given_back() {
        let gauge = Gauge::default();
        let held = gauge.hold();
        assert_eq!(gauge.get(), 1);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }
}
