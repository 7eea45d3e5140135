//! A worker for tests: one module in the chain, an upstream that answers what it is told, and services for call-outs.
//!
//! A test's WAT is the handlers alone. `@"text"` stands for a text's address and length; `$say` appends a number to
//! the header `x-said` of the head that is held.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tollgate_base::{Error, clock};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::record::{Connection, Original};
use tollgate_observe::settle::{Settlement, settle};
use tollgate_observe::{Books, Format, Metrics, Prices, Record};
use tollgate_plugin::{
    Caller, Candidate, Condition, Exchange, Host as ChainHost, Link, Next, Order, Origin, Phase,
    unknown_cluster,
};

use crate::artefact::Artefact;
use crate::engine::Tier;
use crate::generation::{Generation, Host, Spec};
use crate::limits::Limits;
use crate::plugin::WasmPlugin;
use crate::worker;

/// Imports with their parameters: `i` is an i32, `I` an i64. All give an i32.
const IMPORTS: &[(&str, &str)] = &[
    ("log", "iii"),
    ("get_log_level", "i"),
    ("get_current_time_nanoseconds", "i"),
    ("set_tick_period_milliseconds", "i"),
    ("set_effective_context", "i"),
    ("done", ""),
    ("get_property", "iiii"),
    ("set_property", "iiii"),
    ("get_buffer_bytes", "iiiii"),
    ("get_buffer_status", "iii"),
    ("set_buffer_bytes", "iiiii"),
    ("get_header_map_value", "iiiii"),
    ("get_header_map_pairs", "iii"),
    ("get_header_map_size", "ii"),
    ("set_header_map_pairs", "iii"),
    ("add_header_map_value", "iiiii"),
    ("replace_header_map_value", "iiiii"),
    ("remove_header_map_value", "iii"),
    ("send_local_response", "iiiiiiii"),
    ("continue_stream", "i"),
    ("close_stream", "i"),
    ("http_call", "iiiiiiiiii"),
    ("redis_init", "iiiiiii"),
    ("redis_call", "iiiii"),
    ("grpc_call", "iiiiiiiiiiii"),
    ("grpc_stream", "iiiiiiiii"),
    ("grpc_send", "iiii"),
    ("grpc_cancel", "i"),
    ("grpc_close", "i"),
    ("get_status", "iii"),
    ("get_shared_data", "iiiii"),
    ("set_shared_data", "iiiii"),
    ("register_shared_queue", "iii"),
    ("resolve_shared_queue", "iiiii"),
    ("dequeue_shared_queue", "iii"),
    ("enqueue_shared_queue", "iii"),
    ("define_metric", "iiii"),
    ("increment_metric", "iI"),
    ("record_metric", "iI"),
    ("get_metric", "ii"),
    ("call_foreign_function", "iiiiii"),
    ("inject_encoded_data_to_filter_chain", "iii"),
    ("get_upstream_hosts", "ii"),
    ("set_upstream_override_host", "ii"),
];

/// What only some modules import, in the words of docs/wasm.md.
const OTHERS: &[&str] = &[
    "continue_request",
    "continue_response",
    "clear_route_cache",
    "get_configuration",
    "env.abort",
    "proc_exit",
];

/// Names of all functions that modules may import.
pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    let known = IMPORTS.iter().map(|(name, _)| *name);
    known.chain(OTHERS.iter().copied())
}

/// A whole module around handlers.
pub(crate) fn module(abi: &str, handlers: &str) -> Vec<u8> {
    module_with("", abi, handlers)
}

