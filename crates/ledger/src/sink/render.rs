//! Rows as text: JSON objects a line (ClickHouse's `JSONEachRow`), and OpenTelemetry's logs as JSON (OTLP/HTTP).

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::Value;
use tollgate_observe::Entry;

use crate::store::milliseconds_of;

/// Counts beyond it are nonsense, and no number of OTLP.
const MOST: u64 = 1_000_000_000_000_000;

/// One value of a row.
enum Field<'e> {
    Text(&'e str),
    Integer(u64),
    /// A decimal number, as JSON writes it.
    Decimal(String),
}

/// The values that a row has, in the order of the ledger's columns; `None` is not known.
fn fields<'e>(entry: &'e Entry) -> [(&'static str, Option<Field<'e>>); 25] {
    let (tokens, place) = (&entry.tokens, entry.place.as_ref());
    let milliseconds =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (text, count) = (
        |text: &'e str| Some(Field::Text(text)),
        |count: u64| Some(Field::Integer(count.min(MOST))),
    );
    [
        ("request_id", entry.request_id.to_str().ok().and_then(text)),
        ("consumer", entry.consumer.as_deref().and_then(text)),
        ("route", entry.route.as_deref().and_then(text)),
        ("model_requested", entry.model_requested.as_deref().and_then(text)),
        ("model", entry.model.as_deref().and_then(text)),
        ("vendor", entry.vendor.and_then(text)),
        ("requests", count(1)),
        ("input", count(tokens.input)),
        ("output", count(tokens.output)),
        ("cached", count(tokens.cached)),
        ("reasoning", count(tokens.reasoning)),
        ("source", entry.source.and_then(|source| text(source.name()))),
        ("duration_ms", count(milliseconds(entry.duration))),
        (
            "first_token_ms",
            entry.first_token.map(milliseconds).and_then(count),
        ),
        ("cost", entry.cost.map(|cost| Field::Decimal(cost.to_string()))),
        ("status", count(entry.status.into())),
        (
            "termination",
            entry.termination.and_then(|ended| text(ended.name())),
        ),
        ("attempts", count(entry.attempts.into())),
        ("arm", entry.arm.as_deref().and_then(text)),
        ("conversation", place.and_then(|place| text(&place.conversation))),
        ("parent", place.and_then(|place| text(place.parent.as_deref()?))),
        ("tools", place.and_then(|place| text(place.tools.as_deref()?))),
        ("total", count(tokens.total)),
        ("cache_written", count(tokens.cache_written)),
        ("currency", entry.currency.as_deref().and_then(text)),
    ]
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A JSON object a line. The time is one that ClickHouse reads without a setting.
pub(super) fn json_lines(entries: &[&Entry]) -> Vec<u8> {
    let mut out = String::with_capacity(entries.len() * 512);
    for entry in entries {
        let time = crate::query::moment(milliseconds_of(entry.time));
        let time = time.replace('T', " ");
        out.push_str("{\"time\":\"");
        out.push_str(time.trim_end_matches('Z'));
        out.push('"');
        for (name, field) in fields(entry) {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            match field {
                None => out.push_str("null"),
                Some(Field::Text(text)) => out.push_str(&quoted(text)),
                Some(Field::Integer(number)) => out.push_str(&number.to_string()),
                Some(Field::Decimal(number)) => out.push_str(&number),
            }
        }
        out.push_str("}\n");
    }
    out.into_bytes()
}

/// `ExportLogsServiceRequest` as JSON: a record a row, its values as attributes; 64-bit numbers are text there.
pub(super) fn otlp_logs(entries: &[&Entry]) -> Vec<u8> {
    let mut out = String::with_capacity(entries.len() * 2_048);
    out.push_str(
        "{\"resourceLogs\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":\"tollgate\"}}]},\
         \"scopeLogs\":[{\"scope\":{\"name\":\"tollgate.usage\"},\"logRecords\":[",
    );
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&format!(
            "{{\"timeUnixNano\":\"{}\",\"observedTimeUnixNano\":\"{}\",\"severityNumber\":9,\"severityText\":\"INFO\",\
             \"eventName\":\"tollgate.usage\",\"body\":{{\"stringValue\":\"usage\"}},\"attributes\":[",
            nanoseconds(entry.time),
            nanoseconds(entry.settled()),
        ));
        let known = fields(entry)
            .into_iter()
            .filter_map(|(name, field)| Some((name, field?)));
        for (index, (name, field)) in known.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let value = match field {
                Field::Text(text) => format!("\"stringValue\":{}", quoted(text)),
                Field::Integer(number) => format!("\"intValue\":\"{number}\""),
                Field::Decimal(number) => format!("\"doubleValue\":{number}"),
            };
            out.push_str(&format!("{comma}{{\"key\":\"{name}\",\"value\":{{{value}}}}}"));
        }
        out.push_str("]}");
    }
    out.push_str("]}]}]}");
    out.into_bytes()
}

fn nanoseconds(time: SystemTime) -> i128 {
    Timestamp::try_from(time).map_or(0, Timestamp::as_nanosecond)
}
