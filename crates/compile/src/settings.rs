//! `higress-config` and `higress-https`: what holds for every route.
//!
//! Each section of `higress-config` is read by itself: one with a fault is left out as a whole, with its defaults in
//! force, and the others stay. `higress-https` is refused as a whole, as in Higress.

use std::time::Duration;

use serde_json::Value;
use tollgate_kinds::{ConfigMap, Diagnostic, Objects, yaml};
use tollgate_snapshot::Settings;

use crate::Options;
use crate::section::{Fault, Section};
use crate::tls::{Credential, Credentials};

/// Name of the ConfigMap with the gateway's settings.
const CONFIG: &str = "higress-config";
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
    /// Secrets by domain.
    pub(crate) credentials: Credentials,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            route_timeout: None,
            upstream_idle: Duration::from_secs(10),
            dns_refresh: Duration::from_secs(200),
            credentials: Credentials::default(),
        }
    }
}

/// Reads both ConfigMaps; without them everything has its default.
pub(crate) fn compile(objects: &Objects, options: &Options, diagnostics: &mut Vec<Diagnostic>) -> Global {
    let mut global = Global::default();
    if let Some(config_map) = objects.config_map(&options.system_namespace, CONFIG) {
        if let Some(value) = parse(config_map, "higress", diagnostics) {
            higress(config_map, &value, &mut global, diagnostics);
        }
        if let Some(value) = parse(config_map, "mesh", diagnostics) {
            let outcome = Section::root(&value).and_then(|root| mesh(&root, &mut global));
            report(config_map, "mesh", outcome, diagnostics);
        }
    }
    if let Some(config_map) = objects.config_map(&options.system_namespace, HTTPS)
        && let Some(value) = parse(config_map, "cert", diagnostics)
    {
        match Section::root(&value).and_then(|root| credentials(&root, options)) {
            Ok((credentials, has_issuers)) => {
                global.credentials = credentials;
                if has_issuers {
                    let message = "automatic certificates are not supported yet: existing Secrets are used";
                    diagnostics.push(config_map.warning("data[cert]", message));
                }
            }
            fault => report(config_map, "cert", fault.map(|_| ()), diagnostics),
        }
    }
    global
}

