//! `load-balance` and its relatives: how an endpoint of a service is picked. Counts per service, like TLS.

use std::sync::Arc;

use http::HeaderName;
use tollgate_snapshot::{LoadBalance, Requester, StickyCookie};

use super::reader::Reader;
use super::{Features, Group, Under};

pub(super) const GROUP: Group = Group {
    keys: &[
        ("load-balance", Under::Both),
        ("upstream-hash-by", Under::Both),
        ("affinity", Under::Both),
        ("affinity-mode", Under::Both),
        ("affinity-canary-behavior", Under::Both),
        ("session-cookie-name", Under::Both),
        ("session-cookie-path", Under::Both),
        ("session-cookie-max-age", Under::Both),
        ("session-cookie-expires", Under::Both),
        ("mcp-sse-stateful-param-name", Under::Both),
    ],
    read,
};

const COOKIE_NAME: &str = "INGRESSCOOKIE";

/// A cookie comes before the other ways to tell who asks, and those before the order in which endpoints take turns.
fn read(reader: &mut Reader<'_>, features: &mut Features) {
    let by_cookie = ["affinity", "session-cookie-name", "session-cookie-path"];
    if by_cookie.iter().any(|key| reader.has(key)) {
        features.load_balance = Some(LoadBalance::Sticky(Requester::Cookie(cookie(reader))));
        return;
    }
    if let Some(variable) = reader.text("upstream-hash-by") {
        features.load_balance = Some(match requester(&variable) {
            Some(requester) => LoadBalance::Sticky(requester),
            None => {
                reader.note_key("upstream-hash-by", UNKNOWN_VARIABLE);
                LoadBalance::RoundRobin
            }
        });
        return;
    }
    if !reader.has("load-balance") {
        return;
    }
    let name = reader
        .text("load-balance")
        .unwrap_or_default()
        .to_ascii_uppercase();
    features.load_balance = Some(match name.as_str() {
        "ROUND_ROBIN" => LoadBalance::RoundRobin,
        "LEAST_CONN" | "LEAST_REQUEST" => LoadBalance::LeastRequest,
        "RANDOM" => LoadBalance::Random,
        "MCP-SSE" | "PASSTHROUGH" => {
            reader.note_key(
                "load-balance",
                "this policy is not supported yet: the less loaded endpoint is picked",
            );
            LoadBalance::LeastRequest
        }
        _ => {
            reader.note_key(
                "load-balance",
                "expected ROUND_ROBIN, LEAST_REQUEST or RANDOM: the less loaded endpoint is picked",
            );
            LoadBalance::LeastRequest
        }
    });
}

const UNKNOWN_VARIABLE: &str =
    "expected $remote_addr, $request_uri, $host, $http_HEADER or $arg_PARAMETER: endpoints take turns";

/// What an nginx variable means. Header names stand as they are, with dashes.
fn requester(variable: &str) -> Option<Requester> {
    match variable {
        "$remote_addr" => return Some(Requester::Address),
        "$request_uri" => return Some(Requester::Path),
        "$host" => return Some(Requester::Authority),
        _ => {}
    }
    if let Some(name) = variable.strip_prefix("$http_") {
        return HeaderName::try_from(name).ok().map(Requester::Header);
    }
    let parameter = variable.strip_prefix("$arg_").filter(|name| !name.is_empty())?;
    Some(Requester::Query(Arc::from(parameter)))
}

fn cookie(reader: &mut Reader<'_>) -> Arc<StickyCookie> {
    // A cookie's name is a token, as a header's is (RFC 6265 §4.1.1).
    let is_name = |name: &str| HeaderName::try_from(name).is_ok();
    let is_path = |path: &str| {
        path.starts_with('/')
            && path
                .bytes()
                .all(|byte| matches!(byte, b'!'..=b'~') && byte != b';')
    };
    let name = usable(
        reader,
        "session-cookie-name",
        is_name,
        "expected the name of a cookie: ignored",
    );
    let path = usable(reader, "session-cookie-path", is_path, "expected a path: ignored");
    let max_age = ["session-cookie-max-age", "session-cookie-expires"]
        .iter()
        .find_map(|key| {
            let seconds = reader.number(key)?;
            let age = u64::try_from(seconds).ok();
            if age.is_none() {
                reader.note_key(key, "expected a number of seconds: ignored");
            }
            age
        });
    Arc::new(StickyCookie {
        name: name.unwrap_or_else(|| COOKIE_NAME.to_owned()).into_boxed_str(),
        path: path.unwrap_or_else(|| "/".to_owned()).into_boxed_str(),
        max_age: max_age.unwrap_or(0),
    })
}

