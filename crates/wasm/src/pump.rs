//! `Pump`: a body on its way through a module. It reads the source, shows each chunk, and gives on what the module lets
//! through; it is also what holds a head back until there is something to send behind it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tollgate_base::Error;
use tollgate_body::Body;

use crate::stream::Direction;
use crate::vm::{Action, Vm};

/// Why nothing comes out at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing is held.
    No,
    /// What comes is shown to the module and kept.
    Keep,
    /// The same; over the limit nothing more is read.
    Watermark,
    /// What comes is kept, and shown once the stream is continued.
    Unshown,
    /// The same; over the limit nothing more is read.
    UnshownWatermark,
}

impl Hold {
    fn shows_nothing(self) -> bool {
        matches!(self, Self::Unshown | Self::UnshownWatermark)
    }
}

/// A body on its way through a module.
pub(crate) struct Pump {
    vm: Rc<Vm>,
    id: u32,
    direction: Direction,
    inner: Body,
    hold: Hold,
    /// The source is over.
    ended: bool,
    /// It ended in trailers.
    trailers: bool,
    /// Body that came, or that it ended, while nothing was shown.
    unshown_body: bool,
    /// The same of trailers.
    unshown_trailers: bool,
    /// Nothing comes out any more.
    finished: bool,
    /// The module is out of the way: it broke, or the exchange is over.
    bypass: bool,
    /// Frames that are on their way.
    out: VecDeque<Frame<Bytes>>,
    /// Bytes in `out`.
    waiting: usize,
    /// Whether the head has left: a local reply comes too late then.
    pub(crate) head_gone: bool,
}

/// What the stream's state asks for.
enum Asked {
    Nothing,
    Resume,
    Reply,
    Close,
    Broken,
}

impl Pump {
    pub(crate) fn new(vm: Rc<Vm>, id: u32, direction: Direction, inner: Body, hold: Hold) -> Self {
        let ended = inner.is_end_stream();
        Self {
            vm,
            id,
            direction,
            inner,
            hold,
            ended,
            trailers: false,
            unshown_body: false,
            unshown_trailers: false,
            finished: ended && hold == Hold::No,
            bypass: false,
            out: VecDeque::new(),
            waiting: 0,
            head_gone: false,
        }
    }

