//! HTTP/1.1 connections, driven by the request that uses them.
//!
//! There is no task per connection, no channel and no buffer: the future that waits for the head and the body that is
//! read afterwards write and read the socket themselves, so that a frame costs no task switch and a stream that waits
//! holds no memory but its state. A connection goes back to its endpoint only when the answer was read to its end; a
//! body dropped earlier takes the connection, hence the upstream's work, with it.
//!
//! `upload` writes, `head` understands, `body` is what the answer's reader holds; what both sides of the gateway need
//! of the protocol is in `tollgate_body::http1`.

mod body;
mod head;
mod upload;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::Method;
use tokio::task::coop::unconstrained;
use tollgate_base::clock::{self, Instant};
use tollgate_body::Request;
use tollgate_body::http1::{Decoded, Framing, poll_read};

pub(crate) use self::body::Http1Body;
use self::head::{Head, HeadReader};
use self::upload::{Stopped, Upload};
use crate::dial::Dialed;
use crate::endpoint::{Counted, Lease};
use crate::failure::Fault;
use crate::outgoing::Source;
use crate::stream::Stream;
use crate::waiting::{Broken, Waiting};

/// An open connection.
pub(crate) struct Http1 {
    stream: Stream,
    upload: Option<Upload>,
    /// Why the upload ended early; told when no answer comes either.
    refused: Option<io::Error>,
    /// What the last answer said of it.
    persistent: bool,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    idle_since: Instant,
    counted: Counted,
}

/// An answer whose head is there.
pub(crate) struct Answer {
    pub(crate) parts: http::response::Parts,
    framing: Framing,
    /// What came of the body along with the head.
    early: Decoded,
}

impl Answer {
    /// The body; `Err` gives the connection back when there is none.
    pub(crate) fn into_body(
        self,
        connection: Box<Http1>,
        lease: Lease,
    ) -> (http::response::Parts, Option<Http1Body>) {
        let body = Http1Body::new(self.framing, self.early, connection, lease);
        let is_nothing = http_body::Body::is_end_stream(&body);
        (self.parts, (!is_nothing).then_some(body))
    }
}

impl Http1 {
    /// Speaks HTTP/1.1 on a fresh stream.
    pub(crate) fn open(dialed: Dialed, counted: Counted) -> Box<Self> {
        Box::new(Self {
            stream: dialed.stream,
            upload: None,
            refused: None,
            persistent: true,
            peer: dialed.peer,
            local: dialed.local,
            idle_since: clock::now(),
            counted,
        })
    }

    pub(crate) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Becomes idle.
    pub(crate) fn rest(&mut self, now: Instant) {
        self.idle_since = now;
    }

    /// It will not be used again.
    fn spoil(&mut self) {
        self.persistent = false;
    }

    /// The stream, for a protocol that takes it over.
    pub(crate) fn into_stream(self) -> (Stream, Counted) {
        (self.stream, self.counted)
    }

    /// Whether the connection is open and waits for a request. Nobody is woken for it afterwards.
    pub(crate) fn is_reusable(&mut self) -> bool {
        if !self.persistent || self.upload.is_some() || self.refused.is_some() {
            return false;
        }
        let stream = &mut self.stream;
        let anything = poll_fn(|context| poll_read(stream, context, |_| ()));
        // A task that has used up its turn would be told that nothing came, whatever did.
        let probe = pin!(unconstrained(anything));
        probe.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends the request and waits for the head of the answer.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request,
        source: Source,
        waiting: &mut Waiting<'_>,
    ) -> Result<Answer, Broken> {
        self.upload = Some(Upload::new(request, source));
        let mut reader = HeadReader::default();
        let outcome = poll_fn(|context| {
            if let Poll::Ready(answered) = self.poll_answer(&mut reader, request.method(), context) {
                return Poll::Ready(Ok(answered));
            }
            waiting.poll(context).map(Err)
        })
        .await;
        match outcome {
            Ok(Ok(answer)) => {
                waiting.head_at = Some(clock::now());
                Ok(answer)
            }
            Ok(Err(broken)) => Err(waiting.own_failure().map_or(broken, Broken::Ours)),
            Err(error) => Err(Broken::Ours(error)),
        }
    }

