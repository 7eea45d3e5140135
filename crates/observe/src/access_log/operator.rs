//! The table of log operators: one row each, Envoy's names and meanings, plus `TOLLGATE(…)`.
//!
//! An operator is resolved here, once, to something that `value` can print without looking anything up by name.

use http::HeaderName;
use tollgate_base::headers;

use super::format::Slots;
use super::time::TimeFormat;

/// One operator as users see it, for docs and for `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorDoc {
    /// Name between the percent signs.
    pub name: &'static str,
    /// What it prints.
    pub about: &'static str,
    /// False: accepted because existing formats use it, always prints `-`.
    pub available: bool,
}

/// A compiled operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operator {
    /// A request header or what stands for one; the second is asked when the first is unset.
    Request(RequestSource, Option<RequestSource>),
    /// A response header by slot, with its alternative.
    Response(usize, Option<usize>),
    /// `x-envoy-upstream-service-time`: the header, else measured.
    ServiceTime(usize),
    Trailer(usize, Option<usize>),
    FilterState(Box<str>),
    Metadata(Box<str>),
    StartTime(TimeFormat),
    EmitTime(TimeFormat),
    Duration(Point, Point, Unit),
    Address(Side, Part),
    Number(Number),
    Text(Text),
    GrpcStatus(GrpcStyle, usize, usize),
    /// The same for every line: host name, log type.
    Constant(Box<str>),
    Unavailable,
}

/// Where the value of `%REQ(…)%` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestSource {
    /// As it went upstream: the slot if something changed it, else as the client sent it.
    Method(usize),
    Authority(usize),
    Path(usize),
    /// As the client sent it, always.
    OriginalAuthority,
    OriginalPath,
    /// As the client sent it, but only when something changed it.
    ReplacedAuthority(usize),
    ReplacedPath(usize),
    Scheme,
    RequestId,
    /// Who authentication recognised, else the header.
    Consumer(usize),
    Header(usize),
}

/// A moment of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Start,
    RequestSent,
    UpstreamStarted,
    ResponseHead,
    FirstEvent,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    DownstreamLocal,
    DownstreamRemote,
    UpstreamLocal,
    UpstreamRemote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Ip,
    Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    BytesReceived,
    BytesSent,
    ResponseCode,
    ConnectionId,
    Attempts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Protocol,
    RouteName,
    Cluster,
    ServerName,
    Details,
    UpstreamFailure,
    Flags,
    LongFlags,
    StreamId,
    TraceId,
    SpanId,
    Termination,
    Consumer,
    Arm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrpcStyle {
    Camel,
    Snake,
    Number,
}

/// How a row becomes an operator.
enum Make {
    /// Takes no argument.
    Plain(Operator),
    /// Reads its argument (empty when there is none).
    With(fn(&str, &mut Slots) -> Result<Operator, String>),
}

struct Row(&'static str, Make, &'static str);

const fn span(from: Point, to: Point) -> Make {
    Make::Plain(Operator::Duration(from, to, Unit::Milliseconds))
}

const fn address(side: Side, part: Part) -> Make {
    Make::Plain(Operator::Address(side, part))
}

const fn number(number: Number) -> Make {
    Make::Plain(Operator::Number(number))
}

const fn text(text: Text) -> Make {
    Make::Plain(Operator::Text(text))
}

