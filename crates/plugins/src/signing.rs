//! What signatures over a request have in common: shared secrets, the headers that are signed, and dates.
//!
//! A header that stands in the request twice cannot be signed: whoever reads the request behind may take the other one.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use tollgate_body::Request;

/// A secret that signatures are made with; never shown.
pub(crate) struct Secret(Box<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    /// Whether `signature`, in base64, is this secret's for `text`; compared in constant time.
    pub(crate) fn signed(&self, algorithm: hmac::Algorithm, text: &[u8], signature: &[u8]) -> bool {
        let key = hmac::Key::new(algorithm, &self.0);
        let decoded = STANDARD.decode(signature);
        decoded.is_ok_and(|tag| hmac::verify(&key, text, &tag).is_ok())
    }
}

/// There is more than one of this header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repeated;

/// The header that a client signed under this name; those that HTTP/2 writes with a colon count, and `host` is one of
/// them. `None` where it is missing, or can be no header.
pub(crate) fn signed_header<'r>(request: &'r Request, name: &str) -> Result<Option<&'r [u8]>, Repeated> {
    let uri = request.uri();
    let pseudo = match name {
        ":method" => Some(request.method().as_str()),
        ":path" => Some(target(uri)),
        ":scheme" => uri.scheme_str(),
        ":authority" => uri.authority().map(|authority| authority.as_str()),
        _ if name.eq_ignore_ascii_case("host") => uri.authority().map(|authority| authority.as_str()),
        _ => {
            let mut values = request.headers().get_all(name).iter();
            let first = values.next().map(|value| value.as_bytes());
            return match values.next() {
                Some(_) => Err(Repeated),
                None => Ok(first),
            };
        }
    };
    Ok(pseudo.map(str::as_bytes))
}

/// Path and query.
pub(crate) fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The text of the first header with this name; empty where it is missing or no text.
pub(crate) fn text<'r>(request: &'r Request, name: &str) -> &'r str {
    let value = request.headers().get(name);
    let text = value.and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    text.unwrap_or_default()
}

/// Whether two moments are at most `most` apart, whichever comes first.
pub(crate) fn is_near(one: SystemTime, other: SystemTime, most: Duration) -> bool {
    let apart = one
        .duration_since(other)
        .unwrap_or_else(|before| before.duration());
    apart <= most
}

#[cfg(test)]
pub(crate) mod tests {
    use tollgate_body::Body;

    use super::*;

    /// A signature as clients make it.
    pub(crate) fn sign(algorithm: hmac::Algorithm, secret: &str, text: &str) -> String {
        let key = hmac::Key::new(algorithm, secret.as_bytes());
        STANDARD.encode(hmac::sign(&key, text.as_bytes()))
    }

    #[test]
    fn only_the_very_signature_counts() {
        // RFC 4231, case 2.
        let (secret, text) = (Secret::new("Jefe"), b"what do ya want for nothing?");
        let right = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
        assert!(secret.signed(hmac::HMAC_SHA256, text, right.as_bytes()));
        let long = "A".repeat(8192);
        for wrong in [
            "",
            &right[..43],
            "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEN=",
            "ключ",
            &long,
        ] {
            assert!(
                !secret.signed(hmac::HMAC_SHA256, text, wrong.as_bytes()),
                "{wrong}"
            );
        }
        assert!(!secret.signed(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, text, right.as_bytes()));
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn headers_with_a_colon_and_repeated_ones() {
        let request = http::Request::put("http://a:80/p?q=1")
            .header("x-a", "1")
            .header("x-b", "1")
            .header("x-b", "1")
            .header("host", "other")
            .body(Body::empty())
            .unwrap();
        for (name, value) in [
            (":method", Some("PUT")),
            (":path", Some("/p?q=1")),
            (":scheme", Some("http")),
            (":authority", Some("a:80")),
            ("Host", Some("a:80")),
            ("X-A", Some("1")),
            ("x-c", None),
            ("no header", None),
            ("", None),
        ] {
            assert_eq!(
                signed_header(&request, name),
                Ok(value.map(str::as_bytes)),
                "{name}"
            );
        }
        assert_eq!(signed_header(&request, "x-b"), Err(Repeated));
    }

    #[test]
    fn the_window_is_closed_at_both_ends() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let most = Duration::from_secs(300);
        for (seconds, near) in [
            (700, true),
            (1300, true),
            (1000, true),
            (699, false),
            (1301, false),
        ] {
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(is_near(now, then, most), near, "{seconds}");
        }
    }
}
