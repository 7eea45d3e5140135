//! Telling a service that keeps requesters apart who asks, and giving the client the cookie that it is told by
//! (routing spec §8.12). Runs once before the first attempt, on the request as it goes upstream; the upstream side
//! picks the endpoint.

use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use tollgate_body::Request;
use tollgate_observe::Record;
use tollgate_snapshot::{Cluster, LoadBalance, Requester, StickyCookie};
use tollgate_upstream::StickyKey;

/// Notes in the request who asks `cluster`; gives the `set-cookie` for who is to be told by a cookie and has none.
pub(crate) fn note(cluster: &Cluster, request: &mut Request, record: &Record) -> Option<HeaderValue> {
    let LoadBalance::Sticky(requester) = &cluster.load_balance else {
        return None;
    };
    let (mut key, mut handed_out) = (key_of(requester, request, record), None);
    if let (Requester::Cookie(cookie), None) = (requester, key) {
        let value = format!("{:016x}", fastrand::u64(..));
        key = Some(StickyKey::of(value.as_bytes()));
        handed_out = set_cookie(cookie, &value);
    }
    if let Some(key) = key {
        request.extensions_mut().insert(key);
    }
    handed_out
}

fn key_of(requester: &Requester, request: &Request, record: &Record) -> Option<StickyKey> {
    let told_by: &[u8] = match requester {
        Requester::Address => return Some(address_key(record.connection.peer.ip())),
        Requester::Cookie(cookie) => cookie_value(request.headers(), &cookie.name)?,
        Requester::Path => request.uri().path_and_query()?.as_str().as_bytes(),
        Requester::Authority => request.uri().authority()?.as_str().as_bytes(),
        Requester::Header(name) => request.headers().get(name)?.as_bytes(),
        Requester::Query(name) => query_value(request.uri().query()?, name)?.as_bytes(),
    };
    Some(StickyKey::of(told_by))
}

fn address_key(address: IpAddr) -> StickyKey {
    match address.to_canonical() {
        IpAddr::V4(address) => StickyKey::of(&address.octets()),
        IpAddr::V6(address) => StickyKey::of(&address.octets()),
    }
}

/// The first cookie of that name, without the quotes that it may stand in.
fn cookie_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let mut cookies = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    cookies.find_map(|cookie| {
        let value = cookie
            .trim_ascii()
            .strip_prefix(name.as_bytes())?
            .strip_prefix(b"=")?;
        let unquoted = value
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""));
        Some(unquoted.unwrap_or(value))
    })
}

/// The first value of that name, as it stands in the query.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// As Envoy writes it. `None` only for a name or path that no header can hold, which the configuration refuses.
fn set_cookie(cookie: &StickyCookie, value: &str) -> Option<HeaderValue> {
    let age = match cookie.max_age {
        0 => String::new(),
        seconds => format!("; Max-Age={seconds}"),
    };
    let text = format!("{}=\"{value}\"{age}; Path={}; HttpOnly", cookie.name, cookie.path);
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookies: &[&'static str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for cookie in cookies {
            map.append(COOKIE, HeaderValue::from_static(cookie));
        }
        map
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (sent, found) in [
            (&["A=1; B=2"][..], Some(&b"2"[..])),
            (&["A=1", "B=\"2\""], Some(b"2")),
            (&["BB=1; B=2;B=3"], Some(b"2")),
            (&["B=\""], Some(b"\"")),
            (&["B="], Some(b"")),
            (&["B"], None),
            (&["A=B=2"], None),
            (&[], None),
        ] {
            assert_eq!(cookie_value(&headers(sent), "B"), found, "{sent:?}");
        }
    }

    #[test]
    fn a_query_value_is_found_by_its_whole_name() {
        for (query, found) in [
            ("a=1&q=2&q=3", Some("2")),
            ("qq=1&q", Some("")),
            ("q=a=b", Some("a=b")),
            ("a=q", None),
            ("", None),
        ] {
            assert_eq!(query_value(query, "q"), found, "{query}");
        }
    }

    #[test]
    fn the_cookie_lasts_as_long_as_it_says() {
        let cookie = |max_age| StickyCookie {
            name: "INGRESSCOOKIE".into(),
            path: "/".into(),
            max_age,
        };
        for (max_age, text) in [
            (0, "INGRESSCOOKIE=\"ab\"; Path=/; HttpOnly"),
            (60, "INGRESSCOOKIE=\"ab\"; Max-Age=60; Path=/; HttpOnly"),
        ] {
            assert_eq!(set_cookie(&cookie(max_age), "ab").unwrap(), text);
        }
    }
}
