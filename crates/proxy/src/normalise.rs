//! From what the client sent to what the chain works on: one authority, a request id, forwarding headers, no
//! hop-by-hop headers. Refuses what cannot be routed without guessing.

use std::rc::Rc;

use http::header::{CONNECTION, COOKIE, HOST, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};
use tollgate_base::clock::Instant;
use tollgate_base::headers::{X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REAL_IP, X_REQUEST_ID, remove_all};
use tollgate_base::{Error, Flag, id};
use tollgate_body::Request;
use tollgate_body::http1::{MOST_FIELDS, has_option};
use tollgate_observe::Record;
use tollgate_observe::record::Original;
use tollgate_snapshot::Settings;

use crate::connection::Client;
use crate::metered::{Arriving, client_body};
use crate::path;

/// Longest client-supplied request id that is kept, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// What a header costs beside its bytes (RFC 9113 §6.5.2).
const FIELD_COST: usize = 32;

/// What the rest of the path works on.
pub(crate) struct Normalised {
    pub record: Rc<Record>,
    pub request: Request,
    /// Lower case, without port.
    pub host: Box<str>,
    /// Why the request cannot be served at all.
    pub refusal: Option<Error>,
}

/// Brings a request into shape; never fails, so that even a refused request is accounted for. `upgrades`: it may
/// become another protocol.
pub(crate) fn normalise(
    client: &Client,
    settings: &Settings,
    started: Instant,
    incoming: http::Request<Arriving>,
    upgrades: bool,
) -> Normalised {
    let connection = &client.connection;
    let (mut head, body) = incoming.into_parts();
    let (authority, authority_refusal) = authority_of(&head.uri, &head.headers, head.version);
    let target = head
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let refusal = authority_refusal.or_else(|| target_error(&head.method, target.as_str()));

    let request_id = take_request_id(&mut head.headers);
    let original = Original {
        method: head.method.clone(),
        authority: authority.as_str().into(),
        path: own_copy(&target, head.version),
        version: head.version,
    };
    remove_hop_by_hop(&mut head.headers, upgrades);
    remove_own(&mut head.headers);
    join_cookies(&mut head.headers);
    let refusal = refusal.or_else(|| head_error(&head, settings.max_request_head));
    add_forwarding(&mut head.headers, &client.address, connection.tls, settings);
    head.headers.remove(HOST);
    head.headers.insert(X_REQUEST_ID, request_id.clone());

    let host = host_of(authority.as_str());
    head.uri = join_uri(
        connection.tls,
        authority,
        path::resolved(&target).unwrap_or(target),
    );
    let record = Rc::new(Record::new(connection.clone(), original, request_id, started));
    let body = client_body(body, &record, settings.downstream_idle);
    Normalised {
        record,
        request: Request::from_parts(head, body),
        host,
        refusal,
    }
}

/// The same in memory of its own: what outlives the request must not keep a whole block of h2's headers alive.
fn own_copy(target: &PathAndQuery, version: Version) -> PathAndQuery {
    match version {
        Version::HTTP_2 => PathAndQuery::try_from(target.as_str()).unwrap_or_else(|_| target.clone()),
        _ => target.clone(),
    }
}

/// Whether the client asks for another protocol, and may.
pub(crate) fn wants_upgrade(head: &request::Parts) -> bool {
    head.version == Version::HTTP_11
        && head.headers.contains_key(UPGRADE)
        && has_option(&head.headers, &CONNECTION, b"upgrade")
        // An upgrade to h2c would let a client talk past the chain.
        && !has_option(&head.headers, &UPGRADE, b"h2c")
}

fn authority_of(uri: &Uri, headers: &HeaderMap, version: Version) -> (Authority, Option<Error>) {
    let nobody = Authority::from_static("-");
    let refuse = |text: &'static str| {
        let error = Error::client(StatusCode::BAD_REQUEST, "invalid_authority", text)
            .with_flag(Flag::DownstreamProtocolError);
        (Authority::from_static("-"), Some(error))
    };
    let mut hosts = headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return refuse("more than one host header");
    }
    // An absolute-form target or :authority wins over the header, as RFC 9112 asks.
    if let Some(authority) = uri.authority() {
        return match authority.as_str().contains('@') {
            true => refuse("user information in the authority"),
            false => (authority.clone(), None),
        };
    }
    match first {
        Some(value) => match Authority::try_from(value.as_bytes()) {
            Ok(authority) if !authority.as_str().contains('@') => (authority, None),
            _ => refuse("invalid host header"),
        },
        None if version == Version::HTTP_10 => (nobody, None),
        None => refuse("missing host header"),
    }
}

