//! The data plane's way into access log and metrics: one [`Observers`] per process, one [`Observer`] per worker.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tollgate_observe::access_log::{Sink, Target};
use tollgate_observe::metrics::ListenerMetrics;
use tollgate_observe::settle::{Settlement, settle};
use tollgate_observe::{Books, Format, LineWriter, Metrics, Prices, Record};

/// Label of the plain listener, as Higress's dashboards know it.
const HTTP_PREFIX: &str = "outbound_0.0.0.0_80";
/// Label of the TLS listener.
const HTTPS_PREFIX: &str = "outbound_0.0.0.0_443";

/// Access log and metrics of the process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Observers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Arc<Metrics>,
    sink: Option<Sink>,
    books: Books,
    /// Kinds that were ever rejected: they go back to 0, they do not vanish.
    rejected_kinds: Mutex<BTreeMap<String, u64>>,
}

impl Observers {
    /// Opens the access log: `-` is standard output, `off` none, anything else a file. Requests are entered in the
    /// books that `books` makes.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn start(access_log: &str, books: impl FnOnce(&Metrics) -> Books) -> io::Result<Self> {
        let metrics = Metrics::new();
        let books = books(&metrics);
        let target = match access_log {
            "off" => None,
            "-" => Some(Target::Stdout),
            path => Some(Target::File(path.into())),
        };
        let sink = target.map(|target| Sink::start(target, &metrics)).transpose()?;
        metrics.server.live.set(1);
        Ok(Self(Arc::new(Inner {
            metrics,
            sink,
            books,
            rejected_kinds: Mutex::default(),
        })))
    }

    /// The metrics themselves, for other parts of the process.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Where requests are entered.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.0.books
    }

    /// A worker's own.
    pub(crate) fn worker(&self) -> Observer {
        let metrics = self.0.metrics.clone();
        Observer {
            http: metrics.listener(HTTP_PREFIX),
            https: metrics.listener(HTTPS_PREFIX),
            log: self.0.sink.as_ref().map(Sink::writer),
            books: self.0.books.clone(),
            metrics,
        }
    }

    /// Notes a generation and what it refused, by kind.
    pub fn configuration(&self, generation: u64, rejected: &BTreeMap<String, u64>) {
        let server = &self.0.metrics.server;
        server
            .config_generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
        let mut known = self
            .0
            .rejected_kinds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for count in known.values_mut() {
            *count = 0;
        }
        known.extend(rejected.iter().map(|(kind, count)| (kind.clone(), *count)));
        for (kind, count) in known.iter() {
            server
                .config_rejected(kind)
                .set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// Prometheus text exposition.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.0.metrics.render(&mut text);
        text
    }

    /// Opens the access log anew, for rotation.
    pub fn reopen(&self) {
        if let Some(sink) = &self.0.sink {
            sink.reopen();
        }
    }

    /// Writes what is left of the access log, waiting at most `patience`; blocks.
    pub fn close(&self, patience: Duration) {
        self.0.metrics.server.live.set(0);
        if let Some(sink) = &self.0.sink
            && !sink.close(patience)
        {
            tracing::warn!("the last access-log lines could not be written");
        }
    }
}

/// One worker's way into access log and metrics.
#[derive(Debug)]
pub(crate) struct Observer {
    metrics: Arc<Metrics>,
    http: Arc<ListenerMetrics>,
    https: Arc<ListenerMetrics>,
    log: Option<LineWriter>,
    books: Books,
}

impl Observer {
    /// Where requests are entered.
    pub(crate) fn books(&self) -> &Books {
        &self.books
    }

    fn listener(&self, tls: bool) -> &ListenerMetrics {
        if tls { &self.https } else { &self.http }
    }

    /// A request has begun.
    pub(crate) fn request_began(&self, tls: bool) {
        self.listener(tls).requests_active.add(1);
    }

    /// The end of an exchange.
    pub(crate) fn settle(&self, record: &Record, format: &Format, prices: &Prices) {
        let listener = self.listener(record.connection.tls);
        listener.requests_active.add(-1);
        listener.received_bytes.add(record.bytes_received.get());
        listener.sent_bytes.add(record.bytes_sent.get());
        settle(
            record,
            Settlement {
                format,
                log: self.log.as_ref(),
                metrics: &self.metrics,
                listener,
                prices,
                books: &self.books,
            },
        );
    }

    pub(crate) fn connection_refused(&self, tls: bool) {
        self.listener(tls).connections_rejected.increment();
    }

    pub(crate) fn connection_opened(&self, tls: bool) {
        self.listener(tls).connections.increment();
        self.listener(tls).connections_active.add(1);
    }

    pub(crate) fn connection_closed(&self, tls: bool) {
        self.listener(tls).connections_active.add(-1);
    }
}