/// The YAML under a key; `None` when there is none or (with a diagnostic) when it cannot be read.
fn parse(config_map: &ConfigMap, key: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<Value> {
    let text = config_map.spec.data.get(key)?;
    match yaml::parse(text, 1).into_iter().next()? {
        Ok(parsed) => Some(parsed.value),
        Err(fault) => {
            let message = format!(
                "{} (line {} of this text): it is left out",
                fault.message, fault.position.line
            );
            diagnostics.push(config_map.error(&format!("data[{key}]"), message));
            None
        }
    }
}

fn report(config_map: &ConfigMap, key: &str, outcome: Result<(), Fault>, diagnostics: &mut Vec<Diagnostic>) {
    if let Err(fault) = outcome {
        let message = format!("{fault}: the whole section is left out");
        diagnostics.push(config_map.error(&format!("data[{key}]"), message));
    }
}

/// Reads one section into what holds for every route.
type ReadSection = fn(&Section<'_>, &mut Global) -> Result<(), Fault>;

fn higress(config_map: &ConfigMap, value: &Value, global: &mut Global, diagnostics: &mut Vec<Diagnostic>) {
    let root = match Section::root(value) {
        Ok(root) => root,
        Err(fault) => return report(config_map, "higress", Err(fault), diagnostics),
    };
    let sections: [ReadSection; 3] = [downstream, upstream, switches];
    for section in sections {
        let mut changed = global.clone();
        let outcome = section(&root, &mut changed);
        if outcome.is_ok() {
            *global = changed;
        }
        report(config_map, "higress", outcome, diagnostics);
    }
    for name in ["tracing", "gzip", "mcpServer"] {
        let enabled = root
            .section(name)
            .map(|section| section.is_some_and(|section| section.flag("enable") == Ok(Some(true))));
        if enabled == Ok(true) {
            let message = format!("{name} is not supported yet: ignored");
            diagnostics.push(config_map.warning("data[higress]", message));
        }
        report(config_map, "higress", enabled.map(|_| ()), diagnostics);
    }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Largest value of settings that Higress keeps in 32 bits.
const U32: u64 = u32::MAX as u64;
/// HTTP/2 window sizes.
const WINDOW: std::ops::RangeInclusive<u64> = 65_535..=2_147_483_647;

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn downstream(root: &Section<'_>, global: &mut Global) -> Result<(), Fault> {
    let Some(section) = root.section("downstream")? else {
        return Ok(());
    };
    let settings = &mut global.settings;
    if let Some(number) = section.number("idleTimeout", 0..=U32)? {
        settings.downstream_idle = seconds(number);
    }
    if let Some(number) = section.number("maxRequestHeadersKb", 1..=8192)? {
        settings.max_request_head = size(number * 1024);
    }
    if let Some(number) = section.number("connectionBufferLimits", 1..=U32)? {
        settings.buffer_limit = size(number);
    }
    if let Some(number) = section.number("routeTimeout", 0..=U32)? {
        global.route_timeout = (number > 0).then(|| seconds(number));
    }
    let Some(http2) = section.section("http2")? else {
        return Ok(());
    };
    if let Some(number) = http2.number("maxConcurrentStreams", 1..=2_147_483_647)? {
        settings.http2_max_streams = narrow(number);
    }
    if let Some(number) = http2.number("initialStreamWindowSize", WINDOW)? {
        settings.http2_stream_window = narrow(number);
    }
    if let Some(number) = http2.number("initialConnectionWindowSize", WINDOW)? {
        settings.http2_connection_window = narrow(number);
    }
    Ok(())
}

fn upstream(root: &Section<'_>, global: &mut Global) -> Result<(), Fault> {
    if let Some(section) = root.section("upstream")?
        && let Some(number) = section.number("idleTimeout", 0..=U32)?
    {
        global.upstream_idle = seconds(number);
    }
    Ok(())
}

fn switches(root: &Section<'_>, global: &mut Global) -> Result<(), Fault> {
    if let Some(disabled) = root.flag("disableXEnvoyHeaders")? {
        global.settings.envoy_headers = !disabled;
    }
    if let Some(added) = root.flag("addXRealIpHeader")? {
        global.settings.real_ip_header = added;
    }
    Ok(())
}

fn mesh(root: &Section<'_>, global: &mut Global) -> Result<(), Fault> {
    if let Some(format) = root.text("accessLogFormat")?.filter(|text| !text.is_empty()) {
        global.settings.access_log_format = Some(format.to_owned());
    }
    if let Some(text) = root.text("dnsRefreshRate")? {
        let refresh = go_duration(text).filter(|refresh| !refresh.is_zero());
        global.dns_refresh = refresh
            .ok_or_else(|| format!("{}: expected a duration such as 200s", root.at("dnsRefreshRate")))?;
    }
    if let Some(defaults) = root.section("defaultConfig")?
        && let Some(disabled) = defaults.flag("disableAlpnH2")?
    {
        global.settings.alpn_h2 = !disabled;
    }
    Ok(())
}

/// Go's notation, whole units only: `200s`, `1m30s`, `500ms`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|character: char| !character.is_ascii_digit())?;
        let amount: u32 = rest.get(..unit_at)?.parse().ok()?;
        rest = rest.get(unit_at..)?;
        let unit_end = rest
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match rest.get(..unit_end)? {
            "ms" => Duration::from_millis(1),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(amount)?)?;
        rest = rest.get(unit_end..)?;
    }
    Some(total)
}

/// `higress-https`: the Secrets by domain, and whether certificates would have to be issued.
fn credentials(root: &Section<'_>, options: &Options) -> Result<(Credentials, bool), Fault> {
    let automatic = root.flag("automaticHttps")?.unwrap_or(true);
    let issuers = root.list("acmeIssuer")?;
    let has_email = |issuer: &Section<'_>| {
        issuer
            .text("email")
            .map(|email| email.is_some_and(|email| email.contains('@')))
    };
    let mut valid_issuer = false;
    for issuer in &issuers {
        valid_issuer |= has_email(issuer)?;
    }
    if automatic && !valid_issuer {
        return Err("acmeIssuer: automaticHttps needs an issuer with an email address".to_owned());
    }
    root.number("renewBeforeDays", 1..=89)?;
    let mut entries = Vec::new();
    let mut has_issuers = false;
    for section in root.list("credentialConfig")? {
        let domains = section.texts("domains")?;
        if domains.is_empty() {
            return Err(format!("{}: missing", section.at("domains")));
        }
        match section.text("tlsIssuer")?.unwrap_or_default() {
            "" => {}
            "letsencrypt" if domains.len() == 1 => has_issuers = true,
            "letsencrypt" => {
                return Err(format!(
                    "{}: letsencrypt takes exactly one",
                    section.at("domains")
                ));
            }
            _ => return Err(format!("{}: expected letsencrypt", section.at("tlsIssuer"))),
        }
        let secret = section
            .text("tlsSecret")?
            .filter(|secret| !secret.is_empty())
            .ok_or_else(|| format!("{}: missing", section.at("tlsSecret")))?;
        let (namespace, name) = secret
            .split_once('/')
            .unwrap_or((&options.system_namespace, secret));
        entries.push(Credential {
            domains: domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
    }
    let credentials = Credentials {
        for_missing_secrets: root.flag("fallbackForInvalidSecret")?.unwrap_or(false),
        entries,
    };
    Ok((credentials, has_issuers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        assert_eq!(go_duration("200s"), Some(seconds(200)));
        assert_eq!(go_duration("1m30s"), Some(seconds(90)));
        assert_eq!(go_duration("500ms"), Some(Duration::from_millis(500)));
        for bad in ["5", "s", "1.5s", "5x"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
