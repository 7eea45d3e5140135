//! A cluster's pool on one worker: its endpoints as they are now, and how to get a connection to one of them.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tollgate_base::clock::{self, Instant};
use tollgate_snapshot::cluster::Tunnel;
use tollgate_snapshot::{Cluster, ClusterTls, Endpoints, UpstreamProtocol};

use crate::dial::{self, Chosen, Dialed};
use crate::dns::{Known, Name};
use crate::endpoint::{Counted, Counters, Endpoint};
use crate::failure::{self, DialFailure};
use crate::http1::Http1;
use crate::http2::{Dialing, Http2, Slot};
use crate::shared::Shared;
use crate::tls::{self, Offer, TlsTarget};

/// An answer this much older than its TTL is asked for again before it is used.
const TOO_OLD: Duration = Duration::from_secs(30);
/// How long that question may hold up a request that has the old answer to fall back on.
const PATIENCE: Duration = Duration::from_secs(2);

/// A server that does not speak HTTP/2, or one that closes at once.
const NO_SETTINGS: &str = "the connection ended before its HTTP/2 settings came";

/// A name among a cluster's endpoints.
struct Named {
    name: Arc<Name>,
    host: Arc<str>,
    port: u16,
    news: watch::Receiver<Known>,
}

/// A cluster's pool on one worker.
pub(crate) struct Pool {
    shared: Shared,
    protocol: UpstreamProtocol,
    pub(crate) idle_timeout: Duration,
    tls: Option<ClusterTls>,
    tunnel: Option<Tunnel>,
    connectors: [OnceCell<Result<TlsConnector, String>>; 2],
    pub(crate) counters: Rc<Counters>,
    /// Endpoints that need no look-up.
    fixed: Vec<Rc<Endpoint>>,
    named: RefCell<Vec<Named>>,
    /// Longest time between two look-ups.
    refresh: Duration,
    /// When the next look-up is due.
    due: Cell<Option<Instant>>,
    endpoints: RefCell<Rc<[Rc<Endpoint>]>>,
}

/// A connection for one request.
pub(crate) enum Connected {
    /// HTTP/1.1; `reused` when it has been idle before.
    Http1 { connection: Box<Http1>, reused: bool },
    /// HTTP/2.
    Http2(Slot),
}

impl Pool {
    pub(crate) fn new(cluster: &Cluster, shared: &Shared) -> Rc<Self> {
        let counters = Counters::new(shared.metrics().cluster(&cluster.name));
        let mut pool = Self {
            shared: shared.clone(),
            protocol: cluster.protocol,
            idle_timeout: cluster.idle_timeout,
            tls: cluster.tls.clone(),
            tunnel: cluster.tunnel.clone(),
            connectors: Default::default(),
            counters,
            fixed: Vec::new(),
            named: RefCell::default(),
            refresh: Duration::MAX,
            due: Cell::new(None),
            endpoints: RefCell::new(Rc::from([])),
        };
        match &cluster.endpoints {
            Endpoints::Static(addresses) => {
                for (address, weight) in addresses {
                    let endpoint = pool.endpoint(*address, *weight, None);
                    pool.fixed.push(endpoint);
                }
            }
            Endpoints::Dns { names, refresh } => {
                pool.refresh = *refresh;
                for (host, port) in names {
                    pool.add_name(host, *port);
                }
            }
        }
        pool.endpoints = RefCell::new(pool.fixed.iter().cloned().collect());
        let made = Rc::new(pool);
        let now = clock::now();
        made.ask(now);
        made.count_members(now);
        made
    }

    fn add_name(&mut self, host: &Arc<str>, port: u16) {
        if let Some(address) = self.shared.overridden(host, port) {
            let endpoint = self.endpoint(address, 1, Some(host));
            self.fixed.push(endpoint);
            return;
        }
        if let Ok(ip) = host.parse() {
            let endpoint = self.endpoint(SocketAddr::new(ip, port), 1, None);
            self.fixed.push(endpoint);
            return;
        }
        let name = self.shared.names().of(host);
        let mut news = name.watch();
        news.mark_changed();
        self.named.get_mut().push(Named {
            news,
            name,
            host: Arc::clone(host),
            port,
        });
    }

    fn endpoint(&self, address: SocketAddr, weight: u32, host: Option<&Arc<str>>) -> Rc<Endpoint> {
        let server_name = self.tls.as_ref().map(|tls| verified_name(tls, address, host));
        Endpoint::new(address, weight, server_name, Rc::clone(&self.counters))
    }

    /// The endpoints as they are now; `None` when one must wait for them. An empty list is a cluster without any.
    pub(crate) fn endpoints(&self, now: Instant) -> Option<Rc<[Rc<Endpoint>]>> {
        self.take_news();
        let due = self.due.get();
        if due.is_some_and(|at| at <= now) {
            self.ask(now);
        }
        let nobody_known = self.endpoints.borrow().is_empty() && !self.named.borrow().is_empty();
        let too_old = due.is_some_and(|at| at + TOO_OLD <= now);
        if nobody_known || too_old {
            return None;
        }
        Some(Rc::clone(&self.endpoints.borrow()))
    }

