//! Handle groups: what the process, a listener and a cluster count, resolved once and kept by who counts.

use std::sync::OnceLock;
use std::time::Duration;

use tollgate_base::{Termination, Timer};

use super::handle::{Counter, Gauge, Histogram};
use super::registry::{Families, Family, Kind};

/// Every way an exchange can end, in the order of `termination_index`; the last is for one that nobody named.
const TERMINATIONS: [&str; 12] = [
    "completed",
    "client_gone",
    "upstream_cut",
    "upstream_error",
    "timeout_connect",
    "timeout_response_head",
    "timeout_first_event",
    "timeout_silence",
    "timeout_total",
    "refused",
    "shutdown",
    "unknown",
];

fn termination_index(termination: Option<Termination>) -> usize {
    match termination {
        Some(Termination::Completed) => 0,
        Some(Termination::ClientGone) => 1,
        Some(Termination::UpstreamCut) => 2,
        Some(Termination::UpstreamError) => 3,
        Some(Termination::Timeout(timer)) => 4 + timer_index(timer),
        Some(Termination::Refused) => 9,
        Some(Termination::Shutdown) => 10,
        None => 11,
    }
}

const TIMERS: [Timer; 5] = [
    Timer::Connect,
    Timer::ResponseHead,
    Timer::FirstEvent,
    Timer::Silence,
    Timer::Total,
];

fn timer_index(timer: Timer) -> usize {
    match timer {
        Timer::Connect => 0,
        Timer::ResponseHead => 1,
        Timer::FirstEvent => 2,
        Timer::Silence => 3,
        Timer::Total => 4,
    }
}

/// Counts of the process as a whole.
#[derive(Debug)]
pub struct ServerMetrics {
    /// `envoy_server_live`: 1 while serving.
    pub live: Gauge,
    /// `tollgate_config_generation`: number of the configuration in force.
    pub config_generation: Gauge,
    /// `tollgate_access_log_lines_total`: lines written.
    pub access_log_lines: Counter,
    /// `tollgate_access_log_dropped_total`: lines lost to a full buffer or a failed write.
    pub access_log_dropped: Counter,
    /// `tollgate_access_log_errors_total`: failed writes.
    pub access_log_errors: Counter,
    terminations: [Counter; TERMINATIONS.len()],
    config_rejected: Family,
}

