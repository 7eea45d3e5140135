//! A route's local policies that refuse: the source address list and the request rate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use tollgate_base::clock::Instant;
use tollgate_base::{Error, Flag, clock};
use tollgate_plugin::Exchange;
use tollgate_snapshot::policy::RateLimit;

use crate::route::Router;

/// Refuses what the chosen route's address list or rate does not allow.
pub(crate) fn check(router: &Router<'_>, exchange: &Exchange) -> Option<Error> {
    let route = router.route()?;
    let policy = &route.policy;
    let peer = exchange.record.connection.peer.ip();
    if !policy.allowed_sources.is_empty() && !policy.allowed_sources.iter().any(|range| range.contains(peer))
    {
        let refusal = Error::client(StatusCode::FORBIDDEN, "rbac_access_denied", "RBAC: access denied");
        return Some(refusal.with_flag(Flag::Unauthorized));
    }
    let limit = policy.rate.as_ref()?;
    if router.worker.rates.take(&route.name, limit) {
        return None;
    }
    let refusal = Error::client(
        StatusCode::TOO_MANY_REQUESTS,
        "local_rate_limited",
        "local_rate_limited",
    );
    Some(refusal.with_flag(Flag::RateLimited))
}

/// Token buckets of all routes, shared by all workers. They outlive a reload while their limit is unchanged.
#[derive(Debug)]
pub(crate) struct RateBuckets {
    epoch: Instant,
    buckets: Mutex<HashMap<Arc<str>, (RateLimit, Arc<Bucket>)>>,
}

/// Full at `epoch`; holds the moment (µs since `epoch`) at which it would be full again.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl RateBuckets {
    pub(crate) fn new() -> Self {
        Self {
            epoch: clock::now(),
            buckets: Mutex::default(),
        }
    }

    fn take(&self, route: &Arc<str>, limit: &RateLimit) -> bool {
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.bucket(route, limit).take(now, limit)
    }

    /// The lock is held for a look-up only, never across an await.
    fn bucket(&self, route: &Arc<str>, limit: &RateLimit) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        match buckets.get(route) {
            Some((known, bucket)) if known == limit => bucket.clone(),
            _ => {
                let fresh = Arc::new(Bucket::default());
                buckets.insert(route.clone(), (limit.clone(), fresh.clone()));
                fresh
            }
        }
    }
}

impl Bucket {
    /// Takes one token at `now` if there is one.
    fn take(&self, now: u64, limit: &RateLimit) -> bool {
        let interval = u64::try_from(limit.interval.as_micros()).unwrap_or(u64::MAX);
        let cost = interval / u64::from(limit.fill.max(1));
        let depth = cost.saturating_mul(u64::from(limit.capacity));
        let admit = |full_at: u64| {
            let next = full_at.max(now) + cost;
            (next <= now + depth).then_some(next)
        };
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, admit)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_starts_full_and_refills() {
        let limit = RateLimit {
            fill: 10,
            interval: Duration::from_secs(1),
            capacity: 50,
        };
        let bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(0, &limit)).count(), 50);
        assert!(!bucket.take(99_999, &limit));
        assert!(bucket.take(100_000, &limit));
        assert_eq!((0..100).filter(|_| bucket.take(1_100_000, &limit)).count(), 10);
    }
}
