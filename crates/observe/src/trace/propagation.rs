//! The headers that carry a trace from service to service: W3C (`traceparent`), B3 in both forms, SkyWalking's `sw8`.
//!
//! Each backend reads and writes its own, as Envoy's tracers do; the others' headers, `sw8-correlation`, `baggage` and
//! `tracestate` pass untouched. What cannot be read counts as absent: a trace begins here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Wire;
use super::context::{Context, Incoming, Parent, Segment};
use super::ids::{SpanId, TraceId};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
const SW8: HeaderName = HeaderName::from_static("sw8");

/// Longest `sw8` that is read, in bytes; longest part of it that is kept.
const MAX_SW8: usize = 4096;
const MAX_PART: usize = 512;

/// Which span a header names as the sender.
pub(crate) struct Sender<'a> {
    pub(crate) span: SpanId,
    pub(crate) parent: SpanId,
    pub(crate) number: i32,
    pub(crate) service: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) endpoint: &'a str,
    pub(crate) peer: &'a str,
}

/// What the headers say; a `tracestate` without a valid `traceparent` is removed, as W3C asks.
pub(crate) fn extract(wire: Wire, headers: &mut HeaderMap) -> Incoming {
    let found = match wire {
        Wire::OtlpGrpc | Wire::OtlpHttp => w3c(headers),
        Wire::Zipkin => b3(headers),
        Wire::SkyWalking => only(headers, &SW8).and_then(sw8),
    };
    if found.is_none() && matches!(wire, Wire::OtlpGrpc | Wire::OtlpHttp) {
        headers.remove(TRACESTATE);
    }
    found.unwrap_or_default()
}

/// Writes the headers for a request that goes on.
pub(crate) fn inject(wire: Wire, context: &Context, sender: &Sender<'_>, headers: &mut HeaderMap) {
    match wire {
        Wire::OtlpGrpc | Wire::OtlpHttp => {
            let flags: &[u8] = if context.sampled { b"-01" } else { b"-00" };
            let (trace, span) = (context.trace.hex(), sender.span.hex());
            let text = [b"00-", trace.as_slice(), b"-", &span, flags].concat();
            if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
                headers.insert(TRACEPARENT, value);
            }
        }
        Wire::Zipkin => inject_b3(context, sender, headers),
        Wire::SkyWalking => put(headers, SW8, &sw8_text(context, sender)),
    }
}

/// The trace id alone, under B3's name.
pub(crate) fn announce(context: &Context, headers: &mut HeaderMap) {
    put(headers, B3_TRACE, &context.trace_text());
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// The one value of a header; none when there are several.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() {
        return None;
    }
    first.to_str().ok().map(str::trim)
}

/// `00-<trace>-<span>-<flags>`; a later version may have more parts.
fn w3c(headers: &HeaderMap) -> Option<Incoming> {
    let mut parts = only(headers, &TRACEPARENT)?.split('-');
    let mut next = |length: usize| {
        let part = parts.next()?;
        let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (part.len() == length && part.bytes().all(is_lower_hex)).then_some(part)
    };
    let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(Incoming {
        trace: Some(TraceId::parse(trace)?),
        parent: Some(Parent::Span(SpanId::parse(span)?)),
        sampled: Some(flags & 1 == 1),
        ..Incoming::default()
    })
}

fn b3(headers: &HeaderMap) -> Option<Incoming> {
    match only(headers, &B3) {
        Some(single) => b3_single(single),
        None => b3_multi(headers),
    }
}

/// `<trace>-<span>[-<sampled>[-<parent>]]`, or the decision alone.
fn b3_single(text: &str) -> Option<Incoming> {
    let mut parts = text.split('-');
    let first = parts.next()?;
    let decided = |text: &str| match text {
        "1" | "d" => Some(true),
        "0" => Some(false),
        _ => None,
    };
    let Some(span) = parts.next() else {
        let sampled = Some(decided(first)?);
        return Some(Incoming {
            sampled,
            single_b3: true,
            ..Incoming::default()
        });
    };
    let sampled = match parts.next() {
        Some(text) => Some(decided(text)?),
        None => None,
    };
    Some(Incoming {
        trace: Some(TraceId::parse(first)?),
        parent: Some(Parent::Span(SpanId::parse(span)?)),
        short: first.len() == 16,
        single_b3: true,
        sampled,
    })
}

fn b3_multi(headers: &HeaderMap) -> Option<Incoming> {
    let is_debug = only(headers, &B3_FLAGS) == Some("1");
    let said = only(headers, &B3_SAMPLED).and_then(|text| match text {
        "1" => Some(true),
        "0" => Some(false),
        other if other.eq_ignore_ascii_case("true") => Some(true),
        other if other.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    });
    let sampled = is_debug.then_some(true).or(said);
    let (Some(trace), Some(span)) = (only(headers, &B3_TRACE), only(headers, &B3_SPAN)) else {
        return Some(Incoming {
            sampled,
            ..Incoming::default()
        });
    };
    Some(Incoming {
        trace: Some(TraceId::parse(trace)?),
        parent: Some(Parent::Span(SpanId::parse(span)?)),
        short: trace.len() == 16,
        sampled,
        ..Incoming::default()
    })
}

fn inject_b3(context: &Context, sender: &Sender<'_>, headers: &mut HeaderMap) {
    let (trace, span, parent) = (
        context.trace_text(),
        sender.span.to_string(),
        sender.parent.to_string(),
    );
    let sampled = if context.sampled { "1" } else { "0" };
    if context.single_b3 {
        put(headers, B3, &format!("{trace}-{span}-{sampled}-{parent}"));
    }
    put(headers, B3_TRACE, &trace);
    put(headers, B3_SPAN, &span);
    put(headers, B3_PARENT, &parent);
    headers.insert(B3_SAMPLED, HeaderValue::from_static(sampled));
}

/// `<sampled>-<trace>-<segment>-<span>-<service>-<instance>-<endpoint>-<address>`, texts in Base64.
fn sw8(text: &str) -> Option<Incoming> {
    if text.len() > MAX_SW8 {
        return None;
    }
    let parts: [&str; 8] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
    let [
        sampled,
        trace,
        segment,
        span,
        service,
        instance,
        endpoint,
        address,
    ] = parts;
    let plain = |part: &str| {
        let text = String::from_utf8(STANDARD.decode(part).ok()?).ok()?;
        (!text.is_empty() && text.len() <= MAX_PART).then_some(text)
    };
    let parent = Segment {
        trace: plain(trace)?,
        id: plain(segment)?,
        span: span.parse().ok().filter(|number: &i32| *number >= 0)?,
        service: plain(service)?,
        instance: plain(instance)?,
        endpoint: plain(endpoint)?,
        address: plain(address)?,
    };
    let sampled = match sampled {
        "1" => true,
        "0" => false,
        _ => return None,
    };
    Some(Incoming {
        parent: Some(Parent::Segment(Box::new(parent))),
        sampled: Some(sampled),
        ..Incoming::default()
    })
}

fn sw8_text(context: &Context, sender: &Sender<'_>) -> String {
    let coded = |text: &str| STANDARD.encode(text);
    format!(
        "{}-{}-{}-{}-{}-{}-{}-{}",
        u8::from(context.sampled),
        coded(&context.trace_text()),
        coded(&context.segment.to_string()),
        sender.number,
        coded(sender.service),
        coded(sender.instance),
        coded(sender.endpoint),
        coded(sender.peer),
    )
}
