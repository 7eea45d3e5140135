//! Where the value comes from that a request is counted for, and which values a limit is for.

use std::borrow::Cow;

use http::HeaderName;
use http::header::COOKIE;
use regex::Regex;
use tollgate_base::headers::X_MSE_CONSUMER;
use tollgate_body::Request;
use tollgate_plugin::Exchange;

use crate::network::{Network, address};

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

/// The first cookie of this name, unless it is empty.
pub(crate) fn cookie<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