/// A text that `fits`; one that does not is noted.
fn usable(
    reader: &mut Reader<'_>,
    key: &str,
    fits: impl Fn(&str) -> bool,
    otherwise: &str,
) -> Option<String> {
    let text = reader.text(key)?;
    if fits(&text) {
        return Some(text);
    }
    reader.note_key(key, otherwise);
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::read_from;
    use super::*;

    #[test]
    fn policies() {
        for (name, policy, notes_wanted) in [
            ("round_robin", LoadBalance::RoundRobin, 0),
            ("LEAST_CONN", LoadBalance::LeastRequest, 0),
            ("Random", LoadBalance::Random, 0),
            ("mcp-sse", LoadBalance::LeastRequest, 1),
            ("best", LoadBalance::LeastRequest, 1),
        ] {
            let (features, notes) = read_from(&[("higress.io/load-balance", name)]);
            assert_eq!((features.load_balance, notes.len()), (Some(policy), notes_wanted));
        }
        assert_eq!(read_from(&[]).0.load_balance, None);
    }

    #[test]
    fn who_asks_is_told_by_a_variable() {
        let sticky = |requester| Some(LoadBalance::Sticky(requester));
        for (variable, policy, noted) in [
            ("$remote_addr", sticky(Requester::Address), 0),
            ("$request_uri", sticky(Requester::Path), 0),
            ("$host", sticky(Requester::Authority), 0),
            (
                "$http_x-user",
                sticky(Requester::Header(HeaderName::from_static("x-user"))),
                0,
            ),
            ("$arg_q", sticky(Requester::Query("q".into())), 0),
            ("$arg_", Some(LoadBalance::RoundRobin), 1),
            ("$http_", Some(LoadBalance::RoundRobin), 1),
            ("$http_x user", Some(LoadBalance::RoundRobin), 1),
            ("$remote_addr$host", Some(LoadBalance::RoundRobin), 1),
        ] {
            let (features, notes) = read_from(&[("nginx.ingress.kubernetes.io/upstream-hash-by", variable)]);
            assert_eq!(
                (features.load_balance, notes.len()),
                (policy, noted),
                "{variable}"
            );
        }
    }

    #[test]
    fn a_cookie_has_defaults_and_comes_before_everything_else() {
        let read_cookie = |entries: &[(&str, &str)]| {
            let (features, notes) = read_from(entries);
            let Some(LoadBalance::Sticky(Requester::Cookie(cookie))) = features.load_balance else {
                panic!("no cookie: {:?}", features.load_balance);
            };
            (
                (cookie.name.to_string(), cookie.path.to_string(), cookie.max_age),
                notes.len(),
            )
        };
        let wanted = |name: &str, path: &str, age| (name.to_owned(), path.to_owned(), age);
        let both = [
            ("higress.io/affinity", "cookie"),
            ("higress.io/upstream-hash-by", "$host"),
            ("higress.io/load-balance", "random"),
        ];
        assert_eq!(read_cookie(&both), (wanted("INGRESSCOOKIE", "/", 0), 0));
        let named = [
            ("higress.io/session-cookie-name", "route"),
            ("higress.io/session-cookie-path", "/v1"),
        ];
        assert_eq!(read_cookie(&named), (wanted("route", "/v1", 0), 0));
        let aged = [
            ("higress.io/affinity", "cookie"),
            ("higress.io/session-cookie-expires", "60"),
            ("higress.io/session-cookie-max-age", "30"),
        ];
        assert_eq!(read_cookie(&aged), (wanted("INGRESSCOOKIE", "/", 30), 0));
        assert_eq!(read_cookie(&aged[..2]), (wanted("INGRESSCOOKIE", "/", 60), 0));
        let bad = [
            ("higress.io/session-cookie-name", "a;b"),
            ("higress.io/session-cookie-path", "/; Domain=evil"),
            ("higress.io/session-cookie-max-age", "-1"),
        ];
        assert_eq!(read_cookie(&bad), (wanted("INGRESSCOOKIE", "/", 0), 3));
    }
}
