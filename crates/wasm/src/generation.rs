//! `Generation`: one version of one WasmPlugin, ready to run: its module compiled, its config accepted by an instance.
//!
//! A request keeps the generation it began with; what is counted here is shown by `/config_dump`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tollgate_base::clock::{self, Instant};
use tollgate_modules::Wanted;
use tollgate_observe::Metrics;

use crate::artefact::Artefact;
use crate::limits::Limits;
use crate::metrics::{HostMetrics, PluginMetrics};
use crate::shared::Shared;

/// What a WasmPlugin asks for. Two that are equal are one generation.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Spec {
    /// `<namespace>.<name>` of the object; stable over restarts.
    pub name: String,
    /// `spec.pluginName`.
    pub root_id: String,
    /// Where the module is.
    pub source: Wanted,
    /// The config as the module gets it: JSON, or nothing at all.
    pub config: Bytes,
    /// Environment of the module.
    pub env: Vec<(String, String)>,
    /// Whether requests pass without the plugin while it cannot run.
    pub fail_open: bool,
}

/// Config and environment may hold secrets.
impl fmt::Debug for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Spec")
            .field("name", &self.name)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What all modules of the process share.
pub(crate) struct Host {
    pub(crate) limits: Limits,
    pub(crate) metrics: Option<Arc<Metrics>>,
    pub(crate) own: Option<HostMetrics>,
    pub(crate) shared: Shared,
    /// Grows when something was put into a queue, or a queue's consumer has changed.
    pub(crate) queued: tokio::sync::watch::Sender<u64>,
    /// Start of the modules' monotonic clock.
    pub(crate) started: Instant,
    pub(crate) instances: AtomicUsize,
}

impl Host {
    pub(crate) fn new(limits: Limits, metrics: Option<Arc<Metrics>>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            own: metrics.as_ref().and_then(HostMetrics::new),
            metrics,
            shared: Shared::default(),
            queued: tokio::sync::watch::Sender::new(0),
            started: clock::now(),
            instances: AtomicUsize::new(0),
        })
    }

    /// Has every worker look whether its instances are to be told of items in their queues.
    pub(crate) fn wake_queues(&self) {
        self.queued.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// What a generation's instances count together.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Workers with a running instance.
    pub(crate) ready: AtomicUsize,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) traps: AtomicU64,
    /// Linear memory of all instances.
    pub(crate) memory: AtomicUsize,
}

/// One version of one plugin.
pub struct Generation {
    /// What it was made from.
    pub(crate) spec: Arc<Spec>,
    pub(crate) artefact: Arc<Artefact>,
    pub(crate) host: Arc<Host>,
    /// Process-wide number; a later version has a greater one.
    pub(crate) version: u64,
    /// Tells two generations of one version apart: the same module, compiled once more.
    pub(crate) id: u64,
    pub(crate) counts: Counts,
    pub(crate) metrics: PluginMetrics,
}

impl fmt::Debug for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Generation({} v{})", self.spec.name, self.version)
    }
}

static LAST_VERSION: AtomicU64 = AtomicU64::new(0);
static LAST_ID: AtomicU64 = AtomicU64::new(0);

impl Generation {
    pub(crate) fn new(spec: Arc<Spec>, artefact: Arc<Artefact>, host: Arc<Host>) -> Arc<Self> {
        let version = LAST_VERSION.fetch_add(1, Ordering::Relaxed) + 1;
        Self::of_version(version, spec, artefact, host)
    }

    /// The same version with other machine code for its module.
    pub(crate) fn recompiled(&self, artefact: Arc<Artefact>) -> Arc<Self> {
        Self::of_version(self.version, self.spec.clone(), artefact, self.host.clone())
    }

    fn of_version(version: u64, spec: Arc<Spec>, artefact: Arc<Artefact>, host: Arc<Host>) -> Arc<Self> {
        let metrics = host
            .own
            .as_ref()
            .map(|own| own.plugin(&spec.name))
            .unwrap_or_default();
        Arc::new(Self {
            spec,
            artefact,
            host,
            version,
            id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1,
            counts: Counts::default(),
            metrics,
        })
    }
}

/// One version as `/config_dump` and `tollgate plugins --live` show it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Shown {
    /// `<namespace>.<name>`.
    pub plugin: String,
    /// Grows with each version of any plugin.
    pub version: u64,
    /// `current`, or `draining` once a newer one has taken over.
    pub state: &'static str,
    /// Where the module came from.
    pub url: String,
    /// SHA-256 of the module.
    pub digest: String,
    /// Version of the proxy-wasm interface.
    pub abi: &'static str,
    /// Workers with a running instance.
    pub workers_ready: usize,
    /// Requests that run on it.
    pub requests_in_flight: usize,
    /// Linear memory of all its instances, in bytes.
    pub memory_bytes: usize,
    /// Instances lost to a trap.
    pub traps: u64,
}

impl Generation {
    pub(crate) fn show(&self, state: &'static str) -> Shown {
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        Shown {
            plugin: self.spec.name.clone(),
            version: self.version,
            state,
            url: self.spec.source.url.clone(),
            digest: self.artefact.digest.clone(),
            abi: self.artefact.abi.name(),
            workers_ready: count(&self.counts.ready),
            requests_in_flight: count(&self.counts.in_flight),
            memory_bytes: count(&self.counts.memory),
            traps: self.counts.traps.load(Ordering::Relaxed),
        }
    }
}
