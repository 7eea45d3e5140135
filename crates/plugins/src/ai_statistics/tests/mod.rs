//! The plugin through its front door: a chain of one link in front of a scripted vendor, then settlement.

mod configs;
mod dialects;
mod endings;
mod generations;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Version};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tollgate_base::{Error, clock};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::record::{Connection, Original};
use tollgate_observe::settle::{Settlement, settle};
use tollgate_observe::usage::{Source, Tokens};
use tollgate_observe::{Format, Metrics, Record};
use tollgate_plugin::{Candidate, Condition, Exchange, Host, Link, Next, Order, Origin, Phase, Plugin};

use crate::table::{ParseContext, find};

pub(super) const CLUSTER: &str = "outbound|443||qwen.dns";

/// One frame of a scripted answer.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// These bytes.
    Say(String),
    /// These, which are no text.
    Bytes(Vec<u8>),
    /// Silence for so many milliseconds of the paused clock.
    Wait(u64),
    /// The vendor cuts the answer.
    Cut,
}

pub(super) fn say(text: impl Into<String>) -> Step {
    Step::Say(text.into())
}

/// One `data:` event.
pub(super) fn data(value: &Value) -> Step {
    say(format!("data: {value}\n\n"))
}

/// A delta of a chat answer.
pub(super) fn delta(content: &str) -> Step {
    data(
        &json!({"id": "c1", "model": "qwen-max-0403", "choices": [{"index": 0, "delta": {"content": content}}]}),
    )
}

/// What one exchange is made of.
pub(super) struct Scene {
    pub(super) config: Value,
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) request_headers: Vec<(&'static str, &'static str)>,
    pub(super) request: String,
    pub(super) route: &'static str,
    /// 0: the vendor cannot be reached.
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) response_headers: Vec<(&'static str, &'static str)>,
    pub(super) answer: Vec<Step>,
    /// Frames that the client takes before it goes; `None`: all.
    pub(super) takes: Option<usize>,
    /// Tokens in and out that a plugin's rounds have cost before the vendor is asked; the answer is the plugin's then.
    pub(super) spends: Option<(u64, u64)>,
    /// A header and query parameter that some plugin takes keys from.
    pub(super) hidden: Option<&'static str>,
}

impl Scene {
    pub(super) fn chat(config: Value) -> Self {
        Self {
            config,
            method: Method::POST,
            path: "/v1/chat/completions",
            request_headers: Vec::new(),
            request: json!({"model": "qwen-max", "messages": [{"role": "user", "content": "你是谁？"}]})
                .to_string(),
            route: "qwen",
            status: 200,
            content_type: "application/json",
            response_headers: Vec::new(),
            answer: vec![say(
                json!({"id": "c1", "model": "qwen-max-0403", "choices": [{"index": 0,
                    "message": {"role": "assistant", "content": "我是通义千问"}}],
                    "usage": {"prompt_tokens": 11, "completion_tokens": 101, "total_tokens": 112}})
                .to_string(),
            )],
            takes: None,
            spends: None,
            hidden: None,
        }
    }

    pub(super) fn stream(config: Value, answer: Vec<Step>) -> Self {
        Self {
            content_type: "text/event-stream; charset=utf-8",
            answer,
            ..Self::chat(config)
        }
    }
}

/// What an exchange left behind.
pub(super) struct Left {
    pub(super) record: Rc<Record>,
    metrics: Arc<Metrics>,
    /// Frames that the client got.
    pub(super) received: Vec<Bytes>,
    /// What the vendor got.
    pub(super) upstream_body: Bytes,
}

impl Left {
    /// Whether a text of the log still lies in a body.
    pub(super) fn keeps_a_body(&self) -> bool {
        format!("{:?}", self.record.ai_log.borrow()).contains("Part(")
    }

    pub(super) fn state(&self, key: &str) -> Option<String> {
        let state = self.record.filter_state.borrow();
        state
            .iter()
            .find(|entry| entry.0 == key)
            .map(|entry| entry.1.clone())
    }

    /// The `ai_log` as a reader of the log line sees it.
    pub(super) fn ai_log(&self) -> Value {
        let Some(text) = self.record.ai_log_text() else {
            return Value::Null;
        };
        let inner: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        serde_json::from_str(&inner).unwrap()
    }

    pub(super) fn tag(&self, name: &str) -> Option<String> {
        let tags = self.record.span_tags.borrow();
        tags.iter().find(|tag| tag.0 == name).map(|tag| tag.1.clone())
    }

    /// The exposition's lines of token and duration counters that are not 0.
    /// Series of Higress's families.
    pub(super) fn families(&self) -> Vec<String> {
        let mut all = self.metrics();
        all.retain(|line| line.starts_with("route_"));
        all
    }

    pub(super) fn metrics(&self) -> Vec<String> {
        let mut text = String::new();
        self.metrics.render(&mut text);
        let is_ours =
            |line: &&str| line.starts_with("route_") || line.starts_with("tollgate_usage_tokens_total{");
        text.lines()
            .filter(is_ours)
            .filter(|line| !line.ends_with(" 0"))
            .map(str::to_owned)
            .collect()
    }
}

struct Vendor<'s> {
    scene: &'s Scene,
    got: RefCell<Bytes>,
}

