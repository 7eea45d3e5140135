//! The key `mesh` of the ConfigMap `higress-config`: of Istio's many settings the few that a gateway has a use for.

use std::time::Duration;

use serde::Deserialize;

use crate::ConfigMap;
use crate::diagnostic::Diagnostic;
use crate::embedded::Embedded;

/// What counts of `mesh`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshConfig {
    /// File of the access log; empty means none is named.
    pub access_log_file: String,
    /// Format string; empty means the default.
    pub access_log_format: String,
    /// `TEXT` or `JSON`; empty means `TEXT`.
    pub access_log_encoding: String,
    /// How often names are resolved again.
    pub dns_refresh_rate: Option<Duration>,
    /// Whether listeners expect the PROXY protocol.
    pub enable_proxy_protocol: bool,
    /// Whether HTTP/3 is wanted.
    pub enable_h3: bool,
    /// Whether TLS listeners leave HTTP/2 out.
    pub disable_alpn_h2: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MeshLayout {
    access_log_file: String,
    access_log_format: String,
    access_log_encoding: String,
    dns_refresh_rate: Option<String>,
    mse_ingress_global_config: GlobalLayout,
    default_config: DefaultLayout,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GlobalLayout {
    #[serde(rename = "enableH3")]
    h3: bool,
    #[serde(rename = "enableProxyProtocol")]
    proxy_protocol: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DefaultLayout {
    #[serde(rename = "disableAlpnH2")]
    disable_alpn_h2: bool,
}

impl MeshConfig {
    /// Reads the key `mesh`; all defaults when it is missing.
    pub fn read(config_map: &ConfigMap) -> (Self, Vec<Diagnostic>) {
        let Some(mut text) = Embedded::new(config_map, "mesh") else {
            return (Self::default(), Vec::new());
        };
        let layout: MeshLayout = text.section("").unwrap_or_default();
        let dns_refresh_rate = layout.dns_refresh_rate.as_deref().and_then(|written| {
            let duration = go_duration(written).filter(|duration| !duration.is_zero());
            if duration.is_none() {
                text.report("dnsRefreshRate", "expected a duration such as 200s");
            }
            duration
        });
        if !matches!(layout.access_log_encoding.as_str(), "" | "TEXT" | "JSON") {
            text.report("accessLogEncoding", "expected TEXT or JSON");
        }
        let config = Self {
            access_log_file: layout.access_log_file,
            access_log_format: layout.access_log_format,
            access_log_encoding: layout.access_log_encoding,
            dns_refresh_rate,
            enable_proxy_protocol: layout.mse_ingress_global_config.proxy_protocol,
            enable_h3: layout.mse_ingress_global_config.h3,
            disable_alpn_h2: layout.default_config.disable_alpn_h2,
        };
        (config, text.diagnostics)
    }
}

/// A duration as Go and protobuf write it: `200s`, `1m30s`, `0.5s`, `100ms`.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_length = after
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, remaining) = after.split_at(unit_length);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = remaining;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        assert_eq!(go_duration("200s"), Some(Duration::from_secs(200)));
        assert_eq!(go_duration("1h1m1.5s"), Some(Duration::from_millis(3_661_500)));
        assert_eq!(go_duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(go_duration("0s"), Some(Duration::ZERO));
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1 s",
            "1d",
            "1.2.3s",
            "1e3s",
            "99999999999999999999h",
        ] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
