//! `higress-config` and `higress-https`: what holds for every route.
//!
//! The documents are read and checked by `kinds`; here their values take the units and places of the snapshot, and
//! what is switched on but not there yet is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_base::Secret;
use tollgate_kinds::higress_config::{HigressConfig, Tracing};
use tollgate_kinds::https_config::{HttpsConfig, LETS_ENCRYPT};
use tollgate_kinds::ledger_config::{LedgerConfig, LedgerRetention, LedgerSink, SinkTarget};
use tollgate_kinds::mcp_bridge::MaskedText;
use tollgate_kinds::mesh_config::MeshConfig;
use tollgate_kinds::price_table::PriceTable;
use tollgate_kinds::usage_config::{self, UsageConfig};
use tollgate_kinds::{ConfigMap, Diagnostic, Objects};
use tollgate_observe::access_log::Encoding;
use tollgate_observe::cost::Rates;
use tollgate_observe::{Format, Prices, Vocabularies};
use tollgate_snapshot::{Settings, settings};

use crate::Options;

/// Name of the ConfigMap with the gateway's settings.
pub(crate) const CONFIG: &str = "higress-config";
/// Name of the ConfigMap with certificates by domain.
const HTTPS: &str = "higress-https";

/// What holds for every route, for the compiler.
#[derive(Debug, Clone)]
pub(crate) struct Global {
    /// For the data plane.
    pub(crate) settings: Settings,
    /// `downstream.routeTimeout`: total timer of routes without their own.
    pub(crate) route_timeout: Option<Duration>,
    /// `upstream.idleTimeout`.
    pub(crate) upstream_idle: Duration,
    /// Longest time between two look-ups of a dns service.
    pub(crate) dns_refresh: Duration,
    /// Where traces go, as written; its service is looked up once services are known.
    pub(crate) tracing: Option<Tracing>,
    /// Secrets by domain.
    pub(crate) https: Option<HttpsConfig>,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            route_timeout: None,
            upstream_idle: Duration::from_secs(10),
            dns_refresh: Duration::from_secs(200),
            tracing: None,
            https: None,
        }
    }
}

/// Reads both ConfigMaps; without them everything has its default.
pub(crate) fn compile(objects: &Objects, options: &Options, diagnostics: &mut Vec<Diagnostic>) -> Global {
    let mut global = Global::default();
    if let Some(config_map) = objects.config_map(&options.system_namespace, CONFIG) {
        higress(config_map, &mut global, diagnostics);
        mesh(config_map, &mut global, diagnostics);
        prices(config_map, &mut global, diagnostics);
        usage(config_map, &mut global, diagnostics);
        ledger(config_map, &mut global, diagnostics);
    }
    if let Some(config_map) = objects.config_map(&options.system_namespace, HTTPS) {
        let (https, found) = HttpsConfig::read(config_map);
        diagnostics.extend(found);
        let credentials = https.iter().flat_map(|https| &https.credential_config);
        if credentials
            .into_iter()
            .any(|credential| credential.tls_issuer == LETS_ENCRYPT)
        {
            let message = "certificates are not issued yet: a Secret that exists is used";
            diagnostics.push(config_map.warning("data[cert]", message));
        }
        global.https = https;
    }
    global
}

fn higress(config_map: &ConfigMap, global: &mut Global, diagnostics: &mut Vec<Diagnostic>) {
    // Without the key the defaults of its sections are not those of an enabled feature.
    if !config_map.spec.data.contains_key("higress") {
        return;
    }
    let (config, found) = HigressConfig::read(config_map);
    diagnostics.extend(found);
    let (downstream, http2) = (&config.downstream, &config.downstream.http2);
    let settings = &mut global.settings;
    settings.downstream_idle = seconds(downstream.idle_timeout);
    settings.max_request_head = bytes(downstream.max_request_headers_kb).saturating_mul(1024);
    settings.buffer_limit = bytes(downstream.connection_buffer_limits);
    settings.http2_max_streams = http2.max_concurrent_streams;
    settings.http2_stream_window = http2.initial_stream_window_size;
    settings.http2_connection_window = http2.initial_connection_window_size;
    settings.envoy_headers = config.disable_x_envoy_headers == Some(false);
    settings.real_ip_header = config.add_x_real_ip_header;
    global.upstream_idle = seconds(config.upstream.idle_timeout);
    global.route_timeout = Some(seconds(downstream.route_timeout)).filter(|limit| !limit.is_zero());
    global.tracing = config.tracing.enable.then_some(config.tracing);
    let features = [
        ("gzip", config.gzip.enable && written(config_map, "gzip")),
        ("mcpServer", config.mcp_server.enable),
    ];
    for (name, enabled) in features {
        if enabled {
            let message = format!("{name} is not supported yet: ignored");
            diagnostics.push(config_map.warning("data[higress]", message));
        }
    }
}

