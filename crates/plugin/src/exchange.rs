//! `Exchange`: one request's context, passed `&mut` from plugin to plugin; and what the data plane offers besides.
//!
//! Typed fields for what the core owns. What must outlive the call (a response body's wrapper) takes its own `Rc`
//! of the record; nothing else of the exchange may be kept.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use tollgate_base::{Error, Flag};
use tollgate_body::{Request, Response};
use tollgate_observe::{Prices, Record, Spend};

use crate::Link;
use crate::credential::CredentialPlace;

/// One request's context.
#[derive(Debug)]
pub struct Exchange {
    /// What log, metrics and ledger will be made of; plugins add to it.
    pub record: Rc<Record>,
    /// Host of the request in lower case, without port.
    pub host: Box<str>,
    /// Name of the chosen route; `None` when nothing matched.
    pub route: Option<Arc<str>>,
    /// Name of the chosen destination (`outbound|443||qwen.dns`).
    pub cluster: Option<Arc<str>>,
    /// Largest request or response body that a plugin may buffer, in bytes. A plugin that needs more raises it.
    pub buffer_limit: usize,
    /// Headers for the answer that the gateway makes should the rest of the chain fail: no plugin sees that answer.
    pub failure_headers: HeaderMap,
    /// The address of the destination's that the request goes to first, chosen by a plugin; default none: it is balanced.
    pub upstream_address: Option<SocketAddr>,
    reroute: bool,
    /// How often the route was chosen again.
    reroutes: u32,
    /// Where authentication found credentials.
    credentials: Vec<CredentialPlace>,
}

impl Exchange {
    /// A fresh context; `buffer_limit` is the configured default.
    #[must_use]
    pub fn new(record: Rc<Record>, host: Box<str>, buffer_limit: usize) -> Self {
        Self {
            record,
            host,
            route: None,
            cluster: None,
            buffer_limit,
            failure_headers: HeaderMap::new(),
            upstream_address: None,
            reroute: false,
            reroutes: 0,
            credentials: Vec::new(),
        }
    }

    /// Notes where the request carries a credential of the gateway's.
    pub fn found_credential(&mut self, place: CredentialPlace) {
        if !self.credentials.contains(&place) {
            self.credentials.push(place);
        }
    }

    /// Takes the credentials that authentication found out of the request: what follows is none of the gateway's.
    pub fn remove_credentials(&self, request: &mut Request) {
        for place in &self.credentials {
            place.take_out(request);
        }
    }

    /// Says that what routing looked at has changed: before the next plugin the route is chosen again, and the
    /// plugins after this one use the new route's config.
    pub fn reroute(&mut self) {
        self.reroute = true;
    }

    /// Whether the route must be chosen again for somebody who has seen `known` choices; counts it.
    pub(crate) fn take_reroute(&mut self, known: u32) -> bool {
        let wanted = std::mem::take(&mut self.reroute) || known != self.reroutes;
        self.reroutes += u32::from(wanted);
        wanted
    }

    pub(crate) fn reroutes(&self) -> u32 {
        self.reroutes
    }
}

/// What the data plane offers to the chain.
#[async_trait(?Send)]
pub trait Host {
    /// The end of the chain: balance, connect, send, and the response head that comes back.
    async fn forward(&self, exchange: &mut Exchange, request: Request) -> Result<Response, Error>;

    /// Chooses the route again and returns its links (of all plugins; [`crate::Next`] goes on behind the current one).
    fn reroute(&self, exchange: &mut Exchange, request: &Request) -> &[Link];

    /// The way to services besides the upstream. Default: none, every call fails.
    fn caller(&self, exchange: &Exchange) -> Rc<dyn Caller> {
        let _ = exchange;
        Rc::new(Nowhere)
    }

    /// Models of the routes that this consumer may use on the exchange's host. Default: none.
    fn models(&self, exchange: &Exchange, consumer: Option<&str>) -> Vec<String> {
        let _ = (exchange, consumer);
        Vec::new()
    }

    /// What consumers have used so far, and the price table. Default: nothing and none.
    fn money(&self) -> Money {
        Money::default()
    }
}

/// Use by consumer (UTC days and months) and the price table of the request's configuration; for budgets.
#[derive(Debug, Clone, Default)]
pub struct Money {
    /// Counted up when a request is settled, before its answer's end is known to anybody else.
    pub spend: Spend,
    /// What a model's tokens cost.
    pub prices: Arc<Prices>,
}

/// Call-outs of a plugin, on the generation of the request that it was got for. May outlive the call and the answer.
#[async_trait(?Send)]
pub trait Caller {
    /// Sends `request` to a cluster by its name ([`cluster_name`]) and returns at the response head; `timeout` is for
    /// the whole answer. The request needs a path and, for HTTP/1.1, a `host` or an authority.
    ///
    /// # Errors
    /// 503 `cluster_not_found` for a name that the configuration does not have, else what the upstream failed with.
    async fn call(&self, cluster: &str, request: Request, timeout: Duration) -> Result<Response, Error>;

    /// Whether the configuration has this cluster. Default: no.
    fn knows(&self, cluster: &str) -> bool {
        let _ = cluster;
        false
    }

    /// An address of a cluster, for protocols other than HTTP.
    ///
    /// # Errors
    /// As [`Caller::call`]. Default: there is none.
    async fn address(&self, cluster: &str) -> Result<SocketAddr, Error> {
        Err(unknown_cluster(cluster))
    }

    /// The addresses of a cluster that are known, and whether each is healthy. Default: none.
    fn hosts(&self, cluster: &str) -> Vec<(SocketAddr, bool)> {
        let _ = cluster;
        Vec::new()
    }
}

/// Name of the cluster that serves port `port` of `service` (`qwen.dns`, `redis.default.svc.cluster.local`).
#[must_use]
pub fn cluster_name(service: &str, port: u16) -> String {
    format!("outbound|{port}||{service}")
}

/// The failure of a call to a cluster that does not exist.
#[must_use]
pub fn unknown_cluster(cluster: &str) -> Error {
    let message = format!("no such cluster: {cluster}");
    Error::gateway(StatusCode::SERVICE_UNAVAILABLE, "cluster_not_found", message).with_flag(Flag::NoCluster)
}

struct Nowhere;

#[async_trait(?Send)]
impl Caller for Nowhere {
    async fn call(&self, cluster: &str, _: Request, _: Duration) -> Result<Response, Error> {
        Err(unknown_cluster(cluster))
    }
}