impl ServerMetrics {
    pub(super) fn new(families: &Families) -> Self {
        let counter = |name| families.own(name, Kind::Counter).counter(&[]);
        let gauge = |name| families.own(name, Kind::Gauge).gauge(&[]);
        let requests = families.own("tollgate_requests_total", Kind::Counter);
        let build = families.own("tollgate_build_info", Kind::Gauge);
        build.gauge(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        // One process, never replaced in place: dashboards watch this for change.
        gauge("envoy_server_hot_restart_epoch").set(0);
        Self {
            live: gauge("envoy_server_live"),
            config_generation: gauge("tollgate_config_generation"),
            access_log_lines: counter("tollgate_access_log_lines_total"),
            access_log_dropped: counter("tollgate_access_log_dropped_total"),
            access_log_errors: counter("tollgate_access_log_errors_total"),
            terminations: TERMINATIONS.map(|name| requests.counter(&[("termination", name)])),
            config_rejected: families.own("tollgate_config_rejected", Kind::Gauge),
        }
    }

    /// `tollgate_requests_total{termination}`.
    #[must_use]
    pub fn requests(&self, termination: Option<Termination>) -> &Counter {
        let [.., unknown] = &self.terminations;
        self.terminations
            .get(termination_index(termination))
            .unwrap_or(unknown)
    }

    /// `tollgate_config_rejected{kind}`: documents of this kind that are refused now (set it, 0 included).
    #[must_use]
    pub fn config_rejected(&self, kind: &str) -> Gauge {
        self.config_rejected.gauge(&[("kind", kind)])
    }
}

/// A family by status: one series a code, each with its class, so that sums by either label come out right.
#[derive(Debug)]
pub struct StatusCounters {
    family: Family,
    labels: Vec<(&'static str, Box<str>)>,
    /// By class, then by the rest of the code; a class takes memory once one of its codes is seen.
    classes: [OnceLock<Box<[OnceLock<Counter>]>>; 5],
}

impl StatusCounters {
    fn new(family: Family, labels: &[(&'static str, &str)]) -> Self {
        Self {
            family,
            labels: labels
                .iter()
                .map(|(name, value)| (*name, (*value).into()))
                .collect(),
            classes: Default::default(),
        }
    }

    /// Counts one answer; a status outside 100–599 (0: none was sent) is in no class and not counted.
    pub fn increment(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        let Some(class) = self.classes.get(class) else {
            return;
        };
        let codes = class.get_or_init(|| (0..100).map(|_| OnceLock::new()).collect());
        if let Some(code) = codes.get(usize::from(status % 100)) {
            code.get_or_init(|| self.resolve(status)).increment();
        }
    }

    fn resolve(&self, status: u16) -> Counter {
        let (code, class) = (status.to_string(), format!("{}xx", status / 100));
        let mut labels = vec![
            ("response_code", code.as_str()),
            ("response_code_class", class.as_str()),
        ];
        labels.extend(self.labels.iter().map(|(name, value)| (*name, &**value)));
        self.family.counter(&labels)
    }
}

/// Counts of one listener (`envoy_http_downstream_…`).
#[derive(Debug)]
pub struct ListenerMetrics {
    /// `_rq{response_code,response_code_class}`: answers by status.
    pub requests_by_status: StatusCounters,
    /// `_rq_total`: requests.
    pub requests: Counter,
    /// `_rq_active`: requests being served.
    pub requests_active: Gauge,
    /// `_rq_time`: arrival to the end of the answer.
    pub request_time: Histogram,
    /// `_cx_total`: connections accepted.
    pub connections: Counter,
    /// `_cx_active`: connections open.
    pub connections_active: Gauge,
    /// `_cx_rx_bytes_total`: bytes from clients.
    pub received_bytes: Counter,
    /// `_cx_tx_bytes_total`: bytes to clients.
    pub sent_bytes: Counter,
    /// `_cx_overload_reject`: connections refused at a limit.
    pub connections_rejected: Counter,
}

impl ListenerMetrics {
    pub(super) fn new(families: &Families, prefix: &str) -> Self {
        // Higress's dashboards ask for the first label, scrapes of plain Envoy show the second.
        let labels = [
            ("http_conn_manager_prefix", prefix),
            ("envoy_http_conn_manager_prefix", prefix),
        ];
        let counter = |name| families.own(name, Kind::Counter).counter(&labels);
        let gauge = |name| families.own(name, Kind::Gauge).gauge(&labels);
        Self {
            requests_by_status: StatusCounters::new(
                families.own("envoy_http_downstream_rq", Kind::Counter),
                &labels,
            ),
            requests: counter("envoy_http_downstream_rq_total"),
            requests_active: gauge("envoy_http_downstream_rq_active"),
            request_time: families
                .own("envoy_http_downstream_rq_time", Kind::Histogram)
                .histogram(&labels),
            connections: counter("envoy_http_downstream_cx_total"),
            connections_active: gauge("envoy_http_downstream_cx_active"),
            received_bytes: counter("envoy_http_downstream_cx_rx_bytes_total"),
            sent_bytes: counter("envoy_http_downstream_cx_tx_bytes_total"),
            connections_rejected: counter("envoy_http_downstream_cx_overload_reject"),
        }
    }
}

/// Counts of one cluster (`envoy_cluster_upstream_…{cluster_name}`).
#[derive(Debug)]
pub struct ClusterMetrics {
    /// `_rq{response_code,response_code_class}`: answers by status, retried ones too.
    pub requests_by_status: StatusCounters,
    /// `_rq_total`: attempts.
    pub requests: Counter,
    /// `_rq_active`: attempts under way.
    pub requests_active: Gauge,
    /// `_rq_time`: attempt sent to its answer's end.
    pub request_time: Histogram,
    /// `_rq_retry`: attempts after the first.
    pub retries: Counter,
    /// `_rq_timeout`: attempts that a timer ended.
    pub timeouts: Counter,
    /// `_rq_pending_overflow`: requests refused at a limit.
    pub overflows: Counter,
    /// `_cx_total`: connections made.
    pub connections: Counter,
    /// `_cx_active`: connections open.
    pub connections_active: Gauge,
    /// `_cx_connect_fail`: connections that could not be made.
    pub connect_failures: Counter,
    /// `_cx_rx_bytes_total`: bytes from the upstream.
    pub received_bytes: Counter,
    /// `_cx_tx_bytes_total`: bytes to the upstream.
    pub sent_bytes: Counter,
    /// `envoy_cluster_membership_total`: endpoints known.
    pub members: Gauge,
    /// `envoy_cluster_membership_healthy`: endpoints in use.
    pub members_healthy: Gauge,
    timers: [Counter; TIMERS.len()],
}

impl ClusterMetrics {
    pub(super) fn new(families: &Families, name: &str) -> Self {
        let labels = [("cluster_name", name)];
        let counter = |name| families.own(name, Kind::Counter).counter(&labels);
        let gauge = |name| families.own(name, Kind::Gauge).gauge(&labels);
        let timers = families.own("tollgate_upstream_timeouts_total", Kind::Counter);
        Self {
            requests_by_status: StatusCounters::new(
                families.own("envoy_cluster_upstream_rq", Kind::Counter),
                &labels,
            ),
            requests: counter("envoy_cluster_upstream_rq_total"),
            requests_active: gauge("envoy_cluster_upstream_rq_active"),
            request_time: families
                .own("envoy_cluster_upstream_rq_time", Kind::Histogram)
                .histogram(&labels),
            retries: counter("envoy_cluster_upstream_rq_retry"),
            timeouts: counter("envoy_cluster_upstream_rq_timeout"),
            overflows: counter("envoy_cluster_upstream_rq_pending_overflow"),
            connections: counter("envoy_cluster_upstream_cx_total"),
            connections_active: gauge("envoy_cluster_upstream_cx_active"),
            connect_failures: counter("envoy_cluster_upstream_cx_connect_fail"),
            received_bytes: counter("envoy_cluster_upstream_cx_rx_bytes_total"),
            sent_bytes: counter("envoy_cluster_upstream_cx_tx_bytes_total"),
            members: gauge("envoy_cluster_membership_total"),
            members_healthy: gauge("envoy_cluster_membership_healthy"),
            timers: TIMERS.map(|timer| timers.counter(&[("cluster_name", name), ("timer", timer.name())])),
        }
    }

    /// Counts an attempt's answer: its status and how long it took.
    pub fn answered(&self, status: u16, took: Duration) {
        self.requests_by_status.increment(status);
        self.request_time.observe(took);
    }

    /// Counts an attempt that a timer ended, also in `tollgate_upstream_timeouts_total{cluster_name,timer}`.
    pub fn timed_out(&self, timer: Timer) {
        self.timeouts.increment();
        if let Some(counter) = self.timers.get(timer_index(timer)) {
            counter.increment();
        }
    }
}
