//! The connection itself, shared between the task that serves it and the body of the request under way: one request
//! at a time, and no buffer but for what came ahead of its turn.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tollgate_base::Error;
use tollgate_body::http1::{Decoded, Framing, Output, poll_read};

use super::head::{self, Head, Refusal};
use crate::pulse::{Order, Pulse};
use crate::stream::Stream;

/// What a client that waits with its body is told.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Reads that throw away what nobody wants of a body, at 32 KB each; then the connection is worth less.
const MOST_DRAINS: u32 = 32;

/// A client's connection.
pub(crate) struct Wire {
    stream: RefCell<Stream>,
    pulse: Rc<Pulse>,
    inbound: RefCell<Inbound>,
    /// The client is gone, or nothing it sends counts any more.
    is_over: Cell<bool>,
}

/// What comes from the client, cut into requests.
pub(super) struct Inbound {
    /// What came behind the request under way, or of a head whose end has not come.
    rest: Vec<u8>,
    /// `rest` was looked through without finding a whole head.
    is_looked_through: bool,
    body: BodyState,
    framing: Framing,
    /// What is left of [`CONTINUE`]; nobody reads the body before it is out.
    interim: &'static [u8],
    /// How often what nobody wants of the body may still be read.
    drains: u32,
    /// The last read found nothing: before the socket has something, there is nothing inside TLS either.
    is_dry: bool,
    /// Counts requests: a reader that has outlived its own gets nothing of the next one's body.
    turn: u32,
    /// Whom the socket wakes when something comes behind this request; told once, however often it is waited for.
    sentry: Option<Waker>,
    /// Whoever waits for the body, and whoever waits for its end.
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

/// Of the request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyState {
    /// All of it was read.
    Over,
    /// Somebody reads it, or will.
    Open,
    /// Nobody wants the rest of it.
    Left,
    /// It broke its framing: where the next request begins cannot be known.
    Broken,
}

/// A request whose head is there.
pub(super) struct Arrived {
    pub(super) head: Head,
    /// What came of the body along with the head.
    pub(super) early: Decoded,
    /// Whose body the connection carries; see [`Wire::poll_body`].
    pub(super) turn: u32,
}

/// What comes next on a connection.
pub(super) enum Next {
    Request(Box<Arrived>),
    Refused(Refusal),
    /// The client, or whoever orders about this connection, wants no more.
    Closed,
}

impl Inbound {
    /// `rest`: what was read already.
    pub(super) fn new(rest: Vec<u8>) -> Self {
        Self {
            rest,
            is_looked_through: false,
            body: BodyState::Over,
            framing: Framing::Length(0),
            interim: b"",
            drains: 0,
            is_dry: false,
            turn: 0,
            sentry: None,
            reader: None,
            watcher: None,
        }
    }

    /// Takes what came into the next request; `None` while its head is not whole.
    pub(super) fn accept(&mut self, input: &mut BytesMut, limit: usize) -> Option<Result<Arrived, Refusal>> {
        if !self.rest.is_empty() {
            // A head ends with a line; others need not be looked at again for each byte.
            let may_end = memchr::memchr(b'\n', input).is_some() || self.rest.len() + input.len() > limit;
            self.rest.extend_from_slice(input);
            if !may_end {
                return None;
            }
            *input = BytesMut::from(&self.rest[..]);
            self.rest = Vec::new();
        }
        // Empty lines in front of a request are not part of it (RFC 9112 §2.2).
        let blank = input
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        input.advance(blank);
        if input.is_empty() {
            return None;
        }
        match head::parse(input, limit) {
            Ok(Some((head, length))) => {
                input.advance(length);
                Some(Ok(self.begin(head, input)))
            }
            Ok(None) => {
                self.keep(input);
                self.is_looked_through = true;
                None
            }
            Err(refusal) => Some(Err(refusal)),
        }
    }

