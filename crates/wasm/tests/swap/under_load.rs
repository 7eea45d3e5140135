//! Ten thousand versions of one plugin, one after the other, while requests run: none is lost, and the memory of the
//! old ones is given back. The whole way of a version: file, compiler, trial, worker, chain, and the end.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use tollgate_base::{Error, clock};
use tollgate_body::{Body, Request, Response};
use tollgate_modules::{Fetcher, Options, Wanted};
use tollgate_observe::record::{Connection, Original};
use tollgate_observe::settle::{Settlement, settle};
use tollgate_observe::{Books, Format, Metrics, Prices, Record};
use tollgate_plugin::{
    Caller, Candidate, Condition, Exchange, Host, Link, Next, Order, Origin, Phase, unknown_cluster,
};
use tollgate_wasm::{Limits, Modules, Spec, WasmPlugin, worker};

const SWAPS: u32 = 10_000;
/// Each of these swaps brings another module, not only another config.
const NEW_MODULE_EVERY: u32 = 500;
/// Requests that are under way at any time.
const CLIENTS: usize = 8;
/// After so many swaps everything that is made once has been made.
const WARM: u32 = 1_000;

/// Adds its config as the header `x-version` to requests.
fn module(number: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 4)
        (data (i32.const 16) "x-version")
        (data (i32.const 100) "module {number}")
        (func (export "proxy_abi_version_0_2_100"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 131072))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (i32.eqz (call $get (i32.const 7) (i32.const 0) (i32.const 99) (i32.const 32) (i32.const 36))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $add (i32.const 0) (i32.const 16) (i32.const 9) (i32.load (i32.const 32)) (i32.load (i32.const 36)))))"#
    );
    wat::parse_str(text).unwrap()
}

/// The chain as it was published last, and an upstream that answers with the version it was shown, after a while.
struct Proxy {
    links: RefCell<Rc<Vec<Link>>>,
    answered: Cell<u64>,
    failed: Cell<u64>,
    /// Requests that ran another version than the one in force when they began.
    stale: Cell<u64>,
    in_force: Cell<u32>,
}

struct Forward;

#[async_trait(?Send)]
impl Host for Forward {
    async fn forward(&self, _: &mut Exchange, request: Request) -> Result<Response, Error> {
        // Long enough that versions change meanwhile.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let version = request
            .headers()
            .get("x-version")
            .map(|value| value.as_bytes().to_vec());
        Ok(Response::new(Body::bytes(version.unwrap_or_default())))
    }

    fn reroute(&self, _: &mut Exchange, _: &Request) -> &[Link] {
        &[]
    }

    fn caller(&self, _: &Exchange) -> Rc<dyn Caller> {
        Rc::new(Nobody)
    }
}

struct Nobody;

#[async_trait(?Send)]
impl Caller for Nobody {
    async fn call(&self, cluster: &str, _: Request, _: Duration) -> Result<Response, Error> {
        Err(unknown_cluster(cluster))
    }

    fn knows(&self, _: &str) -> bool {
        false
    }

    async fn address(&self, cluster: &str) -> Result<SocketAddr, Error> {
        Err(unknown_cluster(cluster))
    }

    fn hosts(&self, _: &str) -> Vec<(SocketAddr, bool)> {
        Vec::new()
    }
}

fn record() -> Rc<Record> {
    let connection = Connection {
        id: 1,
        peer: "10.0.0.1:1".parse().unwrap(),
        local: "10.0.0.2:80".parse().unwrap(),
        server_name: None,
        tls: false,
    };
    let original = Original {
        method: http::Method::GET,
        authority: "a.com".into(),
        path: "/".parse().unwrap(),
        version: http::Version::HTTP_11,
    };
    let id = http::HeaderValue::from_static("id");
    Rc::new(Record::new(Rc::new(connection), original, id, clock::now()))
}

impl Proxy {
    /// One request from its head to its settlement.
    async fn serve(&self, metrics: &Metrics) {
        let links = self.links.borrow().clone();
        let wanted = self.in_force.get();
        let record = record();
        let request = http::Request::builder()
            .uri("http://a.com/")
            .body(Body::empty())
            .unwrap();
        let mut exchange = Exchange::new(record.clone(), "a.com".into(), 1 << 16);
        exchange.route = Some("route".into());
        let outcome = Next::start(&links, &Forward).run(&mut exchange, request).await;
        let body = match outcome {
            Ok(response) if response.status() == 200 => response.into_body().collect().await.ok(),
            _ => None,
        };
        match body.map(|body| body.to_bytes()) {
            Some(text) if text == wanted.to_string() => self.answered.set(self.answered.get() + 1),
            Some(_) => self.stale.set(self.stale.get() + 1),
            None => self.failed.set(self.failed.get() + 1),
        }
        let format = Format::parse("x").unwrap();
        let listener = metrics.listener("l");
        settle(
            &record,
            Settlement {
                format: &format,
                log: None,
                metrics,
                listener: &listener,
                prices: &Prices::default(),
                books: &Books::default(),
            },
        );
    }

