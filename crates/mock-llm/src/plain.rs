//! Endpoints that have nothing to do with models, for tests of a gateway's plain duties.
//!
//! * `/echo` (any method; any path when the server only echoes): a JSON account of the request; the body is
//!   counted and summed, never held
//! * `/status/{n}`: that status · `/bytes/{n}`: n bytes, streamed · `/delay/{ms}`: answers later
//! * `/mirror`, and every request with content type `application/grpc`: the body comes back as it arrives, with
//!   its content type and its trailers; gRPC gets `grpc-status: 0`, or what `x-mock-grpc-status` says at once
//! * every WebSocket handshake: an echo (`websocket`)
//! * the weather and flights of `services`
//! * `/faults`: the fault menu · `/health`: 200
//!
//! Bodies stream in constant memory in both directions.

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use std::time::Duration;

use crate::body::Body;
use crate::faults::FAULTS;
use crate::hash::{Fnv, fnv};
use crate::record::End;
use crate::reply::{Exchange, Reply};
use crate::server::Server;
use crate::services;
use crate::stream::Broken;
use crate::websocket;

/// The part of a body that `/echo` shows as text.
const SHOWN: usize = 64 * 1024;
/// The frames of `/bytes/{n}`.
const FRAME: usize = 16 * 1024;

fn header_object(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let values: Vec<Value> = headers
            .get_all(name)
            .iter()
            .map(|value| json!(String::from_utf8_lossy(value.as_bytes())))
            .collect();
        object.insert(name.to_string(), Value::Array(values));
    }
    Value::Object(object)
}

pub(crate) fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Reads a body piece by piece; gives its beginning, length, checksum and trailers.
async fn digest(
    exchange: &mut Exchange,
    mut body: Incoming,
) -> Option<(Vec<u8>, u64, Fnv, Option<HeaderMap>)> {
    let (mut shown, mut length, mut sum, mut trailers) = (Vec::new(), 0u64, Fnv::default(), None);
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => {
                length += data.len() as u64;
                sum.write(&data);
                shown.extend_from_slice(&data[..data.len().min(SHOWN - shown.len())]);
                exchange.guard.body_length(length);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    exchange.guard.body_beginning(&shown, length);
    Some((shown, length, sum, trailers))
}

async fn echo(
    server: &Server,
    exchange: &mut Exchange,
    head: &http::request::Parts,
    body: Incoming,
) -> Option<Reply> {
    let (shown, length, sum, trailers) = digest(exchange, body).await?;
    let host = head.uri.authority().map(ToString::to_string);
    let host = host.or_else(|| {
        head.headers
            .get("host")
            .map(|host| String::from_utf8_lossy(host.as_bytes()).into())
    });
    let mut account = json!({
        "server": server.options.name,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "version": version_name(head.version),
        "host": host,
        "headers": header_object(&head.headers),
        "body_length": length,
        "body_fnv": format!("{:016x}", sum.value()),
    });
    if length <= SHOWN as u64
        && let Ok(text) = String::from_utf8(shown)
    {
        account["body"] = json!(text);
    }
    if let Some(trailers) = trailers {
        account["trailers"] = header_object(&trailers);
    }
    Some(Reply::json(StatusCode::OK, &account))
}

fn menu() -> Value {
    let rows = FAULTS.iter().map(|fault| {
        let parameters: Map<String, Value> = fault
            .parameters
            .iter()
            .map(|(name, default)| ((*name).to_owned(), json!(default)))
            .collect();
        json!({ "name": fault.name, "parameters": parameters, "about": fault.about })
    });
    rows.collect()
}

/// `n` bytes of the letters a to z, over and over.
fn letters(exchange: Exchange, length: u64) -> Response<Body> {
    let pattern: Bytes = (b'a'..=b'z').cycle().take(FRAME + 26).collect::<Vec<u8>>().into();
    let frames = stream::unfold(0u64, move |sent| {
        let left = usize::try_from(length - sent).unwrap_or(usize::MAX);
        let size = left.min(FRAME);
        let start = usize::try_from(sent % 26).unwrap_or(0);
        let frame = pattern.slice(start..start + size);
        async move { (size > 0).then(|| (Ok(Frame::data(frame)), sent + size as u64)) }
    });
    exchange.guard.status(200);
    let mut response = Response::new(Body::frames(frames, exchange.guard));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/octet-stream")
}

/// Sends the body back while it arrives.
fn mirror(exchange: Exchange, headers: &HeaderMap, body: Incoming, is_grpc: bool) -> Response<Body> {
    exchange.guard.status(200);
    let mut response = Response::new(());
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    if let Some(status) = headers.get("x-mock-grpc-status").filter(|_| is_grpc) {
        // A trailers-only answer: the status is in the head, and there is no body.
        response.headers_mut().insert("grpc-status", status.clone());
        response
            .headers_mut()
            .insert("grpc-message", HeaderValue::from_static("the script answers so"));
        return response.map(|()| Body::whole(Bytes::new(), exchange.guard));
    }
    let frames = stream::unfold((body, false), move |(mut body, over)| async move {
        if over {
            return None;
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                // gRPC's own trailers are not the client's to give.
                let over = frame.is_trailers();
                let frame = if over && is_grpc { grpc_trailers() } else { frame };
                Some((Ok(frame), (body, over)))
            }
            Some(Err(_)) => Some((Err(Broken), (body, true))),
            None => is_grpc.then(|| (Ok(grpc_trailers()), (body, true))),
        }
    });
    response.map(|()| Body::frames(frames, exchange.guard))
}