    fn begin(&mut self, mut head: Head, input: &mut BytesMut) -> Arrived {
        let has_body = !head.framing.is_nothing();
        let early = match has_body && input.is_empty() {
            true => Decoded::default(),
            false => head.framing.decode(input),
        };
        self.framing = std::mem::replace(&mut head.framing, Framing::Length(0));
        self.is_dry = false;
        self.interim = match head.expects && input.is_empty() {
            true => CONTINUE,
            false => b"",
        };
        self.body = BodyState::Open;
        self.drains = MOST_DRAINS;
        self.turn = self.turn.wrapping_add(1);
        self.sentry = None;
        self.note(&early, input);
        Arrived {
            head,
            early,
            turn: self.turn,
        }
    }

    /// Takes what came of the body, and keeps what came behind it.
    pub(super) fn read_body(&mut self, input: &mut BytesMut) -> Decoded {
        let decoded = self.framing.decode(input);
        self.note(&decoded, input);
        decoded
    }

    fn note(&mut self, decoded: &Decoded, input: &[u8]) {
        if decoded.broken.is_some() {
            self.body = BodyState::Broken;
        } else if decoded.ended {
            self.body = BodyState::Over;
            self.reader = None;
            self.keep(&input[input.len() - decoded.excess.min(input.len())..]);
        }
    }

    /// What has come and nobody has looked at.
    #[cfg(test)]
    pub(super) fn take_waiting(&mut self) -> Vec<u8> {
        match self.is_looked_through {
            true => Vec::new(),
            false => std::mem::take(&mut self.rest),
        }
    }

    /// What came behind the request under way.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    fn is_open(&self, turn: u32) -> bool {
        self.body == BodyState::Open && self.turn == turn
    }

    fn keep(&mut self, rest: &[u8]) {
        self.rest = rest.to_vec();
        self.is_looked_through = false;
    }
}

impl Wire {
    /// `rest`: what was read already.
    pub(super) fn new(stream: Stream, pulse: Rc<Pulse>, rest: Vec<u8>) -> Self {
        Self {
            stream: RefCell::new(stream),
            pulse,
            inbound: RefCell::new(Inbound::new(rest)),
            is_over: Cell::new(false),
        }
    }

    pub(super) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// The next request, of at most `limit` bytes of head.
    pub(super) fn poll_next(&self, limit: usize, context: &mut Context<'_>) -> Poll<Next> {
        loop {
            let mut inbound = self.inbound.borrow_mut();
            let has_begun = !inbound.rest.is_empty();
            if has_begun && !inbound.is_looked_through {
                let mut waiting = BytesMut::from(&std::mem::take(&mut inbound.rest)[..]);
                if let Some(outcome) = inbound.accept(&mut waiting, limit) {
                    return Poll::Ready(next(outcome));
                }
                continue;
            }
            if has_begun {
                self.pulse.bytes_came();
            }
            match self.pulse.poll_order(context) {
                Order::Close => return Poll::Ready(Next::Closed),
                Order::CloseSlow => return Poll::Ready(Next::Refused(head::too_slow())),
                Order::Drain if !has_begun => return Poll::Ready(Next::Closed),
                Order::Drain | Order::Serve => {}
            }
            let mut stream = self.stream.borrow_mut();
            let read = poll_read(&mut *stream, context, |input| inbound.accept(input, limit));
            match ready!(read) {
                Ok(Some(Some(outcome))) => return Poll::Ready(next(outcome)),
                Ok(Some(None)) => {}
                Ok(None) | Err(_) => return Poll::Ready(Next::Closed),
            }
        }
    }

    /// Reads on in the body of the request of that turn.
    pub(super) fn poll_body(&self, turn: u32, context: &mut Context<'_>) -> Poll<Result<Decoded, Error>> {
        if self.is_over.get() || !self.inbound.borrow().is_open(turn) {
            return Poll::Ready(Err(Error::client_gone()));
        }
        ready!(self.poll_interim(context));
        let mut inbound = self.inbound.borrow_mut();
        let mut stream = self.stream.borrow_mut();
        let polled = poll_read(&mut *stream, context, |input| inbound.read_body(input));
        match polled {
            Poll::Ready(Ok(Some(decoded))) => {
                if inbound.body != BodyState::Open
                    && let Some(watcher) = inbound.watcher.take()
                    && !watcher.will_wake(context.waker())
                {
                    watcher.wake();
                }
                Poll::Ready(Ok(decoded))
            }
            Poll::Ready(Ok(None)) => {
                self.is_over.set(true);
                Poll::Ready(Err(Error::client_gone().with_source("end of the connection")))
            }
            Poll::Ready(Err(cause)) => {
                self.is_over.set(true);
                Poll::Ready(Err(Error::client_gone().with_source(cause)))
            }
            Poll::Pending => {
                remember(&mut inbound.reader, context);
                Poll::Pending
            }
        }
    }

