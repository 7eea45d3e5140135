//! The key `higress` of the ConfigMap `higress-config`: settings of the whole gateway.
//!
//! Each section is read on its own. A section with a bad value is reported and its default stays in force; fields that
//! a section leaves out have their default too.

use serde::Deserialize;

use crate::ConfigMap;
use crate::diagnostic::Diagnostic;
use crate::embedded::Embedded;
use crate::mcp_bridge::MaskedText;
use crate::mcp_server_config::McpServerConfig;

/// Largest window and stream count of HTTP/2.
const HTTP2_MOST: u32 = 2_147_483_647;
/// Smallest window of HTTP/2.
const HTTP2_LEAST_WINDOW: u32 = 65_535;

/// Settings of the whole gateway.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HigressConfig {
    /// Where spans go.
    pub tracing: Tracing,
    /// Compression of responses.
    pub gzip: Gzip,
    /// Towards clients.
    pub downstream: Downstream,
    /// Towards services.
    pub upstream: Upstream,
    /// Whether `x-envoy-*` headers are left out.
    pub disable_x_envoy_headers: Option<bool>,
    /// Whether requests get `x-real-ip`.
    pub add_x_real_ip_header: bool,
    /// MCP servers and routes.
    pub mcp_server: McpServerConfig,
}

/// `tracing`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tracing {
    /// Whether there is any; default false.
    pub enable: bool,
    /// Percent of the requests, 0 to 100; default 100.
    pub sampling: f64,
    /// Milliseconds for one report; default 500.
    pub timeout: i32,
    /// Zipkin's JSON over HTTP.
    pub zipkin: Option<Collector>,
    /// SkyWalking's gRPC.
    pub skywalking: Option<Collector>,
    /// OTLP, over gRPC or HTTP.
    pub opentelemetry: Option<Collector>,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            enable: false,
            sampling: 100.0,
            timeout: 500,
            zipkin: None,
            skywalking: None,
            opentelemetry: None,
        }
    }
}

/// The service that takes spans; its cluster is `outbound|port||service`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Collector {
    /// Service host.
    pub service: String,
    /// Port; text in Higress's own examples, a number in its chart.
    pub port: u16,
    /// SkyWalking's token.
    pub access_token: MaskedText,
    /// OpenTelemetry's transport: `grpc` (default) or `http/protobuf`. Tollgate's own.
    pub protocol: String,
}

/// `gzip`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gzip {
    /// Whether responses are compressed; default true.
    pub enable: bool,
    /// Bytes below which a response stays as it is; default 1024.
    pub min_content_length: i32,
    /// Types that are compressed. Event streams are not among the defaults.
    pub content_type: Vec<String>,
    /// Whether a response with an ETag stays as it is; default true.
    pub disable_on_etag_header: bool,
    /// zlib's memory, 1 to 9; default 5.
    pub memory_level: i32,
    /// zlib's window as a power of two, 9 to 15; default 12.
    pub window_bits: i32,
    /// Bytes of zlib's output buffer; default 4096.
    pub chunk_size: i32,
    /// `BEST_COMPRESSION` (default), `BEST_SPEED` or `COMPRESSION_LEVEL_1` to `COMPRESSION_LEVEL_9`.
    pub compression_level: String,
    /// `DEFAULT_STRATEGY` (default), `FILTERED`, `HUFFMAN_ONLY`, `RLE` or `FIXED`.
    pub compression_strategy: String,
}

impl Default for Gzip {
    fn default() -> Self {
        let types = [
            "text/html",
            "text/css",
            "text/plain",
            "text/xml",
            "application/json",
            "application/javascript",
            "application/xhtml+xml",
            "image/svg+xml",
        ];
        Self {
            enable: true,
            min_content_length: 1024,
            content_type: types.map(str::to_owned).to_vec(),
            disable_on_etag_header: true,
            memory_level: 5,
            window_bits: 12,
            chunk_size: 4096,
            compression_level: "BEST_COMPRESSION".to_owned(),
            compression_strategy: "DEFAULT_STRATEGY".to_owned(),
        }
    }
}