/// The same with further imports.
fn module_with(imports: &str, abi: &str, handlers: &str) -> Vec<u8> {
    let mut text = format!("(module\n{imports}\n");
    for (name, parameters) in IMPORTS {
        let parameters: Vec<&str> = parameters
            .chars()
            .map(|kind| if kind == 'I' { "i64" } else { "i32" })
            .collect();
        text.push_str(&format!(
            "(import \"env\" \"proxy_{name}\" (func ${name} (param {}) (result i32)))\n",
            parameters.join(" ")
        ));
    }
    text.push_str(&format!(
        r#"(memory (export "memory") 8)
        (global $top (mut i32) (i32.const 65536))
        (global $allocated (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_{abi}"))
        (func $allocate (export "proxy_on_memory_allocate") (param $size i32) (result i32)
          (if (i32.eqz (local.get $size)) (then unreachable))
          (global.set $allocated (i32.add (global.get $allocated) (i32.const 1)))
          (global.get $top)
          (global.set $top (i32.add (global.get $top) (local.get $size))))
        (func $say (param $number i32)
          (i32.store8 (i32.const 8) (i32.add (i32.const 48) (i32.div_u (local.get $number) (i32.const 10))))
          (i32.store8 (i32.const 9) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
          (if (call $add_header_map_value (i32.const 0) @"x-said" (i32.const 8) (i32.const 2))
            (then (drop (call $add_header_map_value (i32.const 2) @"x-said" (i32.const 8) (i32.const 2))))))
        ;; Adds the value that a call left at 16 and 20 as the header `x-got`.
        (func $show
          (drop (call $add_header_map_value (i32.const 0) @"x-got" (i32.load (i32.const 16)) (i32.load (i32.const 20)))))
        {handlers})"#
    ));
    wat::parse_str(with_texts(&text)).unwrap_or_else(|error| panic!("{error}"))
}

/// Replaces `@"text"` and adds the data segments.
fn with_texts(text: &str) -> String {
    let (mut out, mut data, mut at) = (String::new(), String::new(), 1024);
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("@\"") {
        let (literal, after) = behind.split_once('"').expect("a closing quote");
        // Written as WAT writes it: `\00` is one byte.
        let length = literal.len() - 2 * literal.matches('\\').count();
        out.push_str(&format!("{before}(i32.const {at}) (i32.const {length})"));
        data.push_str(&format!("(data (i32.const {at}) \"{literal}\")\n"));
        at += length + 1;
        rest = after;
    }
    let end = rest.rfind(')').expect("a module");
    out.push_str(&rest[..end]);
    format!("{out}\n{data})")
}

/// An answer that the fake upstream or service gives. Trailers of the request are among its extensions.
pub(super) type Answer = Box<dyn Fn(&Request) -> Result<Response, Error>>;

/// What went to the upstream.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether all of the body was there when the request left.
    pub(super) is_whole: bool,
    /// Where a module wants it to go.
    pub(super) address: Option<SocketAddr>,
}

/// One module and its surroundings.
pub(super) struct Bench {
    pub(super) generation: Arc<Generation>,
    pub(super) metrics: Arc<Metrics>,
    links: Vec<Link>,
    services: Rc<Services>,
    answer: RefCell<Answer>,
    pub(super) seen: RefCell<Option<Seen>>,
    /// Told when a request's head has reached the upstream.
    pub(super) arrived: Notify,
    pub(super) buffer_limit: usize,
}

#[derive(Default)]
pub(super) struct Services {
    answers: HashMap<String, Answer>,
    addresses: HashMap<String, SocketAddr>,
}

#[async_trait(?Send)]
impl Caller for Services {
    async fn call(&self, cluster: &str, request: Request, _: Duration) -> Result<Response, Error> {
        let (mut parts, body) = request.into_parts();
        let collected = body.collect().await?;
        if let Some(trailers) = collected.trailers() {
            parts.extensions.insert(trailers.clone());
        }
        let request = Request::from_parts(parts, Body::bytes(collected.to_bytes()));
        match self.answers.get(cluster) {
            Some(answer) => answer(&request),
            None => Err(unknown_cluster(cluster)),
        }
    }

    fn knows(&self, cluster: &str) -> bool {
        // For a bug of ours below a host call.
        assert_ne!(cluster, "panics");
        self.answers.contains_key(cluster) || self.addresses.contains_key(cluster)
    }

    async fn address(&self, cluster: &str) -> Result<SocketAddr, Error> {
        self.addresses
            .get(cluster)
            .copied()
            .ok_or_else(|| unknown_cluster(cluster))
    }

    fn hosts(&self, _: &str) -> Vec<(SocketAddr, bool)> {
        vec![("127.0.0.1:80".parse().unwrap(), true)]
    }
}

/// How a bench is set up.
pub(super) struct Setup {
    pub(super) abi: &'static str,
    /// Imports beside those that every module has.
    pub(super) imports: &'static str,
    pub(super) config: &'static str,
    pub(super) env: Vec<(String, String)>,
    pub(super) fail_open: bool,
    pub(super) limits: Limits,
    pub(super) services: Services,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            abi: "0_2_100",
            imports: "",
            config: "",
            env: Vec::new(),
            fail_open: false,
            limits: Limits::default(),
            services: Services::default(),
        }
    }
}

