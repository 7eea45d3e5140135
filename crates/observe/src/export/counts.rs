//! What becomes of everything that is exported, by exporter.

use crate::Metrics;
use crate::metrics::{Counter, Kind};

/// `tollgate_<what>_exported_total{exporter}` and `tollgate_<what>_dropped_total{exporter,reason}`.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Taken by the collector.
    pub exported: Counter,
    /// No room in the queue.
    pub queue_full: Counter,
    /// The collector could not be reached for too long.
    pub unreachable: Counter,
    /// The collector refused it.
    pub refused: Counter,
    /// The gateway ended first.
    pub shutdown: Counter,
}

impl Counts {
    /// `what` is `trace_spans` or `log_rows`; `exporter` a short name of the backend.
    #[must_use]
    pub fn new(metrics: &Metrics, what: &str, exporter: &str) -> Self {
        let counter = |suffix: &str, labels: &[(&str, &str)]| {
            let family = metrics.family(&format!("tollgate_{what}_{suffix}_total"), Kind::Counter);
            family.map_or_else(|_| Counter::default(), |family| family.counter(labels))
        };
        let dropped = |reason: &str| counter("dropped", &[("exporter", exporter), ("reason", reason)]);
        Self {
            exported: counter("exported", &[("exporter", exporter)]),
            queue_full: dropped("queue_full"),
            unreachable: dropped("unreachable"),
            refused: dropped("refused"),
            shutdown: dropped("shutdown"),
        }
    }
}
