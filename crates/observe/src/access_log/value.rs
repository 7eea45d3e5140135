//! Printing one operator of one record, dressed for the place where it stands.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderValue, Version};
use tollgate_base::Flag;
use tollgate_base::clock::{self, Instant};
use tollgate_base::flag::Flags;

use super::escape;
use super::format::Place;
use super::operator::{GrpcStyle, Number, Operator, Part, Point, RequestSource, Side, Text, Unit};
use crate::{Record, ai_log};

/// Writes one value.
pub(super) struct Printer<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) limit: Option<usize>,
    pub(super) place: Place,
}

impl Printer<'_> {
    pub(super) fn print(mut self, operator: &Operator, record: &Record, ended: Instant) {
        match operator {
            Operator::Request(first, second) => {
                let found =
                    self.request(*first, record) || second.is_some_and(|source| self.request(source, record));
                if !found {
                    self.unset();
                }
            }
            Operator::Response(first, second) => {
                self.header(&record.response_headers.borrow(), *first, *second);
            }
            Operator::Trailer(first, second) => {
                self.header(&record.response_trailers.borrow(), *first, *second);
            }
            Operator::ServiceTime(slot) => self.service_time(*slot, record),
            Operator::FilterState(key) => self.filter_state(record, key),
            Operator::Metadata(key) => self.attribute(&record.metadata.borrow(), key),
            Operator::StartTime(format) => self.safe(|out| format.write(record.start_time, out)),
            Operator::EmitTime(format) => self.safe(|out| format.write(clock::wall(), out)),
            Operator::Duration(from, to, unit) => self.duration(*from, *to, *unit, record, ended),
            Operator::Address(side, part) => self.address(*side, *part, record),
            Operator::Number(number) => self.number(match number {
                Number::BytesReceived => record.bytes_received.get(),
                Number::BytesSent => record.bytes_sent.get(),
                Number::ResponseCode => u64::from(record.status.get()),
                Number::ConnectionId => record.connection.id,
                Number::Attempts => u64::from(record.attempts.get()),
            }),
            Operator::Text(text) => self.record_text(*text, record),
            Operator::GrpcStatus(style, trailer, header) => self.grpc(*style, *trailer, *header, record),
            Operator::Constant(value) => self.text(value.as_bytes()),
            Operator::Unavailable => self.unset(),
        }
    }

    fn unset(&mut self) {
        self.out.extend_from_slice(match self.place {
            Place::Quoted | Place::Plain => b"-",
            Place::Value => b"\"-\"",
            Place::TypedValue => b"null",
        });
    }

    fn number(&mut self, value: u64) {
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// What can hold nothing but harmless ASCII.
    fn safe(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let quotes = matches!(self.place, Place::Value | Place::TypedValue);
        if quotes {
            self.out.push(b'"');
        }
        write(self.out);
        if quotes {
            self.out.push(b'"');
        }
    }

    /// What anybody may have put in.
    fn text(&mut self, value: &[u8]) {
        let value = cut(value, self.limit);
        match self.place {
            Place::Quoted => escape::json(value, self.out),
            Place::Plain => escape::plain(value, self.out),
            Place::Value | Place::TypedValue => {
                self.out.push(b'"');
                escape::json(value, self.out);
                self.out.push(b'"');
            }
        }
    }

    /// What its producer may have escaped already: then it goes in as it is.
    fn prepared(&mut self, value: &str) {
        let raw = cut(value.as_bytes(), self.limit);
        let text = str::from_utf8(raw).unwrap_or_default();
        let as_it_is = match self.place {
            Place::Quoted => escape::is_json_inside(text),
            Place::Plain => false,
            Place::Value => is_json_line(text),
            // Always a string, so that a field keeps its type whatever the value looks like.
            Place::TypedValue if escape::is_json_inside(text) => {
                return self.safe(|out| out.extend_from_slice(raw));
            }
            Place::TypedValue => false,
        };
        if as_it_is {
            self.out.extend_from_slice(raw);
            return;
        }
        self.text(raw);
    }

    fn filter_state(&mut self, record: &Record, key: &str) {
        let log = record.ai_log.borrow();
        if log.is_empty() || key != ai_log::FILTER_STATE {
            return self.attribute(&record.filter_state.borrow(), key);
        }
        match self.place {
            // It comes escaped: it is not looked through once more, long as it may be.
            Place::Quoted | Place::TypedValue if self.limit.is_none() => self.safe(|out| log.write(out)),
            _ => self.prepared(&log.to_text()),
        }
    }

    fn attribute(&mut self, attributes: &[crate::record::Attribute], key: &str) {
        match attributes.iter().find(|entry| entry.0 == key) {
            Some(entry) => self.prepared(&entry.1),
            None => self.unset(),
        }
    }

    fn header(&mut self, captured: &[Option<HeaderValue>], first: usize, second: Option<usize>) {
        let at = |slot: usize| captured.get(slot).and_then(Option::as_ref);
        match at(first).or_else(|| second.and_then(at)) {
            Some(value) => self.text(value.as_bytes()),
            None => self.unset(),
        }
    }

    /// Prints a request value if it is set, and says whether it was.
    fn request(&mut self, source: RequestSource, record: &Record) -> bool {
        let original = &record.original;
        let captured = record.request_headers.borrow();
        let consumer = record.consumer.borrow();
        let at = |slot: usize| {
            captured
                .get(slot)
                .and_then(Option::as_ref)
                .map(HeaderValue::as_bytes)
        };
        let value = match source {
            RequestSource::Method(slot) => at(slot).or(Some(original.method.as_str().as_bytes())),
            RequestSource::Authority(slot) => at(slot).or(Some(original.authority.as_bytes())),
            RequestSource::Path(slot) => at(slot).or(Some(original.path.as_str().as_bytes())),
            RequestSource::OriginalAuthority => Some(original.authority.as_bytes()),
            RequestSource::OriginalPath => Some(original.path.as_str().as_bytes()),
            RequestSource::ReplacedAuthority(slot) => at(slot).map(|_| original.authority.as_bytes()),
            RequestSource::ReplacedPath(slot) => at(slot).map(|_| original.path.as_str().as_bytes()),
            RequestSource::Scheme if record.connection.tls => Some(&b"https"[..]),
            RequestSource::Scheme => Some(&b"http"[..]),
            RequestSource::RequestId => Some(record.request_id.as_bytes()),
            // The vendor does not get it, so it is not among what was sent.
            RequestSource::Consumer(slot) => consumer.as_deref().map(str::as_bytes).or(at(slot)),
            RequestSource::Header(slot) => at(slot),
        };
        let is_path = matches!(
            source,
            RequestSource::Path(_) | RequestSource::OriginalPath | RequestSource::ReplacedPath(_)
        );
        match value {
            Some(value) if is_path => {
                self.text(&covered(value, &record.hidden.borrow()));
                true
            }
            Some(value) if !value.is_empty() => {
                self.text(value);
                true
            }
            _ => false,
        }
    }

    fn service_time(&mut self, slot: usize, record: &Record) {
        let captured = record.response_headers.borrow();
        if let Some(value) = captured.get(slot).and_then(Option::as_ref) {
            return self.text(value.as_bytes());
        }
        let timings = &record.timings;
        let Some(head) = timings.response_head.get() else {
            return self.unset();
        };
        // An upstream may answer before it has read the whole request: then the time since its request began counts.
        let since = timings
            .request_sent
            .get()
            .filter(|sent| *sent <= head)
            .or(timings.upstream_started.get());
        match since {
            Some(since) => self.number(milliseconds(since, head)),
            None => self.unset(),
        }
    }

    fn duration(&mut self, from: Point, to: Point, unit: Unit, record: &Record, ended: Instant) {
        let at = |point: Point| match point {
            Point::Start => Some(record.started),
            Point::RequestSent => record.timings.request_sent.get(),
            Point::UpstreamStarted => record.timings.upstream_started.get(),
            Point::ResponseHead => record.timings.response_head.get(),
            Point::FirstEvent => record.timings.first_event.get(),
            Point::End => Some(ended),
        };
        let (Some(from), Some(to)) = (at(from), at(to)) else {
            return self.unset();
        };
        let elapsed = to.saturating_duration_since(from);
        let value = match unit {
            Unit::Milliseconds => elapsed.as_millis(),
            Unit::Microseconds => elapsed.as_micros(),
            Unit::Nanoseconds => elapsed.as_nanos(),
        };
        self.number(u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn address(&mut self, side: Side, part: Part, record: &Record) {
        let address = match side {
            Side::DownstreamLocal => Some(record.connection.local),
            Side::DownstreamRemote => Some(record.connection.peer),
            Side::UpstreamLocal => record.upstream_local.get(),
            Side::UpstreamRemote => record.upstream_peer.get(),
        };
        let Some(address) = address else {
            return self.unset();
        };
        match part {
            Part::Port => self.number(u64::from(address.port())),
            Part::Ip => self.safe(|out| write_ip(address.ip(), out)),
            Part::Whole => self.safe(|out| write_address(address, out)),
        }
    }

    fn record_text(&mut self, text: Text, record: &Record) {
        match text {
            Text::Protocol => self.safe(|out| out.extend_from_slice(protocol(record.original.version))),
            Text::RouteName => self.optional(record.route.borrow().as_deref()),
            Text::Cluster => self.optional(record.cluster.borrow().as_deref()),
            Text::ServerName => self.optional(record.connection.server_name.as_deref()),
            Text::Consumer => self.optional(record.consumer.borrow().as_deref()),
            Text::Arm => self.optional(record.arm.borrow().as_deref()),
            Text::StreamId => self.text(record.request_id.as_bytes()),
            Text::TraceId => self.optional(record.trace.trace_id().as_deref()),
            Text::SpanId => self.optional(record.trace.span_id().as_deref()),
            Text::Details => self.unblanked(Some(&record.details.borrow())),
            Text::UpstreamFailure => self.unblanked(record.upstream_failure.borrow().as_deref()),
            Text::Flags => self.flags(record.flags.get(), Flag::short_name),
            Text::LongFlags => self.flags(record.flags.get(), long_name),
            Text::Termination => match record.termination.get() {
                Some(termination) => self.text(termination.name().as_bytes()),
                None => self.unset(),
            },
        }
    }

    fn optional(&mut self, value: Option<&str>) {
        match value {
            Some(value) if !value.is_empty() => self.text(value.as_bytes()),
            _ => self.unset(),
        }
    }

    /// Envoy writes these two with `_` for blanks, so that a line split at blanks keeps its columns.
    fn unblanked(&mut self, value: Option<&str>) {
        let start = self.out.len();
        self.optional(value);
        for byte in self.out.iter_mut().skip(start).filter(|byte| **byte == b' ') {
            *byte = b'_';
        }
    }

    fn flags(&mut self, flags: Flags, name: fn(Flag) -> &'static str) {
        if flags.is_empty() {
            return self.unset();
        }
        self.safe(|out| {
            for (index, flag) in flags.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(name(flag).as_bytes());
            }
        });
    }

    fn grpc(&mut self, style: GrpcStyle, trailer: usize, header: usize, record: &Record) {
        let trailers = record.response_trailers.borrow();
        let headers = record.response_headers.borrow();
        let value = trailers
            .get(trailer)
            .and_then(Option::as_ref)
            .or_else(|| headers.get(header).and_then(Option::as_ref));
        let Some(value) = value else {
            return self.unset();
        };
        let code = value.to_str().ok().and_then(|text| text.parse::<usize>().ok());
        match (code, style) {
            (Some(code), GrpcStyle::Number) => self.number(code as u64),
            (Some(code), GrpcStyle::Camel) if code < GRPC.len() => {
                self.optional(GRPC.get(code).map(|row| row.0))
            }
            (Some(code), GrpcStyle::Snake) if code < GRPC.len() => {
                self.optional(GRPC.get(code).map(|row| row.1))
            }
            _ => self.text(value.as_bytes()),
        }
    }
}

const GRPC: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

/// Envoy's long names of the flags.
fn long_name(flag: Flag) -> &'static str {
    match flag {
        Flag::NoHealthyUpstream => "NoHealthyUpstream",
        Flag::UpstreamConnectFailure => "UpstreamConnectionFailure",
        Flag::UpstreamOverflow => "UpstreamOverflow",
        Flag::NoRoute => "NoRouteFound",
        Flag::NoCluster => "NoClusterFound",
        Flag::RetriesExhausted => "UpstreamRetryLimitExceeded",
        Flag::UpstreamTimeout => "UpstreamRequestTimeout",
        Flag::DownstreamDisconnect => "DownstreamConnectionTermination",
        Flag::UpstreamCut => "UpstreamConnectionTermination",
        Flag::UpstreamReset => "UpstreamRemoteReset",
        Flag::UpstreamProtocolError => "UpstreamProtocolError",
        Flag::DownstreamProtocolError => "DownstreamProtocolError",
        Flag::RateLimited => "RateLimited",
        Flag::Unauthorized => "UnauthorizedExternalService",
        Flag::StreamIdle => "StreamIdleTimeout",
        Flag::Overload => "OverloadManagerTerminated",
    }
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2",
        Version::HTTP_3 => b"HTTP/3",
        _ => b"HTTP/1.1",
    }
}

