//! Calls to other services: HTTP and Redis. A call is only noted here; it is sent once the guest has returned, so an
//! answer can never come from inside the call that asked for it.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt, Full};
use tollgate_body::{Body, Request};

use super::header::Range;
use super::{Fault, Guest, Outcome, Status, read, read_text, slice, write_u32};
use crate::head::Head;
use crate::limits::{Bound, Room};
use crate::pairs;
use crate::share::Share;
use crate::state::{Order, RedisSetting};

/// "No timeout" of a call: nothing waits longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// Parts of an HTTP call in guest memory.
pub(super) struct HttpCall {
    pub(super) upstream: Range,
    pub(super) headers: Range,
    pub(super) body: Range,
    pub(super) trailers: Range,
    pub(super) timeout: u32,
}

pub(super) fn http_call(guest: &mut Guest<'_>, call: &HttpCall, token_to: u32) -> Outcome {
    let share = room(guest, &[call.upstream, call.headers, call.body, call.trailers])?;
    let cluster = read_text(guest, call.upstream.0, call.upstream.1)?;
    let headers = pairs::decode(slice(guest, call.headers.0, call.headers.1)?);
    let body = Bytes::from(read(guest, call.body.0, call.body.1)?);
    let trailers = pairs::decode(slice(guest, call.trailers.0, call.trailers.1)?);
    slice(guest, token_to, 4)?;
    let timeout = match i32::try_from(call.timeout) {
        Err(_) => return Err(Status::BadArgument.into()),
        Ok(0) => LONGEST,
        Ok(_) => Duration::from_millis(u64::from(call.timeout)),
    };
    let room = guest.data().generation.host.limits.head;
    let request = Box::new(request(room, &headers, body, &trailers).ok_or(Status::BadArgument)?);
    let token = order(guest, &cluster, |token, cluster, caller| Order::Http {
        token,
        share,
        cluster,
        request,
        timeout,
        caller,
    })?;
    Ok(write_u32(guest, token_to, token)?)
}

/// The request of a call; `None` without `:method`, `:path` and `:authority`.
fn request(room: Room, headers: &[pairs::Pair], body: Bytes, trailers: &[pairs::Pair]) -> Option<Request> {
    let has = |name: &[u8]| headers.iter().any(|(key, _)| key == name);
    if !(has(b":method") && has(b":path") && has(b":authority")) {
        return None;
    }
    let (parts, ()) = http::Request::new(()).into_parts();
    let mut head = Head::Request(parts);
    for (name, value) in headers {
        head.add(room, name, value);
    }
    if !body.is_empty() {
        let length = body.len().to_string();
        head.replace(room, CONTENT_LENGTH.as_str().as_bytes(), length.as_bytes());
    }
    let body = with_trailers(room, body, trailers);
    match head {
        Head::Request(parts) => Some(Request::from_parts(parts, body)),
        Head::Response(_) | Head::Plain(_) => None,
    }
}

/// They reach the other side where the protocol has room for them, as in Envoy: over HTTP/2.
fn with_trailers(room: Room, body: Bytes, trailers: &[pairs::Pair]) -> Body {
    if trailers.is_empty() {
        return Body::bytes(body);
    }
    let mut head = Head::Plain(HeaderMap::new());
    for (name, value) in trailers {
        head.add(room, name, value);
    }
    let fields = std::mem::take(head.fields_mut());
    let whole = Full::new(body).map_err(|never| match never {});
    Body::boxed(whole.with_trailers(std::future::ready(Some(Ok(fields)))))
}

/// A share for a call's parts, when the instance's calls may hold so many more bytes.
fn room(guest: &Guest<'_>, parts: &[Range]) -> Result<Share, Fault> {
    let mut bytes = 0_usize;
    for (_, size) in parts {
        bytes = bytes.saturating_add(usize::try_from(*size)?);
    }
    let mut share = Share::new(guest.data());
    match share.grow(bytes) {
        true => Ok(share),
        false => Err(Status::InternalFailure.into()),
    }
}

