//! SkyWalking's messages (skywalking-data-collect-protocol v3: `language-agent/Tracing.proto`, `common/Common.proto`).

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct SegmentObject {
    #[prost(string, tag = "1")]
    pub(super) trace_id: String,
    #[prost(string, tag = "2")]
    pub(super) segment_id: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) spans: Vec<SpanObject>,
    #[prost(string, tag = "4")]
    pub(super) service: String,
    #[prost(string, tag = "5")]
    pub(super) service_instance: String,
    #[prost(bool, tag = "6")]
    pub(super) is_size_limited: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SegmentReference {
    /// 0: across processes.
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(string, tag = "2")]
    pub(super) trace_id: String,
    #[prost(string, tag = "3")]
    pub(super) parent_segment_id: String,
    #[prost(int32, tag = "4")]
    pub(super) parent_span_id: i32,
    #[prost(string, tag = "5")]
    pub(super) parent_service: String,
    #[prost(string, tag = "6")]
    pub(super) parent_instance: String,
    #[prost(string, tag = "7")]
    pub(super) parent_endpoint: String,
    #[prost(string, tag = "8")]
    pub(super) address_at_peer: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SpanObject {
    #[prost(int32, tag = "1")]
    pub(super) span_id: i32,
    /// -1 for none.
    #[prost(int32, tag = "2")]
    pub(super) parent_span_id: i32,
    #[prost(int64, tag = "3")]
    pub(super) start: i64,
    #[prost(int64, tag = "4")]
    pub(super) end: i64,
    #[prost(message, repeated, tag = "5")]
    pub(super) references: Vec<SegmentReference>,
    #[prost(string, tag = "6")]
    pub(super) operation: String,
    #[prost(string, tag = "7")]
    pub(super) peer: String,
    /// 0 entry, 1 exit.
    #[prost(int32, tag = "8")]
    pub(super) kind: i32,
    /// 3: HTTP.
    #[prost(int32, tag = "9")]
    pub(super) layer: i32,
    #[prost(int32, tag = "10")]
    pub(super) component: i32,
    #[prost(bool, tag = "11")]
    pub(super) is_error: bool,
    #[prost(message, repeated, tag = "12")]
    pub(super) tags: Vec<KeyStringValuePair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyStringValuePair {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}