    /// Waits for names that were never resolved or not for a long time. The error: that none could be resolved.
    pub(crate) async fn resolve(&self, now: Instant) -> Result<Rc<[Rc<Endpoint>]>, DialFailure> {
        let answered = self.answers_since(now);
        let nobody_known = self.endpoints.borrow().is_empty();
        if nobody_known {
            answered.await?;
        } else if let Ok(Err(DialFailure::Failed(reason))) = tokio::time::timeout(PATIENCE, answered).await {
            tracing::debug!(reason, "keeping an old answer");
        }
        self.take_news();
        Ok(Rc::clone(&self.endpoints.borrow()))
    }

    /// Rebuilds the list when a name has news; endpoints whose address stays keep their connections.
    fn take_news(&self) {
        let mut named = self.named.borrow_mut();
        if !named
            .iter()
            .any(|entry| entry.news.has_changed().unwrap_or(false))
        {
            return;
        }
        let old = Rc::clone(&self.endpoints.borrow());
        let mut list = self.fixed.clone();
        let mut due: Option<Instant> = None;
        for entry in named.iter_mut() {
            let known = entry.news.borrow_and_update().clone();
            for ip in known.addresses.iter() {
                let address = SocketAddr::new(*ip, entry.port);
                if list.iter().any(|endpoint| endpoint.address == address) {
                    continue;
                }
                let kept = old.iter().find(|endpoint| endpoint.address == address);
                list.push(match kept {
                    Some(endpoint) => Rc::clone(endpoint),
                    None => self.endpoint(address, 1, Some(&entry.host)),
                });
            }
            let expires = known.looked_up.map(|at| at + known.ttl.min(self.refresh));
            due = match (due, expires) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        drop(named);
        self.due.set(due);
        self.endpoints.replace(list.iter().cloned().collect());
        for gone in old
            .iter()
            .filter(|before| !list.iter().any(|kept| Rc::ptr_eq(kept, before)))
        {
            gone.retire();
        }
    }

    /// Starts look-ups of the names that are due.
    fn ask(&self, now: Instant) {
        for entry in self.named.borrow().iter() {
            let known = entry.news.borrow();
            let fresh = known
                .looked_up
                .is_some_and(|at| at + known.ttl.min(self.refresh) > now);
            drop(known);
            if !fresh {
                self.shared.names().refresh(&entry.name);
            }
        }
    }

    /// Waits until a name is resolved by a look-up that ended after `asked`, or until all of them failed.
    async fn answers_since(&self, asked: Instant) -> Result<(), DialFailure> {
        let mut watched: Vec<_> = self
            .named
            .borrow()
            .iter()
            .map(|entry| entry.news.clone())
            .collect();
        loop {
            let mut reason = None;
            let mut open = Vec::new();
            for news in &mut watched {
                let known = news.borrow_and_update();
                let recent = known
                    .looked_up
                    .is_some_and(|at| at >= asked || known.failure.is_some() && at + known.ttl > asked);
                match &known.failure {
                    None if recent => return Ok(()),
                    Some(why) if recent => reason = Some(why.to_string()),
                    _ => {
                        drop(known);
                        open.push(Box::pin(news.changed()));
                    }
                }
            }
            if open.is_empty() {
                return Err(DialFailure::Failed(reason.unwrap_or_default()));
            }
            let _ = select_all(open).await;
        }
    }

    /// A connection that is open already, if there is one.
    pub(crate) fn open_connection(
        &self,
        endpoint: &Endpoint,
        upgrade: bool,
        now: Instant,
    ) -> Option<Connected> {
        if self.protocol == UpstreamProtocol::Http2
            && !upgrade
            && let Some(connection) = endpoint.multiplexed()
        {
            return Some(Connected::Http2(Slot::new(connection)));
        }
        let connection = endpoint.checkout(now, self.idle_timeout)?;
        Some(Connected::Http1 {
            connection,
            reused: true,
        })
    }

    /// A new connection to `endpoint`, or a place on one that somebody else is opening. The caller limits the time.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        endpoint: &Rc<Endpoint>,
        upgrade: bool,
    ) -> Result<Connected, DialFailure> {
        let mut offer = Offer::Http1;
        if self.protocol == UpstreamProtocol::Http2 && !upgrade {
            offer = Offer::Http2;
        }
        if offer == Offer::Http1 || endpoint.chose_http1.get() {
            return self.connect_http1(endpoint, offer).await;
        }
        loop {
            if let Some(slot) = self.dialing(endpoint).wait().await? {
                return Ok(Connected::Http2(slot));
            }
            if let Some(connected) = self.open_connection(endpoint, upgrade, clock::now()) {
                return Ok(connected);
            }
            if endpoint.chose_http1.get() {
                return self.connect_http1(endpoint, offer).await;
            }
        }
    }

