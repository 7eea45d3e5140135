//! Header names that several crates use and `http` does not define.

use http::{HeaderMap, HeaderName};

/// Generated when absent, always answered.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Appended with the peer's address.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`, the scheme the client used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The external client address, when `addXRealIpHeader` is on.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// The path as the client sent it, once something rewrote it.
pub const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// The authority as the client sent it, once something rewrote it.
pub const X_ENVOY_ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
/// Milliseconds the upstream took to its response head.
pub const X_ENVOY_UPSTREAM_SERVICE_TIME: HeaderName =
    HeaderName::from_static("x-envoy-upstream-service-time");
/// Consumer that an authentication plugin recognised; a client's own value never reaches the chain.
pub const X_MSE_CONSUMER: HeaderName = HeaderName::from_static("x-mse-consumer");
/// First-byte timeout that `ai-proxy` asks for, in milliseconds.
pub const X_ENVOY_UPSTREAM_RQ_FIRST_BYTE_TIMEOUT_MS: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-first-byte-timeout-ms");

/// Headers whose values are credentials, whoever reads them: logs, spans and the ledger never show these.
const CREDENTIALS: [&str; 11] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-amz-security-token",
    "x-authorization",
    "x-hi-original-auth",
    "x-auth-token",
];

/// Whether the header of this name, in any case, carries credentials.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    CREDENTIALS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Removes every header whose name is meant. One walk over the few that are there is cheaper than a search for each
/// of many that are not.
pub fn remove_all(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_meant(name.as_str())) {
        let name = name.clone();
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_known_in_any_case() {
        assert!(is_credential("X-Authorization") && is_credential("cookie"));
        assert!(!is_credential("x-agent-session") && !is_credential(""));
    }
}
