//! What a route does besides sending: timers, retries, header edits, rewrites, redirects, CORS, address list, rate.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use regex::Regex;

use crate::Cluster;

/// A route's policies. The default does nothing but the default retry.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Time limits.
    pub timers: Timers,
    /// When to try again.
    pub retry: Retry,
    /// Path as the upstream sees it.
    pub rewrite: Option<PathRewrite>,
    /// `custom-http-errors`.
    pub error_page: Option<Arc<ErrorPage>>,
    /// `mirror-target-*`.
    pub mirror: Option<Arc<Mirror>>,
    /// `upstream-vhost`: authority as the upstream sees it.
    pub upstream_host: Option<HeaderValue>,
    /// Header edits for every destination.
    pub headers: HeaderControl,
    /// `enable-cors`.
    pub cors: Option<Arc<Cors>>,
    /// `whitelist-source-range`; empty means everybody.
    pub allowed_sources: Vec<AddressRange>,
    /// `route-limit-rps` / `-rpm`.
    pub rate: Option<Arc<RateLimit>>,
}

/// `custom-http-errors` with `default-backend`: who is asked for an answer in place of an upstream's error.
#[derive(Debug)]
pub struct ErrorPage {
    /// Statuses of the upstream that are replaced.
    pub statuses: Vec<StatusCode>,
    /// The default backend.
    pub cluster: Arc<Cluster>,
    /// `x-envoy-route-name`: `ROUTE-fallback`.
    pub route: HeaderValue,
    /// `x-envoy-fallback-service`: `NAMESPACE/SERVICE`.
    pub service: HeaderValue,
}

/// Who gets copies of requests, and of how many.
#[derive(Debug)]
pub struct Mirror {
    /// Where copies go.
    pub cluster: Arc<Cluster>,
    /// Of 100 requests.
    pub percent: u32,
}

/// The five timers; `None` is off. Units are seconds and milliseconds as configured, here durations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timers {
    /// TCP and TLS set-up; the default is 10 s.
    pub connect: Option<Duration>,
    /// Request sent to response head.
    pub response_head: Option<Duration>,
    /// Response head to the first event.
    pub first_event: Option<Duration>,
    /// Silence between two events.
    pub silence: Option<Duration>,
    /// Whole answer (`higress.io/timeout`).
    pub total: Option<Duration>,
}

/// When a request is tried again. Never once a byte of the answer has gone to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first; 0 turns retries off.
    pub attempts: u32,
    /// Limit of one attempt to its response head.
    pub per_try: Option<Duration>,
    /// Upstream statuses that are tried again.
    pub statuses: Vec<StatusCode>,
    /// Any 5xx answer, reset or refusal.
    pub on_5xx: bool,
    /// Also for methods that are not idempotent.
    pub non_idempotent: bool,
}

impl Default for Retry {
    /// Higress's own default: two more attempts on connect failure, refused stream and 503.
    fn default() -> Self {
        Self {
            attempts: 2,
            per_try: None,
            statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
            on_5xx: false,
            non_idempotent: false,
        }
    }
}

/// Path rewriting; the query is kept.
#[derive(Debug, Clone)]
pub enum PathRewrite {
    /// The whole path becomes this.
    Whole(Box<str>),
    /// The matched prefix becomes this.
    Prefix {
        /// What the route matched.
        from: Box<str>,
        /// What it becomes.
        to: Box<str>,
    },
    /// Every match of the pattern becomes the replacement (`$1`-style groups already in `regex` syntax).
    Regex {
        /// Pattern.
        pattern: Regex,
        /// Replacement.
        replacement: Box<str>,
    },
}

/// Header edits, executed when the request goes upstream and when the answer comes back.
#[derive(Debug, Clone, Default)]
pub struct HeaderControl {
    /// On requests.
    pub request: HeaderEdits,
    /// On responses.
    pub response: HeaderEdits,
}

/// One direction's edits, in the order add, set, remove.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    /// Appended, keeping what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Overwritten.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
}

/// A redirect answered here.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// 301, 302 or 308 …
    pub status: StatusCode,
    /// New scheme, if it changes. When it does and `authority` does not, the port is dropped.
    pub scheme: Option<Box<str>>,
    /// New authority, if it changes.
    pub authority: Option<Box<str>>,
    /// New path, if it changes; the query is kept.
    pub path: Option<Box<str>>,
}

/// `cors-*`.
#[derive(Debug, Clone)]
pub struct Cors {
    /// Allowed origins.
    pub origins: Vec<OriginMatch>,
    /// `access-control-allow-methods`.
    pub methods: HeaderValue,
    /// `access-control-allow-headers`.
    pub headers: HeaderValue,
    /// `access-control-expose-headers`.
    pub expose: Option<HeaderValue>,
    /// `access-control-allow-credentials`.
    pub credentials: bool,
    /// `access-control-max-age`.
    pub max_age: HeaderValue,
}

/// An allowed origin.
#[derive(Debug, Clone)]
pub enum OriginMatch {
    /// `*`
    Any,
    /// Equal.
    Exact(Box<str>),
    /// Whole origin matches.
    Regex(Regex),
}

/// An address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// Network address.
    pub network: std::net::IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

impl AddressRange {
    /// Whether `address` lies in it (an IPv4-mapped IPv6 address counts as IPv4).
    #[must_use]
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.network, address.to_canonical()) {
            (V4(network), V4(found)) => {
                let free = 32_u32.saturating_sub(self.prefix.into());
                let mask = u32::MAX.checked_shl(free).unwrap_or(0);
                network.to_bits() & mask == found.to_bits() & mask
            }
            (V6(network), V6(found)) => {
                let free = 128_u32.saturating_sub(self.prefix.into());
                let mask = u128::MAX.checked_shl(free).unwrap_or(0);
                network.to_bits() & mask == found.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// A token bucket per route and process. State that must outlive a reload is keyed by the route's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Tokens added per interval.
    pub fill: u32,
    /// 1 s or 60 s.
    pub interval: Duration,
    /// Bucket size.
    pub capacity: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range = |network: &str, prefix: u8| AddressRange {
            network: network.parse().expect("an address"),
            prefix,
        };
        let address = |text: &str| text.parse().expect("an address");
        assert!(range("10.0.0.0", 8).contains(address("10.255.0.1")));
        assert!(range("10.0.0.0", 8).contains(address("::ffff:10.1.1.1")));
        assert!(!range("10.0.0.0", 8).contains(address("11.0.0.1")));
        assert!(range("0.0.0.0", 0).contains(address("1.2.3.4")));
        assert!(!range("0.0.0.0", 0).contains(address("::1")));
        assert!(range("fd00::", 8).contains(address("fdff::1")));
        // Longer than an address is long: the address itself, and no panic.
        assert!(range("10.0.0.1", 200).contains(address("10.0.0.1")));
        assert!(!range("10.0.0.1", 200).contains(address("10.0.0.2")));
    }
}