impl Setup {
    pub(super) fn service(
        mut self,
        cluster: &str,
        answer: impl Fn(&Request) -> Result<Response, Error> + 'static,
    ) -> Self {
        self.services.answers.insert(cluster.to_owned(), Box::new(answer));
        self
    }

    pub(super) fn address(mut self, cluster: &str, address: SocketAddr) -> Self {
        self.services.addresses.insert(cluster.to_owned(), address);
        self
    }

    pub(super) fn bench(self, handlers: &str) -> Bench {
        let bytes = module_with(self.imports, self.abi, handlers);
        self.bench_of(&bytes)
    }

    /// No module in the chain.
    pub(super) fn bare(self) -> Bench {
        let mut bench = self.bench("");
        bench.links.clear();
        bench
    }

    pub(super) fn bench_of(self, bytes: &[u8]) -> Bench {
        let artefact = Artefact::compile("digest", bytes, Tier::Full, None);
        self.bench_with(artefact.unwrap_or_else(|fault| panic!("{fault}")))
    }

    pub(super) fn bench_with(self, artefact: Artefact) -> Bench {
        let metrics = Metrics::new();
        let spec = Spec {
            name: "higress-system.tested".to_owned(),
            root_id: "root".to_owned(),
            source: tollgate_modules::Wanted::default(),
            config: Bytes::from(self.config),
            env: self.env,
            fail_open: self.fail_open,
        };
        let host = Host::new(self.limits, Some(metrics.clone()));
        let generation = Generation::new(Arc::new(spec), Arc::new(artefact), host);
        let link = Link {
            name: "tested".into(),
            ordinal: 0,
            order: Order::new(Phase::default(), None),
            candidates: vec![Candidate {
                condition: Condition::Always,
                plugin: Some(Arc::new(WasmPlugin::new(generation.clone()))),
                origin: Origin {
                    object: "t/x".into(),
                    place: "t:1".into(),
                },
            }],
        };
        let services = Rc::new(self.services);
        worker::use_caller(services.clone());
        Bench {
            generation,
            metrics,
            links: vec![link],
            services,
            answer: RefCell::new(Box::new(|_| Ok(Response::new(Body::bytes("answer"))))),
            seen: RefCell::default(),
            arrived: Notify::new(),
            buffer_limit: 1 << 20,
        }
    }
}

#[async_trait(?Send)]
impl ChainHost for Bench {
    async fn forward(&self, exchange: &mut Exchange, mut request: Request) -> Result<Response, Error> {
        self.arrived.notify_one();
        let is_whole = request.body().as_bytes().is_some();
        let body = request.body_mut().buffer("test", 1 << 24).await?;
        self.seen.replace(Some(Seen {
            uri: request.uri().to_string(),
            headers: request.headers().clone(),
            body,
            is_whole,
            address: exchange.upstream_address,
        }));
        (self.answer.borrow())(&request)
    }

    fn reroute(&self, exchange: &mut Exchange, _: &Request) -> &[Link] {
        exchange.route = Some("rerouted".into());
        &self.links
    }

    fn caller(&self, _: &Exchange) -> Rc<dyn Caller> {
        self.services.clone()
    }
}

/// An answer as the client gets it.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// What came of the body, and whether it ended well.
    pub(super) body: Result<Bytes, String>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) record: Rc<Record>,
}

impl Got {
    /// The numbers that the module said on the answer.
    pub(super) fn said(&self) -> Vec<u32> {
        said(&self.headers)
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().expect("a body")).expect("text")
    }

    pub(super) fn state(&self, key: &str) -> Option<String> {
        if key == "wasm.ai_log" {
            return self.record.ai_log_text();
        }
        let state = self.record.filter_state.borrow();
        state
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
    }
}

fn said(headers: &HeaderMap) -> Vec<u32> {
    let values = headers.get_all("x-said").iter();
    values
        .map(|value| value.to_str().unwrap().parse().unwrap())
        .collect()
}

impl Seen {
    /// The numbers that the module said on the request.
    pub(super) fn said(&self) -> Vec<u32> {
        said(&self.headers)
    }

    /// The values that the module showed.
    pub(super) fn got(&self) -> Vec<String> {
        let values = self.headers.get_all("x-got").iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }
}

impl Bench {
    pub(super) fn answers(&self, answer: impl Fn(&Request) -> Result<Response, Error> + 'static) {
        drop(self.answer.replace(Box::new(answer)));
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.borrow().clone().expect("nothing reached the upstream")
    }

