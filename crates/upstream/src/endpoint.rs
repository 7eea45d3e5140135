//! One address of a cluster: its open connections, its load and its recent health.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rustls::pki_types::ServerName;
use tollgate_base::clock::{self, Instant};
use tollgate_observe::metrics::ClusterMetrics;

use crate::http1::Http1;
use crate::http2::{Dialing, Http2};

/// Idle connections kept for an endpoint (per worker); further ones are closed when they become idle.
const MOST_IDLE: usize = 256;
/// How long an endpoint is passed over after a first failed connect; doubled by each further failure.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
/// The longest it is passed over.
const LONGEST_EJECTION: Duration = Duration::from_secs(30);

/// What a pool's endpoints count together: for the thresholds of this worker, and for the metrics of the process.
#[derive(Debug)]
pub(crate) struct Counters {
    connections: Cell<u32>,
    requests: Cell<u32>,
    pub(crate) metrics: Arc<ClusterMetrics>,
}

impl Counters {
    pub(crate) fn new(metrics: Arc<ClusterMetrics>) -> Rc<Self> {
        Rc::new(Self {
            connections: Cell::new(0),
            requests: Cell::new(0),
            metrics,
        })
    }

    pub(crate) fn connections(&self) -> u32 {
        self.connections.get()
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests.get()
    }
}

/// Counts a connection for as long as it lives, from the start of its dial.
pub(crate) struct Counted(Rc<Counters>);

impl Counted {
    pub(crate) fn new(counters: &Rc<Counters>) -> Self {
        counters.connections.set(counters.connections.get() + 1);
        counters.metrics.connections.increment();
        counters.metrics.connections_active.add(1);
        Self(Rc::clone(counters))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.metrics.connections_active.add(-1);
    }
}

/// One request under way at an endpoint, from its choice to the end of its answer's body.
pub(crate) struct Lease {
    endpoint: Rc<Endpoint>,
    started: Instant,
    /// Of the answer; 0 until there is one.
    status: u16,
}

impl Lease {
    pub(crate) fn new(endpoint: Rc<Endpoint>, started: Instant) -> Self {
        let counters = &endpoint.counters;
        endpoint.active.set(endpoint.active.get() + 1);
        counters.requests.set(counters.requests.get() + 1);
        counters.metrics.requests.increment();
        counters.metrics.requests_active.add(1);
        Self {
            endpoint,
            started,
            status: 0,
        }
    }

    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let counters = &self.endpoint.counters;
        self.endpoint.active.set(self.endpoint.active.get() - 1);
        counters.requests.set(counters.requests.get() - 1);
        counters.metrics.requests_active.add(-1);
        if self.status != 0 {
            let took = clock::now().saturating_duration_since(self.started);
            counters.metrics.answered(self.status, took);
        }
    }
}

/// One address of a cluster.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// At least 1.
    pub(crate) weight: u32,
    /// What the certificate must say; `None` without TLS, an error text when the configured name is none.
    pub(crate) server_name: Option<Result<ServerName<'static>, String>>,
    pub(crate) counters: Rc<Counters>,
    /// Requests under way.
    active: Cell<u32>,
    /// Credit of the round robin.
    pub(crate) credit: Cell<i64>,
    failures: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
    /// No longer part of the cluster: connections end with their request.
    retired: Cell<bool>,
    /// A cluster that wants HTTP/2, but whose ALPN chose HTTP/1.1.
    pub(crate) chose_http1: Cell<bool>,
    #[expect(
        clippy::vec_box,
        reason = "a connection is large and moves from here into a request and back"
    )]
    idle: RefCell<Vec<Box<Http1>>>,
    multiplexed: RefCell<Vec<Rc<Http2>>>,
    pub(crate) dialing: RefCell<Option<Rc<Dialing>>>,
}

impl Endpoint {
    pub(crate) fn new(
        address: SocketAddr,
        weight: u32,
        server_name: Option<Result<ServerName<'static>, String>>,
        counters: Rc<Counters>,
    ) -> Rc<Self> {
        Rc::new(Self {
            address,
            weight: weight.max(1),
            server_name,
            counters,
            active: Cell::new(0),
            credit: Cell::new(0),
            failures: Cell::new(0),
            ejected_until: Cell::new(None),
            retired: Cell::new(false),
            chose_http1: Cell::new(false),
            idle: RefCell::default(),
            multiplexed: RefCell::default(),
            dialing: RefCell::default(),
        })
    }

    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    /// Whether others are to be preferred at `now`.
    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.get().is_some_and(|until| now < until)
    }

    pub(crate) fn connected(&self) {
        self.failures.set(0);
        self.ejected_until.set(None);
    }

    pub(crate) fn connect_failed(&self) {
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        let pause = FIRST_EJECTION
            .saturating_mul(1 << failures.min(8))
            .min(LONGEST_EJECTION);
        self.ejected_until.set(Some(clock::now() + pause));
        self.counters.metrics.connect_failures.increment();
    }

    /// The connection that was used last, if it still lives.
    pub(crate) fn checkout(&self, now: Instant, idle_timeout: Duration) -> Option<Box<Http1>> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if now.saturating_duration_since(connection.idle_since()) < idle_timeout
                && connection.is_reusable()
            {
                return Some(connection);
            }
        }
    }

    /// Takes a connection back whose answer was read to its end.
    pub(crate) fn put_back(&self, mut connection: Box<Http1>) {
        if self.retired.get() || !connection.is_reusable() {
            return;
        }
        connection.rest(clock::now());
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
    }

    /// A multiplexed connection with room for one more request.
    pub(crate) fn multiplexed(&self) -> Option<Rc<Http2>> {
        self.multiplexed
            .borrow()
            .iter()
            .find(|connection| connection.has_room())
            .cloned()
    }

    pub(crate) fn add_multiplexed(&self, connection: Rc<Http2>) {
        if !self.retired.get() {
            self.multiplexed.borrow_mut().push(connection);
        }
    }

    /// Closes what is idle for too long or was closed by the other side.
    pub(crate) fn sweep(&self, now: Instant, idle_timeout: Duration) {
        // Taken out first: dropping a connection may run code that comes back here.
        let mut idle = std::mem::take(&mut *self.idle.borrow_mut());
        idle.retain_mut(|connection| {
            now.saturating_duration_since(connection.idle_since()) < idle_timeout && connection.is_reusable()
        });
        self.idle.borrow_mut().splice(0..0, idle);
        let mut multiplexed = std::mem::take(&mut *self.multiplexed.borrow_mut());
        multiplexed.retain(|connection| !connection.is_over(now, idle_timeout));
        self.multiplexed.borrow_mut().splice(0..0, multiplexed);
    }

    /// The endpoint left its cluster: idle connections close now, busy ones after their request.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
        drop(std::mem::take(&mut *self.idle.borrow_mut()));
        drop(std::mem::take(&mut *self.multiplexed.borrow_mut()));
    }
}
