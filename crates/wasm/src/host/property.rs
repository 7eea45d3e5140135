//! Properties: what modules can ask about the request, and what they leave on it for others.
//!
//! A path is segments between zero bytes. It is looked up among Envoy's attributes, then among its tokens, then among
//! the values that plugins left (`wasm.<path>` in the access log).

use std::time::{Duration, SystemTime};

use tollgate_base::{Flag, clock};
use tollgate_observe::Record;

use super::header::Range;
use super::{Guest, Outcome, Status, give, parts, piece};
use crate::head::Head;
use crate::limits::{Bound, Limits};
use crate::pairs;
use crate::state::State;
use crate::stream::{Direction, Stream};

/// Most bytes of a value that a module may leave, its name included.
const VALUE_LIMIT: usize = 1024 * 1024;

pub(super) fn get(guest: &mut Guest<'_>, path: Range, to: u32, size_to: u32) -> Outcome {
    let (memory, state) = parts(guest)?;
    let path = piece(memory, path.0, path.1)?;
    let value = value(state, path, memory.len()).ok_or(Status::NotFound)?;
    give(guest, &value, to, size_to)
}

pub(super) fn set(guest: &mut Guest<'_>, path: Range, value: Range) -> Outcome {
    let (memory, state) = parts(guest)?;
    let (path, value) = (piece(memory, path.0, path.1)?, piece(memory, value.0, value.1)?);
    if path.len() + value.len() > VALUE_LIMIT {
        return Err(Status::BadArgument.into());
    }
    let path = String::from_utf8_lossy(path);
    if path == "wasm_need_rebuild" {
        state.rebuild = value == b"true";
        return Ok(());
    }
    let generation = state.generation.clone();
    let limits = &generation.host.limits;
    let stream = state.stream().ok_or(Status::NotFound)?;
    match &*path {
        "clear_route_cache" => stream.keep_route = value == b"off",
        "set_decoder_buffer_limit" => set_limit(stream, Direction::Request, value, limits),
        "set_encoder_buffer_limit" => set_limit(stream, Direction::Response, value, limits),
        _ => {
            let record = stream.record.upgrade().ok_or(Status::NotFound)?;
            if !has_room(&record, &path, value, limits) {
                generation.metrics.beyond(Bound::Properties);
                return Err(Status::InternalFailure.into());
            }
            leave(&record, &path, value);
        }
    }
    Ok(())
}

/// A module cannot read more than its own memory.
fn set_limit(stream: &mut Stream, direction: Direction, value: &[u8], limits: &Limits) {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    if let Some(limit) = number {
        stream.side(direction).limit = limits.memory.min(limit);
    }
}

/// Whether a request takes a value beside what was left on it. One that it replaces does not count.
fn has_room(record: &Record, path: &str, value: &[u8], limits: &Limits) -> bool {
    let (state, tags) = (record.filter_state.borrow(), record.span_tags.borrow());
    let tag = path.strip_prefix("trace_span_tag.");
    let values = state
        .iter()
        .filter(|entry| tag.is_some() || path_of(&entry.0) != Some(path));
    let others = values.chain(tags.iter().filter(|entry| tag != Some(&*entry.0)));
    let (count, bytes) = others.fold((1, path.len() + value.len()), |(count, bytes), (name, text)| {
        (count + 1, bytes + name.len() + text.len())
    });
    count <= limits.properties && bytes <= limits.property_bytes
}

/// The path of a value that a module left, from its key in the record.
fn path_of(key: &str) -> Option<&str> {
    key.strip_prefix("wasm")?.strip_prefix(['.', '\0'])
}

/// Key of what is no text: its bytes stand there as characters, beside the text that the access log shows for it.
fn raw_key(path: &str) -> String {
    format!("wasm\0{path}")
}

fn leave(record: &Record, path: &str, value: &[u8]) {
    let text = String::from_utf8_lossy(value).into_owned();
    if let Some(tag) = path.strip_prefix("trace_span_tag.") {
        return record.set_span_tag(tag.to_owned(), text);
    }
    if path == "ai_log" && record.replace_ai_log(&text) {
        return;
    }
    match text.as_bytes() == value {
        true => {
            let key = raw_key(path);
            record.filter_state.borrow_mut().retain(|entry| entry.0 != key);
        }
        false => record.set_filter_state(raw_key(path), value.iter().copied().map(char::from).collect()),
    }
    record.set_filter_state(format!("wasm.{path}"), text);
}