    /// Waits until there is something to send, or it is certain that nothing comes.
    pub(crate) fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.out.is_empty() || self.finished {
            return Poll::Ready(Ok(()));
        }
        match self.poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Ok(())),
            Poll::Ready(Some(Err(failure))) => Poll::Ready(Err(failure)),
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting += frame.data_ref().map_or(0, Bytes::len);
                self.out.push_front(frame);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether the module holds the message.
    pub(crate) fn is_holding(&self) -> bool {
        self.hold != Hold::No
    }

    /// All of the body when it is here and nothing but data, else the pump itself.
    pub(crate) fn into_body(mut self) -> (Body, bool) {
        let is_whole = self.finished && self.out.iter().all(Frame::is_data);
        if !is_whole {
            self.head_gone = true;
            return (Body::boxed(self), false);
        }
        let mut pieces = self.out.into_iter().filter_map(|frame| frame.into_data().ok());
        let first = pieces.next().unwrap_or_default();
        let whole = match pieces.next() {
            None => first,
            Some(second) => {
                let mut all = BytesMut::from(&first[..]);
                all.extend_from_slice(&second);
                pieces.for_each(|piece| all.extend_from_slice(&piece));
                all.freeze()
            }
        };
        (Body::bytes(whole), true)
    }

    fn asked(&mut self, context: &Context<'_>) -> Asked {
        if self.vm.is_broken() {
            return Asked::Broken;
        }
        let (direction, out) = (self.direction, &mut self.out);
        let mut injected_end = false;
        let mut injected_bytes = 0;
        let asked = self.vm.with_stream(self.id, |stream| {
            if stream.logging {
                return Asked::Broken;
            }
            if stream.reply.is_some() {
                return Asked::Reply;
            }
            if stream.closed {
                return Asked::Close;
            }
            let side = stream.side(direction);
            for bytes in side.injected.drain(..) {
                injected_bytes += bytes.len();
                out.push_back(Frame::data(bytes));
            }
            injected_end = side.injected_end;
            side.waker = Some(context.waker().clone());
            match std::mem::take(&mut side.resumed) {
                true => Asked::Resume,
                false => Asked::Nothing,
            }
        });
        self.waiting += injected_bytes;
        if injected_end {
            self.finish();
        }
        asked.unwrap_or(Asked::Broken)
    }

    /// What comes next; also does what the module asked for meanwhile.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if !self.bypass && !self.finished {
                match self.asked(context) {
                    Asked::Nothing => {}
                    Asked::Resume => self.resume(),
                    // Whoever runs the request sees the reply too; a body whose head has left can only be cut.
                    Asked::Reply if self.direction == Direction::Request || !self.head_gone => {
                        return Poll::Pending;
                    }
                    Asked::Reply | Asked::Close => return Poll::Ready(Some(Err(closed()))),
                    Asked::Broken => self.give_up()?,
                }
            }
            if self.catch_up()? {
                continue;
            }
            if let Some(frame) = self.out.pop_front() {
                self.waiting -= frame.data_ref().map_or(0, Bytes::len);
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.finished {
                return Poll::Ready(None);
            }
            if self.ended && self.bypass {
                self.finished = true;
                continue;
            }
            if self.ended || self.is_full() {
                return Poll::Pending;
            }
            match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(failure))) => return Poll::Ready(Some(Err(failure))),
                Poll::Ready(Some(Ok(frame))) if self.bypass => return Poll::Ready(Some(Ok(frame))),
                Poll::Ready(Some(Ok(frame))) => self.take(frame)?,
                Poll::Ready(None) => self.end(),
            }
            self.catch_up()?;
        }
    }

    /// Whether nothing more may be read before the module lets something go.
    fn is_full(&self) -> bool {
        match self.hold {
            Hold::No | Hold::Keep | Hold::Unshown => false,
            Hold::Watermark | Hold::UnshownWatermark => self.size().is_some_and(|(size, limit)| size > limit),
        }
    }

    fn size(&self) -> Option<(usize, usize)> {
        self.vm.with_stream(self.id, |stream| {
            let side = stream.side(self.direction);
            (side.body.len(), side.limit)
        })
    }

    /// Takes in what came; it is shown at once, or when nothing forbids it any more.
    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Error> {
        match frame.into_data() {
            Ok(data) => {
                self.ended = self.inner.is_end_stream();
                self.unshown_body = true;
                self.vm
                    .with_stream(self.id, |stream| stream.side(self.direction).append(data));
            }
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else {
                    return Ok(());
                };
                self.ended = true;
                self.trailers = true;
                self.unshown_trailers = true;
                self.vm.with_stream(self.id, |stream| {
                    stream.side(self.direction).trailers = Some(trailers)
                });
            }
        }
        match self.hold {
            Hold::Unshown => self.refuse_too_much(),
            _ => Ok(()),
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.unshown_body |= !self.trailers;
    }

    /// Shows what was not shown yet, one thing at a time: the module may reply or break on each. False: nothing was.
    fn catch_up(&mut self) -> Result<bool, Error> {
        if self.hold.shows_nothing() || self.bypass || self.finished {
            return Ok(false);
        }
        let action = if std::mem::take(&mut self.unshown_body) {
            let end = self.ended && !self.trailers;
            self.vm.on_body(self.id, self.direction, end)
        } else if std::mem::take(&mut self.unshown_trailers) {
            self.vm.on_trailers(self.id, self.direction)
        } else {
            return Ok(false);
        };
        self.act(action)?;
        Ok(true)
    }

    fn act(&mut self, action: Option<Action>) -> Result<(), Error> {
        match action {
            // Broken: seen at the next look.
            None => return Ok(()),
            Some(Action::Continue) => self.resume(),
            Some(Action::Hold | Action::HoldAll | Action::HoldAllWatermark) => {
                self.hold = Hold::Keep;
                self.refuse_too_much()?;
            }
            Some(Action::Watermark) => self.hold = Hold::Watermark,
            Some(Action::Drop) => {
                self.vm.with_stream(self.id, |stream| {
                    let side = stream.side(self.direction);
                    side.body.clear();
                    side.body_changed = true;
                });
                self.hold = Hold::Keep;
            }
        }
        Ok(())
    }

    fn refuse_too_much(&self) -> Result<(), Error> {
        match (self.size(), self.direction) {
            (Some((size, limit)), Direction::Request) if size > limit => {
                Err(Error::too_large("buffer_limit", limit))
            }
            (Some((size, limit)), Direction::Response) if size > limit => {
                let message = format!("the answer is too large for a plugin: buffer_limit is {limit} bytes");
                Err(Error::gateway(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "response_payload_too_large",
                    message,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Lets go of what is held; what was not shown yet comes to the module first.
    fn resume(&mut self) {
        self.hold = Hold::No;
        if self.unshown_body {
            return;
        }
        self.flush();
        if self.ended && !self.unshown_trailers {
            self.flush_trailers();
            self.finish();
        }
    }

    /// Sends on what the module can read.
    fn flush(&mut self) {
        let body = self.vm.with_stream(self.id, |stream| {
            let side = stream.side(self.direction);
            side.body_open = false;
            side.body.split().freeze()
        });
        let body = body.unwrap_or_default();
        if !body.is_empty() {
            self.waiting += body.len();
            self.out.push_back(Frame::data(body));
        }
    }

    fn flush_trailers(&mut self) {
        let trailers = self.vm.with_stream(self.id, |stream| {
            let side = stream.side(self.direction);
            side.trailers_open = false;
            side.trailers.take()
        });
        if let Some(trailers) = trailers.flatten()
            && !trailers.is_empty()
        {
            self.out.push_back(Frame::trailers(trailers));
        }
    }

    fn finish(&mut self) {
        self.finished = true;
        self.inner = Body::empty();
    }

    /// The module is gone: with `FAIL_OPEN` the rest passes as it is, else the message is cut.
    fn give_up(&mut self) -> Result<(), Error> {
        if !self.vm.generation.spec.fail_open {
            return Err(failed());
        }
        self.bypass = true;
        self.hold = Hold::No;
        self.flush();
        if self.ended {
            self.flush_trailers();
        }
        Ok(())
    }
}

/// The failure of a stream whose module is gone and must not be skipped.
pub(crate) fn failed() -> Error {
    Error::gateway(StatusCode::SERVICE_UNAVAILABLE, "wasm_fail_stream", "")
}

/// The failure of a stream that the module closed.
pub(crate) fn closed() -> Error {
    Error::gateway(StatusCode::SERVICE_UNAVAILABLE, "wasm_close_stream", "")
}

impl HttpBody for Pump {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_next(context)
    }

    fn is_end_stream(&self) -> bool {
        self.finished && self.out.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.finished {
            true => SizeHint::with_exact(self.waiting as u64),
            false => SizeHint::default(),
        }
    }
}