/// Notes a call under a fresh token. An instance that only tries a configuration gets a token and no answer.
fn order(
    guest: &mut Guest<'_>,
    cluster: &str,
    make: impl FnOnce(u32, String, std::rc::Rc<dyn tollgate_plugin::Caller>) -> Order,
) -> Result<u32, Status> {
    let state = guest.data_mut();
    let caller = state.caller();
    if caller.as_ref().is_some_and(|caller| !caller.knows(cluster)) {
        return Err(Status::BadArgument);
    }
    if state.calls >= state.generation.host.limits.calls {
        state.generation.metrics.beyond(Bound::Calls);
        return Err(Status::InternalFailure);
    }
    let token = state.token();
    if let Some(caller) = caller {
        state.calls += 1;
        state.orders.push(make(token, cluster.to_owned(), caller));
    }
    Ok(token)
}

/// `redis_init`: what the next commands to this cluster's Redis are introduced with.
pub(super) fn redis_init(
    guest: &mut Guest<'_>,
    upstream: Range,
    user: Range,
    password: Range,
    timeout: u32,
) -> Outcome {
    let target = read_text(guest, upstream.0, upstream.1)?;
    let (cluster, query) = target.split_once('?').unwrap_or((&target, ""));
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let setting = RedisSetting {
        username: read_text(guest, user.0, user.1)?,
        password: read_text(guest, password.0, password.1)?,
        database: parameter("db").and_then(|text| text.parse().ok()).unwrap_or(0),
        timeout: match timeout {
            0 => LONGEST,
            milliseconds => Duration::from_millis(u64::from(milliseconds)),
        },
    };
    let state = guest.data_mut();
    if state.caller().is_some_and(|caller| !caller.knows(cluster)) {
        return Err(Status::BadArgument.into());
    }
    // Connections made with other words are given up.
    state.lines_to.remove(cluster);
    state.redis.insert(cluster.to_owned(), setting);
    Ok(())
}

pub(super) fn redis_call(guest: &mut Guest<'_>, upstream: Range, query: Range, token_to: u32) -> Outcome {
    let share = room(guest, &[upstream, query])?;
    let target = read_text(guest, upstream.0, upstream.1)?;
    let cluster = target.split('?').next().unwrap_or_default().to_owned();
    let query = Bytes::from(read(guest, query.0, query.1)?);
    slice(guest, token_to, 4)?;
    if !guest.data().redis.contains_key(&cluster) {
        return Err(Status::BadArgument.into());
    }
    let token = order(guest, &cluster, |token, cluster, caller| Order::Redis {
        token,
        share,
        cluster,
        query,
        caller,
    })?;
    Ok(write_u32(guest, token_to, token)?)
}

/// Fields of an answer's trailers.
pub(crate) fn trailer_count(trailers: Option<&HeaderMap>) -> u32 {
    u32::try_from(trailers.map_or(0, HeaderMap::len)).unwrap_or(u32::MAX)
}

/// Of the last failed call; there are no gRPC calls that could have failed.
pub(super) fn get_status(guest: &mut Guest<'_>, code_to: u32, to: u32, size_to: u32) -> Outcome {
    write_u32(guest, code_to, 0)?;
    super::give(guest, &[], to, size_to)
}

/// The hosts of the request's cluster: `ip:port` and a JSON text for each.
pub(super) fn upstream_hosts(guest: &mut Guest<'_>, to: u32, size_to: u32) -> Outcome {
    let stream = guest.data_mut().stream().ok_or(Status::BadArgument)?;
    let (cluster, caller) = (stream.cluster.clone(), stream.caller.clone());
    let hosts = caller.hosts(cluster.as_deref().ok_or(Status::NotFound)?);
    let rows: Vec<(String, &str)> = hosts
        .into_iter()
        .map(|(address, healthy)| {
            let status = if healthy { HEALTHY } else { UNHEALTHY };
            (address.to_string(), status)
        })
        .collect();
    let pairs = rows
        .iter()
        .map(|(address, status)| (address.as_bytes(), status.as_bytes()));
    super::give(guest, &pairs::encode(pairs), to, size_to)
}

const HEALTHY: &str = r#"{"health_status":"Healthy","metrics":""}"#;
const UNHEALTHY: &str = r#"{"health_status":"Unhealthy","metrics":""}"#;

/// Notes the host that the request is to go to.
pub(super) fn override_host(guest: &mut Guest<'_>, address: Range) -> Outcome {
    let text = read_text(guest, address.0, address.1)?;
    let stream = guest.data_mut().stream().ok_or(Status::BadArgument)?;
    if stream.side(crate::stream::Direction::Request).head.is_none() {
        return Err(Status::BadArgument.into());
    }
    stream.override_host = Some(text.parse().map_err(|_| Status::BadArgument)?);
    Ok(())
}
