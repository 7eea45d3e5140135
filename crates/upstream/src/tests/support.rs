//! A worker's runtime, records, and servers that do exactly what a script says.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::{Options, SendTimers, Shared, Upstreams};
use bytes::Bytes;
use http::{HeaderValue, Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, LocalOptions};
use tollgate_base::{Error, clock, task};
use tollgate_body::{Body, Request, Response};
use tollgate_observe::record::{Connection, Original, Record};
use tollgate_snapshot::{Cluster, Endpoints};

/// Runs `future` as a worker would; with `paused`, time passes only when everybody waits.
pub(crate) fn worker<F: Future>(paused: bool, future: F) -> F::Output {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(paused)
        .build_local(LocalOptions::default())
        .unwrap();
    // Paused time runs to the limit at once when nobody can go on.
    let limit = Duration::from_secs(if paused { 86_400 } else { 30 });
    runtime.block_on(async move {
        let outcome = tokio::time::timeout(limit, future).await;
        outcome.expect("everybody waits for somebody else")
    })
}

pub(crate) fn upstreams() -> Upstreams {
    Upstreams::new(Shared::new(Handle::current(), &Options::default()))
}

pub(crate) fn record() -> Record {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = Connection {
        id: 1,
        peer: address,
        local: address,
        server_name: None,
        tls: false,
    };
    let original = Original {
        method: Method::GET,
        authority: "client.example".into(),
        path: "/".parse().unwrap(),
        version: Version::HTTP_11,
    };
    Record::new(
        Rc::new(connection),
        original,
        HeaderValue::from_static("id"),
        clock::now(),
    )
}

pub(crate) fn cluster(address: SocketAddr) -> Arc<Cluster> {
    Arc::new(plain(address))
}

pub(crate) fn plain(address: SocketAddr) -> Cluster {
    Cluster::new("outbound|80||test.static", Endpoints::Static(vec![(address, 1)]))
}

pub(crate) fn get(path: &str) -> Request {
    http::Request::get(format!("http://llm.example{path}"))
        .body(Body::empty())
        .unwrap()
}

pub(crate) fn post(body: &'static str) -> Request {
    http::Request::post("http://llm.example/v1/chat")
        .body(Body::bytes(body))
        .unwrap()
}

/// Sends without timers and with a record of its own.
pub(crate) async fn send(
    upstreams: &Upstreams,
    cluster: &Arc<Cluster>,
    request: Request,
) -> Result<Response, Error> {
    upstreams
        .send(cluster, request, &SendTimers::default(), &record())
        .await
}

/// The whole body as text.
pub(crate) async fn text(response: Response) -> Result<String, Error> {
    let mut body = response.into_body();
    let whole: Bytes = body.buffer("test", 1 << 20).await?;
    Ok(String::from_utf8(whole.to_vec()).unwrap())
}

/// One connection as the server sees it.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// Which connection it is, from 0.
    pub(crate) number: usize,
    seen: Vec<u8>,
}

impl Peer {
    /// The next request head and as much body as its `content-length` says; empty when the other side has closed.
    pub(crate) async fn request(&mut self) -> String {
        loop {
            if let Some(length) = self.whole_request() {
                let rest = self.seen.split_off(length);
                let request = std::mem::replace(&mut self.seen, rest);
                return String::from_utf8(request).unwrap();
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return String::new();
            }
            self.seen.extend_from_slice(&buffer[..count]);
        }
    }

    /// The next request head with whatever came after it, for bodies without a length.
    pub(crate) async fn everything(&mut self) -> String {
        let mut request = self.request().await;
        request.push_str(std::str::from_utf8(&std::mem::take(&mut self.seen)).unwrap());
        request
    }

    fn whole_request(&self) -> Option<usize> {
        let text = String::from_utf8_lossy(&self.seen);
        let head = text.find("\r\n\r\n")? + 4;
        let length = text[..head]
            .lines()
            .find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            })
            .map_or(0, |value| value.trim().parse().unwrap());
        (self.seen.len() >= head + length).then_some(head + length)
    }

    pub(crate) async fn say(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Returns once the other side has closed or reset.
    pub(crate) async fn closed(&mut self) {
        let mut buffer = [0; 4096];
        while matches!(self.stream.read(&mut buffer).await, Ok(count) if count > 0) {}
    }
}

/// A server that runs `script` for each connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Rc<Cell<usize>>,
    /// Everything that scripts noted.
    pub(crate) notes: Rc<RefCell<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start<F, W>(script: F) -> Self
    where
        F: Fn(Peer, Rc<RefCell<Vec<String>>>) -> W + 'static,
        W: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::run(listener, script)
    }

    fn run<F, W>(listener: TcpListener, script: F) -> Self
    where
        F: Fn(Peer, Rc<RefCell<Vec<String>>>) -> W + 'static,
        W: Future<Output = ()> + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(Cell::new(0));
        let notes = Rc::new(RefCell::new(Vec::new()));
        let (counted, noted) = (Rc::clone(&connections), Rc::clone(&notes));
        task::spawn_local("test server", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = counted.get();
                counted.set(number + 1);
                let peer = Peer {
                    stream,
                    number,
                    seen: Vec::new(),
                };
                task::spawn_local("test connection", script(peer, Rc::clone(&noted)));
            }
        });
        Self {
            address,
            connections,
            notes,
        }
    }

    /// Answers every request with `200` and `ok <connection>`.
    pub(crate) async fn polite() -> Self {
        Self::start(answer_politely).await
    }

    /// The same at a given address, if it is free.
    pub(crate) async fn polite_at(address: SocketAddr) -> Option<Self> {
        let listener = TcpListener::bind(address).await.ok()?;
        Some(Self::run(listener, answer_politely))
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.get()
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }
}

async fn answer_politely(mut peer: Peer, notes: Rc<RefCell<Vec<String>>>) {
    loop {
        let request = peer.request().await;
        if request.is_empty() {
            return;
        }
        notes.borrow_mut().push(request);
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok {}", peer.number);
        peer.say(&answer).await;
    }
}
