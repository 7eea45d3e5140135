//! The chain: a route's links in order, and `Next`, the rest of it as a plugin sees it.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use tollgate_base::Error;
use tollgate_body::{Request, Response};

use crate::{Caller, DomainPattern, Exchange, Host, Money, Order, ServicePattern};

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

    /// Names of models that clients may ask for behind this plugin, as far as its config tells; for lists of models.
    fn models(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether a request of this consumer may come past this plugin; for lists of what a caller may use.
    fn admits(&self, consumer: Option<&str>) -> bool {
        let _ = consumer;
        true
    }
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
    /// The exchange's count of choices that `links` belongs to.
    reroutes: u32,
    host: &'a dyn Host,
}

impl<'a> Next<'a> {
    /// The whole chain of a route.
    #[must_use]
    pub fn start(links: &'a [Link], host: &'a dyn Host) -> Self {
        Self {
            links,
            position: 0,
            reroutes: 0,
            host,
        }
    }

    /// The way to services besides the upstream.
    #[must_use]
    pub fn caller(&self, exchange: &Exchange) -> Rc<dyn Caller> {
        self.host.caller(exchange)
    }

    /// Models of the routes that this consumer may use on the request's host; some may be there twice.
    #[must_use]
    pub fn models(&self, exchange: &Exchange, consumer: Option<&str>) -> Vec<String> {
        self.host.models(exchange, consumer)
    }

    /// What consumers have used so far, and the price table.
    #[must_use]
    pub fn money(&self) -> Money {
        self.host.money()
    }

    /// Runs the rest: the next plugin that applies to this request, or the upstream. The route is chosen again first
    /// when a plugin has asked for it, also when it did so in an earlier run of this rest: this request may be for the
    /// first route.
    ///
    /// Not an async function: that would carry the request about once more.
    ///
    /// # Errors
    /// What the inner plugins or the upstream failed with.
    pub fn run<'e>(self, exchange: &'e mut Exchange, request: Request) -> Running<'e>
    where
        'a: 'e,
    {
        let mut rest = self;
        if exchange.take_reroute(rest.reroutes) {
            rest.reroutes = exchange.reroutes();
            let links = rest.host.reroute(exchange, &request);
            let behind = links.partition_point(|link| link.ordinal < rest.position);
            rest.links = &links[behind..];
        }
        while let Some((link, behind)) = rest.links.split_first() {
            rest.links = behind;
            rest.position = link.ordinal + 1;
            let chosen = link.choose(&exchange.host, exchange.cluster.as_deref());
            if let Some(plugin) = chosen.and_then(|candidate| candidate.plugin.as_ref()) {
                return plugin.call(exchange, request, rest);
            }
        }
        rest.host.forward(exchange, request)
    }
}

/// The rest of a chain at work, see [`Next::run`].
pub type Running<'e> = Pin<Box<dyn Future<Output = Result<Response, Error>> + 'e>>;

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tollgate_body::Body;
    use tollgate_observe::Record;

    use super::*;
    use crate::Phase;

    /// Notes who ran; what it does besides is its kind's.
    struct Step(&'static str, Does);

    #[derive(Clone, Copy)]
    enum Does {
        Nothing,
        /// Runs the rest twice.
        Repeat,
        /// Asks for the route that the header names.
        Reroute,
    }

    thread_local! {
        static RAN: RefCell<Vec<&'static str>> = RefCell::default();
    }

    #[async_trait(?Send)]
    impl Plugin for Step {
        async fn call(
            &self,
            exchange: &mut Exchange,
            mut request: Request,
            next: Next<'_>,
        ) -> Result<Response, Error> {
            RAN.with_borrow_mut(|ran| ran.push(self.0));
            match self.1 {
                Does::Nothing => {}
                Does::Repeat => drop(next.run(exchange, Request::new(Body::empty())).await?),
                Does::Reroute => {
                    request
                        .headers_mut()
                        .insert("route", http::HeaderValue::from_static("b"));
                    exchange.reroute();
                }
            }
            next.run(exchange, request).await
        }
    }

    fn link(ordinal: u32, name: &'static str, does: Does) -> Link {
        let origin = Origin {
            object: "t/x".into(),
            place: "t:1".into(),
        };
        let plugin: Arc<dyn Plugin> = Arc::new(Step(name, does));
        Link {
            name: name.into(),
            ordinal,
            order: Order::new(Phase::default(), None),
            candidates: vec![Candidate {
                condition: Condition::Always,
                plugin: Some(plugin),
                origin,
            }],
        }
    }

    /// Two routes, `a` and the one that a header asks for.
    struct Routes {
        first: Vec<Link>,
        second: Vec<Link>,
        choices: Cell<u32>,
    }

    #[async_trait(?Send)]
    impl Host for Routes {
        async fn forward(&self, _exchange: &mut Exchange, _request: Request) -> Result<Response, Error> {
            RAN.with_borrow_mut(|ran| ran.push("|"));
            Ok(Response::new(Body::empty()))
        }

        fn reroute(&self, _exchange: &mut Exchange, request: &Request) -> &[Link] {
            self.choices.set(self.choices.get() + 1);
            let asked = request.headers().contains_key("route");
            if asked { &self.second } else { &self.first }
        }
    }

    fn exchange() -> Exchange {
        let connection = tollgate_observe::record::Connection {
            id: 1,
            peer: "127.0.0.1:1".parse().expect("an address"),
            local: "127.0.0.1:2".parse().expect("an address"),
            server_name: None,
            tls: false,
        };
        let original = tollgate_observe::record::Original {
            method: http::Method::GET,
            authority: "a".into(),
            path: "/".parse().expect("a path"),
            version: http::Version::HTTP_11,
        };
        let id = http::HeaderValue::from_static("1");
        let now = tollgate_base::clock::now();
        Exchange::new(
            Rc::new(Record::new(Rc::new(connection), original, id, now)),
            "a".into(),
            0,
        )
    }

    fn ran(first: Vec<Link>, second: Vec<Link>) -> (Vec<&'static str>, u32) {
        RAN.with_borrow_mut(Vec::clear);
        let routes = Routes {
            first,
            second,
            choices: Cell::default(),
        };
        let mut exchange = exchange();
        let chain = Next::start(&routes.first, &routes).run(&mut exchange, Request::new(Body::empty()));
        let mut pinned = std::pin::pin!(chain);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(pinned.as_mut().poll(&mut context).is_ready());
        (RAN.with_borrow(Vec::clone), routes.choices.get())
    }

    #[test]
    fn plugins_behind_a_reroute_are_those_of_the_new_route() {
        let first = vec![
            link(1, "router", Does::Reroute),
            link(2, "a2", Does::Nothing),
            link(3, "a3", Does::Nothing),
        ];
        let second = vec![link(0, "b0", Does::Nothing), link(3, "b3", Does::Nothing)];
        assert_eq!(ran(first, second), (vec!["router", "b3", "|"], 1));
    }

    #[test]
    fn a_second_run_begins_with_its_own_requests_route() {
        let first = vec![
            link(1, "retry", Does::Repeat),
            link(2, "router", Does::Reroute),
            link(3, "a3", Does::Nothing),
        ];
        let second = vec![link(3, "b3", Does::Nothing)];
        let expected = vec!["retry", "router", "b3", "|", "router", "b3", "|"];
        assert_eq!(ran(first, second), (expected, 3));
    }
}
