//! Origins (`scheme://host:port`): which are allowed, and which is the request's own.

use std::collections::HashSet;

use http::Uri;
use regex::{RegexSet, RegexSetBuilder};
use tollgate_base::ConfigError;

/// Origins that may ask.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pub(super) any: bool,
    /// In lower case, without a slash behind.
    pub(super) exact: HashSet<String>,
    pub(super) patterns: RegexSet,
}

impl Origins {
    /// Whether this origin may ask; an empty one never may.
    pub(super) fn allows(&self, origin: &str) -> bool {
        if origin.is_empty() {
            return false;
        }
        let folded = origin.to_ascii_lowercase();
        self.any || self.exact.contains(&folded) || self.patterns.is_match(&folded)
    }
}

/// Compiles patterns; each matches a whole origin.
pub(super) fn patterns(written: &[&str]) -> Result<RegexSet, ConfigError> {
    let expressions = written.iter().map(|pattern| expression(pattern));
    RegexSetBuilder::new(expressions)
        .build()
        .map_err(|_| ConfigError::new("allow_origin_patterns", "the patterns are too long altogether"))
}

/// `*` is any text, `:[8080,9090]` at the end one of these ports, `:[*]` any port or none.
fn expression(pattern: &str) -> String {
    let folded = pattern.trim_end_matches('/').to_ascii_lowercase();
    let (host, ports) = match with_ports(&folded) {
        Some((host, "*")) => (host, "(?::[0-9]+)?".to_owned()),
        Some((host, ports)) => (host, format!(":(?:{})", ports.replace(',', "|"))),
        None => (&*folded, String::new()),
    };
    let parts: Vec<String> = host.split('*').map(regex::escape).collect();
    format!("^{}{ports}$", parts.join(".*"))
}

/// What stands in front of `:[…]`, and in it.
fn with_ports(pattern: &str) -> Option<(&str, &str)> {
    let (host, ports) = pattern.strip_suffix(']')?.rsplit_once(":[")?;
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (ports == "*" || ports.split(',').all(is_port)).then_some((host, ports))
}

/// Whether a request for `uri` comes from a page of the same origin.
pub(super) fn is_same(origin: &str, uri: &Uri) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let own = uri.authority().map_or("", |authority| authority.as_str());
    uri.scheme_str()
        .is_some_and(|own| own.eq_ignore_ascii_case(scheme))
        && with_port(authority, scheme).is_some_and(|(host, port)| {
            with_port(own, scheme)
                .is_some_and(|(own_host, own_port)| host.eq_ignore_ascii_case(own_host) && port == own_port)
        })
}

/// Host and port of an authority; the scheme's port where it has none.
fn with_port<'a>(authority: &'a str, scheme: &str) -> Option<(&'a str, u16)> {
    let default = match scheme.eq_ignore_ascii_case("https") {
        true => 443,
        false => 80,
    };
    match authority.rsplit_once(':') {
        // The last part of an IPv6 address.
        Some((_, rest)) if rest.ends_with(']') => Some((authority, default)),
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, default)),
    }
    .filter(|(host, _)| !host.is_empty())
}