    /// Writes what is left of the interim answer.
    fn poll_interim(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inbound = self.inbound.borrow_mut();
        while !inbound.interim.is_empty() {
            let mut stream = self.stream.borrow_mut();
            match ready!(Pin::new(&mut *stream).poll_write(context, inbound.interim)) {
                Ok(count) if count > 0 => {
                    inbound.interim = inbound.interim.get(count..).unwrap_or_default();
                    if inbound.interim.is_empty() {
                        // TLS keeps a record back until it is told.
                        let _ = Pin::new(&mut *stream).poll_flush(context);
                    }
                }
                // The body's reader will hear of it.
                _ => inbound.interim = b"",
            }
        }
        Poll::Ready(())
    }

    /// How many bytes of the body are still to come, where that is known.
    pub(super) fn body_left(&self) -> Option<u64> {
        match self.inbound.borrow().framing {
            Framing::Length(left) => Some(left),
            Framing::Chunked(_) | Framing::UntilClose => None,
        }
    }

    /// The reader of that turn wants no more.
    pub(super) fn leave_body(&self, turn: u32) {
        let mut inbound = self.inbound.borrow_mut();
        if inbound.is_open(turn) {
            inbound.body = BodyState::Left;
            inbound.watcher.take().into_iter().for_each(Waker::wake);
        }
    }

