//! Where the value comes from that a request is counted for, and which values a limit is for.

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderName;
use http::header::COOKIE;
use regex::Regex;
use tollgate_base::headers::X_MSE_CONSUMER;
use tollgate_body::Request;
use tollgate_plugin::Exchange;

/// Where a value comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Header(HeaderName),
    /// The first of this name, percent-decoded.
    Parameter(String),
    Cookie(String),
    Consumer,
    /// The first address of a header.
    HeaderAddress(HeaderName),
    /// The connection's other end.
    PeerAddress,
}

impl Source {
    /// This request's value; `None` where it has none.
    pub(crate) fn value<'r>(&self, exchange: &'r Exchange, request: &'r Request) -> Option<Cow<'r, str>> {
        match self {
            Self::Header(name) => header(request, name),
            Self::Parameter(name) => parameter(request.uri().query()?, name).map(Cow::Owned),
            Self::Cookie(name) => cookie(request, name).map(Cow::Borrowed),
            Self::Consumer => consumer(exchange, request),
            Self::HeaderAddress(name) => {
                let value = header(request, name)?;
                address(value.split(',').next()?.trim()).map(|ip| ip.to_string().into())
            }
            Self::PeerAddress => {
                let ip = exchange.record.connection.peer.ip().to_canonical();
                Some(ip.to_string().into())
            }
        }
    }
}

/// Who an authentication plugin found the client to be.
pub(crate) fn consumer<'r>(exchange: &'r Exchange, request: &'r Request) -> Option<Cow<'r, str>> {
    let known = exchange.record.consumer.borrow();
    match known.as_deref() {
        Some(name) => Some(Cow::Owned(name.to_owned())),
        None => header(request, &X_MSE_CONSUMER),
    }
}

fn header<'r>(request: &'r Request, name: &HeaderName) -> Option<Cow<'r, str>> {
    let value = request.headers().get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()))
}

/// The first value of a name in a query or a form, decoded as a form is: `+` is a blank. A value that is no text does
/// not count.
pub(crate) fn parameter(form: &str, name: &str) -> Option<String> {
    let decoded = |part: &str| {
        let blanks = part.replace('+', " ");
        let decoded = percent_encoding::percent_decode_str(&blanks).decode_utf8();
        decoded.ok().map(Cow::into_owned)
    };
    let mut pairs = form
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(key, _)| decoded(key).is_some_and(|key| key == name))?;
    decoded(value)
}

fn cookie<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    let lines = request.headers().get_all(COOKIE).iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.split('=').next().unwrap_or_default())
        .filter(|value| !value.is_empty())
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || {
        text.parse::<std::net::SocketAddr>()
            .ok()
            .map(|address| address.ip())
    };
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare()
        .or_else(with_port)
        .or_else(bracketed)
        .map(|ip| ip.to_canonical())
}

/// Which values a limit is for.
#[derive(Debug)]
pub(crate) enum Matcher {
    Exact(String),
    Any,
    /// Anywhere in the value; the text itself counts too.
    Pattern(Regex, String),
    Network(Network),
}

impl Matcher {
    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => text == value,
            Self::Any => true,
            Self::Pattern(regex, text) => regex.is_match(value) || text == value,
            Self::Network(network) => value.parse().is_ok_and(|ip| network.contains(ip)),
        }
    }
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// `1.2.3.4`, `1.2.3.0/24`, `::1`, `fd00::/8`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = text
            .split_once('/')
            .map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let written: IpAddr = ip.trim().parse().ok()?;
        let whole = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        let bits: u32 = match bits {
            None => whole(written),
            Some(text) => text.trim().parse().ok().filter(|bits| *bits <= whole(written))?,
        };
        let base = written.to_canonical();
        // An IPv4 network written in IPv6.
        let bits = match whole(written) - whole(base) {
            0 => bits,
            surplus => bits.checked_sub(surplus)?,
        };
        Some(Self { base, bits })
    }

    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        let differs = match (self.base, ip.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => u128::from(base.to_bits() ^ ip.to_bits()) << 96,
            (IpAddr::V6(base), IpAddr::V6(ip)) => base.to_bits() ^ ip.to_bits(),
            _ => return false,
        };
        differs.leading_zeros() >= self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let network = |text: &str| Network::parse(text).unwrap();
        let contains = |text: &str, ip: &str| network(text).contains(ip.parse().unwrap());
        assert!(contains("10.1.0.0/16", "10.1.255.3") && !contains("10.1.0.0/16", "10.2.0.0"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::2"));
        assert!(contains("1.2.3.4", "1.2.3.4") && !contains("1.2.3.4", "1.2.3.5"));
        assert!(contains("1.2.3.4", "::ffff:1.2.3.4"));
        assert!(contains("::ffff:10.0.0.0/104", "10.9.9.9"));
        assert!(contains("fd00::/8", "fd12::1") && !contains("fd00::/8", "fe00::"));
        for wrong in [
            "",
            "10.0.0.0/33",
            "x",
            "10.0.0.0/",
            "::/129",
            "10.0.0",
            "10.0.0.0/-1",
        ] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_with_and_without_ports() {
        for text in ["1.2.3.4", "1.2.3.4:80", "::ffff:1.2.3.4", "[::ffff:1.2.3.4]:80"] {
            assert_eq!(address(text).unwrap().to_string(), "1.2.3.4", "{text}");
        }
        assert_eq!(address("[::1]").unwrap().to_string(), "::1");
        for wrong in ["", "unknown", "1.2.3", "_hidden", "[::1", "1.2.3.4:x"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parameters_are_decoded_as_forms_are() {
        assert_eq!(
            parameter("x=1&a%20b=c+d%21&a+b=2", "a b").as_deref(),
            Some("c d!")
        );
        assert_eq!(parameter("a", "a").as_deref(), Some(""));
        assert_eq!(parameter("a=%FF", "a"), None);
        assert_eq!(parameter("b=1", "a"), None);
    }
}
