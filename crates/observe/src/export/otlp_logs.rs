//! Rows of any kind as OTLP log records: whoever has rows makes a [`LogRow`] of each and offers it to a queue.

use bytes::Bytes;

use super::otlp::{Otlp, any, pairs, scope};
use super::otlp_messages::{LogRecord, LogsRequest, ResourceLogs, ScopeLogs};
use super::{Accepted, Answer, Encoder, Failure, Item};
use crate::trace::{Attributes, TraceId, Value};

const RPC: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const PATH: &str = "/v1/logs";

/// How grave a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// As it should be.
    #[default]
    Info,
    /// Something failed.
    Error,
}

/// One log record.
#[derive(Debug, Clone, Default)]
pub struct LogRow {
    /// When it happened, nanoseconds since 1970.
    pub time: u64,
    /// How grave.
    pub severity: Severity,
    /// Name of the event; empty for none.
    pub event: &'static str,
    /// The line itself; may be empty.
    pub body: String,
    /// Its fields.
    pub attributes: Attributes,
    /// The trace it belongs to.
    pub trace: Option<TraceId>,
}

impl Item for LogRow {
    fn units(&self) -> u64 {
        1
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.body.len() + self.attributes.size()
    }
}

/// Writes `ExportLogsServiceRequest`.
pub struct OtlpLogs(pub Otlp);

impl Encoder<LogRow> for OtlpLogs {
    fn encode(&self, batch: &[LogRow]) -> http::Request<Bytes> {
        let message = LogsRequest {
            resource_logs: vec![ResourceLogs {
                resource: self.0.resource(),
                scope_logs: vec![ScopeLogs {
                    scope: scope(),
                    log_records: batch.iter().map(message).collect(),
                }],
            }],
        };
        self.0.request(RPC, PATH, &message)
    }

    fn judge(&self, answer: &Answer) -> Result<Accepted, Failure> {
        self.0.judge(answer)
    }
}

fn message(row: &LogRow) -> LogRecord {
    let (number, text) = match row.severity {
        Severity::Info => (9, "INFO"),
        Severity::Error => (17, "ERROR"),
    };
    LogRecord {
        time: row.time,
        severity_number: number,
        severity_text: text.to_owned(),
        body: (!row.body.is_empty()).then(|| any(&Value::from(row.body.clone()))),
        attributes: pairs(&row.attributes),
        trace_id: row.trace.map(|trace| trace.bytes().to_vec()).unwrap_or_default(),
        observed: row.time,
        event_name: row.event.to_owned(),
    }
}