impl Gzip {
    /// zlib's level, 1 to 9, that `compression_level` names; `None` for an unknown name.
    pub fn level(&self) -> Option<u32> {
        match self.compression_level.as_str() {
            "BEST_COMPRESSION" => Some(9),
            "BEST_SPEED" => Some(1),
            name => name
                .strip_prefix("COMPRESSION_LEVEL_")?
                .parse()
                .ok()
                .filter(|level| (1..=9).contains(level)),
        }
    }
}

/// `downstream`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Downstream {
    /// Seconds that a connection or stream may be silent; 0 for any time; default 180.
    pub idle_timeout: u32,
    /// KiB of request headers before 431; at most 8192; default 60.
    pub max_request_headers_kb: u32,
    /// Bytes of a request body that a plugin may hold before 413; default 32768.
    pub connection_buffer_limits: u32,
    /// Seconds for a whole answer, for routes without their own; 0 (default) for any time.
    pub route_timeout: u32,
    /// HTTP/2.
    pub http2: Http2,
}

impl Default for Downstream {
    fn default() -> Self {
        Self {
            idle_timeout: 180,
            max_request_headers_kb: 60,
            connection_buffer_limits: 32_768,
            route_timeout: 0,
            http2: Http2::default(),
        }
    }
}

/// `downstream.http2`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Http2 {
    /// Streams of one connection at a time; default 100.
    pub max_concurrent_streams: u32,
    /// Bytes of a stream's window; default 65535.
    pub initial_stream_window_size: u32,
    /// Bytes of a connection's window; default 1048576.
    pub initial_connection_window_size: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            initial_stream_window_size: 65_535,
            initial_connection_window_size: 1_048_576,
        }
    }
}

/// `upstream`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Upstream {
    /// Seconds that an idle connection is kept; 0 for any time; default 10.
    pub idle_timeout: u32,
    /// Bytes of a response that may wait for its reader; default 10485760.
    pub connection_buffer_limits: u32,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            idle_timeout: 10,
            connection_buffer_limits: 10_485_760,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Switches {
    disable_x_envoy_headers: Option<bool>,
    #[serde(rename = "addXRealIpHeader")]
    add_x_real_ip_header: bool,
}

impl HigressConfig {
    /// Reads the key `higress`; all defaults when it is missing.
    pub fn read(config_map: &ConfigMap) -> (Self, Vec<Diagnostic>) {
        let Some(mut text) = Embedded::new(config_map, "higress") else {
            return (Self::default(), Vec::new());
        };
        let switches: Switches = text.section("").unwrap_or_default();
        let config = Self {
            tracing: checked(&mut text, "tracing", Tracing::fault),
            gzip: checked(&mut text, "gzip", Gzip::fault),
            downstream: checked(&mut text, "downstream", Downstream::fault),
            upstream: checked(&mut text, "upstream", |_| None),
            disable_x_envoy_headers: switches.disable_x_envoy_headers,
            add_x_real_ip_header: switches.add_x_real_ip_header,
            mcp_server: checked(&mut text, "mcpServer", McpServerConfig::fault),
        };
        (config, text.diagnostics)
    }
}

/// A section that fits and whose values are in range, else its default.
fn checked<T: serde::de::DeserializeOwned + Default>(
    text: &mut Embedded<'_>,
    section: &str,
    fault: impl Fn(&T) -> Option<(String, String)>,
) -> T {
    let Some(value) = text.section::<T>(section) else {
        return T::default();
    };
    match fault(&value) {
        None => value,
        Some((field, message)) => {
            let message = format!("{message}; the whole section is ignored");
            text.report(&format!("{section}.{field}"), &message);
            T::default()
        }
    }
}

