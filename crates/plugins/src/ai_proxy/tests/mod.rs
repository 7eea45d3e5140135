//! The plugin through its front door: a chain of one link in front of a scripted vendor, no network.

mod answers;
mod context;
mod errors;
mod requests;
mod retries;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::Frame;
use serde_json::{Value, json};
use tollgate_base::{Error, Flag, clock};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::Record;
use tollgate_observe::record::{Connection, Original};
use tollgate_plugin::{Candidate, Condition, Exchange, Host, Link, Next, Order, Origin, Phase, Plugin};

use crate::table::{ParseContext, find};

/// What the vendor got.
pub(super) struct Seen {
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// One scripted answer: status, content type, and the frames of its body; `Err` cuts it.
pub(super) struct Scripted {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) frames: Vec<Result<String, ()>>,
}

impl Scripted {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            frames: vec![Ok(body.to_string())],
        }
    }

    pub(super) fn events(frames: &[&str]) -> Self {
        Self {
            status: 200,
            content_type: "text/event-stream",
            frames: frames.iter().map(|frame| Ok((*frame).to_owned())).collect(),
        }
    }
}

/// A vendor that answers in order and remembers what it got.
#[derive(Default)]
pub(super) struct Vendor {
    answers: RefCell<VecDeque<Scripted>>,
    pub(super) seen: RefCell<Vec<Seen>>,
    /// Plays a plugin that answers in place of the vendor.
    pub(super) is_local: Cell<bool>,
}

impl Vendor {
    pub(super) fn answering(answers: impl IntoIterator<Item = Scripted>) -> Self {
        Self {
            answers: RefCell::new(answers.into_iter().collect()),
            ..Self::default()
        }
    }
}

pub(super) fn cut() -> Error {
    Error::upstream(StatusCode::BAD_GATEWAY, "upstream_cut", "cut").with_flag(Flag::UpstreamCut)
}

#[async_trait(?Send)]
impl Host for Vendor {
    async fn forward(&self, exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        if !self.is_local.get() {
            exchange.record.attempts.set(exchange.record.attempts.get() + 1);
        }
        let (parts, mut body) = request.into_parts();
        let bytes = body.buffer("test", usize::MAX).await?;
        self.seen.borrow_mut().push(Seen {
            uri: parts.uri.to_string(),
            headers: parts.headers,
            body: bytes,
        });
        let scripted = self.answers.borrow_mut().pop_front();
        let answer = scripted.unwrap_or_else(|| Scripted::json(200, &json!({})));
        let frames = answer.frames.into_iter().map(|frame| match frame {
            Ok(text) => Ok(Frame::data(Bytes::from(text))),
            Err(()) => Err(cut()),
        });
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let response = http::Response::builder()
            .status(answer.status)
            .header("content-type", answer.content_type)
            .body(Body::boxed(body));
        Ok(response.unwrap())
    }

    fn reroute(&self, _exchange: &mut Exchange, _request: &Request) -> &[Link] {
        &[]
    }
}

pub(super) fn exchange() -> Exchange {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let connection = Connection {
        id: 1,
        peer: address,
        local: address,
        server_name: None,
        tls: false,
    };
    let original = Original {
        method: Method::POST,
        authority: "gateway".into(),
        path: "/".parse().unwrap(),
        version: Version::HTTP_11,
    };
    let id = http::HeaderValue::from_static("id");
    let record = Record::new(Rc::new(connection), original, id, clock::now());
    Exchange::new(Rc::new(record), "gateway".into(), 1024)
}

pub(super) fn plugin(provider: Value) -> Arc<dyn Plugin> {
    let config = json!({"provider": provider});
    parse(Some(&config), None).unwrap()
}

pub(super) fn parse(global: Option<&Value>, rule: Option<&Value>) -> Result<Arc<dyn Plugin>, String> {
    let row = find("ai-proxy").unwrap();
    (row.parse)(global, rule, &ParseContext::default()).map_err(|fault| fault.to_string())
}

pub(super) fn post(path: &str, body: &str) -> Request {
    http::Request::post(path)
        .header("host", "gateway")
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .header("authorization", "Bearer clients-own")
        .header("accept-encoding", "gzip")
        .body(Body::bytes(body.to_owned()))
        .unwrap()
}

pub(super) fn chat(body: Value) -> Request {
    post("/v1/chat/completions", &body.to_string())
}

/// Runs one request through the plugin.
pub(super) async fn run_in(
    exchange: &mut Exchange,
    plugin: &Arc<dyn Plugin>,
    vendor: &Vendor,
    request: Request,
) -> Result<Response, Error> {
    run_at(exchange, plugin, vendor, request).await
}

/// The same in front of any host.
pub(super) async fn run_at(
    exchange: &mut Exchange,
    plugin: &Arc<dyn Plugin>,
    host: &dyn Host,
    request: Request,
) -> Result<Response, Error> {
    let links = [Link {
        name: "ai-proxy".into(),
        ordinal: 0,
        order: Order::new(Phase::Unspecified, Some(100)),
        candidates: vec![Candidate {
            condition: Condition::Always,
            plugin: Some(plugin.clone()),
            origin: Origin {
                object: "o".into(),
                place: "p".into(),
            },
        }],
    }];
    Next::start(&links, host).run(exchange, request).await
}

pub(super) async fn run(plugin: &Arc<dyn Plugin>, vendor: &Vendor, request: Request) -> Response {
    run_in(&mut exchange(), plugin, vendor, request).await.unwrap()
}

/// What the vendor gets when this request is sent.
pub(super) async fn sent(provider: Value, request: Request) -> Seen {
    let vendor = Vendor::default();
    run(&plugin(provider), &vendor, request).await;
    let mut seen = vendor.seen.borrow_mut();
    assert_eq!(seen.len(), 1);
    seen.remove(0)
}

pub(super) async fn text_of(mut response: Response) -> String {
    let bytes = response.body_mut().buffer("test", usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(super) async fn json_of(response: Response) -> Value {
    serde_json::from_str(&text_of(response).await).unwrap()
}
