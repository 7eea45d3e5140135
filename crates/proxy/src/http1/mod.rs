//! HTTP/1.1 towards clients: one request at a time, in the order in which they came.
//!
//! One task per connection reads a head, runs the request, writes the answer, and begins again. There is no buffer of
//! a connection's own: reads go through the worker's, and a stream that waits holds nothing but its state.
//!
//! `head` understands a request, `wire` is the connection, `body` the request's body, `answer` writes, `refusal`
//! answers what is no request, `tunnel` is what an upgrade gets.

mod answer;
mod body;
mod date;
mod head;
mod refusal;
mod tunnel;
mod wire;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version};
use tokio::sync::oneshot;

pub(crate) use self::body::ClientBody;
pub(crate) use self::tunnel::{Takeover, Tunnel};

use self::answer::{Answer, Asked, Ended};
use self::head::Refusal;
use self::wire::{Arrived, Next, Wire};
use crate::account::Delivery;
use crate::connection::Client;
use crate::metered::Arriving;
use crate::normalise::wants_upgrade;
use crate::pulse::Order;
use crate::request;
use crate::stream::Stream;
use crate::turn;
use crate::worker::Worker;

/// How long a client that may still be sending is listened to after its last answer, so that the answer is not lost in
/// a reset; Envoy waits as long.
const LINGER: Duration = Duration::from_secs(1);

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The next request.
    Next,
    /// It closes; nothing can be on its way here.
    Close,
    /// It closes once the client has, or has had its time.
    Linger,
    /// It goes without a farewell.
    Drop,
    /// It belongs to another protocol now.
    HandedOver,
}

/// Serves a connection to its end; `rest` is what was read of it already.
pub(crate) async fn serve(worker: &Rc<Worker>, client: &Rc<Client>, stream: Stream, rest: Vec<u8>) {
    let wire = Rc::new(Wire::new(stream, client.pulse.clone(), rest));
    let limit = worker.live.load().settings.max_request_head;
    let mut then = Then::Next;
    while then == Then::Next {
        turn::waits();
        then = match poll_fn(|context| wire.poll_next(limit, context)).await {
            Next::Request(arrived) => exchange(worker, client, &wire, arrived).await,
            Next::Refused(refusal) => refuse(worker, client, &wire, refusal).await,
            Next::Closed => Then::Close,
        };
    }
    match then {
        Then::Linger => Box::pin(linger(&wire)).await,
        // One try: there is nothing that the client would miss.
        Then::Close => drop(wire.poll_shutdown(&mut Context::from_waker(Waker::noop()))),
        Then::Next | Then::Drop => {}
        Then::HandedOver => return,
    }
    wire.end();
}

/// One request and its answer.
async fn exchange(worker: &Rc<Worker>, client: &Rc<Client>, wire: &Rc<Wire>, arrived: Box<Arrived>) -> Then {
    let Arrived { head, early, turn } = *arrived;
    let mut asked = Asked::by(&head.parts.method, head.parts.version, head.persistent);
    let is_whole = early.ended && early.trailers.is_none();
    let (handover, takeover) = match is_whole && early.data.is_empty() && wants_upgrade(&head.parts) {
        true => Some(oneshot::channel::<Tunnel>()).unzip(),
        false => (None, None),
    };
    let body = match is_whole {
        true => Arriving::Whole(early.data),
        false => Arriving::Http1(ClientBody::new(wire.clone(), early, turn)),
    };
    let incoming = Request::from_parts(head.parts, body);
    let handling = request::handle(worker.clone(), client, incoming, takeover);
    let Some(response) = answered(wire, Box::pin(handling)).await else {
        return Then::Drop;
    };
    wire.skip_interim();
    asked.persistent &= client.pulse.ordered() == Order::Serve && (wire.is_body_open() || wire.is_drained());
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let mut answer = Answer::new(response, asked);
    let ended = poll_fn(|context| answer.poll(wire, context)).await;
    match ended {
        // Whom we send away must not take what it has for all.
        Ended::Gone | Ended::Cut => {
            if answer.ends_with_connection() {
                wire.reset_on_close();
            }
            Then::Drop
        }
        Ended::Whole if switched => {
            if let Some(taker) = handover {
                // Nobody there: the tunnel is closed before it has begun.
                drop(taker.send(Tunnel::new(wire.clone())));
            }
            Then::HandedOver
        }
        Ended::Whole => {
            wire.close_body();
            match answer.is_persistent() && wire.is_drained() {
                true => Then::Next,
                // A client that wants the end sends nothing more.
                false if !head.persistent && wire.is_quiet() => Then::Close,
                false => Then::Linger,
            }
        }
    }
}

/// Runs the request; `None` when the client has gone meanwhile.
async fn answered(
    wire: &Wire,
    mut handling: Pin<Box<impl Future<Output = Response<Delivery>>>>,
) -> Option<Response<Delivery>> {
    poll_fn(|context| match handling.as_mut().poll(context) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => wire.poll_gone(context).map(|()| None),
    })
    .await
}

/// Says why there is no request; nothing that follows can be understood.
async fn refuse(worker: &Rc<Worker>, client: &Rc<Client>, wire: &Wire, refusal: Refusal) -> Then {
    let response = refusal::answer(worker, client, refusal);
    let mut answer = Answer::new(response, Asked::by(&Method::GET, Version::HTTP_11, false));
    match poll_fn(|context| answer.poll(wire, context)).await {
        Ended::Whole => Then::Linger,
        Ended::Cut | Ended::Gone => Then::Drop,
    }
}

/// Closes our side, and listens until the client has closed its own.
async fn linger(wire: &Wire) {
    let mut is_shut = false;
    let closing = poll_fn(|context| {
        if !is_shut {
            is_shut = true;
            if ready!(wire.poll_shutdown(context)).is_err() {
                return Poll::Ready(());
            }
        }
        wire.poll_forget(context)
    });
    // A client that goes on and on has had its answer by then.
    drop(tokio::time::timeout(LINGER, closing).await);
}
