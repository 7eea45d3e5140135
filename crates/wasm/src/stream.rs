//! One request as its module sees it: two sides, each with a head, a body buffer and trailers, and whether it is held.
//!
//! Lives in the instance's store, where host calls find it; the request's code moves heads and chunks in and out.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tollgate_observe::Record;
use tollgate_plugin::Caller;

use crate::head::Head;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request = 0,
    Response = 1,
}

/// An answer that a module made itself.
#[derive(Debug)]
pub(crate) struct LocalReply {
    pub(crate) status: u16,
    pub(crate) details: String,
    pub(crate) body: Bytes,
    pub(crate) headers: Vec<crate::pairs::Pair>,
    pub(crate) grpc_status: Option<u32>,
}

/// One direction of a request.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// The head while it is here: during its callback and while it is held.
    pub(crate) head: Option<Head>,
    /// What it was when it went on; read-only.
    pub(crate) gone: Option<Head>,
    /// Whether the module changed the head since it was looked at last.
    pub(crate) head_changed: bool,
    /// What the module can read of the body: what it held back, and the chunk being delivered.
    pub(crate) body: BytesMut,
    /// Whether the body is this module's at the moment.
    pub(crate) body_open: bool,
    pub(crate) body_changed: bool,
    pub(crate) trailers: Option<HeaderMap>,
    /// Whether trailers may be read and written now.
    pub(crate) trailers_open: bool,
    /// `continue_stream` came since the last look.
    pub(crate) resumed: bool,
    /// Bytes for behind this module.
    pub(crate) injected: VecDeque<Bytes>,
    /// Whether nothing comes after them.
    pub(crate) injected_end: bool,
    /// Most bytes that may be held back.
    pub(crate) limit: usize,
    /// Who waits for any of this.
    pub(crate) waker: Option<Waker>,
}

impl Side {
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Puts a chunk behind what is held back; without a copy when nothing is.
    pub(crate) fn append(&mut self, chunk: Bytes) {
        if self.body.is_empty() {
            self.body = chunk
                .try_into_mut()
                .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        } else {
            self.body.extend_from_slice(&chunk);
        }
    }

    /// The head on its way on; a copy stays to be read.
    pub(crate) fn release_head(&mut self) -> Option<Head> {
        let head = self.head.take();
        self.gone.clone_from(&head);
        head
    }
}

/// One request.
pub(crate) struct Stream {
    /// Gone once the request is settled.
    pub(crate) record: Weak<Record>,
    /// Name of its route, as far as it is known.
    pub(crate) route: Option<Arc<str>>,
    /// Name of its cluster.
    pub(crate) cluster: Option<Arc<str>>,
    /// Calls to other services on the request's own generation.
    pub(crate) caller: Rc<dyn Caller>,
    pub(crate) sides: [Side; 2],
    pub(crate) reply: Option<LocalReply>,
    /// Whether a local reply was ever made: a second one is refused.
    pub(crate) replied: bool,
    /// Who waits for the reply, or for the stream's end.
    pub(crate) waker: Option<Waker>,
    /// `close_stream` was called.
    pub(crate) closed: bool,
    /// The module asked that its header changes do not choose the route again.
    pub(crate) keep_route: bool,
    /// The upstream host that the module picked.
    pub(crate) override_host: Option<std::net::SocketAddr>,
    /// The exchange is over: heads can only be read.
    pub(crate) logging: bool,
}

impl Stream {
    pub(crate) fn new(record: &Rc<Record>, caller: Rc<dyn Caller>, limit: usize) -> Self {
        let side = || Side {
            limit,
            ..Side::default()
        };
        Self {
            record: Rc::downgrade(record),
            route: None,
            cluster: None,
            caller,
            sides: [side(), side()],
            reply: None,
            replied: false,
            waker: None,
            closed: false,
            keep_route: false,
            override_host: None,
            logging: false,
        }
    }

    pub(crate) fn side(&mut self, direction: Direction) -> &mut Side {
        let [request, response] = &mut self.sides;
        match direction {
            Direction::Request => request,
            Direction::Response => response,
        }
    }

    pub(crate) fn wake(&mut self) {
        for side in &mut self.sides {
            side.wake();
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
