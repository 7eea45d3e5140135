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
    /// `wasm_calls_limit`: calls of one instance that may be under way at once. Default 10 000.
    pub calls: usize,
    /// `wasm_cache_limit`: bytes of compiled modules on disk. Default 1 GiB.
    pub cache: u64,
    /// `wasm_shared_data_limit`: bytes of keys and values that all plugins share. Default 64 MiB.
    pub shared_data: usize,
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
            calls: 10_000,
            cache: 1024 * 1024 * 1024,
            shared_data: 64 * MIB,
        }
    }
}
