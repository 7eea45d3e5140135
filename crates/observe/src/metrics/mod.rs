//! Metrics: handles that count with one atomic add, families that keep their cardinality, Prometheus text on demand.
//!
//! Names and labels are Envoy's as Higress shows them (routing spec §18, console spec §4), plus `tollgate_…`.

mod groups;
mod handle;
mod process;
mod registry;
#[cfg(test)]
mod tests;
mod usage;

pub use groups::{ClusterMetrics, ListenerMetrics, ServerMetrics, StatusCounters};
pub use handle::{Counter, Gauge, Held, Histogram};
pub use registry::{CONTENT_TYPE, Family, Kind, MetricError, Metrics};
pub use usage::{UsageLabels, UsageMetric, UsageMetrics, UsageSeries};
