//! A route's local policies that refuse: the source address list and the request rate.
//!
//! An address list is held against the TCP peer: no hop in front of us is trusted to name another in
//! `x-forwarded-for` (Higress's default, `numTrustedProxies` 0), since every client could.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tollgate_base::clock::Instant;
use tollgate_base::{Error, Flag, clock};
use tollgate_plugin::Exchange;
use tollgate_snapshot::policy::RateLimit;
use tollgate_snapshot::{Route, Snapshot};

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
    buckets: Mutex<HashMap<Arc<str>, Limited>>,
}

/// A route's limit and what is left of it.
type Limited = (RateLimit, Arc<Bucket>);

/// Full at `epoch`; holds the moment (ns since `epoch`, enough for 584 years) at which it would be full again.
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
        let now = nanoseconds(self.epoch.elapsed());
        self.bucket(route, limit).take(now, limit)
    }

    /// Forgets the buckets of routes that are gone or have no limit any more.
    pub(crate) fn retain(&self, snapshot: &Snapshot) {
        let hosts = &snapshot.hosts;
        let wildcard = hosts.wildcard.iter().map(|(_, host)| host);
        let all = hosts.exact.values().chain(wildcard).chain(&hosts.any);
        let limited = |route: &&Arc<Route>| route.policy.rate.is_some();
        let names: HashSet<&str> = all
            .flat_map(|host| host.routes.iter().filter(limited))
            .map(|route| &*route.name)
            .collect();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|name, _| names.contains(&**name));
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
        let cost = nanoseconds(limit.interval) / u64::from(limit.fill.max(1));
        let latest = now.saturating_add(cost.saturating_mul(u64::from(limit.capacity)));
        let admit = |full_at: u64| {
            let next = full_at.max(now).saturating_add(cost);
            (next <= latest).then_some(next)
        };
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, admit)
            .is_ok()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
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
        assert!(!bucket.take(99_999_999, &limit));
        assert!(bucket.take(100_000_000, &limit));
        assert_eq!(
            (0..100).filter(|_| bucket.take(1_100_000_000, &limit)).count(),
            10
        );
    }

    #[test]
    fn no_limit_is_too_high_or_too_slow_to_count() {
        let high = RateLimit {
            fill: 3_000_000,
            interval: Duration::from_secs(1),
            capacity: 5,
        };
        let bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(0, &high)).count(), 5);
        let slow = RateLimit {
            fill: 1,
            interval: Duration::from_secs(60),
            capacity: u32::MAX,
        };
        let deep = Bucket::default();
        assert!((0..100).all(|_| deep.take(u64::MAX / 2, &slow)));
    }

    #[test]
    fn buckets_of_vanished_routes_are_forgotten() {
        let limit = RateLimit {
            fill: 1,
            interval: Duration::from_secs(1),
            capacity: 1,
        };
        let buckets = RateBuckets::new();
        assert!(buckets.take(&"gone".into(), &limit));
        assert!(!buckets.take(&"gone".into(), &limit));
        buckets.retain(&Snapshot::default());
        assert!(buckets.buckets.lock().expect("no panic").is_empty());
    }
}
