//! The chain: a route's links in order, and `Next`, the rest of it as a plugin sees it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tollgate_base::Error;
use tollgate_body::{Request, Response};

use crate::{DomainPattern, Exchange, Host, Order, ServicePattern};

/// A plugin with one compiled config. Shared by all workers; whatever a request needs lives in its call.
#[async_trait(?Send)]
pub trait Plugin: Send + Sync {
    /// Handles one request: answer at once (a refusal is `Ok`), or change the request and run `next`, once or more,
    /// and change or wrap what comes back.
    ///
    /// # Errors
    /// What `next` returned, or a failure of the plugin itself; the one reply-maker turns it into an answer.
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error>;
}

/// Where a plugin's config was written, for `explain` and diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `namespace/name` of the object.
    pub object: Arc<str>,
    /// `file:line` of the config, or the API server's object path.
    pub place: Arc<str>,
}

/// What a rule asks of the request besides its route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: decided when compiled.
    Always,
    /// One of these domains.
    Domains(Vec<DomainPattern>),
    /// One of these services.
    Services(Vec<ServicePattern>),
}

impl Condition {
    /// Whether this request is meant.
    #[must_use]
    pub fn matches(&self, host: &str, cluster: Option<&str>) -> bool {
        match self {
            Self::Always => true,
            Self::Domains(patterns) => patterns.iter().any(|pattern| pattern.matches(host)),
            Self::Services(patterns) => {
                cluster.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
            }
        }
    }
}

/// One config of a plugin that may apply on a route.
#[derive(Clone)]
pub struct Candidate {
    /// When it applies.
    pub condition: Condition,
    /// The plugin with that config; `None` where the config turns it off.
    pub plugin: Option<Arc<dyn Plugin>>,
    /// Where the config came from.
    pub origin: Origin,
}

/// One plugin of a route's chain. The first candidate that matches is used.
#[derive(Clone)]
pub struct Link {
    /// Built-in or module name (`ai-proxy`).
    pub name: Arc<str>,
    /// Place among all plugins; links of every route are sorted by it.
    pub ordinal: u32,
    /// Phase and priority, for display.
    pub order: Order,
    /// Configs in rule order, those that can never apply on this route left out.
    pub candidates: Vec<Candidate>,
}

impl Link {
    /// The candidate that applies to this request.
    #[must_use]
    pub fn choose(&self, host: &str, cluster: Option<&str>) -> Option<&Candidate> {
        self.candidates
            .iter()
            .find(|candidate| candidate.condition.matches(host, cluster))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Link")
            .field("name", &self.name)
            .field("ordinal", &self.ordinal)
            .finish_non_exhaustive()
    }
}

/// The rest of the chain. Copy it to run it more than once (retry, repair, agent loop).
#[derive(Clone, Copy)]
pub struct Next<'a> {
    links: &'a [Link],
    /// Ordinal of the first plugin that has not run.
    position: u32,
    host: &'a dyn Host,
}

impl<'a> Next<'a> {
    /// The whole chain of a route.
    #[must_use]
    pub fn start(links: &'a [Link], host: &'a dyn Host) -> Self {
        Self {
            links,
            position: 0,
            host,
        }
    }

    /// Runs the rest: the next plugin that applies to this request, or the upstream.
    ///
    /// # Errors
    /// What the inner plugins or the upstream failed with.
    pub async fn run(self, exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        let mut rest = self;
        if exchange.take_reroute() {
            let links = rest.host.reroute(exchange, &request);
            let behind = links.partition_point(|link| link.ordinal < rest.position);
            rest.links = &links[behind..];
        }
        while let Some((link, behind)) = rest.links.split_first() {
            rest.links = behind;
            rest.position = link.ordinal + 1;
            let chosen = link.choose(&exchange.host, exchange.cluster.as_deref());
            if let Some(plugin) = chosen.and_then(|candidate| candidate.plugin.as_ref()) {
                return plugin.call(exchange, request, rest).await;
            }
        }
        rest.host.forward(exchange, request).await
    }
}
