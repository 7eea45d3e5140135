//! Starting and stopping the data plane: sockets first, then one thread per worker.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tollgate_base::shutdown::Phase;
use tollgate_base::{Shutdown, clock, task};
use tollgate_snapshot::Live;
use tollgate_upstream::{Exports, Shared, Upstreams};
use tollgate_wasm::Modules;

use crate::callout::WorkerCallouts;
use crate::gate::RateBuckets;
use crate::listener::{self, Listener};
use crate::mirror::Mirrors;
use crate::observer::Observers;
use crate::pulse::Clients;
use crate::tls::ServerSide;
use crate::tracers::{Tracers, WorkerTracer};
use crate::turn::Turns;
use crate::worker::Worker;

/// How often idle and slow connections are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// How often a draining worker looks whether it is the last.
const DRAIN_CHECK: Duration = Duration::from_millis(20);
/// How long open streams get for their last words once the drain is over.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What the data plane is started with.
pub struct Options {
    /// Plain HTTP; `None` is off. Port 0 picks one.
    pub http: Option<SocketAddr>,
    /// HTTPS; `None` is off. Opened when the first certificate is configured.
    pub https: Option<SocketAddr>,
    /// Threads, at least 1.
    pub workers: usize,
    /// Client connections per worker; further ones are closed at once.
    pub max_connections: u32,
    /// The configuration in force.
    pub live: Live,
    /// Shared parts of the upstream side.
    pub upstream: Shared,
    /// Modules whose instances the workers run.
    pub modules: Modules,
    /// Access log and metrics.
    pub observers: Observers,
    /// Where what is exported leaves.
    pub exports: Exports,
    /// The gateway's end.
    pub shutdown: Shutdown,
}

/// Why the data plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// A thread or runtime cannot be made.
    #[error("cannot start a worker: {0}")]
    Worker(io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(rustls::Error),
}

/// The running data plane.
pub struct Running {
    http: Option<SocketAddr>,
    https_wanted: Option<SocketAddr>,
    https: Mutex<Option<SocketAddr>>,
    live: Live,
    observers: Observers,
    rates: Arc<RateBuckets>,
    mailboxes: Vec<mpsc::UnboundedSender<Message>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

enum Message {
    Listen(Listener),
    Published,
}

/// Binds, then starts the workers.
///
/// # Errors
/// When an address cannot be bound or a thread cannot be made.
pub fn start(options: Options) -> Result<Running, StartError> {
    let count = options.workers.max(1);
    let sockets = match options.http {
        Some(address) => listener::bind(address, count).map_err(|cause| StartError::Bind(address, cause))?,
        None => Vec::new(),
    };
    let http = sockets.first().and_then(|socket| socket.local_addr().ok());
    let rates = Arc::new(RateBuckets::new());
    let metrics = options.observers.metrics().clone();
    let tracers = Arc::new(Tracers::new(options.exports, metrics));
    let mut running = Running {
        http,
        https_wanted: options.https,
        https: Mutex::default(),
        live: options.live.clone(),
        observers: options.observers.clone(),
        rates: rates.clone(),
        mailboxes: Vec::new(),
        threads: Mutex::default(),
    };
    for index in 0..count {
        let (mailbox, messages) = mpsc::unbounded_channel();
        running.mailboxes.push(mailbox);
        let seed = Seed {
            live: options.live.clone(),
            upstream: options.upstream.clone(),
            modules: options.modules.clone(),
            observers: options.observers.clone(),
            rates: rates.clone(),
            tracers: tracers.clone(),
            shutdown: options.shutdown.clone(),
            max_connections: options.max_connections,
        };
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || run_worker(seed, messages))
            .map_err(StartError::Worker)?;
        running
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
    }
    running.listen(sockets, None);
    running.open_https()?;
    Ok(running)
}

