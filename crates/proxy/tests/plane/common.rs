//! A data plane on a hand-made snapshot, and an upstream that answers with fixed bytes.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use tollgate_base::shutdown::{self, Phase, Trigger};
use tollgate_plugin::Origin;
use tollgate_proxy::{Observers, Options, Running};
use tollgate_snapshot::route::{Action, Destination, Matcher, PathMatch, Route};
use tollgate_snapshot::{Cluster, Endpoints, Hosts, Live, Policy, Snapshot, VirtualHost};

pub(crate) struct Plane {
    pub(crate) http: SocketAddr,
    pub(crate) running: Running,
    pub(crate) trigger: Trigger,
    observers: Observers,
    pub(crate) log: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

pub(crate) fn snapshot(upstream: SocketAddr, policy: Policy) -> Snapshot {
    let cluster = Arc::new(Cluster::new(
        "outbound|80||mock.static",
        Endpoints::Static(vec![(upstream, 1)]),
    ));
    let route = Route {
        name: "mock".into(),
        origin: Origin {
            object: "t/mock".into(),
            place: "test:1".into(),
        },
        matcher: Matcher {
            path: PathMatch::Prefix("/v1".into()),
            ignore_case: false,
            methods: Vec::new(),
            headers: Vec::new(),
            queries: Vec::new(),
        },
        policy,
        action: Action::Forward(vec![Destination::new(100, Ok(cluster.clone()))]),
        links: Vec::new(),
    };
    let any = VirtualHost {
        name: "*".into(),
        routes: vec![Arc::new(route)],
    };
    Snapshot {
        hosts: Hosts {
            any: Some(any),
            ..Hosts::default()
        },
        clusters: [(cluster.name.clone(), cluster)].into(),
        ..Snapshot::default()
    }
}

pub(crate) fn start(snapshot: Snapshot) -> Plane {
    start_with(snapshot, tollgate_observe::Books::default())
}

/// The same with these books.
pub(crate) fn start_with(snapshot: Snapshot, books: tollgate_observe::Books) -> Plane {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let (trigger, shutdown) = shutdown::channel();
    let observers = Observers::start(log.to_str().unwrap(), |_| books).unwrap();
    let upstream = tollgate_upstream::Shared::new(
        tokio::runtime::Handle::current(),
        &tollgate_upstream::Options::default(),
    );
    let running = tollgate_proxy::start(Options {
        http: Some("127.0.0.1:0".parse().unwrap()),
        https: None,
        workers: 1,
        max_connections: 100,
        live: Live::new(snapshot),
        exports: tollgate_upstream::Exports::new(upstream.clone()),
        upstream,
        modules: tollgate_wasm::Modules::default(),
        observers: observers.clone(),
        shutdown,
    })
    .unwrap();
    let http = running.http().unwrap();
    Plane {
        http,
        running,
        trigger,
        observers,
        log,
        _directory: directory,
    }
}

impl Plane {
    /// Requests under way on the plain listener.
    pub(crate) fn active_requests(&self) -> i64 {
        let listener = self.observers.metrics().listener("outbound_0.0.0.0_80");
        listener.requests_active.get()
    }

    /// The exposition.
    pub(crate) fn metrics(&self) -> String {
        self.observers.render()
    }

    /// Drains the data plane and gives the access log.
    pub(crate) async fn stop(self) -> String {
        self.end_at(Phase::Draining).await
    }

    /// Brings the data plane to an end and gives the access log.
    pub(crate) async fn end_at(self, phase: Phase) -> String {
        self.trigger.advance(phase);
        let running = self.running;
        tokio::task::spawn_blocking(move || running.join()).await.unwrap();
        self.observers.close(std::time::Duration::from_secs(20));
        std::fs::read_to_string(self.log).unwrap_or_default()
    }
}

/// An upstream that answers each connection's first bytes with these and closes.
pub(crate) fn fixed(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bytes = answer.into();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            // Whatever the client does, the next one is served.
            drop(stream.read(&mut head));
            drop(stream.write_all(&bytes));
        }
    });
    address
}
