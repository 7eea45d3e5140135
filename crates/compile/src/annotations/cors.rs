//! `enable-cors` and `cors-*`.

use std::sync::Arc;

use http::HeaderValue;
use tollgate_snapshot::policy::{Cors, OriginMatch};

use super::reader::Reader;
use super::{Features, Group, Under, whole};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("enable-cors", Under::Both),
        ("cors-allow-origin", Under::Both),
        ("cors-allow-methods", Under::Both),
        ("cors-allow-headers", Under::Both),
        ("cors-expose-headers", Under::Both),
        ("cors-allow-credentials", Under::Both),
        ("cors-max-age", Under::Both),
    ],
    read,
};

const METHODS: &str = "GET,PUT,POST,DELETE,PATCH,OPTIONS";
const HEADERS: &str = "DNT,X-CustomHeader,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Authorization";
const MAX_AGE_SECONDS: i64 = 1_728_000;

fn read(reader: &mut Reader<'_>, features: &mut Features) {
    if reader.flag("enable-cors") != Some(true) {
        return;
    }
    let origins = match reader.text("cors-allow-origin") {
        Some(text) => origins(reader, &text),
        None => vec![OriginMatch::Any],
    };
    let max_age = reader
        .number("cors-max-age")
        .filter(|age| *age >= 0)
        .unwrap_or(MAX_AGE_SECONDS);
    features.cors = Some(Arc::new(Cors {
        origins,
        methods: names(reader, "cors-allow-methods").unwrap_or_else(|| HeaderValue::from_static(METHODS)),
        headers: names(reader, "cors-allow-headers").unwrap_or_else(|| HeaderValue::from_static(HEADERS)),
        expose: names(reader, "cors-expose-headers"),
        credentials: reader.flag("cors-allow-credentials").unwrap_or(true),
        max_age: HeaderValue::from(max_age),
    }));
}

/// Comma-separated items, trimmed; one `*` makes the whole list `*`.
fn items(text: &str) -> Vec<&str> {
    let items: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect();
    match items.contains(&"*") {
        true => vec!["*"],
        false => items,
    }
}

fn names(reader: &mut Reader<'_>, key: &str) -> Option<HeaderValue> {
    let text = reader.text(key)?;
    let value = HeaderValue::from_str(&items(&text).join(",")).ok();
    if value.is_none() {
        reader.note_key(key, "holds characters that no header can carry: ignored");
    }
    value
}

fn origins(reader: &mut Reader<'_>, text: &str) -> Vec<OriginMatch> {
    let mut origins = Vec::new();
    for item in items(text) {
        if item == "*" {
            return vec![OriginMatch::Any];
        }
        if !item.contains('*') {
            origins.push(OriginMatch::Exact(item.into()));
            continue;
        }
        // Only the host is looked at: whatever stands before it, the scheme included, may be anything.
        let host = item
            .split_once("://")
            .and_then(|(_, host)| host.strip_prefix('*'))
            .map(|rest| rest.split('/').next().unwrap_or_default())
            .filter(|rest| !rest.contains('*'));
        match host.map(|rest| whole(&format!(".*{}", regex::escape(rest)))) {
            Some(Ok(pattern)) => origins.push(OriginMatch::Regex(pattern)),
            _ => reader.note_key(
                "cors-allow-origin",
                "`*` may stand alone or first in the host, as in `https://*.foo.com`: this origin is not allowed",
            ),
        }
    }
    origins
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    #[test]
    fn defaults() {
        let (features, notes) = read_from(&[("higress.io/enable-cors", "true")]);
        let cors = features.cors.unwrap();
        assert!(matches!(cors.origins[..], [OriginMatch::Any]));
        assert_eq!(cors.methods, METHODS);
        assert_eq!(cors.max_age, "1728000");
        assert!(cors.credentials && cors.expose.is_none() && notes.is_empty());
        assert!(read_from(&[("higress.io/cors-max-age", "5")]).0.cors.is_none());
    }

    #[test]
    fn origins_are_exact_or_begin_with_a_star() {
        let (features, notes) = read_from(&[
            ("higress.io/enable-cors", "true"),
            (
                "higress.io/cors-allow-origin",
                "http://a.com, https://*.b.com:8080 ,http://c.*.com",
            ),
            ("higress.io/cors-allow-methods", "GET , POST"),
        ]);
        let cors = features.cors.unwrap();
        assert_eq!(cors.methods, "GET,POST");
        let [OriginMatch::Exact(exact), OriginMatch::Regex(pattern)] = &cors.origins[..] else {
            panic!("{:?}", cors.origins)
        };
        assert_eq!(&**exact, "http://a.com");
        assert!(pattern.is_match("http://x.b.com:8080") && !pattern.is_match("http://x.b.com"));
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn a_star_in_a_list_is_the_list() {
        let (features, _) = read_from(&[
            ("higress.io/enable-cors", "true"),
            ("higress.io/cors-allow-headers", "a, *, b"),
            ("higress.io/cors-allow-origin", "http://a.com,*"),
        ]);
        let cors = features.cors.unwrap();
        assert_eq!(cors.headers, "*");
        assert!(matches!(cors.origins[..], [OriginMatch::Any]));
    }
}