    fn poll_answer(
        &mut self,
        reader: &mut HeadReader,
        method: &Method,
        context: &mut Context<'_>,
    ) -> Poll<Result<Answer, Broken>> {
        let unsent = match self.poll_upload(context) {
            Ok(unsent) => unsent,
            Err(fault) => return Poll::Ready(Err(Broken::Http1(fault))),
        };
        loop {
            let read = poll_read(&mut self.stream, context, |input| {
                let Head {
                    parts,
                    mut framing,
                    persistent,
                } = match reader.take(method, input) {
                    Ok(Some(head)) => head,
                    Ok(None) => return Ok(None),
                    Err(reason) => return Err(Fault::Garbled(reason)),
                };
                let early = match input.is_empty() && !framing.is_nothing() {
                    true => Decoded::default(),
                    false => framing.decode(input),
                };
                let answer = Answer {
                    parts,
                    framing,
                    early,
                };
                Ok(Some((answer, persistent)))
            });
            let fault = match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(Ok(None)))) => continue,
                Poll::Ready(Ok(Some(Ok(Some((answer, persistent)))))) => {
                    self.persistent = persistent;
                    return Poll::Ready(Ok(answer));
                }
                Poll::Ready(Ok(Some(Err(fault)))) => fault,
                Poll::Ready(Ok(None)) => self.refused.take().map_or(Fault::Ended, Fault::Io),
                Poll::Ready(Err(cause)) => Fault::Io(self.refused.take().unwrap_or(cause)),
            };
            return Poll::Ready(Err(match fault {
                Fault::Garbled(_) => Broken::Http1(fault),
                _ if unsent => Broken::NothingSent,
                // Without a byte of an answer, it may be that nobody ever looked at the request.
                _ if !reader.has_begun() => Broken::Silent(fault),
                _ => Broken::Http1(fault),
            }));
        }
    }

    /// Writes on; says whether the connection was over before anything went out. The error: the request's own body.
    ///
    /// A connection that takes no more may still bring an answer: that it was refused is told only when none comes.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<bool, Fault> {
        let Some(upload) = &mut self.upload else {
            return Ok(false);
        };
        match upload.poll(&mut self.stream, context) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(())) => {
                self.upload = None;
                Ok(false)
            }
            Poll::Ready(Err(Stopped::Connection(cause))) => {
                let unsent = !upload.has_begun;
                self.upload = None;
                self.refused = Some(cause);
                Ok(unsent)
            }
            Poll::Ready(Err(Stopped::Body(reason))) => {
                self.upload = None;
                self.persistent = false;
                Err(Fault::Upload(reason))
            }
        }
    }

    /// Whether a read would bring nothing now; then this task is woken once it would.
    fn is_dry(&mut self, context: &mut Context<'_>) -> bool {
        self.upload.is_none() && self.stream.is_dry(context)
    }

    /// Reads on in the answer's body, writing what is left of the request meanwhile.
    fn poll_body(
        &mut self,
        framing: &mut Framing,
        context: &mut Context<'_>,
    ) -> Poll<Result<Decoded, Fault>> {
        if self.upload.is_some() {
            self.poll_upload(context)?;
        }
        let read = poll_read(&mut self.stream, context, |input| framing.decode(input));
        read.map(|outcome| match outcome {
            Ok(Some(decoded)) => Ok(decoded),
            Ok(None) if matches!(framing, Framing::UntilClose) => Ok(Decoded {
                ended: true,
                ..Decoded::default()
            }),
            Ok(None) => Err(Fault::Ended),
            Err(cause) => Err(Fault::Io(cause)),
        })
    }
}
