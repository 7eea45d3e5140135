//! `Upstreams`: one worker's pools, and the path of one attempt: admit, choose, connect, send, wait for the head.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONNECTION, UPGRADE};
use hyper::body::Incoming;
use tokio::time::timeout_at;
use tollgate_base::clock::{self, Instant};
use tollgate_base::{Error, Timer};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::record::Record;
use tollgate_snapshot::Cluster;

use crate::balance::{self, Chosen, StickyKey};
use crate::endpoint::{Endpoint, Lease};
use crate::failure::{self, DialFailure, Fault};
use crate::http1::{Answer, Http1, Http1Body};
use crate::http2::{Slot, StreamBody};
use crate::outgoing::{self, Progress, Sendable, Source};
use crate::pool::{Connected, Pool};
use crate::shared::Shared;
use crate::timed::TimedBody;
use crate::timers::SendTimers;
use crate::upgrade;
use crate::waiting::{Broken, Waiting, earlier};

/// How often idle connections are looked after.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// A request that broke within this time on a connection that had been idle met the other side's closing of it; one
/// that broke later may have been worked on.
const STALE_WITHIN: Duration = Duration::from_millis(500);

/// One worker's way to the upstreams. Cheap to clone, never leaves its thread; needs a local runtime around it.
#[derive(Clone)]
pub struct Upstreams(Rc<Inner>);

type Shortcut = (Arc<Cluster>, Rc<Pool>);

struct Inner {
    shared: Shared,
    /// By [`Cluster::identity`].
    pools: RefCell<HashMap<u64, Rc<Pool>>>,
    /// By the address of the `Cluster`, which the entry keeps alive: saves hashing it for each request.
    shortcuts: RefCell<HashMap<usize, Shortcut>>,
    sweeping: Cell<bool>,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Upstreams").finish_non_exhaustive()
    }
}

impl Upstreams {
    /// A worker's own; pools are made when first used.
    #[must_use]
    pub fn new(shared: Shared) -> Self {
        Self(Rc::new(Inner {
            shared,
            pools: RefCell::default(),
            shortcuts: RefCell::default(),
            sweeping: Cell::new(false),
        }))
    }

    /// Sends `request` once and returns as soon as the response head is there; the body streams from the connection.
    ///
    /// Dropping the future or the body ends the upstream's work at once. A connection that had been idle and turns out
    /// to be closed is replaced without counting as an attempt. An upgrade (`101`) keeps its extension:
    /// `hyper::upgrade::on(response)` gives the stream. Of the extensions of `request`, a [`StickyKey`] tells a cluster that
    /// keeps requesters apart who asks, and [`Chosen`] names the endpoint of the first attempt.
    ///
    /// # Errors
    /// Before the head: 503 `UH`, `UF`, `UO`, `UC`, `UR`, 502 `UPE`, 504 of the timer that ran out, or the request
    /// body's own error. In the body: `upstream_cut` (`UC`) or a timer.
    pub async fn send(
        &self,
        cluster: &Arc<Cluster>,
        mut request: Request,
        timers: &SendTimers,
        record: &Record,
    ) -> Result<Response, Error> {
        self.attempt(cluster, &mut request, timers, Some(record)).await
    }

