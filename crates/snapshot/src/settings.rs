//! What holds for every route: limits of the listeners, header switches, the access-log format.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tollgate_base::Secret;
use tollgate_observe::{Format, Prices, Vocabularies, trace};

use crate::Cluster;

/// `higress-config` and `mesh`, compiled.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Silence on a client connection after which it is closed (`downstream.idleTimeout`, 180 s; zero is off).
    pub downstream_idle: Duration,
    /// Largest request head in bytes (`downstream.maxRequestHeadersKb`, 60 KB); more is a 431.
    pub max_request_head: usize,
    /// Longest a request head may take to arrive (10 s), then 408.
    pub request_head_timeout: Duration,
    /// Largest body a plugin may buffer by default, in bytes (`downstream.connectionBufferLimits`, 32 KiB).
    pub buffer_limit: usize,
    /// Streams per HTTP/2 client connection (100).
    pub http2_max_streams: u32,
    /// HTTP/2 stream window in bytes.
    pub http2_stream_window: u32,
    /// HTTP/2 connection window in bytes.
    pub http2_connection_window: u32,
    /// Whether TLS clients are offered `h2` (`mesh.defaultConfig.disableAlpnH2` turns it off).
    pub alpn_h2: bool,
    /// Longest time to connect to an upstream (10 s).
    pub connect_timeout: Duration,
    /// `disableXEnvoyHeaders: false` was written: `x-envoy-upstream-service-time` on answers.
    pub envoy_headers: bool,
    /// `addXRealIpHeader`.
    pub real_ip_header: bool,
    /// Where traces go; `None`: tracing is off.
    pub tracing: Option<Arc<Tracing>>,
    /// Access-log format; the default is Higress's own.
    pub access_log: Arc<Format>,
    /// What tokens cost (`tollgate-prices`).
    pub prices: Arc<Prices>,
    /// What counts tokens where the vendor does not; `None`: they are estimated (`tollgate-usage`).
    pub vocabularies: Option<Arc<Vocabularies>>,
    /// The usage ledger (`tollgate-ledger`).
    pub ledger: Ledger,
}

/// What the usage ledger keeps, and where else its rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Whether requests are entered at all (default true).
    pub enable: bool,
    /// How long.
    pub retention: Retention,
    /// Where else rows go.
    pub sinks: Vec<Sink>,
}

/// Where else the ledger's rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// Name in metrics and messages.
    pub name: String,
    /// Where to.
    pub target: SinkTarget,
}

/// The kinds of sinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTarget {
    /// JSON objects, a line each, appended to a file.
    File(PathBuf),
    /// The same in the body of a POST.
    Http {
        /// May hold a password.
        url: Secret,
        /// Further headers, marked as sensitive.
        headers: HeaderMap,
    },
    /// OpenTelemetry logs as JSON in the body of a POST.
    Otlp {
        /// May hold a password.
        url: Secret,
        /// Further headers, marked as sensitive.
        headers: HeaderMap,
    },
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            enable: true,
            retention: Retention::default(),
            sinks: Vec::new(),
        }
    }
}

/// How long the ledger keeps what; `rows` ≤ `hours` ≤ `days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// One row a request (30 days).
    pub rows: Duration,
    /// Sums by hour (90 days).
    pub hours: Duration,
    /// Sums by day (two years).
    pub days: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self {
            rows: days(30),
            hours: days(90),
            days: days(730),
        }
    }
}

/// `tracing`, compiled: what is recorded and who takes it. Two that are equal share an exporter.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Format, sampling, names.
    pub settings: trace::Settings,
    /// The collector, with the protocol that the format needs.
    pub cluster: Arc<Cluster>,
    /// Authority of the reports.
    pub authority: Arc<str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            downstream_idle: Duration::from_secs(180),
            max_request_head: 60 * 1024,
            request_head_timeout: Duration::from_secs(10),
            buffer_limit: 32 * 1024,
            http2_max_streams: 100,
            http2_stream_window: 65_535,
            http2_connection_window: 1_048_576,
            alpn_h2: true,
            connect_timeout: Duration::from_secs(10),
            envoy_headers: false,
            real_ip_header: false,
            tracing: None,
            access_log: Arc::new(Format::higress_default()),
            prices: Arc::default(),
            vocabularies: None,
            ledger: Ledger::default(),
        }
    }
}