/// The value as proxy-wasm encodes it.
fn value(state: &mut State, path: &[u8], memory: usize) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(path.strip_suffix(&[0]).unwrap_or(path)).ok()?;
    let segments: Vec<&str> = text.split('\0').collect();
    let found = match segments.as_slice() {
        ["plugin_name"] => Some(state.generation.spec.name.as_bytes().to_vec()),
        ["plugin_root_id"] => Some(state.generation.spec.root_id.as_bytes().to_vec()),
        ["plugin_vm_id"] => Some(Vec::new()),
        ["plugin_vm_memory"] => Some((memory as u64).to_le_bytes().to_vec()),
        // Envoy's number for a listener towards services.
        ["listener_direction"] => number(2),
        _ => None,
    };
    if found.is_some() {
        return found;
    }
    let stream = state.stream()?;
    let record = stream.record.upgrade()?;
    known(stream, &record, &segments).or_else(|| left(&record, text))
}

/// A value that some plugin left.
fn left(record: &Record, path: &str) -> Option<Vec<u8>> {
    if path == "ai_log"
        && let Some(text) = record.ai_log_text()
    {
        return Some(text.into_bytes());
    }
    let state = record.filter_state.borrow();
    let find = |name: String| state.iter().find(|(key, _)| *key == name);
    if let Some((_, raw)) = find(raw_key(path)) {
        return raw.chars().map(|byte| u8::try_from(byte).ok()).collect();
    }
    find(format!("wasm.{path}")).map(|(_, value)| value.clone().into_bytes())
}

fn known(stream: &mut Stream, record: &Record, segments: &[&str]) -> Option<Vec<u8>> {
    match segments {
        ["route_name"] | ["xds", "route_name"] => Some(stream.route.as_ref()?.as_bytes().to_vec()),
        ["cluster_name"] | ["xds", "cluster_name"] => {
            let used = record.cluster.borrow();
            Some(used.as_ref().or(stream.cluster.as_ref())?.as_bytes().to_vec())
        }
        ["connection_id"] => Some(record.connection.id.to_le_bytes().to_vec()),
        ["request", rest @ ..] => request(stream, record, rest),
        ["response", rest @ ..] => response(stream, record, rest),
        ["source", "address"] => text(record.connection.peer),
        ["source", "port"] => number(i64::from(record.connection.peer.port())),
        ["destination", "address"] => text(record.connection.local),
        ["destination", "port"] => number(i64::from(record.connection.local.port())),
        ["connection", "mtls"] => Some(vec![0]),
        ["connection", "id"] => Some(record.connection.id.to_le_bytes().to_vec()),
        ["connection", "requested_server_name"] => {
            Some(record.connection.server_name.as_ref()?.as_bytes().to_vec())
        }
        ["upstream", "address"] => text(record.upstream_peer.get()?),
        ["upstream", "port"] => number(i64::from(record.upstream_peer.get()?.port())),
        ["upstream", "local_address"] => text(record.upstream_local.get()?),
        ["upstream", "transport_failure_reason"] => {
            Some(record.upstream_failure.borrow().as_ref()?.clone().into_bytes())
        }
        ["metadata", "filter_metadata", rest @ ..] => dynamic(record, rest),
        // Those of the configuration have nothing in them.
        ["route_metadata", rest @ ..] if stream.route.is_some() => nothing_in(rest),
        ["cluster_metadata", rest @ ..] if stream.cluster.is_some() => nothing_in(rest),
        ["upstream_host_metadata", rest @ ..] if record.upstream_peer.get().is_some() => nothing_in(rest),
        ["listener_metadata", rest @ ..] => nothing_in(rest),
        ["filter_state", name] => match name.strip_prefix("wasm.") {
            Some(path) => left(record, path),
            None => {
                let state = record.filter_state.borrow();
                let found = state.iter().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone().into_bytes())
            }
        },
        _ => None,
    }
}

fn request(stream: &mut Stream, record: &Record, segments: &[&str]) -> Option<Vec<u8>> {
    let side = stream.side(Direction::Request);
    let head = side.head.as_ref().or(side.gone.as_ref())?;
    let field = |name: &str| head.get(name.as_bytes()).map(std::borrow::Cow::into_owned);
    let path = || field(":path").map(|path| String::from_utf8_lossy(&path).into_owned());
    match segments {
        ["path"] => field(":path"),
        ["url_path"] => Some(path()?.split('?').next()?.as_bytes().to_vec()),
        ["query"] => Some(
            path()?
                .split_once('?')
                .map_or("", |(_, query)| query)
                .as_bytes()
                .to_vec(),
        ),
        ["host"] => field(":authority"),
        ["scheme"] => field(":scheme"),
        ["method"] => field(":method"),
        ["referer"] => field("referer"),
        ["useragent"] => field("user-agent"),
        ["id"] => Some(record.request_id.as_bytes().to_vec()),
        ["protocol"] => Some(
            format!("{:?}", record.original.version)
                .replace("2.0", "2")
                .into_bytes(),
        ),
        ["time"] => number(nanoseconds(
            record
                .start_time
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or(Duration::ZERO),
        )),
        ["duration"] => number(nanoseconds(
            clock::now().saturating_duration_since(record.started),
        )),
        ["size" | "total_size"] => number(i64::try_from(record.bytes_received.get()).ok()?),
        ["headers", rest @ ..] => fields(head, rest),
        _ => None,
    }
}