#[async_trait(?Send)]
impl Host for Vendor<'_> {
    async fn forward(&self, exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        exchange.record.attempts.set(exchange.record.attempts.get() + 1);
        let mut body = request.into_body();
        *self.got.borrow_mut() = body.buffer("test", usize::MAX).await?;
        if let Some((input, output)) = self.scene.spends {
            let tokens = Tokens {
                input,
                output,
                total: input + output,
                ..Tokens::default()
            };
            let mut usage = exchange.record.usage.borrow_mut();
            usage.spend(tokens, Source::Provider, Some("m".into()));
            if self.scene.status != 0 {
                usage.close();
            }
        }
        if self.scene.status == 0 {
            return Err(cut());
        }
        let steps = futures_util::stream::unfold(self.scene.answer.clone().into_iter(), |mut steps| async {
            loop {
                match steps.next()? {
                    Step::Bytes(bytes) => return Some((Ok(Frame::data(Bytes::from(bytes))), steps)),
                    Step::Say(text) => return Some((Ok(Frame::data(Bytes::from(text))), steps)),
                    Step::Wait(milliseconds) => {
                        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                    }
                    Step::Cut => return Some((Err(cut()), steps)),
                }
            }
        });
        let mut response = http::Response::builder()
            .status(self.scene.status)
            .header("content-type", self.scene.content_type);
        for (name, value) in &self.scene.response_headers {
            response = response.header(*name, *value);
        }
        let body = http_body_util::StreamBody::new(Box::pin(steps));
        Ok(response.body(Body::boxed(body)).unwrap())
    }

    fn reroute(&self, _exchange: &mut Exchange, _request: &Request) -> &[Link] {
        &[]
    }
}

pub(super) fn cut() -> Error {
    Error::upstream(http::StatusCode::BAD_GATEWAY, "upstream_cut", "cut")
}

fn record(scene: &Scene) -> Record {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let connection = Connection {
        id: 1,
        peer: address,
        local: address,
        server_name: None,
        tls: false,
    };
    let original = Original {
        method: scene.method.clone(),
        authority: "gateway".into(),
        path: scene.path.parse().unwrap(),
        version: Version::HTTP_11,
    };
    Record::new(
        Rc::new(connection),
        original,
        HeaderValue::from_static("id"),
        clock::now(),
    )
}

pub(super) fn parse(config: &Value) -> Result<(Arc<dyn Plugin>, Vec<String>), String> {
    let row = find("ai-statistics").unwrap();
    let context = ParseContext::default();
    let plugin = (row.parse)(Some(config), None, &context).map_err(|fault| fault.to_string())?;
    let warnings = context.take_warnings();
    Ok((plugin, warnings.iter().map(ToString::to_string).collect()))
}

/// Plays a scene to its end.
pub(super) async fn play(scene: Scene) -> Left {
    play_with(scene, Metrics::new(), 1).await
}

pub(super) async fn play_with(scene: Scene, metrics: Arc<Metrics>, instances: usize) -> Left {
    let plugin = parse(&scene.config).unwrap().0;
    let links: Vec<Link> = (0..instances)
        .map(|ordinal| Link {
            name: "ai-statistics".into(),
            ordinal: u32::try_from(ordinal).unwrap(),
            order: Order::new(Phase::Unspecified, Some(200)),
            candidates: vec![Candidate {
                condition: Condition::Always,
                plugin: Some(plugin.clone()),
                origin: Origin {
                    object: "o".into(),
                    place: "p".into(),
                },
            }],
        })
        .collect();
    let record = Rc::new(record(&scene));
    record.route.replace(Some(scene.route.into()));
    record.cluster.replace(Some(CLUSTER.into()));
    if let Some(name) = scene.hidden {
        record.hide(&name.into());
    }
    let mut exchange = Exchange::new(record.clone(), "gateway".into(), 1024);
    exchange.route = Some(scene.route.into());
    let mut request = http::Request::builder()
        .method(scene.method.clone())
        .uri(scene.path);
    for (name, value) in &scene.request_headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::bytes(scene.request.clone())).unwrap();
    if let Some(value) = request.headers_mut().get_mut("x-marked") {
        value.set_sensitive(true);
    }
    let vendor = Vendor {
        scene: &scene,
        got: RefCell::default(),
    };
    let outcome = Next::start(&links, &vendor).run(&mut exchange, request).await;
    let mut received = Vec::new();
    if let Ok(response) = outcome {
        let mut body = response.into_body();
        while scene.takes.is_none_or(|takes| received.len() < takes) {
            match body.frame().await {
                Some(Ok(frame)) => received.push(frame.into_data().unwrap()),
                Some(Err(_)) | None => break,
            }
        }
        assert!(body.size_hint().lower() < u64::MAX);
    }
    drop(exchange);
    let listener = metrics.listener("test");
    settle(
        &record,
        Settlement {
            format: &Format::parse("-").unwrap(),
            log: None,
            metrics: &metrics,
            listener: &listener,
            prices: &tollgate_observe::Prices::default(),
            books: &tollgate_observe::Books::default(),
        },
    );
    let upstream_body = vendor.got.take();
    Left {
        record,
        metrics,
        received,
        upstream_body,
    }
}