static TABLE: &[Row] = &[
    Row(
        "REQ",
        Make::With(request),
        "request header A, else B; `:authority`, `:path` and `:method` are as sent upstream, X-ENVOY-ORIGINAL-HOST and X-ENVOY-ORIGINAL-PATH as the client sent them",
    ),
    Row("RESP", Make::With(response), "response header A, else B"),
    Row("TRAILER", Make::With(trailer), "response trailer A, else B"),
    Row(
        "FILTER_STATE",
        Make::With(filter_state),
        "value that a plugin left under this key (`wasm.ai_log:PLAIN`)",
    ),
    Row(
        "DYNAMIC_METADATA",
        Make::With(metadata),
        "value left as metadata under `namespace:key`",
    ),
    Row(
        "START_TIME",
        Make::With(start_time),
        "arrival of the request, UTC; an argument is a strftime format",
    ),
    Row(
        "EMIT_TIME",
        Make::With(emit_time),
        "time of writing the line, UTC",
    ),
    Row(
        "DURATION",
        span(Point::Start, Point::End),
        "ms from arrival to the end",
    ),
    Row(
        "REQUEST_DURATION",
        span(Point::Start, Point::RequestSent),
        "ms from arrival to the last byte of the request",
    ),
    Row(
        "REQUEST_TX_DURATION",
        span(Point::Start, Point::RequestSent),
        "ms from arrival to the last byte sent upstream",
    ),
    Row(
        "RESPONSE_DURATION",
        span(Point::Start, Point::ResponseHead),
        "ms from arrival to the upstream's response head",
    ),
    Row(
        "RESPONSE_TX_DURATION",
        span(Point::ResponseHead, Point::End),
        "ms from the upstream's response head to the end",
    ),
    Row(
        "COMMON_DURATION",
        Make::With(common_duration),
        "START:END:ms|us|ns of the points DS_RX_BEG, DS_RX_END, US_TX_BEG, US_TX_END, US_RX_BEG, DS_TX_BEG, DS_TX_END",
    ),
    Row(
        "BYTES_RECEIVED",
        number(Number::BytesReceived),
        "body bytes from the client",
    ),
    Row(
        "BYTES_SENT",
        number(Number::BytesSent),
        "body bytes to the client",
    ),
    Row("PROTOCOL", text(Text::Protocol), "HTTP/1.0, HTTP/1.1 or HTTP/2"),
    Row(
        "RESPONSE_CODE",
        number(Number::ResponseCode),
        "status sent to the client, 0 if none was",
    ),
    Row("RESPONSE_CODE_DETAILS", text(Text::Details), "why this status"),
    Row(
        "RESPONSE_FLAGS",
        text(Text::Flags),
        "short flags, comma-separated (`UF,URX`)",
    ),
    Row(
        "RESPONSE_FLAGS_LONG",
        text(Text::LongFlags),
        "the same flags as words",
    ),
    Row("ROUTE_NAME", text(Text::RouteName), "name of the route"),
    Row(
        "REQUESTED_SERVER_NAME",
        text(Text::ServerName),
        "server name of the TLS handshake",
    ),
    Row(
        "CONNECTION_ID",
        number(Number::ConnectionId),
        "number of the client's connection",
    ),
    Row("STREAM_ID", text(Text::StreamId), "the request id"),
    Row(
        "TRACE_ID",
        text(Text::TraceId),
        "id of the request's trace, recorded or not; `-` while tracing is off",
    ),
    Row(
        "SPAN_ID",
        text(Text::SpanId),
        "id of the request's own span in it",
    ),
    Row("HOSTNAME", Make::With(hostname), "name of this machine"),
    Row("ACCESS_LOG_TYPE", Make::With(log_type), "always DownstreamEnd"),
    Row(
        "GRPC_STATUS",
        Make::With(grpc_status),
        "grpc-status as CAMEL_STRING (default), SNAKE_STRING or NUMBER",
    ),
    Row(
        "GRPC_STATUS_NUMBER",
        Make::With(grpc_status_number),
        "grpc-status as a number",
    ),
    Row(
        "DOWNSTREAM_LOCAL_ADDRESS",
        address(Side::DownstreamLocal, Part::Whole),
        "our end of the client's connection",
    ),
    Row(
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        address(Side::DownstreamLocal, Part::Ip),
        "its address",
    ),
    Row(
        "DOWNSTREAM_LOCAL_PORT",
        address(Side::DownstreamLocal, Part::Port),
        "its port",
    ),
    Row(
        "DOWNSTREAM_REMOTE_ADDRESS",
        address(Side::DownstreamRemote, Part::Whole),
        "the client's end",
    ),
    Row(
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        address(Side::DownstreamRemote, Part::Ip),
        "its address",
    ),
    Row(
        "DOWNSTREAM_REMOTE_PORT",
        address(Side::DownstreamRemote, Part::Port),
        "its port",
    ),
    Row(
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
        address(Side::DownstreamLocal, Part::Whole),
        "as DOWNSTREAM_LOCAL_ADDRESS",
    ),
    Row(
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
        address(Side::DownstreamLocal, Part::Ip),
        "its address",
    ),
    Row(
        "DOWNSTREAM_DIRECT_LOCAL_PORT",
        address(Side::DownstreamLocal, Part::Port),
        "its port",
    ),
    Row(
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        address(Side::DownstreamRemote, Part::Whole),
        "as DOWNSTREAM_REMOTE_ADDRESS",
    ),
    Row(
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        address(Side::DownstreamRemote, Part::Ip),
        "its address",
    ),
    Row(
        "DOWNSTREAM_DIRECT_REMOTE_PORT",
        address(Side::DownstreamRemote, Part::Port),
        "its port",
    ),
    Row("UPSTREAM_CLUSTER", text(Text::Cluster), "name of the cluster"),
    Row("UPSTREAM_CLUSTER_RAW", text(Text::Cluster), "name of the cluster"),
    Row(
        "UPSTREAM_HOST",
        address(Side::UpstreamRemote, Part::Whole),
        "address of the upstream used last",
    ),
    Row(
        "UPSTREAM_REMOTE_ADDRESS",
        address(Side::UpstreamRemote, Part::Whole),
        "as UPSTREAM_HOST",
    ),
    Row(
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        address(Side::UpstreamRemote, Part::Ip),
        "its address",
    ),
    Row(
        "UPSTREAM_REMOTE_PORT",
        address(Side::UpstreamRemote, Part::Port),
        "its port",
    ),
    Row(
        "UPSTREAM_LOCAL_ADDRESS",
        address(Side::UpstreamLocal, Part::Whole),
        "our end of the upstream connection",
    ),
    Row(
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        address(Side::UpstreamLocal, Part::Ip),
        "its address",
    ),
    Row(
        "UPSTREAM_LOCAL_PORT",
        address(Side::UpstreamLocal, Part::Port),
        "its port",
    ),
    Row(
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        text(Text::UpstreamFailure),
        "why connecting or TLS to the upstream failed; blanks become `_`",
    ),
    Row(
        "UPSTREAM_REQUEST_ATTEMPT_COUNT",
        number(Number::Attempts),
        "attempts made upstream",
    ),
    Row(
        "TOLLGATE",
        Make::With(tollgate),
        "`termination`, `consumer`, `arm`, `attempts` or `first_event` (ms from arrival)",
    ),
];

