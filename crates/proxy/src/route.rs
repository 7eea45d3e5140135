//! Choosing a route and a destination for a request, and choosing again when a plugin asks for it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tollgate_body::Request;
use tollgate_plugin::{Exchange, Link};
use tollgate_snapshot::Snapshot;
use tollgate_snapshot::route::{Action, Destination, RequestHead, Route};

use crate::http1::Takeover;
use crate::worker::Worker;

/// One request's view of the data plane; implements the plugin contract's `Host` (in `forward`).
pub(crate) struct Router<'a> {
    pub worker: &'a Worker,
    pub snapshot: &'a Arc<Snapshot>,
    pub tls: bool,
    route: Cell<Option<&'a Arc<Route>>>,
    destination: Cell<Option<&'a Destination>>,
    /// Client's side of an upgrade; taken when the upstream agrees to it.
    pub upgrade: RefCell<Option<Takeover>>,
}

impl<'a> Router<'a> {
    pub(crate) fn new(
        worker: &'a Worker,
        snapshot: &'a Arc<Snapshot>,
        tls: bool,
        upgrade: Option<Takeover>,
    ) -> Self {
        let (route, destination) = (Cell::new(None), Cell::new(None));
        Self {
            worker,
            snapshot,
            tls,
            route,
            destination,
            upgrade: RefCell::new(upgrade),
        }
    }

    /// The route chosen last.
    pub(crate) fn route(&self) -> Option<&'a Arc<Route>> {
        self.route.get()
    }

    /// The destination chosen last; `None` without a route or for a redirect.
    pub(crate) fn destination(&self) -> Option<&'a Destination> {
        self.destination.get()
    }

    /// Chooses route and destination, notes them, and gives the chain to run.
    pub(crate) fn choose(&self, exchange: &mut Exchange, request: &Request) -> &'a [Link] {
        let found = self
            .snapshot
            .hosts
            .find(&request_head(exchange, request, self.tls));
        let destination = found.and_then(|route| self.pick(route));
        self.route.set(found);
        self.destination.set(destination);
        exchange.route = found.map(|route| route.name.clone());
        exchange.cluster = destination.map(|chosen| chosen.name().clone());
        exchange.record.route.replace(exchange.route.clone());
        exchange.record.cluster.replace(exchange.cluster.clone());
        exchange
            .record
            .arm
            .replace(destination.and_then(|chosen| chosen.arm.clone()));
        found.map_or(&self.snapshot.unrouted, |route| &route.links)
    }

    fn pick(&self, route: &'a Route) -> Option<&'a Destination> {
        let destinations = match &route.action {
            Action::Forward(destinations) => destinations,
            Action::RedirectPlain(_, destinations) if self.tls => destinations,
            Action::Redirect(_) | Action::RedirectPlain(..) => return None,
        };
        if let [only] = destinations.as_slice() {
            return Some(only);
        }
        let total: u32 = destinations.iter().map(|destination| destination.weight).sum();
        let mut point = fastrand::u32(0..total.max(1));
        destinations.iter().find(|destination| {
            let hit = point < destination.weight;
            point = point.saturating_sub(destination.weight);
            hit
        })
    }
}

fn request_head<'r>(exchange: &'r Exchange, request: &'r Request, tls: bool) -> RequestHead<'r> {
    let uri = request.uri();
    RequestHead {
        host: &exchange.host,
        method: request.method(),
        path: uri.path(),
        query: uri.query(),
        scheme: if tls { "https" } else { "http" },
        authority: uri.authority().map_or("", |authority| authority.as_str()),
        headers: request.headers(),
    }
}