impl Running {
    /// Address of the plain listener.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Address of the HTTPS listener, once it is open.
    #[must_use]
    pub fn https(&self) -> Option<SocketAddr> {
        *self.https.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new configuration is in force: opens HTTPS if it has become possible, and lets pools, metrics and buckets of
    /// what has vanished go.
    ///
    /// # Errors
    /// When the HTTPS address cannot be bound.
    pub fn published(&self) -> Result<(), StartError> {
        for mailbox in &self.mailboxes {
            // A worker that is gone needs no news.
            drop(mailbox.send(Message::Published));
        }
        let snapshot = self.live.load();
        self.observers
            .metrics()
            .retain_clusters(|name| snapshot.clusters.contains_key(name));
        self.rates.retain(&snapshot);
        self.open_https()
    }

    /// Waits until every worker has ended.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }

    fn open_https(&self) -> Result<(), StartError> {
        let Some(address) = self.https_wanted else {
            return Ok(());
        };
        let mut open = self.https.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_some() || self.live.load().certificates.is_empty() {
            return Ok(());
        }
        let sockets = listener::bind(address, self.mailboxes.len())
            .map_err(|cause| StartError::Bind(address, cause))?;
        let side = ServerSide::new(&self.live).map_err(StartError::Tls)?;
        *open = sockets.first().and_then(|socket| socket.local_addr().ok());
        self.listen(sockets, Some(&side));
        Ok(())
    }

    fn listen(&self, sockets: Vec<std::net::TcpListener>, tls: Option<&ServerSide>) {
        for (mailbox, socket) in self.mailboxes.iter().zip(sockets) {
            drop(mailbox.send(Message::Listen(Listener {
                socket,
                tls: tls.cloned(),
            })));
        }
    }
}

/// What a worker is made of, on its way to its thread.
struct Seed {
    live: Live,
    upstream: Shared,
    modules: Modules,
    observers: Observers,
    rates: Arc<RateBuckets>,
    tracers: Arc<Tracers>,
    shutdown: Shutdown,
    max_connections: u32,
}

fn run_worker(seed: Seed, messages: mpsc::UnboundedReceiver<Message>) {
    let runtime = match Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(cause) => {
            tracing::error!(error = %cause, "a worker cannot make its runtime");
            return;
        }
    };
    runtime.block_on(async move {
        let worker = Rc::new(Worker {
            live: seed.live,
            upstreams: Upstreams::new(seed.upstream),
            observer: seed.observers.worker(),
            tracer: WorkerTracer::new(seed.tracers),
            rates: seed.rates,
            shutdown: seed.shutdown,
            max_connections: seed.max_connections,
            connections: Cell::new(0),
            clients: Clients::default(),
            mirrors: Mirrors::default(),
            turns: Turns::begin(),
            ending: Rc::default(),
        });
        let callouts = WorkerCallouts {
            upstreams: worker.upstreams.clone(),
            live: worker.live.clone(),
        };
        tollgate_wasm::worker::start(&seed.modules, Rc::new(callouts));
        work(&worker, messages).await;
        tollgate_wasm::worker::stop();
    });
    // Dropping the runtime ends what is still open; each exchange settles as it is dropped.
}

/// Runs until the drain is over, early when nothing is open any more.
async fn work(worker: &Rc<Worker>, mut messages: mpsc::UnboundedReceiver<Message>) {
    let mut shutdown = worker.shutdown.clone();
    let mut sweep = tokio::time::interval(SWEEP);
    let mut draining = false;
    loop {
        tokio::select! {
            Some(message) = messages.recv() => receive(worker, message),
            _ = sweep.tick() => worker.clients.sweep(&worker.live.load().settings),
            // First the drain, then, once it has begun, its end.
            () = shutdown.reached(if draining { Phase::Stopped } else { Phase::Draining }) => {
                if draining {
                    return say_last_words(worker).await;
                }
                draining = true;
                sweep = tokio::time::interval(DRAIN_CHECK);
                worker.clients.drain();
            }
        }
        if draining && worker.connections.get() == 0 {
            return;
        }
    }
}

/// Streams that are still open say why they end; everything else ends with the worker.
async fn say_last_words(worker: &Rc<Worker>) {
    worker.ending.announce();
    let deadline = clock::now() + LAST_WORDS;
    while worker.connections.get() > 0 && clock::now() < deadline {
        tokio::time::sleep(DRAIN_CHECK).await;
    }
}

fn receive(worker: &Rc<Worker>, message: Message) {
    match message {
        Message::Listen(listener) => {
            let owner = worker.clone();
            drop(task::spawn_local("accept", async move {
                if let Err(cause) = listener::accept(owner, listener).await {
                    tracing::error!(error = %cause, "a listener failed");
                }
            }));
        }
        Message::Published => {
            let snapshot = worker.live.load();
            worker.upstreams.retain(snapshot.clusters.values());
            worker.tracer.keep(snapshot.settings.tracing.as_ref());
        }
    }
}
