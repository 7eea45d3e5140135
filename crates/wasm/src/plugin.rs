//! `WasmPlugin`: a module in the chain. One request's way through it, both directions.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, StatusCode};
use http_body::Body as _;
use tollgate_base::Error;
use tollgate_body::{Body, Request, Response};
use tollgate_observe::Record;
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::generation::Generation;
use crate::head::Head;
use crate::pump::{Hold, Pump, closed};
use crate::stream::{Direction, LocalReply, Stream};
use crate::vm::{Action, Vm};
use crate::{reply, worker};

/// A module with its config as a plugin of the chain.
#[derive(Debug)]
pub struct WasmPlugin {
    generation: Arc<Generation>,
}

impl WasmPlugin {
    /// The plugin of a version that is ready.
    #[must_use]
    pub fn new(generation: Arc<Generation>) -> Self {
        Self { generation }
    }
}

/// What becomes of a message.
enum Verdict<T> {
    Go(T),
    Reply(LocalReply),
    /// The module is gone, and with it the message.
    Failed,
}

/// What the module did with the stream while others worked on it.
enum Interruption {
    Reply(LocalReply),
    Closed,
}

/// One request in one instance. Its context ends when the exchange is settled.
struct Call {
    vm: Rc<Vm>,
    id: u32,
}

#[async_trait(?Send)]
impl Plugin for WasmPlugin {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        gather(&self.generation, 0).await;
        let vm = worker::instance(&self.generation);
        let Some(call) = vm.and_then(|vm| Call::open(vm, exchange, &next)) else {
            return match self.generation.spec.fail_open {
                true => next.run(exchange, request).await,
                false => Ok(reply::failed(&exchange.record)),
            };
        };
        let request = match call.request(exchange, request).await? {
            Verdict::Go(request) => request,
            Verdict::Reply(reply) => return call.answer_locally(exchange, reply).await,
            Verdict::Failed => return Ok(reply::failed(&exchange.record)),
        };
        let outcome = {
            let mut rest = Box::pin(next.run(exchange, request));
            std::future::poll_fn(|context| match call.interrupted(context) {
                Some(interruption) => Poll::Ready(Err(interruption)),
                None => rest.as_mut().poll(context).map(Ok),
            })
            .await
        };
        match outcome {
            Ok(response) => {
                let response = response?;
                call.note_route(exchange);
                call.respond(&exchange.record, response).await
            }
            Err(Interruption::Reply(reply)) => call.answer_locally(exchange, reply).await,
            Err(Interruption::Closed) => Err(closed()),
        }
    }
}

impl Call {
    /// Makes the context; `None` when the module trapped on it.
    fn open(vm: Rc<Vm>, exchange: &Exchange, next: &Next<'_>) -> Option<Self> {
        let mut stream = Box::new(Stream::new(
            &exchange.record,
            next.caller(exchange),
            exchange.buffer_limit,
        ));
        stream.route.clone_from(&exchange.route);
        stream.cluster.clone_from(&exchange.cluster);
        let id = vm.open_stream(stream)?;
        let owner = vm.clone();
        exchange.record.on_settle(move |_, _| owner.finish_stream(id));
        Some(Self { vm, id })
    }

    fn note_route(&self, exchange: &Exchange) {
        self.vm.with_stream(self.id, |stream| {
            stream.route.clone_from(&exchange.route);
            stream.cluster.clone_from(&exchange.cluster);
        });
    }

    /// Whether the module answered or closed the stream while others work on it.
    fn interrupted(&self, context: &Context<'_>) -> Option<Interruption> {
        let found = self.vm.with_stream(self.id, |stream| {
            let found = interruption(stream);
            match &mut stream.waker {
                Some(waker) => waker.clone_from(context.waker()),
                empty => *empty = Some(context.waker().clone()),
            }
            found
        });
        found.flatten()
    }