    /// The answer is over: whoever still reads the body is told that nothing more of it comes.
    pub(super) fn close_body(&self) {
        let mut inbound = self.inbound.borrow_mut();
        if inbound.body != BodyState::Open {
            return;
        }
        inbound.body = BodyState::Left;
        let reader = inbound.reader.take();
        drop(inbound);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Whether nothing of the client's is left unread, as far as one can see.
    pub(super) fn is_quiet(&self) -> bool {
        let inbound = self.inbound.borrow();
        inbound.body == BodyState::Over && inbound.rest.is_empty()
    }

    /// Reads and forgets what nobody wants of the body; ready with whether it came to its end.
    fn poll_drain(&self, context: &mut Context<'_>) -> Poll<bool> {
        loop {
            let mut inbound = self.inbound.borrow_mut();
            match inbound.body {
                BodyState::Over => return Poll::Ready(true),
                BodyState::Left if inbound.interim.is_empty() && inbound.drains > 0 => {}
                BodyState::Left | BodyState::Open | BodyState::Broken => return Poll::Ready(false),
            }
            inbound.drains -= 1;
            let mut stream = self.stream.borrow_mut();
            match poll_read(&mut *stream, context, |input| inbound.read_body(input)) {
                Poll::Ready(Ok(Some(_))) => {}
                Poll::Ready(Ok(None) | Err(_)) => {
                    self.is_over.set(true);
                    return Poll::Ready(false);
                }
                Poll::Pending => {
                    inbound.drains += 1;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether the next request can be found: the body is over, or what nobody wants of it is here already.
    pub(super) fn is_drained(&self) -> bool {
        self.poll_drain(&mut Context::from_waker(Waker::noop())) == Poll::Ready(true)
    }

    /// Whether the body may still come to its end by itself.
    pub(super) fn is_body_open(&self) -> bool {
        self.inbound.borrow().body == BodyState::Open
    }

    /// The interim answer has become pointless: a real one goes out.
    pub(super) fn skip_interim(&self) {
        let mut inbound = self.inbound.borrow_mut();
        if inbound.interim.len() == CONTINUE.len() {
            // The client may or may not send its body now.
            if inbound.body == BodyState::Open {
                inbound.body = BodyState::Left;
            }
        }
    }

    /// Ready once the client is gone, or has to go. While its body is being read, the reader is who learns of it.
    pub(super) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_over.get() || self.pulse.poll_order(context) == Order::Close {
            return Poll::Ready(());
        }
        let mut inbound = self.inbound.borrow_mut();
        match inbound.body {
            BodyState::Open => {
                remember(&mut inbound.watcher, context);
                return Poll::Pending;
            }
            BodyState::Broken => return Poll::Pending,
            BodyState::Left => {
                drop(inbound);
                let is_done = ready!(self.poll_drain(context));
                if self.is_over.get() {
                    return Poll::Ready(());
                }
                if !is_done {
                    return Poll::Pending;
                }
                inbound = self.inbound.borrow_mut();
            }
            BodyState::Over => {}
        }
        // What waits for its turn is all that is read ahead.
        if !inbound.rest.is_empty() {
            return Poll::Pending;
        }
        let mut stream = self.stream.borrow_mut();
        if inbound.is_dry {
            let is_told = inbound
                .sentry
                .as_ref()
                .is_some_and(|known| known.will_wake(context.waker()));
            if is_told && stream.is_still() {
                return Poll::Pending;
            }
            if stream.poll_readable(context).is_pending() {
                remember(&mut inbound.sentry, context);
                return Poll::Pending;
            }
        }
        let read = poll_read(&mut *stream, context, |input| inbound.keep(input));
        inbound.is_dry = read.is_pending();
        match ready!(read) {
            Ok(Some(())) => Poll::Pending,
            Ok(None) | Err(_) => {
                self.is_over.set(true);
                Poll::Ready(())
            }
        }
    }

    /// Writes all that waits.
    pub(super) fn poll_write(&self, output: &mut Output, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !output.is_empty() {
            ready!(self.poll_write_some(output, context))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes once, and notes whether the client takes it.
    pub(super) fn poll_write_some(
        &self,
        output: &mut Output,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let interim = self.inbound.borrow().interim.len();
        if interim > 0 && interim < CONTINUE.len() {
            // It has begun: its end comes first.
            ready!(self.poll_interim(context));
        }
        if self.pulse.ordered() == Order::Close {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = output.poll_write(&mut *self.stream.borrow_mut(), context);
        if written.is_pending() {
            self.pulse.poll_order(context);
        }
        self.pulse.wrote(&written);
        Poll::Ready(ready!(written).map(drop))
    }

    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut *self.stream.borrow_mut()).poll_flush(context);
        self.pulse.wrote(&flushed);
        flushed
    }

    /// Says that nothing more is written.
    pub(super) fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(context)
    }

    /// Reads and forgets; ready at the end.
    pub(super) fn poll_forget(&self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.pulse.poll_order(context) == Order::Close {
                return Poll::Ready(());
            }
            match ready!(poll_read(&mut *self.stream.borrow_mut(), context, |_| ())) {
                Ok(Some(())) => {}
                Ok(None) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Has the close be a reset.
    pub(super) fn reset_on_close(&self) {
        self.stream.borrow().reset_on_close();
    }

    /// Nothing that comes counts any more; whoever still waits for the body is told.
    pub(super) fn end(&self) {
        self.is_over.set(true);
        let reader = self.inbound.borrow_mut().reader.take();
        reader.into_iter().for_each(Waker::wake);
    }

    /// What was read ahead of a protocol that takes over.
    pub(super) fn take_rest(&self) -> Vec<u8> {
        self.inbound.borrow_mut().take_rest()
    }

    /// The stream, for a protocol that takes over.
    pub(super) fn stream(&self) -> &RefCell<Stream> {
        &self.stream
    }
}

fn next(outcome: Result<Arrived, Refusal>) -> Next {
    match outcome {
        Ok(arrived) => Next::Request(Box::new(arrived)),
        Err(refusal) => Next::Refused(refusal),
    }
}

fn remember(slot: &mut Option<Waker>, context: &Context<'_>) {
    if !slot
        .as_ref()
        .is_some_and(|known| known.will_wake(context.waker()))
    {
        *slot = Some(context.waker().clone());
    }
}
