//! `Exchange`: one request's context, passed `&mut` from plugin to plugin.
//!
//! Typed fields for what the core owns. What must outlive the call (a response body's wrapper) takes its own `Rc`
//! of the record; nothing else of the exchange may be kept.

use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use tollgate_base::Error;
use tollgate_body::{Request, Response};
use tollgate_observe::Record;

use crate::Link;

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
    reroute: bool,
    /// How often the route was chosen again.
    reroutes: u32,
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
            reroute: false,
            reroutes: 0,
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
}