fn grpc_trailers() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Frame::trailers(trailers)
}

/// Turns the connection into a WebSocket that echoes.
fn upgrade(exchange: Exchange, head: http::request::Parts, response: Response<()>) -> Response<Body> {
    let mut guard = exchange.guard;
    guard.status(response.status().as_u16());
    let upgrading = hyper::upgrade::on(Request::from_parts(head, ()));
    tollgate_base::task::spawn("websocket echo", async move {
        match upgrading.await {
            Ok(stream) => match websocket::echo(TokioIo::new(stream)).await {
                Ok(()) => guard.ends(End::Completed),
                Err(error) => tracing::debug!(%error, "websocket ended"),
            },
            Err(error) => tracing::debug!(%error, "the upgrade failed"),
        }
    });
    response.map(|()| Body::none())
}

/// The number behind a prefix of the path.
fn number_after(path: &str, prefix: &str) -> Option<Result<u64, String>> {
    let text = path.strip_prefix(prefix)?;
    Some(
        text.parse()
            .map_err(|_| format!("`{text}` in {path} is not a number")),
    )
}

async fn numbered(exchange: &mut Exchange, path: &str) -> Option<Result<Reply, String>> {
    if let Some(code) = number_after(path, "/status/") {
        let status = code.and_then(|code| {
            let code = u16::try_from(code).map_err(|_| format!("{code} is no status"))?;
            StatusCode::from_u16(code).map_err(|_| format!("{code} is no status"))
        });
        return Some(status.map(|status| exchange.error(status, "the status that you asked for")));
    }
    let delay = number_after(path, "/delay/")?;
    Some(match delay {
        Ok(milliseconds) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Ok(Reply::json(
                StatusCode::OK,
                &json!({ "delayed_ms": milliseconds }),
            ))
        }
        Err(message) => Err(message),
    })
}

/// Answers one request to a plain endpoint; `None` when the client left before its body was whole.
pub(crate) async fn answer(
    server: &Server,
    mut exchange: Exchange,
    head: http::request::Parts,
    body: Incoming,
) -> Option<Response<Body>> {
    if let Some(reply) = exchange.before_reply().await {
        return Some(exchange.respond(reply));
    }
    if let Some(response) = websocket::handshake(&head.headers) {
        return Some(upgrade(exchange, head, response));
    }
    let path = head.uri.path();
    let is_grpc = content_type(&head.headers).starts_with("application/grpc");
    if is_grpc || path == "/mirror" {
        return Some(mirror(exchange, &head.headers, body, is_grpc));
    }
    if !server.options.echo_only
        && let Some(reply) = services::answer(path, head.uri.query().unwrap_or(""))
    {
        return Some(exchange.respond(reply));
    }
    if server.options.echo_only || path == "/echo" || path.starts_with("/echo/") {
        let reply = echo(server, &mut exchange, &head, body).await?;
        return Some(exchange.respond(reply));
    }
    if let Some(length) = number_after(path, "/bytes/") {
        return Some(match length {
            Ok(length) => letters(exchange, length),
            Err(message) => {
                let reply = exchange.error(StatusCode::BAD_REQUEST, &message);
                exchange.respond(reply)
            }
        });
    }
    let reply = match (path, numbered(&mut exchange, path).await) {
        (_, Some(Ok(reply))) => reply,
        (_, Some(Err(message))) => exchange.error(StatusCode::BAD_REQUEST, &message),
        ("/faults", None) => Reply::json(StatusCode::OK, &menu()),
        ("/health", None) => Reply::json(StatusCode::OK, &json!({ "status": "ok" })),
        (_, None) => {
            exchange.hash = fnv(path.as_bytes());
            exchange.error(
                StatusCode::NOT_FOUND,
                &format!("Invalid URL ({} {path})", head.method),
            )
        }
    };
    Some(exchange.respond(reply))
}