/// Whether the section is in the text at all; a default that is on is not worth a warning.
fn written(config_map: &ConfigMap, section: &str) -> bool {
    let text = config_map.spec.data.get("higress");
    text.is_some_and(|text| {
        text.lines().any(|line| {
            line.strip_prefix(section)
                .is_some_and(|rest| rest.starts_with(':'))
        })
    })
}

fn mesh(config_map: &ConfigMap, global: &mut Global, diagnostics: &mut Vec<Diagnostic>) {
    let (config, found) = MeshConfig::read(config_map);
    diagnostics.extend(found);
    access_log(config_map, &config, global, diagnostics);
    global.settings.alpn_h2 = !config.disable_alpn_h2;
    if let Some(refresh) = config.dns_refresh_rate {
        global.dns_refresh = refresh;
    }
    let features = [
        ("enableProxyProtocol", config.enable_proxy_protocol),
        ("enableH3", config.enable_h3),
    ];
    for (name, enabled) in features {
        if enabled {
            let message = format!("{name} is not supported yet: ignored");
            diagnostics.push(config_map.warning("data[mesh]", message));
        }
    }
}

fn prices(config_map: &ConfigMap, global: &mut Global, diagnostics: &mut Vec<Diagnostic>) {
    let (table, found) = PriceTable::read(config_map);
    diagnostics.extend(found);
    let mut prices = Prices::new(table.currency);
    for row in table.models {
        let rates = Rates {
            input: row.input,
            output: row.output,
            cached: row.cached,
            cache_written: row.cache_written,
            reasoning: row.reasoning,
        };
        prices.insert(&row.model, rates);
    }
    global.settings.prices = Arc::new(prices);
}

fn usage(config_map: &ConfigMap, global: &mut Global, diagnostics: &mut Vec<Diagnostic>) {
    let (config, found) = UsageConfig::read(config_map);
    diagnostics.extend(found);
    if !config.openai_tokenizer {
        return;
    }
    global.settings.vocabularies = Vocabularies::load();
    if global.settings.vocabularies.is_none() {
        let message = "this build has no tokenizer (Cargo feature `tokenizer`): tokens are estimated";
        diagnostics.push(config_map.warning(&format!("data[{}].tokenizer", usage_config::KEY), message));
    }
}

fn ledger(config_map: &ConfigMap, global: &mut Global, diagnostics: &mut Vec<Diagnostic>) {
    let (config, found) = LedgerConfig::read(config_map);
    diagnostics.extend(found);
    let LedgerRetention { rows, hours, days } = config.retention;
    let sink = |sink: LedgerSink| settings::Sink {
        name: sink.name,
        target: match sink.target {
            SinkTarget::File { path } => settings::SinkTarget::File(path.into()),
            SinkTarget::Http { url, headers } => settings::SinkTarget::Http {
                url: Secret::new(url),
                headers: sensitive(&headers),
            },
            SinkTarget::Otlp { url, headers } => settings::SinkTarget::Otlp {
                url: Secret::new(url),
                headers: sensitive(&headers),
            },
        },
    };
    global.settings.ledger = settings::Ledger {
        enable: config.enable,
        retention: settings::Retention { rows, hours, days },
        sinks: config.sinks.into_iter().map(sink).collect(),
    };
}

/// Headers that are printed nowhere; names and values have been checked.
fn sensitive(headers: &BTreeMap<String, MaskedText>) -> HeaderMap {
    let read = |(name, value): (&String, &MaskedText)| {
        let mut value = HeaderValue::from_str(value.expose()).ok()?;
        value.set_sensitive(true);
        Some((name.parse::<HeaderName>().ok()?, value))
    };
    headers.iter().filter_map(read).collect()
}

fn access_log(
    config_map: &ConfigMap,
    config: &MeshConfig,
    global: &mut Global,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let encoding = match config.access_log_encoding.as_str() {
        "JSON" => Encoding::Json,
        _ => Encoding::Text,
    };
    let field = "data[mesh].accessLogFormat";
    match Format::from_config(encoding, &config.access_log_format) {
        Ok(format) => {
            let written = !config.access_log_format.trim().is_empty();
            for operator in format.unavailable().iter().filter(|_| written) {
                let message = format!("{operator} is not supported yet: `-` is logged");
                diagnostics.push(config_map.warning("data[mesh]", message).at_field(field));
            }
            global.settings.access_log = Arc::new(format);
        }
        Err(fault) => {
            let message = format!("{fault}: the default format is used");
            diagnostics.push(config_map.error("data[mesh]", message).at_field(field));
        }
    }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(u64::from(number))
}

fn bytes(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