    async fn connect_http1(&self, endpoint: &Rc<Endpoint>, offer: Offer) -> Result<Connected, DialFailure> {
        let attempt = Attempt::new(endpoint);
        let counted = Counted::new(&self.counters);
        let dialed = self.dial(endpoint, offer).await?;
        let connection = Http1::open(dialed, counted);
        attempt.succeeded();
        Ok(Connected::Http1 {
            connection,
            reused: false,
        })
    }

    /// The dial under way to an HTTP/2 endpoint; starts one when there is none.
    fn dialing(self: &Rc<Self>, endpoint: &Rc<Endpoint>) -> Rc<Dialing> {
        if let Some(under_way) = endpoint.dialing.borrow().as_ref() {
            return Rc::clone(under_way);
        }
        let dialing = Rc::new(Dialing::default());
        endpoint.dialing.replace(Some(Rc::clone(&dialing)));
        let (pool, target, told) = (Rc::clone(self), Rc::clone(endpoint), Rc::clone(&dialing));
        let task = async move {
            let outcome = pool.connect_http2(&target, &told).await;
            target.dialing.replace(None);
            told.finish(outcome);
        };
        drop(tollgate_base::task::spawn_local("upstream http/2 dial", task));
        dialing
    }

    async fn connect_http2(&self, endpoint: &Rc<Endpoint>, dialing: &Dialing) -> Result<(), DialFailure> {
        let attempt = Attempt::new(endpoint);
        let counted = Counted::new(&self.counters);
        let dialed = self.dial(endpoint, Offer::Http2).await?;
        if dialed.chosen == Some(Chosen::Http1) {
            endpoint.chose_http1.set(true);
            let connection = Http1::open(dialed, counted);
            endpoint.put_back(connection);
        } else {
            let connection = Http2::open(dialed, self.tls.is_some(), counted)
                .await
                .map_err(handshake_failed)?;
            dialing.offer(&connection);
            if !connection.settled().await {
                return Err(DialFailure::Failed(NO_SETTINGS.to_owned()));
            }
            endpoint.add_multiplexed(connection);
        }
        attempt.succeeded();
        Ok(())
    }

    async fn dial(&self, endpoint: &Endpoint, offer: Offer) -> Result<Dialed, DialFailure> {
        let metrics = Arc::clone(&self.counters.metrics);
        let tunnel = self.tunnel.as_ref();
        let Some(server_name) = &endpoint.server_name else {
            return dial::dial(endpoint.address, tunnel, None, metrics).await;
        };
        let name = server_name.clone().map_err(DialFailure::Failed)?;
        let connector = self.connector(offer).map_err(DialFailure::Failed)?;
        let target = TlsTarget { connector, name };
        dial::dial(endpoint.address, tunnel, Some(target), metrics).await
    }

    fn connector(&self, offer: Offer) -> Result<TlsConnector, String> {
        let Some(tls) = &self.tls else {
            return Err("TLS: not configured".to_owned());
        };
        self.connectors[offer as usize]
            .get_or_init(|| self.shared.tls().connector(tls, offer))
            .clone()
    }

    /// Closes idle connections that are over.
    pub(crate) fn sweep(&self, now: Instant) {
        let endpoints = Rc::clone(&self.endpoints.borrow());
        for endpoint in endpoints.iter() {
            endpoint.sweep(now, self.idle_timeout);
        }
        self.count_members(now);
    }

    fn count_members(&self, now: Instant) {
        let endpoints = self.endpoints.borrow();
        let healthy = endpoints
            .iter()
            .filter(|endpoint| !endpoint.is_ejected(now))
            .count();
        let metrics = &self.counters.metrics;
        metrics
            .members
            .set(i64::try_from(endpoints.len()).unwrap_or(i64::MAX));
        metrics
            .members_healthy
            .set(i64::try_from(healthy).unwrap_or(i64::MAX));
    }

    /// The cluster is gone: idle connections close now, busy ones after their request.
    pub(crate) fn retire(&self) {
        for endpoint in self.endpoints.borrow().iter() {
            endpoint.retire();
        }
    }
}

/// The name that the certificate must carry: the configured one, else the endpoint's host, else its address.
fn verified_name(
    tls: &ClusterTls,
    address: SocketAddr,
    host: Option<&Arc<str>>,
) -> Result<ServerName<'static>, String> {
    match tls.server_name.as_ref().or(host) {
        Some(name) => tls::server_name(name),
        None => Ok(tls::server_address(address.ip())),
    }
}

fn handshake_failed(cause: hyper::Error) -> DialFailure {
    DialFailure::Failed(failure::chain(&cause))
}

/// One attempt to connect; anything but success, a timeout included, counts against the endpoint.
struct Attempt<'a> {
    endpoint: &'a Endpoint,
    succeeded: bool,
}

impl<'a> Attempt<'a> {
    fn new(endpoint: &'a Endpoint) -> Self {
        Self {
            endpoint,
            succeeded: false,
        }
    }

    fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.succeeded {
            self.endpoint.connected();
        } else {
            self.endpoint.connect_failed();
        }
    }
}
