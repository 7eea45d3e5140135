//! Connection counters of each cluster, for the metrics exporter: plain atomics, shared by all workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counters of one cluster; they only grow, except `connections_active` and `requests_active`.
#[derive(Debug, Default)]
pub struct ClusterStats {
    /// `envoy_cluster_upstream_cx_total`.
    pub connections: AtomicU64,
    /// `envoy_cluster_upstream_cx_active`.
    pub connections_active: AtomicU64,
    /// `envoy_cluster_upstream_cx_connect_fail`, timeouts included.
    pub connect_failures: AtomicU64,
    /// `envoy_cluster_upstream_rq_active`.
    pub requests_active: AtomicU64,
    /// Requests refused by a circuit threshold.
    pub overflows: AtomicU64,
}

/// A cluster's name and its counters.
pub type ClusterStatsRow = (Arc<str>, Arc<ClusterStats>);

/// All clusters' counters, by name: they outlive a reload.
#[derive(Debug, Default)]
pub(crate) struct StatsTable(Mutex<BTreeMap<Arc<str>, Arc<ClusterStats>>>);

impl StatsTable {
    /// The counters of `name`; called when a pool is made, never per request.
    pub(crate) fn of(&self, name: &Arc<str>) -> Arc<ClusterStats> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(table.entry(Arc::clone(name)).or_default())
    }

    pub(crate) fn rows(&self) -> Vec<ClusterStatsRow> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table
            .iter()
            .map(|(name, stats)| (Arc::clone(name), Arc::clone(stats)))
            .collect()
    }
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn subtract(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}