fn wrong(field: &str, message: impl Into<String>) -> Option<(String, String)> {
    Some((field.to_owned(), message.into()))
}

impl Tracing {
    fn fault(&self) -> Option<(String, String)> {
        if !(0.0..=100.0).contains(&self.sampling) {
            return wrong("sampling", "must be from 0 to 100");
        }
        if self.timeout <= 0 {
            return wrong("timeout", "must be more than 0");
        }
        let collectors = [
            ("zipkin", &self.zipkin),
            ("skywalking", &self.skywalking),
            ("opentelemetry", &self.opentelemetry),
        ];
        if !self.enable {
            // The chart writes a section without a service.
            return None;
        }
        let given: Vec<_> = collectors
            .iter()
            .filter_map(|(name, collector)| Some((*name, collector.as_ref()?)))
            .collect();
        for (name, collector) in &given {
            if collector.service.is_empty() {
                return wrong(&format!("{name}.service"), "missing");
            }
            if collector.port == 0 {
                return wrong(&format!("{name}.port"), "missing");
            }
            let known: &[&str] = match *name {
                "opentelemetry" => &["", "grpc", "http/protobuf"],
                _ => &[""],
            };
            if !known.contains(&collector.protocol.as_str()) {
                let message = match *name {
                    "opentelemetry" => "must be grpc or http/protobuf",
                    _ => "only opentelemetry has a choice",
                };
                return wrong(&format!("{name}.protocol"), message);
            }
        }
        match given.as_slice() {
            [] => wrong(
                "enable",
                "one of zipkin, skywalking, opentelemetry must say where to",
            ),
            [_] => None,
            [_, (name, _), ..] => wrong(name, "only one of zipkin, skywalking, opentelemetry may be given"),
        }
    }
}

impl Gzip {
    fn fault(&self) -> Option<(String, String)> {
        let strategies = ["DEFAULT_STRATEGY", "FILTERED", "HUFFMAN_ONLY", "RLE", "FIXED"];
        if self.min_content_length <= 0 {
            return wrong("minContentLength", "must be more than 0");
        }
        if self.content_type.is_empty() {
            return wrong("contentType", "must not be empty");
        }
        if !(1..=9).contains(&self.memory_level) {
            return wrong("memoryLevel", "must be from 1 to 9");
        }
        if !(9..=15).contains(&self.window_bits) {
            return wrong("windowBits", "must be from 9 to 15");
        }
        if self.chunk_size <= 0 {
            return wrong("chunkSize", "must be more than 0");
        }
        if self.level().is_none() {
            let message =
                "must be BEST_COMPRESSION, BEST_SPEED or COMPRESSION_LEVEL_1 to COMPRESSION_LEVEL_9";
            return wrong("compressionLevel", message);
        }
        if !strategies.contains(&self.compression_strategy.as_str()) {
            return wrong(
                "compressionStrategy",
                format!("must be one of {}", strategies.join(", ")),
            );
        }
        None
    }
}

impl Downstream {
    fn fault(&self) -> Option<(String, String)> {
        let windows = HTTP2_LEAST_WINDOW..=HTTP2_MOST;
        if self.max_request_headers_kb > 8192 {
            return wrong("maxRequestHeadersKb", "must be at most 8192");
        }
        if !(1..=HTTP2_MOST).contains(&self.http2.max_concurrent_streams) {
            return wrong(
                "http2.maxConcurrentStreams",
                format!("must be from 1 to {HTTP2_MOST}"),
            );
        }
        let range = format!("must be from {HTTP2_LEAST_WINDOW} to {HTTP2_MOST}");
        if !windows.contains(&self.http2.initial_stream_window_size) {
            return wrong("http2.initialStreamWindowSize", range);
        }
        if !windows.contains(&self.http2.initial_connection_window_size) {
            return wrong("http2.initialConnectionWindowSize", range);
        }
        None
    }
}