fn milliseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}

/// At most `limit` bytes, cut between characters.
fn cut(value: &[u8], limit: Option<usize>) -> &[u8] {
    let Some(limit) = limit.filter(|limit| *limit < value.len()) else {
        return value;
    };
    let is_continuation = |index: usize| value.get(index).is_some_and(|byte| byte & 0xc0 == 0x80);
    let mut end = limit;
    // A character has at most three continuation bytes; more of them is no UTF-8 and may be cut anywhere.
    while end > 0 && limit - end < 3 && is_continuation(end) {
        end -= 1;
    }
    value.get(..end).unwrap_or_default()
}

/// Whether `text` is one JSON value without a line end.
fn is_json_line(text: &str) -> bool {
    !text
        .chars()
        .any(|character| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}'))
        && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

/// An address without its port, as the log shows it.
pub(crate) fn ip_text(ip: IpAddr) -> String {
    let mut out = Vec::with_capacity(16);
    write_ip(ip, &mut out);
    // It is ASCII; the fallback only avoids a panic.
    String::from_utf8(out).unwrap_or_default()
}

/// An address as the log shows it.
pub(crate) fn address_text(address: SocketAddr) -> String {
    let mut out = Vec::with_capacity(24);
    write_address(address, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn write_ip(ip: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(ip) = ip.to_canonical() else {
        let written = write!(out, "{ip}");
        debug_assert!(written.is_ok(), "a vector takes every byte");
        return;
    };
    for (index, octet) in ip.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

fn write_address(address: SocketAddr, out: &mut Vec<u8>) {
    let ip = address.ip().to_canonical();
    if ip.is_ipv6() {
        out.push(b'[');
    }
    write_ip(ip, out);
    if ip.is_ipv6() {
        out.push(b']');
    }
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(address.port()).as_bytes());
}

/// A path and query in which the values of these parameters are covered.
pub(crate) fn covered<'a>(path: &'a [u8], hidden: &[Arc<str>]) -> Cow<'a, [u8]> {
    if hidden.is_empty() {
        return path.into();
    }
    let query = path.iter().position(|byte| *byte == b'?');
    let Some((before, query)) = query.and_then(|mark| path.split_at_checked(mark + 1)) else {
        return path.into();
    };
    let mut out = before.to_vec();
    for (index, pair) in query.split(|byte| *byte == b'&').enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair);
        let is_meant = |hidden: &Arc<str>| percent_encoding::percent_decode(name).eq(hidden.bytes());
        if name.len() < pair.len() && hidden.iter().any(is_meant) {
            out.extend_from_slice(name);
            out.extend_from_slice(b"=***");
        } else {
            out.extend_from_slice(pair);
        }
    }
    out.into()
}