    pub(super) fn exchange(&self, request: &Request) -> Exchange {
        let connection = Connection {
            id: 7,
            peer: "10.0.0.1:1234".parse().unwrap(),
            local: "10.0.0.2:80".parse().unwrap(),
            server_name: Some("sni.example".into()),
            tls: false,
        };
        let original = Original {
            method: request.method().clone(),
            authority: "a.com".into(),
            path: "/".parse().unwrap(),
            version: http::Version::HTTP_11,
        };
        let id = http::HeaderValue::from_static("id-1");
        let record = Record::new(Rc::new(connection), original, id, clock::now());
        let mut exchange = Exchange::new(Rc::new(record), "a.com".into(), self.buffer_limit);
        exchange.route = Some("route-1".into());
        exchange.cluster = Some("outbound|443||a.dns".into());
        exchange
    }

    /// Sends a request through the chain up to the answer's head.
    pub(super) async fn open(&self, request: Request) -> (Rc<Record>, Result<Response, Error>) {
        let mut exchange = self.exchange(&request);
        let outcome = self.through(&mut exchange, request).await;
        (exchange.record, outcome)
    }

    /// The same with an exchange that can be looked at.
    pub(super) async fn through(&self, exchange: &mut Exchange, request: Request) -> Result<Response, Error> {
        Next::start(&self.links, self).run(exchange, request).await
    }

    /// Sends a request and reads the whole answer; the exchange is settled then.
    pub(super) async fn send(&self, request: Request) -> Got {
        let (record, outcome) = self.open(request).await;
        self.finish(record, outcome).await
    }

    pub(super) async fn finish(&self, record: Rc<Record>, outcome: Result<Response, Error>) -> Got {
        let (parts, body) = match outcome {
            Ok(response) => response.into_parts(),
            Err(failure) => {
                record.details.replace(failure.reason().to_owned().into());
                let mut response = Response::new(Body::empty());
                *response.status_mut() = failure.status();
                response.into_parts()
            }
        };
        let (body, trailers) = match body.collect().await {
            Ok(collected) => {
                let trailers = collected.trailers().cloned();
                (Ok(collected.to_bytes()), trailers)
            }
            Err(failure) => (Err(failure.reason().to_owned()), None),
        };
        self.settle(&record);
        Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            trailers,
            record,
        }
    }

    pub(super) fn settle(&self, record: &Record) {
        let format = Format::parse("x").unwrap();
        let listener = self.metrics.listener("l");
        settle(
            record,
            Settlement {
                format: &format,
                log: None,
                metrics: &self.metrics,
                listener: &listener,
                prices: &Prices::default(),
                books: &Books::default(),
            },
        );
    }

    /// How often modules ran into a limit.
    pub(super) fn beyond(&self, limit: &str) -> u64 {
        let mut page = String::new();
        self.metrics.render(&mut page);
        let label = format!(r#"limit="{limit}""#);
        let is_it = |line: &&str| line.starts_with("tollgate_wasm_limits_total{") && line.contains(&label);
        let line = page.lines().find(is_it);
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// A plain request; what the module said and showed on it.
    pub(super) async fn ask(&self) -> Seen {
        self.send(get("/")).await;
        self.seen()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        worker::stop();
    }
}

pub(super) fn get(path: &str) -> Request {
    let request = http::Request::builder().uri(format!("http://a.com{path}"));
    request.body(Body::empty()).unwrap()
}

/// A body in these chunks, without a length.
pub(super) fn chunks(parts: &[&'static str]) -> Body {
    let frames: Vec<Result<_, Error>> = parts
        .iter()
        .map(|part| Ok(http_body::Frame::data(Bytes::from_static(part.as_bytes()))))
        .collect();
    Body::boxed(http_body_util::StreamBody::new(futures_util::stream::iter(
        frames,
    )))
}

pub(super) fn post(body: Body) -> Request {
    let request = http::Request::builder().method("POST").uri("http://a.com/p");
    request.body(body).unwrap()
}

/// Runs a test as a worker runs: on one thread, with local tasks, on a paused clock.
pub(super) fn run(test: impl Future<Output = ()>) {
    run_on(
        tokio::runtime::Builder::new_current_thread().start_paused(true),
        test,
    );
}

/// The same on a clock that goes.
pub(crate) fn run_in_real_time(test: impl Future<Output = ()>) {
    run_on(&mut tokio::runtime::Builder::new_current_thread(), test);
}

fn run_on(builder: &mut tokio::runtime::Builder, test: impl Future<Output = ()>) {
    let runtime = builder.enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, test);
}
