//! Sending the calls that a module asked for, and handing it the answers.
//!
//! A call belongs to its instance, not to the request: it is not cut when the request ends. Each gets exactly one
//! answer, unless the instance is gone by then: nobody is told.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use tollgate_base::{Error, task};
use tollgate_body::{Body, Request, Response};
use tollgate_plugin::Caller;

use crate::redis;
use crate::share::Share;
use crate::state::{CallAnswer, Order};
use crate::vm::{Vm, http_answer};

/// Largest answer of a call, in bytes; a larger one has failed.
const ANSWER_LIMIT: usize = 10 * 1024 * 1024;

/// Sends one. It goes out whatever becomes of the instance, which does not wait for it: a swap loses no count that a
/// plugin keeps elsewhere, and an old version's memory is given back at once.
pub(crate) fn send(vm: &Rc<Vm>, order: Order) {
    let owner = Rc::downgrade(vm);
    match order {
        Order::Http {
            token,
            mut share,
            cluster,
            request,
            timeout,
            caller,
        } => drop(task::spawn_local("wasm http call", async move {
            let answer = exchange(caller.as_ref(), &cluster, *request, timeout, &mut share).await;
            if let Some(vm) = owner.upgrade() {
                vm.on_http_answer(token, share, answer);
            }
        })),
        Order::Redis {
            token,
            mut share,
            cluster,
            query,
            caller,
        } => {
            let Some((setting, line)) = vm.with(|state| redis::line(state, &cluster)) else {
                return;
            };
            drop(task::spawn_local("wasm redis call", async move {
                let reply = redis::call(line, caller.as_ref(), &cluster, setting, query, &mut share).await;
                if let Err(cause) = &reply {
                    tracing::debug!(cluster, error = %cause, "a module's Redis call failed");
                }
                if let Some(vm) = owner.upgrade() {
                    vm.on_redis_answer(token, share, reply.ok());
                }
            }));
        }
    }
}

/// The whole answer. A failure has a status and a text too, as Envoy's have; one over the limit has nothing.
async fn exchange(
    caller: &dyn Caller,
    cluster: &str,
    request: Request,
    timeout: Duration,
    share: &mut Share,
) -> CallAnswer {
    let whole = async {
        let response = caller.call(cluster, request, timeout).await?;
        read(response, share).await
    };
    let answer = tokio::time::timeout(timeout, whole).await;
    match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) if failure.status() == StatusCode::PAYLOAD_TOO_LARGE => CallAnswer::default(),
        Ok(Err(failure)) => {
            let text = match failure.status() {
                StatusCode::GATEWAY_TIMEOUT => TIMED_OUT.to_owned(),
                _ => failure.message().to_owned(),
            };
            failed(failure.status(), text)
        }
        Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, TIMED_OUT.to_owned()),
    }
}

const TIMED_OUT: &str = "upstream request timeout";

fn failed(status: StatusCode, text: String) -> CallAnswer {
    let mut parts = Response::new(Body::empty()).into_parts().0;
    parts.status = status;
    http_answer(parts, Bytes::from(text), None)
}

async fn read(response: Response, share: &mut Share) -> Result<CallAnswer, Error> {
    let (parts, mut body) = response.into_parts();
    let (mut whole, mut trailers) = (BytesMut::new(), None::<HeaderMap>);
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame?.into_data() {
            Ok(data) if whole.len() + data.len() > ANSWER_LIMIT || !share.grow(data.len()) => {
                return Err(Error::too_large("wasm call answer", ANSWER_LIMIT));
            }
            Ok(data) => whole.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(http_answer(parts, whole.freeze(), trailers))
}
