//! Tracers: which exporter the traces of a request go to. One a setting, made at its first use, gone with its last
//! request.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::uri::Authority;
use tollgate_observe::Metrics;
use tollgate_observe::export::{Counts, Otlp, OtlpTraces, Queue, SkyWalking, Zipkin};
use tollgate_observe::trace::{Finished, Tracer, Wire};
use tollgate_snapshot::Tracing;
use tollgate_upstream::{Exports, Target};

/// Those of the process.
pub(crate) struct Tracers {
    exports: Exports,
    metrics: Arc<Metrics>,
    known: Mutex<Vec<(Arc<Tracing>, Weak<Tracer>)>>,
}

impl Tracers {
    pub(crate) fn new(exports: Exports, metrics: Arc<Metrics>) -> Self {
        Self {
            exports,
            metrics,
            known: Mutex::default(),
        }
    }

    /// The tracer of this setting; one that is in use goes on, also across a reload.
    fn tracer(&self, tracing: &Arc<Tracing>) -> Arc<Tracer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, tracer)| tracer.strong_count() > 0);
        let same = known.iter().find(|(setting, _)| setting == tracing);
        if let Some(tracer) = same.and_then(|(_, tracer)| tracer.upgrade()) {
            return tracer;
        }
        let instance = instance();
        let tracer = Arc::new(Tracer {
            settings: tracing.settings.clone(),
            queue: self.queue(tracing, &instance),
            instance,
        });
        known.push((Arc::clone(tracing), Arc::downgrade(&tracer)));
        tracer
    }

    fn queue(&self, tracing: &Tracing, instance: &Arc<str>) -> Queue<Finished> {
        let settings = &tracing.settings;
        let (service, instance) = (settings.service.clone(), instance.clone());
        let exporter = settings.wire.name();
        let name = format!("traces to {}", tracing.cluster.name);
        let counts = Counts::new(&self.metrics, "trace_spans", exporter);
        let target = Target {
            cluster: Arc::clone(&tracing.cluster),
            authority: Authority::try_from(&*tracing.authority)
                .unwrap_or_else(|_| Authority::from_static("collector")),
            timeout: settings.timeout,
        };
        let otlp = |grpc| {
            OtlpTraces(Otlp {
                grpc,
                service: service.clone(),
                instance: instance.clone(),
            })
        };
        match settings.wire {
            Wire::OtlpGrpc => self.exports.start(name, otlp(true), target, counts),
            Wire::OtlpHttp => self.exports.start(name, otlp(false), target, counts),
            Wire::Zipkin => self.exports.start(name, Zipkin { service }, target, counts),
            Wire::SkyWalking => {
                let encoder = SkyWalking {
                    service,
                    instance,
                    token: settings.token.clone(),
                };
                self.exports.start(name, encoder, target, counts)
            }
        }
    }
}

/// `<process>@<host>`.
fn instance() -> Arc<str> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "localhost" } else { host };
    format!("{}@{host}", std::process::id()).into()
}

/// A worker's way to the tracer in force.
pub(crate) struct WorkerTracer {
    tracers: Arc<Tracers>,
    current: RefCell<Option<(Arc<Tracing>, Arc<Tracer>)>>,
}

impl WorkerTracer {
    pub(crate) fn new(tracers: Arc<Tracers>) -> Self {
        Self {
            tracers,
            current: RefCell::default(),
        }
    }

    /// The tracer of this setting.
    pub(crate) fn of(&self, tracing: &Arc<Tracing>) -> Arc<Tracer> {
        let mut current = self.current.borrow_mut();
        if let Some((setting, tracer)) = &*current
            && Arc::ptr_eq(setting, tracing)
        {
            return Arc::clone(tracer);
        }
        let tracer = self.tracers.tracer(tracing);
        *current = Some((Arc::clone(tracing), Arc::clone(&tracer)));
        tracer
    }

    /// Lets the tracer go unless `wanted` is its setting: there may be no further request to do so.
    pub(crate) fn keep(&self, wanted: Option<&Arc<Tracing>>) {
        let mut current = self.current.borrow_mut();
        let stays =
            |(setting, _): &(Arc<Tracing>, Arc<Tracer>)| wanted.is_some_and(|wanted| setting == wanted);
        if !current.as_ref().is_some_and(stays) {
            *current = None;
        }
    }
}
