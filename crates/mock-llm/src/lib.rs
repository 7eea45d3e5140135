//! A deterministic, scriptable LLM vendor: what `tollgate demo` talks to, and the fault wall of the tests.
//!
//! It speaks the wire formats of several vendors over HTTP/1.1 and h2, answers the same question always in the
//! same way (`tokens` and `script` say how), and does wrong whatever a request orders from the menu in `faults`.
//! [`serve`] runs it on a listener; [`start`] runs it on a thread of its own for a test, which then reads from
//! the [`Handle`] what the mock received. It must never be reachable as a real vendor: it checks nothing.

mod answer;
mod anthropic;
mod body;
mod connection;
mod dashscope;
mod dialect;
mod faults;
mod gemini;
mod hash;
mod openai;
mod plain;
mod plan;
mod ports;
mod record;
mod reply;
mod responses;
mod script;
mod server;
mod services;
mod squeeze;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
pub mod tokens;
mod vendor;
mod websocket;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use faults::{FAULTS, Fault};
pub use hash::{Fnv, fnv};
pub use ports::{RefusingPort, SilentPort};
pub use record::{Connection, End, Log, Recorded};
pub use tls::{Authority, Pair, Tls, Validity};

/// How a mock behaves when a request orders nothing else.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name that `/echo` reports, to tell servers apart. Default `mock`.
    pub name: String,
    /// The time between two streamed tokens. Default zero: as fast as the client reads.
    pub pace: Duration,
    /// The least length in tokens of an answer that nothing else determines. Default 24.
    pub reply_tokens: usize,
    /// Every path answers like `/echo`. Default false.
    pub echo_only: bool,
    /// Faults of every request, in the spelling of the header `x-mock-fault`. Default none.
    pub fault: Option<String>,
    /// A request to a vendor's endpoint without a key gets the vendor's 401. A key that begins with `sk-bad`
    /// gets it always. Default false.
    pub require_key: bool,
    /// How many requests the log of [`start`] keeps; 0 keeps none. Default 10,000.
    pub record: usize,
    /// How many bytes of each body the log keeps. Default 1 MiB.
    pub record_body: usize,
    /// The largest body in bytes that a vendor's endpoint takes (413 beyond). Default 256 MiB.
    pub max_body: usize,
    /// Speak TLS (and nothing else). Default none: plain HTTP/1.1 and h2c.
    pub tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "mock".to_owned(),
            pace: Duration::ZERO,
            reply_tokens: 24,
            echo_only: false,
            fault: None,
            require_key: false,
            record: 10_000,
            record_body: 1024 * 1024,
            max_body: 256 * 1024 * 1024,
            tls: None,
        }
    }
}

/// Serves on `listener` until `shutdown` is ready; open connections are dropped then. Keeps no log.
///
/// # Errors
/// A standing fault that the menu does not have, or names that no certificate can carry.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    // Nobody could read what it would keep.
    let log = Log::new(0, 0);
    let standing = Arc::new(Mutex::new(options.fault.clone()));
    let server = Arc::new(server::Server::new(options, log, standing)?);
    server::accept(listener, server, shutdown).await
}

/// A mock that runs on a thread of its own and stops when this is dropped.
pub struct Handle {
    addr: SocketAddr,
    log: Log,
    standing: Arc<Mutex<Option<String>>>,
    authority: Option<Authority>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a mock on a free port of 127.0.0.1.
///
/// # Errors
/// No port or thread to be had; otherwise as [`serve`].
pub fn start(options: Options) -> io::Result<Handle> {
    start_on(SocketAddr::from(([127, 0, 0, 1], 0)), options)
}

/// Starts a mock on a given address.
///
/// # Errors
/// As [`start`]; also an address in use.
pub fn start_on(address: SocketAddr, options: Options) -> io::Result<Handle> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let log = Log::new(options.record, options.record_body);
    let standing = Arc::new(Mutex::new(options.fault.clone()));
    let authority = options.tls.as_ref().map(|tls| tls.authority.clone());
    let server = Arc::new(server::Server::new(options, log.clone(), Arc::clone(&standing))?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("mock-llm".to_owned())
        .spawn(move || {
            let served = runtime.block_on(async {
                let shutdown = async {
                    // A dropped sender means the same.
                    let _ = stopped.await;
                };
                server::accept(TcpListener::from_std(listener)?, server, shutdown).await
            });
            if let Err(error) = served {
                tracing::error!(%error, "the mock cannot serve");
            }
        })?;
    Ok(Handle {
        addr,
        log,
        standing,
        authority,
        stop: Some(stop),
        thread: Some(thread),
    })
}

impl Handle {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The certificate to trust, as PEM; `None` without TLS.
    #[must_use]
    pub fn authority_pem(&self) -> Option<String> {
        self.authority.as_ref().map(Authority::pem)
    }

    /// What it received.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What it received until now, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.log.requests()
    }

    /// Changes the faults of every request from now on; `None` makes it healthy.
    ///
    /// # Errors
    /// A fault that the menu does not have; the old ones stay.
    pub fn set_fault(&self, fault: Option<&str>) -> io::Result<()> {
        faults::check(fault)?;
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = fault.map(str::to_owned);
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the mock's thread panicked");
        }
    }
}
