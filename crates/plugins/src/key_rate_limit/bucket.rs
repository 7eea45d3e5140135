//! A bucket of requests that is full again at every border of its period; never smoothed, as in Higress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tollgate_base::clock::Instant;

/// One key's requests of the current period. All workers share it without a lock.
#[derive(Debug)]
pub(super) struct Bucket {
    capacity: u32,
    period: Duration,
    /// Where periods begin to count.
    started: Instant,
    /// Number of the period in the upper half, requests taken in it in the lower.
    state: AtomicU64,
}

impl Bucket {
    /// A full one. `capacity` 0 lets nobody in.
    pub(super) fn new(capacity: u64, period: Duration, started: Instant) -> Self {
        Self {
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            period,
            started,
            state: AtomicU64::new(0),
        }
    }

    /// Takes one request at time `now`; false when none is left.
    pub(super) fn take(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.started);
        let period = u32::try_from(since.as_millis() / self.period.as_millis().max(1)).unwrap_or(u32::MAX);
        let admitted = self
            .state
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                let (current, taken) = ((state >> 32) as u32, state as u32);
                // Another worker may already be in the next period: nobody turns it back.
                let (current, taken) = if period > current {
                    (period, 0)
                } else {
                    (current, taken)
                };
                (taken < self.capacity).then(|| (u64::from(current) << 32) | u64::from(taken + 1))
            });
        admitted.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_border_of_a_period_fills_it_and_nothing_else_does() {
        let start = tollgate_base::clock::now();
        let bucket = Bucket::new(2, Duration::from_secs(1), start);
        let admitted = [0, 999, 999, 1000, 1001, 1999, 2000, 9500, 9600, 9700]
            .map(|milliseconds| bucket.take(at(start, milliseconds)));
        assert_eq!(
            admitted,
            [true, true, false, true, true, false, true, true, true, false]
        );
    }

    #[test]
    fn a_worker_whose_clock_reading_is_older_does_not_turn_the_period_back() {
        let start = tollgate_base::clock::now();
        let bucket = Bucket::new(1, Duration::from_secs(1), start);
        assert!(bucket.take(at(start, 1000)));
        assert!(!bucket.take(at(start, 999)), "counted in the period in force");
        assert!(!bucket.take(at(start, 1500)));
        assert!(!Bucket::new(0, Duration::from_secs(1), start).take(start));
    }

    #[test]
    fn threads_share_it_exactly() {
        let start = tollgate_base::clock::now();
        let bucket = Bucket::new(10, Duration::from_secs(86_400), start);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..200).filter(|_| bucket.take(start)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 10);
    }
}