fn target_error(method: &Method, path: &str) -> Option<Error> {
    if !path.starts_with('/') && path != "*" {
        return Some(
            Error::client(
                StatusCode::BAD_REQUEST,
                "invalid_path",
                "the path does not begin with a slash",
            )
            .with_flag(Flag::DownstreamProtocolError),
        );
    }
    if *method == Method::CONNECT {
        return Some(Error::client(
            StatusCode::NOT_IMPLEMENTED,
            "connect_refused",
            "CONNECT is not served here",
        ));
    }
    None
}

/// What an HTTP/1 head is refused for before it is a request; h2 leaves it to us, so that it is accounted for.
fn head_error(head: &request::Parts, limit: usize) -> Option<Error> {
    if head.version != Version::HTTP_2 {
        return None;
    }
    let refuse = |reason, text| {
        let error = Error::client(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason, text);
        Some(error.with_flag(Flag::DownstreamProtocolError))
    };
    let fields = head.headers.iter();
    let size: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_COST)
        .sum();
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if size + target > limit {
        return refuse("http2.headers_too_large", "request headers are too large");
    }
    if head.headers.len() > MOST_FIELDS {
        return refuse("http2.too_many_headers", "too many request headers");
    }
    None
}

fn take_request_id(headers: &mut HeaderMap) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(value) if !value.is_empty() && value.len() <= MAX_REQUEST_ID && value.to_str().is_ok() => {
            value.clone()
        }
        _ => id::request_id(),
    }
}

/// Removes what belongs to one connection only (RFC 9110 §7.6.1).
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    if !keep_upgrade && !headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|token| HeaderName::try_from(token.trim()).ok())
            .filter(|name| name != UPGRADE)
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    let keeps_te = headers.get(TE).is_some_and(|value| value == "trailers");
    remove_all(headers, |name| match name {
        "te" => !keeps_te,
        "upgrade" => !keep_upgrade,
        other => is_hop_by_hop(other),
    });
    if keep_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "te" | "upgrade"
    )
}

/// Removes what only we and our plugins may say, and the expectation that the server has met already.
fn remove_own(headers: &mut HeaderMap) {
    remove_all(headers, |name| {
        matches!(
            name,
            "expect"
                | "x-envoy-original-host"
                | "x-envoy-original-path"
                | "x-envoy-upstream-rq-first-byte-timeout-ms"
                | "x-mse-consumer"
        )
    });
}

/// HTTP/2 clients may send each cookie in a field of its own; HTTP/1 upstreams expect one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some()
        && let Some(joined) = joined(headers, &COOKIE, b"; ")
    {
        headers.insert(COOKIE, joined);
    }
}

/// All values of a header as one; `None` without any.
fn joined(headers: &HeaderMap, name: &HeaderName, separator: &[u8]) -> Option<HeaderValue> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if values.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&values.join(separator)).ok()
}

fn add_forwarding(headers: &mut HeaderMap, peer: &HeaderValue, tls: bool, settings: &Settings) {
    let forwarded = match joined(headers, &X_FORWARDED_FOR, b",") {
        Some(earlier) => {
            let mut list = earlier.as_bytes().to_vec();
            list.extend_from_slice(b",");
            list.extend_from_slice(peer.as_bytes());
            HeaderValue::from_bytes(&list).unwrap_or_else(|_| peer.clone())
        }
        None => peer.clone(),
    };
    headers.insert(X_FORWARDED_FOR, forwarded);
    let scheme = if tls { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if settings.real_ip_header {
        headers.insert(X_REAL_IP, peer.clone());
    }
}

/// The host routing compares: lower case, without port.
#[must_use]
pub fn host_of(authority: &str) -> Box<str> {
    let without_port = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    };
    without_port.to_ascii_lowercase().into()
}

/// Puts a URI together from parts that are valid each.
pub(crate) fn join_uri(tls: bool, authority: Authority, path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_port_and_case() {
        assert_eq!(&*host_of("API.Foo.com:8080"), "api.foo.com");
        assert_eq!(&*host_of("[::1]:80"), "[::1]");
        assert_eq!(&*host_of("[::1]"), "[::1]");
    }

    #[test]
    fn lists_that_came_in_pieces_are_joined() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let peer = HeaderValue::from_static("3.3.3.3");
        add_forwarding(&mut headers, &peer, false, &Settings::default());
        join_cookies(&mut headers);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1,2.2.2.2,3.3.3.3");
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
    }

    #[test]
    fn what_connection_lists_is_removed_too() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("close, x-private"));
        headers.insert("x-private", HeaderValue::from_static("1"));
        headers.insert("te", HeaderValue::from_static("gzip"));
        headers.insert("x-kept", HeaderValue::from_static("1"));
        remove_hop_by_hop(&mut headers, false);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("x-kept"));
    }
}