/// Operators of Envoy that formats in the field use and that have nothing to print here yet: accepted, always `-`.
static UNAVAILABLE: &[&str] = &[
    "CEL",
    "CLUSTER_METADATA",
    "CONNECTION_TERMINATION_DETAILS",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "ENVIRONMENT",
    "FILTER_CHAIN_NAME",
    "LOCAL_REPLY_BODY",
    "METADATA",
    "PATH",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "REQUEST_HEADERS_BYTES",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "UNIQUE_ID",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_CX_DURATION",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_METADATA",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_SERVER_NAME",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
];

/// Every operator that a format may use.
pub fn operators() -> impl Iterator<Item = OperatorDoc> {
    let available = TABLE.iter().map(|row| OperatorDoc {
        name: row.0,
        about: row.2,
        available: true,
    });
    let unavailable = UNAVAILABLE.iter().map(|name| OperatorDoc {
        name,
        about: "accepted, prints nothing yet",
        available: false,
    });
    available.chain(unavailable)
}

/// Resolves `%name(argument)%`.
pub(super) fn resolve(name: &str, argument: Option<&str>, slots: &mut Slots) -> Result<Operator, String> {
    let Some(row) = TABLE.iter().find(|row| row.0 == name) else {
        let known = UNAVAILABLE.iter().find(|known| **known == name);
        let known = known.ok_or_else(|| format!("unknown operator %{name}%"))?;
        slots.unavailable.push(known);
        return Ok(Operator::Unavailable);
    };
    match &row.1 {
        Make::Plain(_) if argument.is_some() => Err(format!("%{name}% takes no argument")),
        Make::Plain(operator) => Ok(operator.clone()),
        Make::With(make) => {
            make(argument.unwrap_or_default(), slots).map_err(|message| format!("%{name}%: {message}"))
        }
    }
}