fn response(stream: &mut Stream, record: &Record, segments: &[&str]) -> Option<Vec<u8>> {
    let side = stream.side(Direction::Response);
    let head = side.head.as_ref().or(side.gone.as_ref());
    match segments {
        ["code"] => {
            let shown = head.and_then(|head| head.get(b":status"));
            let parsed = shown.and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok());
            number(parsed.unwrap_or_else(|| i64::from(record.status.get())))
        }
        ["code_details"] => {
            let details = record.details.borrow();
            match details.is_empty() {
                // Not told before the answer is out: an upstream's answer has no other details than this.
                true if record.timings.response_head.get().is_some() => Some(b"via_upstream".to_vec()),
                true => None,
                false => Some(details.as_bytes().to_vec()),
            }
        }
        ["flags"] => number(record.flags.get().iter().map(flag_bit).sum()),
        ["size" | "total_size"] => number(i64::try_from(record.bytes_sent.get()).ok()?),
        ["grpc_status"] => {
            let trailers = side
                .trailers
                .as_ref()
                .and_then(|fields| fields.get("grpc-status"));
            let shown = trailers.or_else(|| head?.fields().get("grpc-status"))?;
            number(shown.to_str().ok()?.parse().ok()?)
        }
        ["headers", rest @ ..] => fields(head?, rest),
        ["trailers", rest @ ..] => fields(&Head::Plain(side.trailers.clone()?), rest),
        _ => None,
    }
}

/// Envoy's number of a response flag, for a sum of them.
fn flag_bit(flag: Flag) -> i64 {
    let bit = match flag {
        Flag::NoHealthyUpstream => 1,
        Flag::UpstreamTimeout => 2,
        Flag::UpstreamReset => 4,
        Flag::UpstreamConnectFailure => 5,
        Flag::UpstreamCut => 6,
        Flag::UpstreamOverflow => 7,
        Flag::NoRoute => 8,
        Flag::RateLimited => 11,
        Flag::Unauthorized => 12,
        Flag::DownstreamDisconnect => 14,
        Flag::RetriesExhausted => 15,
        Flag::StreamIdle => 16,
        Flag::DownstreamProtocolError => 18,
        Flag::UpstreamProtocolError => 23,
        Flag::NoCluster => 24,
        Flag::Overload => 25,
    };
    1 << bit
}

/// The values that plugins left under a name space, or one of them.
fn dynamic(record: &Record, segments: &[&str]) -> Option<Vec<u8>> {
    let metadata = record.metadata.borrow();
    let within = |space: &str| {
        let values = metadata.iter().map(|(key, value)| (key.split_once(':'), value));
        let own = values.filter_map(move |(key, value)| Some((key?, value)));
        let own = own.filter(|((found, _), _)| *found == space);
        own.map(|((_, name), value)| (name, value)).collect::<Vec<_>>()
    };
    match segments {
        [space] => {
            let values = within(space);
            let pairs = values
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            (!values.is_empty()).then(|| pairs::encode(pairs))
        }
        [space, name] => {
            let found = within(space).into_iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone().into_bytes())
        }
        _ => None,
    }
}

/// A message without fields, and its empty map.
fn nothing_in(segments: &[&str]) -> Option<Vec<u8>> {
    matches!(segments, [] | ["filter_metadata"]).then(Vec::new)
}

/// A whole map, or one of its values.
fn fields(head: &Head, segments: &[&str]) -> Option<Vec<u8>> {
    match segments {
        [] => {
            let all = head.pairs();
            Some(pairs::encode(
                all.iter().map(|(name, value)| (*name, value.as_ref())),
            ))
        }
        [name] => head.get(name.as_bytes()).map(std::borrow::Cow::into_owned),
        _ => None,
    }
}

fn text(shown: impl ToString) -> Option<Vec<u8>> {
    Some(shown.to_string().into_bytes())
}

#[expect(clippy::unnecessary_wraps, reason = "a row of the tables above is an option")]
fn number(value: i64) -> Option<Vec<u8>> {
    Some(value.to_le_bytes().to_vec())
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
