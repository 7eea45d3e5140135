//! The request that the service is asked with.
//!
//! What it decides on is what the services behind will see: every value of a repeated header, and a path that leads
//! out of the prefix under no spelling of `..`.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tollgate_base::headers::X_FORWARDED_PROTO;
use tollgate_body::{Body, Request};
use tollgate_plugin::Exchange;

use super::config::{Service, Target};
use crate::framing::is_framing;

const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Asks about `request`.
pub(super) fn about(
    service: &Service,
    exchange: &Exchange,
    request: &Request,
    body: Option<Bytes>,
) -> Result<Request, http::Error> {
    let mut headers = HeaderMap::new();
    let all = request.headers().iter();
    for (name, value) in all.filter(|(name, _)| !is_framing(name)) {
        if service.told.as_ref().is_some_and(|names| names.contains(name)) {
            headers.append(name.clone(), value.clone());
        }
    }
    for (name, value) in &service.added {
        headers.insert(name.clone(), value.clone());
    }
    let mut authorizations = request.headers().get_all(AUTHORIZATION).iter().peekable();
    if authorizations.peek().is_some() {
        headers.remove(AUTHORIZATION);
        for value in authorizations {
            headers.append(AUTHORIZATION, value.clone());
        }
    }
    let (method, target) = match &service.target {
        Target::Behind(prefix) => (request.method().clone(), behind(prefix, request.uri())?),
        Target::Fixed(method, path) => {
            describe(exchange, request, &mut headers)?;
            (method.clone(), path.clone())
        }
    };
    headers.insert(HOST, HeaderValue::from_str(service.callee.authority.as_str())?);
    let uri = service.callee.uri(target)?;
    let mut question = Request::new(body.map_or_else(Body::empty, Body::bytes));
    *question.method_mut() = method;
    *question.uri_mut() = uri;
    *question.headers_mut() = headers;
    Ok(question)
}

/// What a service that is always asked alike must know of the request.
fn describe(exchange: &Exchange, request: &Request, headers: &mut HeaderMap) -> Result<(), http::Error> {
    let method = HeaderValue::from_str(request.method().as_str())?;
    let uri = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = HeaderValue::from_bytes(uri.as_bytes())?;
    let scheme = match exchange.record.connection.tls {
        true => "https",
        false => "http",
    };
    let scheme = request
        .headers()
        .get(X_FORWARDED_PROTO)
        .cloned()
        .unwrap_or(HeaderValue::from_static(scheme));
    headers.insert(X_ORIGINAL_METHOD, method.clone());
    headers.insert(X_ORIGINAL_URI, uri.clone());
    headers.insert(X_FORWARDED_PROTO, scheme);
    headers.insert(X_FORWARDED_METHOD, method);
    headers.insert(X_FORWARDED_URI, uri);
    let host = HeaderValue::from_str(&exchange.record.original.authority)?;
    headers.insert(X_FORWARDED_HOST, host);
    Ok(())
}

/// The path of `uri` behind `prefix`, both without detours; the query as it is.
fn behind(prefix: &str, uri: &Uri) -> Result<PathAndQuery, http::Error> {
    let mut target = String::new();
    for path in [prefix, uri.path()] {
        for segment in direct(path) {
            target.push('/');
            target.push_str(segment);
        }
    }
    if target.is_empty() {
        target.push('/');
    }
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    Ok(PathAndQuery::try_from(target)?)
}

fn direct(path: &str) -> Vec<&str> {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        match plain.as_str() {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_prefix() {
        for (prefix, path, joined) in [
            ("/auth", "/users?a=//b/../c", "/auth/users?a=//b/../c"),
            ("/auth/", "//users/./x/", "/auth/users/x"),
            ("", "/", "/"),
            ("/", "/a", "/a"),
            ("auth", "/a", "/auth/a"),
            ("/auth", "/", "/auth"),
            ("/auth", "/../health", "/auth/health"),
            ("/auth", "/a/%2e%2E/../.%2e/health", "/auth/health"),
            ("/auth", "/a%2f../b", "/auth/a%2f../b"),
        ] {
            let uri: Uri = format!("http://gateway{path}").parse().unwrap();
            assert_eq!(behind(prefix, &uri).unwrap().as_str(), joined, "{prefix} {path}");
        }
    }
}