/// `A?B` as two header names; the second may be missing.
fn alternatives(argument: &str) -> Result<(&str, Option<&str>), String> {
    let (first, second) = match argument.split_once('?') {
        Some((first, second)) => (first.trim(), Some(second.trim())),
        None => (argument.trim(), None),
    };
    if first.is_empty() || second == Some("") {
        return Err("a header name is missing".into());
    }
    Ok((first, second))
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is no header name"))
}

fn request(argument: &str, slots: &mut Slots) -> Result<Operator, String> {
    let (first, second) = alternatives(argument)?;
    let is = |name: &str, wanted: &str| name.eq_ignore_ascii_case(wanted);
    // What a client sent needs no slot; these two pairs are in Higress's default line.
    match second {
        Some(second) if is(first, "x-envoy-original-host") && is(second, ":authority") => {
            return Ok(Operator::Request(RequestSource::OriginalAuthority, None));
        }
        Some(second) if is(first, "x-envoy-original-path") && is(second, ":path") => {
            return Ok(Operator::Request(RequestSource::OriginalPath, None));
        }
        _ => {}
    }
    let first = request_source(first, slots)?;
    let second = second.map(|name| request_source(name, slots)).transpose()?;
    Ok(Operator::Request(first, second))
}

fn request_source(name: &str, slots: &mut Slots) -> Result<RequestSource, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => RequestSource::Method(slots.method()),
        ":authority" | "host" => RequestSource::Authority(slots.authority()),
        ":path" => RequestSource::Path(slots.path()),
        ":scheme" => RequestSource::Scheme,
        "x-request-id" => RequestSource::RequestId,
        "x-envoy-original-host" => RequestSource::ReplacedAuthority(slots.authority()),
        "x-envoy-original-path" => RequestSource::ReplacedPath(slots.path()),
        "x-mse-consumer" => RequestSource::Consumer(slots.request_header(headers::X_MSE_CONSUMER)),
        pseudo if pseudo.starts_with(':') => return Err(format!("`{name}` is no header name")),
        other => RequestSource::Header(slots.request_header(header_name(other)?)),
    })
}

fn response(argument: &str, slots: &mut Slots) -> Result<Operator, String> {
    let (first, second) = alternatives(argument)?;
    if first.eq_ignore_ascii_case(":status") && second.is_none() {
        return Ok(Operator::Number(Number::ResponseCode));
    }
    let first = header_name(first)?;
    let is_service_time = first == headers::X_ENVOY_UPSTREAM_SERVICE_TIME && second.is_none();
    let slot = slots.response_header(first);
    if is_service_time {
        return Ok(Operator::ServiceTime(slot));
    }
    let second = match second {
        Some(name) => Some(slots.response_header(header_name(name)?)),
        None => None,
    };
    Ok(Operator::Response(slot, second))
}

fn trailer(argument: &str, slots: &mut Slots) -> Result<Operator, String> {
    let (first, second) = alternatives(argument)?;
    let slot = slots.trailer(header_name(first)?);
    let second = match second {
        Some(name) => Some(slots.trailer(header_name(name)?)),
        None => None,
    };
    Ok(Operator::Trailer(slot, second))
}

fn filter_state(argument: &str, _: &mut Slots) -> Result<Operator, String> {
    let (key, style) = argument.split_once(':').unwrap_or((argument, "TYPED"));
    if key.is_empty() {
        return Err("a key is missing".into());
    }
    if !matches!(style, "PLAIN" | "TYPED") {
        return Err(format!("`{style}` is neither PLAIN nor TYPED"));
    }
    Ok(Operator::FilterState(key.into()))
}

fn metadata(argument: &str, _: &mut Slots) -> Result<Operator, String> {
    if argument.is_empty() {
        return Err("a namespace is missing".into());
    }
    Ok(Operator::Metadata(argument.into()))
}

