//! What the mock received, kept for the assertions of tests.
//!
//! A `Guard` is opened when a request's head has arrived and travels with its answer; dropping it settles how
//! the exchange ended. Nothing here looks at contents, and nothing is kept when `Options::record` is 0.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version};
use tokio::sync::watch;

/// How one exchange ended, seen from the vendor's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The answer is still being made or sent.
    Open,
    /// The whole answer was handed to the connection.
    Completed,
    /// The script cut the exchange short (a fault of the menu).
    Scripted,
    /// The client left before the whole answer was sent.
    ClientGone,
}

/// The connection that a request came on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Counts the accepted connections of this server from 1; equal numbers mean a reused connection.
    pub number: u64,
    /// The peer's address as `ip:port`.
    pub peer: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The server name that the client asked for, if it sent one.
    pub server_name: Option<String>,
    /// The protocol that ALPN settled on, `h2` or `http/1.1`, if any.
    pub alpn: Option<String>,
    /// Whether the client presented a certificate.
    pub client_certificate: bool,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Counts the requests of this server from 1.
    pub number: u64,
    /// The connection it came on.
    pub connection: Arc<Connection>,
    /// The method.
    pub method: Method,
    /// The request target as sent; over h2 with scheme and authority.
    pub uri: Uri,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: Version,
    /// The header fields, repeated ones in order.
    pub headers: HeaderMap,
    /// The body's first bytes, up to `Options::record_body`.
    pub body: Bytes,
    /// The length of the whole body in bytes, as far as it was read.
    pub body_length: u64,
    /// The status of the answer; `None` when the exchange ended before one was sent.
    pub status: Option<u16>,
    /// How many events (or body frames) of the answer were handed to the connection.
    pub events: u64,
    /// How the exchange ended.
    pub end: End,
}

impl Recorded {
    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The first value of a header as text; `None` when absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The host that the request names: `:authority` over h2, else the `host` header.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| self.header("host"))
    }

    /// The kept body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

#[derive(Default)]
struct Kept {
    requests: VecDeque<Recorded>,
    received: u64,
}

/// The requests that a server received; clones share them.
#[derive(Clone)]
pub struct Log {
    kept: Arc<Mutex<Kept>>,
    changed: Arc<watch::Sender<u64>>,
    limit: usize,
    body_limit: usize,
}

impl Log {
    pub(crate) fn new(limit: usize, body_limit: usize) -> Self {
        Self {
            kept: Arc::default(),
            changed: Arc::new(watch::Sender::new(0)),
            limit,
            body_limit,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kept requests, oldest first, in the state of this moment.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.kept().requests.iter().cloned().collect()
    }

    /// How many requests have arrived, also those no longer kept.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.kept().received
    }

    /// Forgets what is kept; numbers go on.
    pub fn clear(&self) {
        self.kept().requests.clear();
    }

    /// Waits until `holds` is true of the kept requests, and returns them.
    ///
    /// # Errors
    /// After `limit` the requests as they are then, so that a test can print them.
    pub async fn wait_until(
        &self,
        limit: Duration,
        holds: impl Fn(&[Recorded]) -> bool,
    ) -> Result<Vec<Recorded>, Vec<Recorded>> {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                let requests = self.requests();
                if holds(&requests) {
                    return requests;
                }
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        tokio::time::timeout(limit, waiting)
            .await
            .map_err(|_| self.requests())
    }

    fn change(&self, number: u64, edit: impl FnOnce(&mut Recorded)) {
        if self.limit == 0 {
            return;
        }
        let mut kept = self.kept();
        // Numbers are contiguous, so the place follows from the oldest one; a forgotten request has none.
        let oldest = kept.requests.front().map_or(u64::MAX, |request| request.number);
        let place = number
            .checked_sub(oldest)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(request) = place.and_then(|place| kept.requests.get_mut(place)) {
            edit(request);
        }
        drop(kept);
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn open<B>(&self, connection: &Arc<Connection>, request: &http::Request<B>) -> Guard {
        let mut kept = self.kept();
        kept.received += 1;
        let number = kept.received;
        if self.limit > 0 {
            if kept.requests.len() == self.limit {
                kept.requests.pop_front();
            }
            kept.requests.push_back(Recorded {
                number,
                connection: Arc::clone(connection),
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                headers: request.headers().clone(),
                body: Bytes::new(),
                body_length: 0,
                status: None,
                events: 0,
                end: End::Open,
            });
        }
        drop(kept);
        self.changed.send_modify(|version| *version += 1);
        Guard {
            log: self.clone(),
            number,
            end: End::ClientGone,
            events: 0,
        }
    }
}

/// One exchange in progress; what it holds when dropped is how the exchange ended.
pub(crate) struct Guard {
    log: Log,
    number: u64,
    end: End,
    events: u64,
}

impl Guard {
    pub(crate) fn body(&self, body: &Bytes) {
        let kept = body.slice(..body.len().min(self.log.body_limit));
        self.log.change(self.number, |request| {
            request.body_length = body.len() as u64;
            request.body = kept;
        });
    }

    pub(crate) fn body_beginning(&self, beginning: &[u8], length: u64) {
        let kept = Bytes::copy_from_slice(&beginning[..beginning.len().min(self.log.body_limit)]);
        self.log.change(self.number, |request| {
            request.body_length = length;
            request.body = kept;
        });
    }

    pub(crate) fn body_length(&self, length: u64) {
        self.log
            .change(self.number, |request| request.body_length = length);
    }

    pub(crate) fn status(&self, status: u16) {
        self.log
            .change(self.number, |request| request.status = Some(status));
    }

    pub(crate) fn event(&mut self) {
        self.events += 1;
        let events = self.events;
        self.log.change(self.number, |request| request.events = events);
    }

    /// Settles the end at once, so that a client that has seen it finds it in the log.
    pub(crate) fn ends(&mut self, end: End) {
        self.end = end;
        self.log.change(self.number, |request| request.end = end);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (end, events) = (self.end, self.events);
        self.log.change(self.number, |request| {
            request.end = end;
            request.events = events;
        });
    }
}
