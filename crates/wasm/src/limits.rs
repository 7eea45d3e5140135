//! What one module may use: every bound by its name, with its default.

use std::time::Duration;

/// Bounds of modules and their instances. Times are CPU time of the worker, so a busy machine hurts no plugin.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `wasm_memory_limit`: linear memory of an instance, in bytes. Default 256 MiB.
    pub memory: usize,
    /// `wasm_rebuild_memory`: linear memory from which an instance is replaced by a fresh one, in bytes. Default 200 MiB.
    pub rebuild_memory: usize,
    /// `wasm_table_limit`: entries of a table. Default 100 000.
    pub table: usize,
    /// `wasm_instance_limit`: instances of the whole process. Default 1024.
    pub instances: usize,
    /// `wasm_stream_time`: CPU time of one callback of a request. Default 100 ms.
    pub stream_time: Duration,
    /// `wasm_event_time`: CPU time of a tick or the answer of a call. Default 200 ms.
    pub event_time: Duration,
    /// `wasm_start_time`: CPU time of start-up and configuration. Default 10 s.
    pub start_time: Duration,
    /// `wasm_done_time`: time, of the clock, that a plugin which is not done may go on for. Default 30 s.
    pub done_time: Duration,
    /// `wasm_calls_limit`: calls of one instance that may be under way at once. Default 10 000.
    pub calls: usize,
    /// `wasm_cache_limit`: bytes of compiled modules on disk. Default 1 GiB.
    pub cache: u64,
    /// `wasm_call_bytes_limit`: bytes of the requests of one instance's calls under way. Default 64 MiB.
    pub call_bytes: usize,
    /// `wasm_shared_data_limit`: bytes of keys, values and queues that all plugins share. Default 64 MiB.
    pub shared_data: usize,
    /// `wasm_property_limit`: values and span tags that modules may leave on one request. Default 1024.
    pub properties: usize,
    /// `wasm_property_bytes_limit`: bytes of these, names included. Default 4 MiB.
    pub property_bytes: usize,
    /// `wasm_metric_name_limit`: bytes of a metric's name. Default 4 KiB.
    pub metric_name: usize,
}

/// `wasm_header_limit`: fields of a head or of trailers; beyond it a module adds none. Far below where `HeaderMap` itself
/// gives up, so that whoever comes after the module has room.
pub(crate) const HEADER_FIELDS: usize = 4096;
/// `wasm_header_bytes_limit`: bytes of the names and values of a head.
pub(crate) const HEADER_BYTES: usize = 1024 * 1024;
/// `wasm_body_limit`: a module may make a body this long even where less may be held: prompts grow.
pub(crate) const BODY_BYTES: usize = 1024 * 1024;
/// `wasm_write_limit`: bytes of one call of `fd_write`; nothing interrupts a call.
pub(crate) const WRITE_BYTES: usize = 64 * 1024;
/// `wasm_write_pieces`: pieces of one call of `fd_write`.
pub(crate) const WRITE_PIECES: u32 = 1024;
/// `wasm_write_lines`: lines of one call of `fd_write`.
pub(crate) const WRITE_LINES: usize = 1024;

/// A limit that a module ran into, for `tollgate_wasm_limits_total`; those of one thing are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Memory,
    Table,
    Instances,
    StreamTime,
    EventTime,
    StartTime,
    DoneTime,
    Calls,
    CallBytes,
    SharedData,
    Properties,
    MetricName,
    Headers,
    Body,
}

impl Bound {
    /// The limit's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "wasm_memory_limit",
            Self::Table => "wasm_table_limit",
            Self::Instances => "wasm_instance_limit",
            Self::StreamTime => "wasm_stream_time",
            Self::EventTime => "wasm_event_time",
            Self::StartTime => "wasm_start_time",
            Self::DoneTime => "wasm_done_time",
            Self::Calls => "wasm_calls_limit",
            Self::CallBytes => "wasm_call_bytes_limit",
            Self::SharedData => "wasm_shared_data_limit",
            Self::Properties => "wasm_property_limit",
            Self::MetricName => "wasm_metric_name_limit",
            Self::Headers => "wasm_header_limit",
            Self::Body => "wasm_body_limit",
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            memory: 256 * MIB,
            rebuild_memory: 200 * MIB,
            table: 100_000,
            instances: 1024,
            stream_time: Duration::from_millis(100),
            event_time: Duration::from_millis(200),
            start_time: Duration::from_secs(10),
            done_time: Duration::from_secs(30),
            calls: 10_000,
            cache: 1024 * 1024 * 1024,
            call_bytes: 64 * MIB,
            shared_data: 64 * MIB,
            properties: 1024,
            property_bytes: 4 * MIB,
            metric_name: 4096,
        }
    }
}