fn time_format(argument: &str) -> Result<TimeFormat, String> {
    if argument.is_empty() {
        return Ok(TimeFormat::iso_milliseconds());
    }
    TimeFormat::parse(argument)
}

fn start_time(argument: &str, _: &mut Slots) -> Result<Operator, String> {
    time_format(argument).map(Operator::StartTime)
}

fn emit_time(argument: &str, _: &mut Slots) -> Result<Operator, String> {
    time_format(argument).map(Operator::EmitTime)
}

fn common_duration(argument: &str, _: &mut Slots) -> Result<Operator, String> {
    let parts: Vec<&str> = argument.split(':').collect();
    let [from, to, unit] = parts.as_slice() else {
        return Err("wants START:END:UNIT".into());
    };
    let point = |name: &str| match name {
        "DS_RX_BEG" => Ok(Point::Start),
        "DS_RX_END" | "US_TX_END" => Ok(Point::RequestSent),
        "US_TX_BEG" => Ok(Point::UpstreamStarted),
        "US_RX_BEG" => Ok(Point::ResponseHead),
        "DS_TX_BEG" => Ok(Point::FirstEvent),
        "DS_TX_END" => Ok(Point::End),
        other => Err(format!("unknown time point `{other}`")),
    };
    let unit = match *unit {
        "ms" => Unit::Milliseconds,
        "us" => Unit::Microseconds,
        "ns" => Unit::Nanoseconds,
        other => return Err(format!("unknown unit `{other}`")),
    };
    Ok(Operator::Duration(point(from)?, point(to)?, unit))
}

fn no_argument(argument: &str) -> Result<(), String> {
    if argument.is_empty() {
        return Ok(());
    }
    Err("takes no argument".into())
}

fn hostname(argument: &str, _: &mut Slots) -> Result<Operator, String> {
    no_argument(argument)?;
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(match name.trim() {
        "" => Operator::Unavailable,
        name => Operator::Constant(name.into()),
    })
}

fn log_type(argument: &str, _: &mut Slots) -> Result<Operator, String> {
    no_argument(argument)?;
    Ok(Operator::Constant("DownstreamEnd".into()))
}

fn grpc(style: GrpcStyle, slots: &mut Slots) -> Operator {
    let name = HeaderName::from_static("grpc-status");
    let trailer = slots.trailer(name.clone());
    // An answer without a body carries its status in the head.
    Operator::GrpcStatus(style, trailer, slots.response_header(name))
}

fn grpc_status(argument: &str, slots: &mut Slots) -> Result<Operator, String> {
    let style = match argument {
        "" | "CAMEL_STRING" => GrpcStyle::Camel,
        "SNAKE_STRING" => GrpcStyle::Snake,
        "NUMBER" => GrpcStyle::Number,
        other => return Err(format!("`{other}` is none of CAMEL_STRING, SNAKE_STRING, NUMBER")),
    };
    Ok(grpc(style, slots))
}

fn grpc_status_number(argument: &str, slots: &mut Slots) -> Result<Operator, String> {
    no_argument(argument)?;
    Ok(grpc(GrpcStyle::Number, slots))
}

fn tollgate(argument: &str, _: &mut Slots) -> Result<Operator, String> {
    match argument {
        "termination" => Ok(Operator::Text(Text::Termination)),
        "consumer" => Ok(Operator::Text(Text::Consumer)),
        "arm" => Ok(Operator::Text(Text::Arm)),
        "attempts" => Ok(Operator::Number(Number::Attempts)),
        "first_event" => Ok(Operator::Duration(
            Point::Start,
            Point::FirstEvent,
            Unit::Milliseconds,
        )),
        other => Err(format!(
            "`{other}` is none of termination, consumer, arm, attempts, first_event"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_name_has_one_row_and_a_row_says_what_it_prints() {
        let mut seen = HashSet::new();
        for doc in operators() {
            assert!(seen.insert(doc.name), "{} twice", doc.name);
            assert!(!doc.about.is_empty(), "{}", doc.name);
        }
    }
}