    /// As [`Upstreams::send`], for a caller that may try again: a request whose body is at hand as a whole is the same
    /// afterwards; of any other the body is gone.
    ///
    /// # Errors
    /// As [`Upstreams::send`].
    pub fn send_kept<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        request: &'a mut Request,
        timers: &'a SendTimers,
        record: &'a Record,
    ) -> impl Future<Output = Result<Response, Error>> + 'a {
        self.attempt(cluster, request, timers, Some(record))
    }

    /// The simple form, for call-outs of plugins: same pools, one time limit for the whole answer.
    ///
    /// # Errors
    /// As [`Upstreams::send`].
    pub async fn call(
        &self,
        cluster: &Arc<Cluster>,
        mut request: Request,
        timeout: Duration,
    ) -> Result<Response, Error> {
        let timers = SendTimers {
            connect: Some(timeout),
            total_deadline: SendTimers::end_of(clock::now(), timeout),
            ..SendTimers::default()
        };
        self.attempt(cluster, &mut request, &timers, None).await
    }

    /// An address of a cluster, chosen as for a request; for protocols other than HTTP.
    ///
    /// # Errors
    /// 503 `UH` without a usable one.
    pub async fn address(&self, cluster: &Arc<Cluster>) -> Result<SocketAddr, Error> {
        let (pool, now) = (self.pool(cluster), clock::now());
        let endpoints = match pool.endpoints(now) {
            Some(endpoints) => endpoints,
            None => pool.resolve(now).await.map_err(|cause| cause.into_error(None))?,
        };
        let chosen = balance::pick(&endpoints, &cluster.load_balance, None, now);
        chosen
            .map(|endpoint| endpoint.address)
            .ok_or_else(failure::no_healthy_upstream)
    }

    /// The addresses of a cluster as far as they are known, and whether each may be used now.
    #[must_use]
    pub fn addresses(&self, cluster: &Arc<Cluster>) -> Vec<(SocketAddr, bool)> {
        let now = clock::now();
        let row = |endpoint: &Rc<Endpoint>| (endpoint.address, !endpoint.is_ejected(now));
        let known = self.pool(cluster).endpoints(now);
        known.map_or_else(Vec::new, |endpoints| endpoints.iter().map(row).collect())
    }

    /// Drops the pools of clusters that are not in `live`; connections in use end with their request.
    pub fn retain<'a>(&self, live: impl Iterator<Item = &'a Arc<Cluster>>) {
        let mut addresses = HashSet::new();
        let mut identities = HashSet::new();
        for cluster in live {
            addresses.insert(Arc::as_ptr(cluster) as usize);
            identities.insert(cluster.identity());
        }
        self.0
            .shortcuts
            .borrow_mut()
            .retain(|address, _| addresses.contains(address));
        let mut gone = Vec::new();
        self.0.pools.borrow_mut().retain(|identity, pool| {
            let stays = identities.contains(identity);
            if !stays {
                gone.push(Rc::clone(pool));
            }
            stays
        });
        for pool in gone {
            pool.retire();
        }
    }

    fn pool(&self, cluster: &Arc<Cluster>) -> Rc<Pool> {
        let address = Arc::as_ptr(cluster) as usize;
        if let Some((_, pool)) = self.0.shortcuts.borrow().get(&address) {
            return Rc::clone(pool);
        }
        let pool = Rc::clone(
            self.0
                .pools
                .borrow_mut()
                .entry(cluster.identity())
                .or_insert_with(|| Pool::new(cluster, &self.0.shared)),
        );
        let entry = (Arc::clone(cluster), Rc::clone(&pool));
        self.0.shortcuts.borrow_mut().insert(address, entry);
        self.keep_sweeping();
        pool
    }

    /// Starts the task that closes idle connections; it ends with the last `Upstreams`.
    fn keep_sweeping(&self) {
        if self.0.sweeping.replace(true) {
            return;
        }
        let weak: Weak<Inner> = Rc::downgrade(&self.0);
        let task = async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(inner) = weak.upgrade() else { return };
                let pools: Vec<_> = inner.pools.borrow().values().cloned().collect();
                let now = clock::now();
                for pool in pools {
                    pool.sweep(now);
                }
            }
        };
        drop(tollgate_base::task::spawn_local(
            "upstream idle connections",
            task,
        ));
    }

    async fn attempt(
        &self,
        cluster: &Arc<Cluster>,
        request: &mut Request,
        timers: &SendTimers,
        record: Option<&Record>,
    ) -> Result<Response, Error> {
        let (source, progress) = outgoing::prepare(request);
        let attempt = Attempt {
            pool: self.pool(cluster),
            cluster,
            request,
            timers,
            record,
            started: clock::now(),
        };
        attempt.admit()?;
        let outcome = attempt.run(source, progress).await;
        if let Some(timer) = outcome.as_ref().err().and_then(Error::timer) {
            attempt.pool.counters.metrics.timed_out(timer);
        }
        outcome
    }
}

/// One attempt.
struct Attempt<'a> {
    pool: Rc<Pool>,
    cluster: &'a Cluster,
    request: &'a Request,
    timers: &'a SendTimers,
    record: Option<&'a Record>,
    started: Instant,
}

