//! For the tests of plugins: a chain of one plugin by its name, in front of an upstream that keeps what it gets.
//!
//! No network. Call-outs go to whatever answers the test has queued.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Version};
use serde_json::Value;
use tollgate_base::{Error, clock};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::Record;
use tollgate_observe::record::{Connection, Original};
use tollgate_plugin::{
    Caller, Candidate, Condition, Exchange, Host, Link, Next, Order, Origin, Phase, Plugin, unknown_cluster,
};

use crate::table::{ParseContext, Shared, find};

/// A request as somebody got it.
pub(crate) struct Got {
    /// Of a call-out: which cluster, and the longest wait.
    pub(crate) cluster: String,
    pub(crate) timeout: Duration,
    pub(crate) method: http::Method,
    pub(crate) uri: http::Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    async fn of(request: Request) -> Result<Self, Error> {
        let (parts, mut body) = request.into_parts();
        Ok(Self {
            cluster: String::new(),
            timeout: Duration::ZERO,
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body: body.buffer("test", usize::MAX).await?,
        })
    }

    /// The values of a header, joined by `|`.
    pub(crate) fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }
}

/// The values of a header, joined by `|`.
pub(crate) fn joined(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    values.join("|")
}

/// The services that call-outs reach.
#[derive(Default)]
pub(crate) struct Services {
    pub(crate) answers: RefCell<VecDeque<Result<Response, Error>>>,
    pub(crate) got: RefCell<Vec<Got>>,
}

#[async_trait(?Send)]
impl Caller for Services {
    async fn call(&self, cluster: &str, request: Request, timeout: Duration) -> Result<Response, Error> {
        let mut got = Got::of(request).await?;
        got.cluster = cluster.to_owned();
        got.timeout = timeout;
        self.got.borrow_mut().push(got);
        let answer = self.answers.borrow_mut().pop_front();
        answer.unwrap_or_else(|| Err(unknown_cluster(cluster)))
    }
}

/// What stands behind the plugin.
#[derive(Default)]
pub(crate) struct Behind {
    pub(crate) upstream: RefCell<Vec<Got>>,
    pub(crate) answers: RefCell<VecDeque<Response>>,
    pub(crate) services: Rc<Services>,
}

#[async_trait(?Send)]
impl Host for Behind {
    async fn forward(&self, _exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        let got = Got::of(request).await?;
        self.upstream.borrow_mut().push(got);
        let answer = self.answers.borrow_mut().pop_front();
        Ok(answer.unwrap_or_else(|| Response::new(Body::bytes("from upstream"))))
    }

    fn reroute(&self, _exchange: &mut Exchange, _request: &Request) -> &[Link] {
        &[]
    }

    fn caller(&self, _exchange: &Exchange) -> Rc<dyn Caller> {
        self.services.clone()
    }
}

/// How one request went.
pub(crate) struct Went {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) details: String,
    pub(crate) consumer: Option<String>,
    /// What the upstream got, unless the plugin answered.
    pub(crate) upstream: Option<Got>,
    /// What other services got.
    pub(crate) calls: Vec<Got>,
    pub(crate) exchange: Exchange,
}

impl Went {
    pub(crate) fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }

    /// Status, body and details in one line.
    pub(crate) fn line(&self) -> String {
        format!("{} [{}] {}", self.status, self.body, self.details)
    }
}

/// A plugin's global config.
pub(crate) fn global(name: &str, config: &Value) -> Result<Arc<dyn Plugin>, String> {
    parse(name, Some(config), None, false).map(|parsed| parsed.0)
}

/// A rule on top of a global config.
pub(crate) fn rule(name: &str, global: &Value, rule: &Value) -> Result<Arc<dyn Plugin>, String> {
    parse(name, Some(global), Some(rule), true).map(|parsed| parsed.0)
}

/// Any config, with what was warned of.
pub(crate) fn parse(
    name: &str,
    global: Option<&Value>,
    rule: Option<&Value>,
    has_rules: bool,
) -> Result<(Arc<dyn Plugin>, Vec<String>), String> {
    let context = ParseContext::new(has_rules, Shared::default());
    let parsed = (find(name).unwrap().parse)(global, rule, &context).map_err(|fault| fault.to_string())?;
    let warnings = context.take_warnings();
    Ok((parsed, warnings.iter().map(ToString::to_string).collect()))
}

pub(crate) fn exchange(uri: &http::Uri) -> Exchange {
    let address: SocketAddr = "192.0.2.7:4711".parse().unwrap();
    let connection = Connection {
        id: 1,
        peer: address,
        local: address,
        server_name: None,
        tls: false,
    };
    let original = Original {
        method: http::Method::GET,
        authority: "gateway".into(),
        path: uri.path_and_query().unwrap().clone(),
        version: Version::HTTP_11,
    };
    let record = Record::new(
        Rc::new(connection),
        original,
        HeaderValue::from_static("id"),
        clock::now(),
    );
    let host = uri.host().unwrap_or("gateway").into();
    Exchange::new(Rc::new(record), host, 32 * 1024)
}

/// A GET of `uri` with these headers.
pub(crate) fn get(uri: &str, headers: &[(&str, &str)]) -> Request {
    send("GET", uri, headers, "")
}

pub(crate) fn send(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let uri = match uri.starts_with('/') {
        true => format!("http://gateway{uri}"),
        false => uri.to_owned(),
    };
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body(Body::bytes(body.to_owned())).unwrap()
}

/// Runs a request through the plugin.
pub(crate) async fn run(plugin: &Arc<dyn Plugin>, request: Request) -> Went {
    run_before(plugin, request, &Behind::default()).await
}

/// The same with something particular behind the plugin.
pub(crate) async fn run_before(plugin: &Arc<dyn Plugin>, request: Request, behind: &Behind) -> Went {
    let links = [Link {
        name: "tested".into(),
        ordinal: 0,
        order: Order::new(Phase::Authn, Some(1)),
        candidates: vec![Candidate {
            condition: Condition::Always,
            plugin: Some(plugin.clone()),
            origin: Origin {
                object: "o".into(),
                place: "p".into(),
            },
        }],
    }];
    let mut exchange = exchange(request.uri());
    let outcome = Next::start(&links, behind).run(&mut exchange, request).await;
    let (parts, mut body) = match outcome {
        Ok(response) => response.into_parts(),
        Err(failure) => {
            *exchange.record.details.borrow_mut() = failure.reason().to_owned().into();
            let mut response = Response::new(Body::bytes(failure.message().to_owned()));
            *response.status_mut() = failure.status();
            response.into_parts()
        }
    };
    let text = body.buffer("test", usize::MAX).await.unwrap();
    let (details, consumer) = {
        let record = &exchange.record;
        let name = record.consumer.borrow();
        (
            record.details.borrow().to_string(),
            name.as_deref().map(str::to_owned),
        )
    };
    Went {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(text.to_vec()).unwrap(),
        details,
        consumer,
        upstream: behind.upstream.borrow_mut().pop(),
        calls: behind.services.got.take(),
        exchange,
    }
}
