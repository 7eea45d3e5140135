//! `Record`: everything one request leaves behind, for access log, metrics and ledger.
//!
//! Shared (`Rc`) between the request's code and its response body, so fields are cells; single-threaded, never locked.
//! It is read once, by `account`, when the exchange is over.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, Method, Version};
use smallvec::SmallVec;
use tollgate_base::clock::Instant;
use tollgate_base::flag::Flags;
use tollgate_base::{Flag, Termination, headers};

use crate::access_log::covered;
use crate::ai_log::{self, AiLog, AttributeName};
use crate::conversation::Turn;
use crate::settle::{Ending, Hooks};
use crate::trace;
use crate::usage::Usage;
use crate::vocabulary::Vocabularies;

/// A name and value that a plugin leaves for log, span or metric (`wasm.ai_log`, …).
pub type Attribute = (Cow<'static, str>, String);

/// What is known of the client's connection; one per connection, shared by its requests.
#[derive(Debug)]
pub struct Connection {
    /// Process-wide number (`%CONNECTION_ID%`).
    pub id: u64,
    /// The TCP peer.
    pub peer: SocketAddr,
    /// Our own end.
    pub local: SocketAddr,
    /// Server name of the TLS handshake.
    pub server_name: Option<Arc<str>>,
    /// Whether the client speaks TLS to us.
    pub tls: bool,
}

/// The request as the client sent it, before anything changed it.
#[derive(Debug, Clone)]
pub struct Original {
    /// Method.
    pub method: Method,
    /// Authority, port included.
    pub authority: Arc<str>,
    /// Path and query.
    pub path: http::uri::PathAndQuery,
    /// Protocol version on the client's side.
    pub version: Version,
}

/// Durations, each measured from the arrival of the request head.
#[derive(Debug, Default)]
pub struct Timings {
    /// Last byte of the request sent upstream.
    pub request_sent: Cell<Option<Instant>>,
    /// Upstream request began (the last attempt).
    pub upstream_started: Cell<Option<Instant>>,
    /// Response head received from upstream.
    pub response_head: Cell<Option<Instant>>,
    /// First body byte or event of the answer.
    pub first_event: Cell<Option<Instant>>,
}

/// Everything one request leaves behind.
#[derive(Debug)]
pub struct Record {
    /// The client's connection.
    pub connection: std::rc::Rc<Connection>,
    /// The request as it came.
    pub original: Original,
    /// `x-request-id`, generated or the client's.
    pub request_id: HeaderValue,
    /// Wall time of arrival.
    pub start_time: SystemTime,
    /// Monotonic time of arrival.
    pub started: Instant,
    /// Durations.
    pub timings: Timings,
    /// Chosen route's name; `None` prints `-`.
    pub route: RefCell<Option<Arc<str>>>,
    /// Chosen cluster's name (`outbound|443||qwen.dns`).
    pub cluster: RefCell<Option<Arc<str>>>,
    /// Address of the upstream connection used last.
    pub upstream_peer: Cell<Option<SocketAddr>>,
    /// Our end of it.
    pub upstream_local: Cell<Option<SocketAddr>>,
    /// Why connecting or TLS to the upstream failed.
    pub upstream_failure: RefCell<Option<String>>,
    /// Upstream attempts made.
    pub attempts: Cell<u32>,
    /// Consumer recognised by an authentication plugin.
    pub consumer: RefCell<Option<Arc<str>>>,
    /// Names of headers and query parameters whose values are credentials: no log line shows them.
    pub(crate) hidden: RefCell<SmallVec<[Arc<str>; 1]>>,
    /// Status sent to the client; 0 while none was.
    pub status: Cell<u16>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: RefCell<Cow<'static, str>>,
    /// `%RESPONSE_FLAGS%`.
    pub flags: Cell<Flags>,
    /// How it ended; set once, the first wins.
    pub termination: Cell<Option<Termination>>,
    /// Body bytes from the client.
    pub bytes_received: Cell<u64>,
    /// Body bytes to the client.
    pub bytes_sent: Cell<u64>,
    /// Values of the request headers that the log format names, in the format's order.
    pub request_headers: RefCell<SmallVec<[Option<HeaderValue>; 8]>>,
    /// Values of the response headers that the log format names, in the format's order.
    pub response_headers: RefCell<SmallVec<[Option<HeaderValue>; 4]>>,
    /// Values of the response trailers that the log format names, in the format's order.
    pub response_trailers: RefCell<SmallVec<[Option<HeaderValue>; 1]>>,
    /// `%FILTER_STATE(wasm.x:PLAIN)%` values, under their full key.
    pub filter_state: RefCell<SmallVec<[Attribute; 2]>>,
    /// `%DYNAMIC_METADATA(namespace:key)%` values, under `namespace:key`.
    pub metadata: RefCell<Vec<Attribute>>,
    /// What the model cost.
    pub usage: RefCell<Usage>,
    /// What counts tokens where the vendor does not; empty where nobody asked for it.
    pub vocabularies: OnceCell<Arc<Vocabularies>>,
    /// Vendor that the request went to (`ai-proxy`'s `type`), for the ledger.
    pub vendor: Cell<Option<&'static str>>,
    /// What the request tells of its conversation.
    pub turn: RefCell<Turn>,
    /// No ledger enters the request: nobody asks for its place in a conversation.
    pub unplaced: Cell<bool>,
    /// Arm of the experiment that the request takes part in: the variant of its route that it was given.
    pub arm: RefCell<Option<Arc<str>>>,
    /// Attributes of the `ai_log` object.
    pub ai_log: RefCell<AiLog>,
    /// Nobody will see the span: tags for it are not kept.
    pub untagged: Cell<bool>,
    /// Tags for the exchange's span, later ones of the same name win.
    pub span_tags: RefCell<Vec<Attribute>>,
    /// The trace under way; empty while tracing is off.
    pub trace: trace::Slot,
    /// What runs when the exchange is settled.
    pub(crate) hooks: Hooks,
    /// Whether log line and metrics of this exchange are out; `settle` sets it.
    pub settled: Cell<bool>,
}

impl Record {
    /// A fresh one for a request that just arrived.
    #[must_use]
    pub fn new(
        connection: std::rc::Rc<Connection>,
        original: Original,
        request_id: HeaderValue,
        started: Instant,
    ) -> Self {
        Self {
            connection,
            original,
            request_id,
            start_time: tollgate_base::clock::wall(),
            started,
            timings: Timings::default(),
            route: RefCell::default(),
            cluster: RefCell::default(),
            upstream_peer: Cell::default(),
            upstream_local: Cell::default(),
            upstream_failure: RefCell::default(),
            attempts: Cell::default(),
            consumer: RefCell::default(),
            hidden: RefCell::default(),
            status: Cell::default(),
            details: RefCell::new(Cow::Borrowed("")),
            flags: Cell::default(),
            termination: Cell::default(),
            bytes_received: Cell::default(),
            bytes_sent: Cell::default(),
            request_headers: RefCell::default(),
            response_headers: RefCell::default(),
            response_trailers: RefCell::default(),
            filter_state: RefCell::default(),
            metadata: RefCell::default(),
            usage: RefCell::default(),
            vocabularies: OnceCell::new(),
            vendor: Cell::default(),
            turn: RefCell::default(),
            arm: RefCell::default(),
            ai_log: RefCell::default(),
            unplaced: Cell::default(),
            untagged: Cell::default(),
            span_tags: RefCell::default(),
            trace: trace::Slot::default(),
            hooks: Hooks::default(),
            settled: Cell::default(),
        }
    }

    /// Adds a response flag.
    pub fn flag(&self, flag: Flag) {
        let mut flags = self.flags.get();
        flags.insert(flag);
        self.flags.set(flags);
    }

    /// Gives the kept header values memory of their own. As they come they share the connection's read buffer, which a
    /// long answer would keep alive for their sake.
    pub fn settle_down(&self) {
        let mut request = self.request_headers.borrow_mut();
        let mut response = self.response_headers.borrow_mut();
        for value in request.iter_mut().chain(response.iter_mut()).flatten() {
            if let Ok(mut own) = HeaderValue::from_bytes(value.as_bytes()) {
                own.set_sensitive(value.is_sensitive());
                *value = own;
            }
        }
    }

    /// Says how the exchange ended; the first word counts.
    pub fn terminate(&self, termination: Termination) {
        if self.termination.get().is_none() {
            self.termination.set(Some(termination));
        }
    }

    /// Leaves a filter-state value, replacing an earlier one of the same key.
    ///
    /// Whoever sets one that stands between quotes in a JSON-shaped log line escapes it for a JSON string; a value that
    /// is no valid inside of a JSON string is escaped when the line is written.
    pub fn set_filter_state(&self, key: impl Into<Cow<'static, str>>, value: String) {
        let name = key.into();
        let mut state = self.filter_state.borrow_mut();
        match state.iter_mut().find(|entry| entry.0 == name) {
            Some(entry) => entry.1 = value,
            None => state.push((name, value)),
        }
    }

    /// Leaves an attribute in the `ai_log`, replacing an earlier one of the same name.
    pub fn set_ai_log(&self, key: impl Into<AttributeName>, value: impl Into<serde_json::Value>) {
        self.ai_log.borrow_mut().insert(key, value.into());
    }

    /// The same for a text.
    pub fn set_ai_log_text(&self, key: impl Into<AttributeName>, text: impl Into<Cow<'static, str>>) {
        self.ai_log.borrow_mut().insert_text(key, text.into());
    }

    /// The same for a text that lies in a body.
    pub fn set_ai_log_part(&self, key: impl Into<AttributeName>, text: Bytes) {
        self.ai_log.borrow_mut().insert_part(key, text);
    }

    /// The same for a count.
    pub fn set_ai_log_count(&self, key: impl Into<AttributeName>, count: u64) {
        self.ai_log.borrow_mut().insert_count(key, count);
    }

    /// The same for an object of counts.
    pub fn set_ai_log_counts(&self, key: impl Into<AttributeName>, counts: Vec<(Cow<'static, str>, i64)>) {
        self.ai_log.borrow_mut().insert_counts(key, counts);
    }

    /// Leaves a tag for the span, replacing an earlier one of the same name.
    pub fn set_span_tag(&self, key: impl Into<Cow<'static, str>>, value: impl ToString) {
        if self.untagged.get() {
            return;
        }
        let (name, value) = (key.into(), value.to_string());
        let mut tags = self.span_tags.borrow_mut();
        match tags.iter_mut().find(|tag| tag.0 == name) {
            Some(tag) => tag.1 = value,
            None => tags.push((name, value)),
        }
    }

    /// Keeps the value of the header and of the query parameter with this name out of log lines: `***` stands for it.
    pub fn hide(&self, name: &Arc<str>) {
        let mut hidden = self.hidden.borrow_mut();
        if !hidden.contains(name) {
            hidden.push(name.clone());
        }
    }

    /// Whether the value of this header is a credential: no log line, span or ledger shows it.
    #[must_use]
    pub fn hides(&self, name: &str, value: &HeaderValue) -> bool {
        let is_named = |hidden: &Arc<str>| hidden.eq_ignore_ascii_case(name);
        headers::is_credential(name) || value.is_sensitive() || self.hidden.borrow().iter().any(is_named)
    }

    /// Path and query as the client sent them; `***` stands for what is kept out of log lines.
    #[must_use]
    pub fn path_to_show(&self) -> String {
        let path = self.original.path.as_str().as_bytes();
        String::from_utf8_lossy(&covered(path, &self.hidden.borrow())).into_owned()
    }

    /// Has `hook` run once when the exchange is settled, however it ends: before its line is written, after its body
    /// is gone. Hooks run in the order in which they were registered. One must not keep the record itself alive.
    pub fn on_settle(&self, hook: impl FnOnce(&Record, &Ending<'_>) + 'static) {
        self.hooks.add(Box::new(hook));
    }

    /// The same behind all of those, and the last registered first: for whoever charges what the others note, whether or
    /// not the rest of the chain comes to an end. Those further in, who note usage too, are done by then.
    pub fn on_settle_last(&self, hook: impl FnOnce(&Record, &Ending<'_>) + 'static) {
        self.hooks.add_last(Box::new(hook));
    }

    /// The `ai_log` so far, as its filter state will show it; `None`: nothing is in it.
    #[must_use]
    pub fn ai_log_text(&self) -> Option<String> {
        let log = self.ai_log.borrow();
        (!log.is_empty()).then(|| log.to_text())
    }

    /// Takes over a whole `ai_log` as its filter state shows it; false when it is not one.
    pub fn replace_ai_log(&self, text: &str) -> bool {
        let read = ai_log::read(text);
        let is_log = read.is_some();
        if let Some(log) = read {
            self.ai_log.replace(log);
        }
        is_log
    }

    /// Leaves a metadata value under `namespace:key`, replacing an earlier one.
    pub fn set_metadata(&self, key: impl Into<Cow<'static, str>>, value: String) {
        let name = key.into();
        let mut metadata = self.metadata.borrow_mut();
        match metadata.iter_mut().find(|entry| entry.0 == name) {
            Some(entry) => entry.1 = value,
            None => metadata.push((name, value)),
        }
    }
}