    /// What `compile` and `control` do for a document with this config.
    fn publish(&self, modules: &Modules, path: &Path, number: u32) {
        modules.begin();
        let found = modules.find(Spec {
            name: "higress-system.swapped".to_owned(),
            root_id: String::new(),
            source: Wanted {
                url: format!("file://{}", path.display()),
                ..Wanted::default()
            },
            config: Bytes::from(number.to_string()),
            env: Vec::new(),
            fail_open: false,
        });
        assert_eq!(found.fault, None);
        let plugin = found.generation.map(|generation| {
            let plugin: Arc<dyn tollgate_plugin::Plugin> = Arc::new(WasmPlugin::new(generation));
            plugin
        });
        let link = Link {
            name: "swapped".into(),
            ordinal: 0,
            order: Order::new(Phase::default(), None),
            candidates: vec![Candidate {
                condition: Condition::Always,
                plugin,
                origin: Origin {
                    object: "t/x".into(),
                    place: "t:1".into(),
                },
            }],
        };
        *self.links.borrow_mut() = Rc::new(vec![link]);
        modules.published();
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let row = status.lines().find_map(|row| row.strip_prefix("VmRSS:")).unwrap();
    row.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn swap(proxy: &Proxy, modules: &Modules, directory: &Path, number: u32) {
    let path = directory.join("module.wasm");
    if number.is_multiple_of(NEW_MODULE_EVERY) || number == 1 {
        let fresh = directory.join("fresh");
        std::fs::write(&fresh, module(number)).unwrap();
        std::fs::rename(fresh, &path).unwrap();
    }
    proxy.publish(modules, &path, number);
    modules.settled().await;
    proxy.publish(modules, &path, number);
    proxy.in_force.set(number);
}

#[test]
fn ten_thousand_swaps_lose_no_request_and_no_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let directory = tempfile::tempdir().unwrap();
        let shared = tollgate_upstream::Shared::new(
            tokio::runtime::Handle::current(),
            &tollgate_upstream::Options::default(),
        );
        let metrics = Metrics::new();
        let fetcher = Fetcher::new(shared, Options::default());
        let modules = Modules::new(Limits::default(), Some(metrics.clone()), Some(fetcher), None);
        worker::start(&modules, Rc::new(Nobody));
        let proxy = Rc::new(Proxy {
            links: RefCell::default(),
            answered: Cell::new(0),
            failed: Cell::new(0),
            stale: Cell::new(0),
            in_force: Cell::new(0),
        });
        swap(&proxy, &modules, directory.path(), 1).await;
        let done = Rc::new(Cell::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (proxy, done, metrics) = (proxy.clone(), done.clone(), metrics.clone());
                tollgate_base::task::spawn_local("client", async move {
                    while !done.get() {
                        proxy.serve(&metrics).await;
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        let mut warm = 0;
        for number in 2..=SWAPS {
            swap(&proxy, &modules, directory.path(), number).await;
            if number == WARM {
                warm = resident_kib();
            }
        }
        done.set(true);
        for client in clients {
            client.await.unwrap();
        }
        // Whatever drains has drained: no request is open.
        tokio::time::timeout(Duration::from_secs(60), async {
            while modules.show().len() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("old versions are given back");
        let last = resident_kib();
        let (answered, failed, stale) = (proxy.answered.get(), proxy.failed.get(), proxy.stale.get());
        println!("{SWAPS} swaps, {answered} requests, {warm} KiB after {WARM} swaps, {last} KiB at the end");
        assert_eq!((failed, stale), (0, 0));
        assert!(answered > u64::from(SWAPS));
        let shown = &modules.show()[0];
        assert_eq!(
            (shown.requests_in_flight, shown.memory_bytes, shown.traps),
            (0, 4 * 65_536, 0)
        );
        assert!(
            last * 100 <= warm * 105,
            "{last} KiB after {SWAPS} swaps, {warm} after {WARM}"
        );
        worker::stop();
    });
}