impl Attempt<'_> {
    /// Circuit thresholds.
    fn admit(&self) -> Result<(), Error> {
        let counters = &self.pool.counters;
        if let Some(record) = self.record {
            record.attempts.set(record.attempts.get() + 1);
            record.timings.upstream_started.set(Some(self.started));
            if record.attempts.get() > 1 {
                counters.metrics.retries.increment();
            }
        }
        if counters.requests() >= self.cluster.max_requests {
            counters.metrics.overflows.increment();
            return Err(failure::overflow("max_requests", self.cluster.max_requests));
        }
        Ok(())
    }

    async fn run(&self, source: Source, progress: Option<Rc<Progress>>) -> Result<Response, Error> {
        let endpoint = match self.pool.endpoints(self.started) {
            Some(endpoints) => self.choose(&endpoints)?,
            None => Box::pin(self.resolve()).await?,
        };
        let lease = Lease::new(Rc::clone(&endpoint), self.started);
        let mut waiting = Waiting::new(self.timers, progress);
        let upgrade = wants_upgrade(self.request);
        let connected = match self.pool.open_connection(&endpoint, upgrade, self.started) {
            Some(connected) => connected,
            None => Box::pin(self.connect(&endpoint, upgrade)).await?,
        };
        // The rarer ways are boxed: what they need would otherwise be carried about by every request.
        let response = match connected {
            Connected::Http1 { connection, .. } if upgrade => {
                Box::pin(self.upgrade(*connection, source, &mut waiting, lease)).await
            }
            Connected::Http1 { connection, reused } => {
                self.over_http1(connection, reused, source, &mut waiting, lease)
                    .await
            }
            Connected::Http2(slot) => Box::pin(self.over_http2(slot, source, &mut waiting, lease)).await,
        }?;
        if let Some(record) = self.record {
            record.timings.request_sent.set(waiting.sent);
            record.timings.response_head.set(waiting.head_at);
        }
        Ok(response)
    }

    async fn resolve(&self) -> Result<Rc<Endpoint>, Error> {
        let endpoints = self.in_time(self.pool.resolve(self.started)).await?;
        self.choose(&endpoints)
    }

    fn choose(&self, endpoints: &[Rc<Endpoint>]) -> Result<Rc<Endpoint>, Error> {
        let extensions = self.request.extensions();
        let first = self.record.is_some_and(|record| record.attempts.get() == 1);
        let chosen = extensions.get::<Chosen>().filter(|_| first);
        let key = extensions.get::<StickyKey>().copied();
        chosen
            .and_then(|address| balance::chosen(endpoints, *address, self.started))
            .or_else(|| balance::pick(endpoints, &self.cluster.load_balance, key, self.started))
            .cloned()
            .ok_or_else(failure::no_healthy_upstream)
    }

    async fn connect(&self, endpoint: &Rc<Endpoint>, upgrade: bool) -> Result<Connected, Error> {
        let counters = &self.pool.counters;
        if counters.connections() >= self.cluster.max_connections {
            counters.metrics.overflows.increment();
            return Err(failure::overflow("max_connections", self.cluster.max_connections));
        }
        self.in_time(self.pool.connect(endpoint, upgrade)).await
    }

    /// Under the connect timer, which began with the attempt, and the total one.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, DialFailure>>) -> Result<T, Error> {
        let connect = self
            .timers
            .connect
            .and_then(|limit| SendTimers::end_of(self.started, limit))
            .map(|at| (at, Timer::Connect));
        let total = self.timers.total_deadline.map(|at| (at, Timer::Total));
        let outcome = match earlier(connect, total) {
            None => work.await,
            Some((deadline, timer)) => match timeout_at(deadline, work).await {
                Ok(outcome) => outcome,
                Err(_) if timer == Timer::Connect => Err(DialFailure::TimedOut),
                Err(_) => return Err(Error::timeout(timer)),
            },
        };
        outcome.map_err(|cause| cause.into_error(self.record))
    }

    fn note_connection(&self, peer: std::net::SocketAddr, local: std::net::SocketAddr) {
        if let Some(record) = self.record {
            record.upstream_peer.set(Some(peer));
            record.upstream_local.set(Some(local));
        }
    }

    async fn over_http1(
        &self,
        mut connection: Box<Http1>,
        reused: bool,
        source: Source,
        waiting: &mut Waiting<'_>,
        lease: Lease,
    ) -> Result<Response, Error> {
        self.note_connection(connection.peer, connection.local);
        let broken = match connection.exchange(self.request, source, waiting).await {
            Ok(answer) => return Ok(self.http1_response(answer, connection, waiting, lease)),
            Err(broken) => broken,
        };
        drop(connection);
        let was_stale = match &broken {
            Broken::NothingSent => reused,
            Broken::Silent(fault) => reused && self.is_stale(fault),
            _ => false,
        };
        let whole = waiting.progress.is_none() && was_stale;
        match outgoing::once_more(self.request).filter(|_| whole) {
            Some(again) => Box::pin(self.fresh_http1(again, waiting, lease)).await,
            None => Err(broken.into_error(self.record)),
        }
    }

    /// The second and last try of a request that met a stale connection: always on a new one.
    async fn fresh_http1(
        &self,
        source: Source,
        waiting: &mut Waiting<'_>,
        lease: Lease,
    ) -> Result<Response, Error> {
        let Connected::Http1 { mut connection, .. } = self.connect(lease.endpoint(), true).await? else {
            return Err(failure::closed_unsent(self.record));
        };
        self.note_connection(connection.peer, connection.local);
        waiting.sent = None;
        match connection.exchange(self.request, source, waiting).await {
            Ok(answer) => Ok(self.http1_response(answer, connection, waiting, lease)),
            Err(broken) => Err(broken.into_error(self.record)),
        }
    }

    /// Whether the connection was closed while it was idle and we only found out by using it.
    fn is_stale(&self, fault: &Fault) -> bool {
        failure::looks_stale(fault) && clock::now() < self.started + STALE_WITHIN
    }

    fn http1_response(
        &self,
        answer: Answer,
        connection: Box<Http1>,
        waiting: &mut Waiting<'_>,
        mut lease: Lease,
    ) -> Response {
        lease.answered(answer.parts.status);
        let (parts, body) = answer.into_body(connection, lease);
        let body = match body.map(Http1Body::settle) {
            None => Body::empty(),
            Some(Err(whole)) => Body::bytes(whole),
            Some(Ok(streaming)) => self.timed(streaming, waiting),
        };
        Response::from_parts(parts, body)
    }

    fn timed<B>(&self, body: B, waiting: &mut Waiting<'_>) -> Body
    where
        B: tollgate_body::Source + Unpin + 'static,
    {
        if !self.timers.watch_body() {
            return Body::source(body);
        }
        let head_at = waiting.head_at.unwrap_or(self.started);
        let alarm = std::mem::take(&mut waiting.alarm);
        let metrics = Arc::clone(&self.pool.counters.metrics);
        Body::source(TimedBody::new(body, self.timers, head_at, alarm, metrics))
    }

    async fn over_http2(
        &self,
        slot: Slot,
        source: Source,
        waiting: &mut Waiting<'_>,
        mut lease: Lease,
    ) -> Result<Response, Error> {
        let connection = slot.connection();
        let mut request = outgoing::sendable(self.request, source);
        outgoing::to_http2(&mut request, connection.tls);
        self.note_connection(connection.peer, connection.local);
        let (slot, response) = match connection.exchange(request, waiting).await {
            Ok(response) => (slot, response),
            Err(Broken::Unsent(_)) if connection.spoke_otherwise() => {
                return Err(failure::not_http2(self.record));
            }
            Err(Broken::Unsent(unsent)) => self.fresh_http2(*unsent, waiting, &lease).await?,
            Err(broken) => return Err(broken.into_error(self.record)),
        };
        let (head, incoming) = response.into_parts();
        lease.answered(head.status);
        if http_body::Body::is_end_stream(&incoming) {
            return Ok(Response::from_parts(head, Body::empty()));
        }
        let body = self.timed(StreamBody::new(incoming, slot, lease), waiting);
        Ok(Response::from_parts(head, body))
    }

    /// The second and last try of a request whose connection was going away.
    async fn fresh_http2(
        &self,
        request: Sendable,
        waiting: &mut Waiting<'_>,
        lease: &Lease,
    ) -> Result<(Slot, http::Response<Incoming>), Error> {
        let Connected::Http2(slot) = self.connect(lease.endpoint(), false).await? else {
            return Err(failure::closed_unsent(self.record));
        };
        let connection = slot.connection();
        self.note_connection(connection.peer, connection.local);
        match connection.exchange(request, waiting).await {
            Ok(response) => Ok((slot, response)),
            Err(broken) => Err(broken.into_error(self.record)),
        }
    }

    /// An upgrade has a connection for itself, whatever the answer.
    async fn upgrade(
        &self,
        connection: Http1,
        source: Source,
        waiting: &mut Waiting<'_>,
        mut lease: Lease,
    ) -> Result<Response, Error> {
        let mut request = outgoing::sendable(self.request, source);
        outgoing::to_http1(&mut request);
        self.note_connection(connection.peer, connection.local);
        let opened = upgrade::open(connection).await;
        let (mut sender, driver) = opened.map_err(|cause| failure::broken(&cause, self.record))?;
        let response = match waiting.answer(sender.try_send_request(request)).await {
            Ok(response) => response,
            Err(broken) => return Err(broken.into_error(self.record)),
        };
        let (head, incoming) = response.into_parts();
        lease.answered(head.status);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            driver.release();
            return Ok(Response::from_parts(head, Body::empty()));
        }
        let body = self.timed(StreamBody::new(incoming, driver, lease), waiting);
        Ok(Response::from_parts(head, body))
    }
}

/// `connection: upgrade` with an `upgrade`.
fn wants_upgrade(request: &Request) -> bool {
    request.headers().contains_key(UPGRADE)
        && request.headers().get_all(CONNECTION).iter().any(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
}