    /// The request's way to the next plugin.
    async fn request(&self, exchange: &mut Exchange, request: Request) -> Result<Verdict<Request>, Error> {
        let (parts, body) = request.into_parts();
        let (head, body) = match self.pass(Direction::Request, Head::Request(parts), body).await? {
            Verdict::Go((Head::Request(parts), body)) => (parts, body),
            Verdict::Go(_) | Verdict::Failed => return Ok(Verdict::Failed),
            Verdict::Reply(reply) => return Ok(Verdict::Reply(reply)),
        };
        let request = Request::from_parts(head, body);
        let seen = self.vm.with_stream(self.id, |stream| {
            let limits = stream.sides.each_ref().map(|side| side.limit);
            let changed = std::mem::take(&mut stream.side(Direction::Request).head_changed);
            (
                changed && !stream.keep_route,
                limits[0].max(limits[1]),
                stream.override_host,
            )
        });
        if let Some((changed, limit, address)) = seen {
            exchange.buffer_limit = exchange.buffer_limit.max(limit);
            exchange.upstream_address = address.or(exchange.upstream_address);
            if changed {
                if let Some(authority) = request.uri().authority() {
                    exchange.host = authority.host().to_ascii_lowercase().into();
                }
                exchange.reroute();
            }
        }
        Ok(Verdict::Go(request))
    }

    /// The answer's way back.
    async fn respond(&self, record: &Record, response: Response) -> Result<Response, Error> {
        gather(&self.vm.generation, 1).await;
        let (parts, body) = response.into_parts();
        match self
            .pass(Direction::Response, Head::Response(parts), body)
            .await?
        {
            Verdict::Go((Head::Response(parts), body)) => Ok(Response::from_parts(parts, body)),
            Verdict::Reply(reply) => Ok(self.local(record, reply)),
            Verdict::Go(_) | Verdict::Failed => Ok(reply::failed(record)),
        }
    }

    /// The module's own answer: it passes the module's own response side, as in Envoy.
    async fn answer_locally(&self, exchange: &Exchange, reply: LocalReply) -> Result<Response, Error> {
        let response = self.local(&exchange.record, reply);
        self.respond(&exchange.record, response).await
    }

    fn local(&self, record: &Record, reply: LocalReply) -> Response {
        let room = self.vm.generation.host.limits.head;
        reply::local(record, room, self.is_grpc(), reply)
    }

    fn is_grpc(&self) -> bool {
        let content_type = self.vm.with_stream(self.id, |stream| {
            let side = stream.side(Direction::Request);
            let head = side.head.as_ref().or(side.gone.as_ref())?;
            Some(head.get(b"content-type")?.starts_with(b"application/grpc"))
        });
        content_type.flatten().unwrap_or(false)
    }

    /// One direction up to the point where the head goes on.
    async fn pass(
        &self,
        direction: Direction,
        head: Head,
        body: Body,
    ) -> Result<Verdict<(Head, Body)>, Error> {
        let end = body.is_end_stream();
        self.vm.with_stream(self.id, |stream| {
            let side = stream.side(direction);
            side.head = Some(head);
            side.head_changed = false;
            // What was continued before it paused is not continued.
            side.resumed = false;
        });
        let hold = match self.vm.on_head(self.id, direction, end) {
            Some(Action::Continue) => Hold::No,
            Some(Action::Hold) if end => Hold::Unshown,
            Some(Action::Hold | Action::Watermark | Action::Drop) => Hold::Keep,
            Some(Action::HoldAll) => Hold::Unshown,
            Some(Action::HoldAllWatermark) => Hold::UnshownWatermark,
            None if self.vm.generation.spec.fail_open => Hold::No,
            None => return Ok(Verdict::Failed),
        };
        // Whatever it returned: there may be no body that would be looked at later. The head goes nowhere, and can be read.
        if let Some(interruption) = self.vm.with_stream(self.id, interruption).flatten() {
            drop(self.release(direction));
            return match interruption {
                Interruption::Reply(reply) => Ok(Verdict::Reply(reply)),
                Interruption::Closed => Err(closed()),
            };
        }
        if hold == Hold::No && !self.vm.sees_body(direction) {
            return Ok(match self.release(direction) {
                Some(head) => Verdict::Go((head, body)),
                None => Verdict::Failed,
            });
        }
        // What is here as a whole leaves as a whole: one write, and a length where chunks would do otherwise.
        let is_here = body.size_hint().exact().is_some();
        let mut pump = Pump::new(self.vm.clone(), self.id, direction, body, hold);
        let mut held = None;
        if hold == Hold::No {
            held = self.release(direction);
        }
        match self.begun(&mut pump, direction, held.as_ref(), is_here).await {
            Ok(begun) => begun?,
            Err(Interruption::Reply(reply)) => return Ok(Verdict::Reply(reply)),
            Err(Interruption::Closed) => return Err(closed()),
        }
        let Some(mut head) = held.or_else(|| self.release(direction)) else {
            return Ok(Verdict::Failed);
        };
        let changed = self
            .vm
            .with_stream(self.id, |stream| stream.side(direction).body_changed)
            .unwrap_or(false);
        let (body, is_whole) = pump.into_body();
        tell_length(&mut head, &body, changed, is_whole);
        Ok(Verdict::Go((head, body)))
    }

