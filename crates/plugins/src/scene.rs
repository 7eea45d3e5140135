//! Plugins under test: behind them a scripted rest of the chain, beside them scripted services, no network.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use serde_json::{Value, json};
use tollgate_base::{Error, clock};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::Record;
use tollgate_observe::record::{Connection, Original};
use tollgate_plugin::{
    Caller, Candidate, Condition, Exchange, Host, Link, Next, Order, Origin, Phase, Plugin, unknown_cluster,
};

/// What somebody was asked.
#[derive(Clone)]
pub(crate) struct Asked {
    /// Empty for the rest of the chain.
    pub(crate) cluster: String,
    pub(crate) method: Method,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A chat completion.
pub(crate) fn completion(text: &str, (prompt, output): (u64, u64)) -> Value {
    json!({
        "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    })
}

enum Script {
    Answer(u16, &'static str, String),
    Hang,
}

#[derive(Default)]
struct World {
    asked: RefCell<Vec<Asked>>,
    scripts: RefCell<HashMap<String, VecDeque<Script>>>,
}

impl World {
    async fn answer(&self, cluster: &str, request: Request) -> Result<Response, Error> {
        let (head, mut body) = request.into_parts();
        let bytes = body.buffer("test", usize::MAX).await?;
        self.asked.borrow_mut().push(Asked {
            cluster: cluster.to_owned(),
            method: head.method,
            uri: head.uri.to_string(),
            headers: head.headers,
            body: bytes,
        });
        let script = self
            .scripts
            .borrow_mut()
            .get_mut(cluster)
            .and_then(VecDeque::pop_front);
        match script {
            None => Err(unknown_cluster(cluster)),
            Some(Script::Hang) => std::future::pending().await,
            Some(Script::Answer(status, kind, text)) => {
                let mut response = Response::new(Body::bytes(text));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                let headers = response.headers_mut();
                headers.insert("content-type", HeaderValue::from_static(kind));
                headers.insert("x-upstream", HeaderValue::from_static("yes"));
                Ok(response)
            }
        }
    }
}

struct Services(Rc<World>);

#[async_trait(?Send)]
impl Caller for Services {
    async fn call(&self, cluster: &str, request: Request, _: Duration) -> Result<Response, Error> {
        self.0.answer(cluster, request).await
    }
}

struct Chain(Rc<World>);

#[async_trait(?Send)]
impl Host for Chain {
    async fn forward(&self, exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        let record = &exchange.record;
        record.attempts.set(record.attempts.get() + 1);
        self.0.answer("", request).await
    }

    fn reroute(&self, _: &mut Exchange, _: &Request) -> &[Link] {
        &[]
    }

    fn caller(&self, _: &Exchange) -> Rc<dyn Caller> {
        Rc::new(Services(self.0.clone()))
    }
}

/// One plugin, alone in its chain, or several.
pub(crate) struct Scene {
    links: Vec<Link>,
    world: Rc<World>,
    pub(crate) record: Rc<Record>,
}

impl Scene {
    pub(crate) fn new(plugin: Arc<dyn Plugin>) -> Self {
        Self::chain([plugin])
    }

    /// The outermost comes first.
    pub(crate) fn chain(plugins: impl IntoIterator<Item = Arc<dyn Plugin>>) -> Self {
        let link = |plugin| Link {
            name: "x".into(),
            ordinal: 1,
            order: Order::new(Phase::default(), None),
            candidates: vec![Candidate {
                condition: Condition::Always,
                plugin: Some(plugin),
                origin: Origin {
                    object: "t/x".into(),
                    place: "t:1".into(),
                },
            }],
        };
        Self {
            links: plugins.into_iter().map(link).collect(),
            world: Rc::default(),
            record: record(),
        }
    }

    /// The next answer of a service.
    pub(crate) fn answers(&self, cluster: &str, status: u16, text: &str) {
        self.script(
            cluster,
            Script::Answer(status, "application/json", text.to_owned()),
        );
    }

    /// A service that never answers.
    pub(crate) fn hangs(&self, cluster: &str) {
        self.script(cluster, Script::Hang);
    }

    /// The next answer of the rest of the chain.
    pub(crate) fn forwards(&self, status: u16, text: &str) {
        self.answers("", status, text);
    }

    /// The next answer of the rest of the chain, a stream of events.
    pub(crate) fn streams(&self, text: &str) {
        self.script("", Script::Answer(200, "text/event-stream", text.to_owned()));
    }

    fn script(&self, cluster: &str, script: Script) {
        let mut scripts = self.world.scripts.borrow_mut();
        scripts.entry(cluster.to_owned()).or_default().push_back(script);
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Response, Error> {
        let headers = [
            ("content-type", "application/json"),
            ("cookie", "a=b"),
            ("authorization", "Bearer client"),
        ];
        self.send("POST", path, &headers, body.to_string()).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Response, Error> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gateway");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let host = Chain(self.world.clone());
        let mut exchange = Exchange::new(self.record.clone(), "gateway".into(), 32 * 1024);
        let request = request.body(Body::bytes(body)).unwrap();
        Next::start(&self.links, &host).run(&mut exchange, request).await
    }

    /// What services were asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.seen(|asked| !asked.cluster.is_empty())
    }

    /// What the rest of the chain was asked.
    pub(crate) fn forwarded(&self) -> Vec<Asked> {
        self.seen(|asked| asked.cluster.is_empty())
    }

    fn seen(&self, wanted: impl Fn(&Asked) -> bool) -> Vec<Asked> {
        let asked = self.world.asked.borrow();
        asked.iter().filter(|one| wanted(one)).cloned().collect()
    }
}

fn record() -> Rc<Record> {
    let connection = Connection {
        id: 1,
        peer: "127.0.0.1:1".parse().unwrap(),
        local: "127.0.0.1:2".parse().unwrap(),
        server_name: None,
        tls: false,
    };
    let original = Original {
        method: Method::POST,
        authority: "gateway".into(),
        path: "/".parse().unwrap(),
        version: Version::HTTP_11,
    };
    let id = HeaderValue::from_static("1");
    Rc::new(Record::new(Rc::new(connection), original, id, clock::now()))
}
