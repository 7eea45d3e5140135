//! What plugins' tests share: a plugin in front of a scripted vendor, and the exchange's settlement.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Version};
use http_body_util::BodyExt;
use serde_json::Value;
use tollgate_base::{ConfigError, Error, clock};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::record::{Connection, Original};
use tollgate_observe::settle::{Settlement, settle};
use tollgate_observe::usage::{Source, Tokens};
use tollgate_observe::{Format, Metrics, Record};
use tollgate_plugin::{Candidate, Condition, Exchange, Host, Link, Next, Order, Origin, Phase, Plugin};

use crate::table::{ParseContext, find};

/// Compiles a global config of the plugin of this name.
pub(crate) fn compiled(name: &str, config: &Value) -> Result<Arc<dyn Plugin>, ConfigError> {
    compiled_with(name, config, &ParseContext::default())
}

/// The same, told more.
pub(crate) fn compiled_with(
    name: &str,
    config: &Value,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    (find(name).unwrap().parse)(Some(config), None, context)
}

/// The text of the fault that a config has.
pub(crate) fn fault(name: &str, config: &Value) -> String {
    match compiled(name, config) {
        Ok(_) => panic!("{config} was accepted"),
        Err(fault) => fault.to_string(),
    }
}

/// A GET with these headers; the client's own address is 127.0.0.1.
pub(crate) fn get(uri: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = http::Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

/// A POST of JSON with these headers.
pub(crate) fn post(uri: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request {
    let mut request = get(uri, headers);
    *request.method_mut() = Method::POST;
    *request.body_mut() = Body::bytes(body.into());
    request
}

/// What a client gets, and what is left of the exchange.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    pub(crate) record: Rc<Record>,
    /// Whether the vendor was asked.
    pub(crate) forwarded: bool,
}

/// A vendor: makes the answer to what arrives.
pub(crate) type Vendor<'v> = &'v dyn Fn(&Request) -> Response;

/// Runs one exchange to its settlement; the vendor answers an empty 200.
pub(crate) async fn run(plugin: &Arc<dyn Plugin>, request: Request) -> Outcome {
    run_with(plugin, request, &|_| Response::new(Body::empty())).await
}

/// The same with a vendor of the test's own.
pub(crate) async fn run_with(plugin: &Arc<dyn Plugin>, request: Request, vendor: Vendor<'_>) -> Outcome {
    through(plugin, request, vendor, None).await
}

async fn through(
    plugin: &Arc<dyn Plugin>,
    request: Request,
    vendor: Vendor<'_>,
    gate: Option<&tokio::sync::Semaphore>,
) -> Outcome {
    let record = record(&request);
    let links = [link(plugin)];
    let host = Upstream {
        vendor,
        gate,
        asked: Cell::new(false),
    };
    let mut exchange = Exchange::new(record.clone(), "a.com".into(), 1 << 20);
    exchange.route = Some("route".into());
    let outcome = Next::start(&links, &host).run(&mut exchange, request).await;
    drop(exchange);
    let (parts, body) = outcome.unwrap().into_parts();
    record.status.set(parts.status.as_u16());
    let text = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    settled(&record);
    Outcome {
        status: parts.status.as_u16(),
        headers: parts.headers,
        text: String::from_utf8(text.to_vec()).unwrap(),
        record,
        forwarded: host.asked.get(),
    }
}

/// The same with a vendor that answers once `gate` lets it.
pub(crate) async fn run_slow(
    plugin: &Arc<dyn Plugin>,
    request: Request,
    gate: &tokio::sync::Semaphore,
    answer: impl Fn() -> Response,
) -> Outcome {
    through(plugin, request, &|_| answer(), Some(gate)).await
}

/// An exchange whose client goes while the chain is at work, rounds of a plugin further in having cost so much.
pub(crate) async fn run_left(plugin: &Arc<dyn Plugin>, request: Request, spent: Tokens) -> Rc<Record> {
    let record = record(&request);
    let links = [link(plugin)];
    let mut exchange = Exchange::new(record.clone(), "a.com".into(), 1 << 20);
    let host = Spends(spent);
    let left = Next::start(&links, &host).run(&mut exchange, request);
    assert!(tokio::time::timeout(Duration::from_secs(1), left).await.is_err());
    drop(exchange);
    settled(&record);
    record
}

/// Rounds that never come to an end.
struct Spends(Tokens);

#[async_trait(?Send)]
impl Host for Spends {
    async fn forward(&self, exchange: &mut Exchange, _: Request) -> Result<Response, Error> {
        exchange
            .record
            .usage
            .borrow_mut()
            .spend(self.0, Source::Provider, None);
        std::future::pending().await
    }

    fn reroute(&self, _exchange: &mut Exchange, _request: &Request) -> &[Link] {
        &[]
    }
}

/// Settles an exchange as the data plane does.
pub(crate) fn settled(record: &Record) {
    let metrics = Metrics::new();
    let format = Format::parse("x").unwrap();
    let listener = metrics.listener("a");
    let to = Settlement {
        format: &format,
        log: None,
        metrics: &metrics,
        listener: &listener,
        prices: &tollgate_observe::Prices::default(),
        books: &tollgate_observe::Books::default(),
    };
    settle(record, to);
}

fn record(request: &Request) -> Rc<Record> {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let connection = Connection {
        id: 1,
        peer: address,
        local: address,
        server_name: None,
        tls: false,
    };
    let original = Original {
        method: request.method().clone(),
        authority: "a.com".into(),
        path: request.uri().path_and_query().unwrap().clone(),
        version: Version::HTTP_11,
    };
    let id = HeaderValue::from_static("1");
    Rc::new(Record::new(Rc::new(connection), original, id, clock::now()))
}

fn link(plugin: &Arc<dyn Plugin>) -> Link {
    let origin = Origin {
        object: "t/x".into(),
        place: "t:1".into(),
    };
    Link {
        name: "x".into(),
        ordinal: 0,
        order: Order::new(Phase::default(), None),
        candidates: vec![Candidate {
            condition: Condition::Always,
            plugin: Some(plugin.clone()),
            origin,
        }],
    }
}

struct Upstream<'v> {
    vendor: Vendor<'v>,
    gate: Option<&'v tokio::sync::Semaphore>,
    asked: Cell<bool>,
}

#[async_trait(?Send)]
impl Host for Upstream<'_> {
    async fn forward(&self, exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        exchange.record.attempts.set(exchange.record.attempts.get() + 1);
        self.asked.set(true);
        if let Some(gate) = self.gate {
            drop(gate.acquire().await.unwrap());
        }
        Ok((self.vendor)(&request))
    }

    fn reroute(&self, _exchange: &mut Exchange, _request: &Request) -> &[Link] {
        &[]
    }
}