    /// Waits until the head may go on. One that the module held goes as soon as it is continued: its body may come much
    /// later. One that tells a length waits for the first look at the body all the same: the module may change it.
    async fn begun(
        &self,
        pump: &mut Pump,
        direction: Direction,
        released: Option<&Head>,
        is_here: bool,
    ) -> Result<Result<(), Error>, Interruption> {
        let tells_length = |head: &Head| head.fields().contains_key(CONTENT_LENGTH);
        let waits = |pump: &Pump| {
            let tells = match released {
                Some(head) => tells_length(head),
                None => self.held_head(direction, tells_length).unwrap_or(true),
            };
            pump.is_holding() || is_here || tells
        };
        std::future::poll_fn(|context| {
            if let Some(interruption) = self.interrupted(context) {
                return Poll::Ready(Err(interruption));
            }
            if !waits(pump) {
                return Poll::Ready(Ok(Ok(())));
            }
            let begun = pump.poll_begun(context);
            // Also what it did on its last look counts: nothing has left yet.
            if let Some(interruption) = self.interrupted(context) {
                return Poll::Ready(Err(interruption));
            }
            match begun {
                Poll::Pending if !waits(pump) => Poll::Ready(Ok(Ok(()))),
                begun => begun.map(Ok),
            }
        })
        .await
    }

    /// Looks at a head that the module has not let go yet.
    fn held_head<R>(&self, direction: Direction, look: impl FnOnce(&Head) -> R) -> Option<R> {
        let look = |stream: &mut Stream| stream.side(direction).head.as_ref().map(look);
        self.vm.with_stream(self.id, look).flatten()
    }

    fn release(&self, direction: Direction) -> Option<Head> {
        self.vm
            .with_stream(self.id, |stream| stream.side(direction).release_head())
            .flatten()
    }
}

/// Where more than `own` requests are under way: lets those that came in the same turn of the worker get as far as this
/// one, so that the module runs for all of them in a row. A module's code and heap take the place of the gateway's in the
/// caches and the other way round, which costs more than the wait: one look at the sockets.
async fn gather(generation: &Generation, own: usize) {
    if generation.counts.in_flight.load(Ordering::Relaxed) > own {
        tokio::task::yield_now().await;
    }
}

fn interruption(stream: &mut Stream) -> Option<Interruption> {
    match stream.reply.take() {
        Some(reply) => Some(Interruption::Reply(reply)),
        None => stream.closed.then_some(Interruption::Closed),
    }
}

/// A changed body has another length: told when all of it is here, else not at all.
fn tell_length(head: &mut Head, body: &Body, changed: bool, is_whole: bool) {
    if !changed {
        return;
    }
    match body.size_hint().exact() {
        Some(length) if is_whole => {
            head.fields_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => {
            head.fields_mut().remove(CONTENT_LENGTH);
        }
    }
}

/// Of an answer whose status a module made up; what is no status is a 500.
pub(crate) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| status.as_u16() >= 200)
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
