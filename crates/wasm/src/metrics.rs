//! Metrics: those of the host itself, and those that modules define, whose dotted names become Higress's labelled
//! series.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use regex::Regex;
use tollgate_observe::Metrics;
use tollgate_observe::metrics::{Counter, Family, Gauge, Histogram, Kind};

use crate::limits::Bound;

/// What a module defined.
#[derive(Debug, Clone)]
pub(crate) enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// Makes the series of a module's metric. `None`: the name cannot be shown; its values are lost, as in Higress.
pub(crate) fn define(metrics: &Metrics, kind: Kind, name: &str) -> Option<Series> {
    let (family, labels) = translate(name)?;
    let labels: Vec<(&str, &str)> = labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let family = metrics
        .family(&family, kind)
        .inspect_err(
            |cause| tracing::warn!(metric = name, error = %cause, "a module's metric cannot be shown"),
        )
        .ok()?;
    Some(match kind {
        Kind::Counter => Series::Counter(family.counter(&labels)),
        Kind::Gauge => Series::Gauge(family.gauge(&labels)),
        Kind::Histogram => Series::Histogram(family.histogram(&labels)),
    })
}

/// A rule takes its first group out of the name and makes its second a label. The terminators of `ai_model` are those
/// of all three generations of Higress's names.
static RULES: LazyLock<Vec<(&'static str, Regex)>> = LazyLock::new(|| {
    let rules = [
        ("ai_route", r"^wasmcustom\.route\.((.*?)\.)upstream"),
        ("ai_cluster", r"^wasmcustom\..*?\.upstream\.((.*?)\.)model"),
        (
            "ai_model",
            r"^wasmcustom\..*?\.model\.((.*?)\.)(?:consumer|metric|input_token|output_token)",
        ),
        ("ai_consumer", r"^wasmcustom\..*?\.consumer\.((.*?)\.)metric"),
        ("response_code_class", r"_rq(_(\dxx))$"),
    ];
    let compiled = rules.map(|(label, rule)| Regex::new(rule).ok().map(|rule| (label, rule)));
    compiled.into_iter().flatten().collect()
});

/// Family and labels of a module's metric name.
fn translate(name: &str) -> Option<(String, Vec<(&'static str, String)>)> {
    let full = format!("wasmcustom.{name}");
    let (mut labels, mut gone) = (Vec::new(), Vec::new());
    for (label, rule) in RULES.iter() {
        let Some(found) = rule.captures(&full) else {
            continue;
        };
        if let (Some(cut), Some(value)) = (found.get(1), found.get(2)) {
            gone.push(cut.range());
            labels.push((*label, value.as_str().to_owned()));
        }
    }
    let kept = full
        .char_indices()
        .filter(|(index, _)| !gone.iter().any(|range| range.contains(index)));
    let shown: String = kept
        .map(|(_, character)| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => character,
            _ => '_',
        })
        .collect();
    let family = shown.strip_prefix("wasmcustom_")?;
    let usable = family.chars().next().is_some_and(|first| !first.is_ascii_digit());
    usable.then(|| (family.to_owned(), labels))
}

/// The host's own metrics, by plugin (`namespace/name`).
#[derive(Debug, Clone)]
pub(crate) struct HostMetrics {
    created: Family,
    active: Family,
    traps: Family,
    memory: Family,
    rebuilds: Family,
    limits: Family,
    loads: Family,
}

/// The host's metrics of one plugin.
#[derive(Debug, Clone, Default)]
pub(crate) struct PluginMetrics {
    /// `tollgate_wasm_instances_created_total`
    pub(crate) created: Counter,
    /// `tollgate_wasm_instances`
    pub(crate) active: Gauge,
    /// `tollgate_wasm_traps_total`
    pub(crate) traps: Counter,
    /// `tollgate_wasm_memory_bytes`
    pub(crate) memory: Gauge,
    /// `tollgate_wasm_rebuilds_total`
    pub(crate) rebuilds: Counter,
    /// `tollgate_wasm_limits_total`, and the plugin's name in it.
    limits: Option<(Family, String)>,
}

impl PluginMetrics {
    /// The plugin ran into a limit; not a thing of every day.
    pub(crate) fn beyond(&self, bound: Bound) {
        if let Some((family, plugin)) = &self.limits {
            family
                .counter(&[("plugin", plugin), ("limit", bound.name())])
                .increment();
        }
    }
}

impl HostMetrics {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Option<Self> {
        let family = |name: &str, kind| metrics.family(name, kind).ok();
        Some(Self {
            created: family("tollgate_wasm_instances_created_total", Kind::Counter)?,
            active: family("tollgate_wasm_instances", Kind::Gauge)?,
            traps: family("tollgate_wasm_traps_total", Kind::Counter)?,
            memory: family("tollgate_wasm_memory_bytes", Kind::Gauge)?,
            rebuilds: family("tollgate_wasm_rebuilds_total", Kind::Counter)?,
            limits: family("tollgate_wasm_limits_total", Kind::Counter)?,
            loads: family("tollgate_wasm_load_ms", Kind::Histogram)?,
        })
    }

    pub(crate) fn plugin(&self, name: &str) -> PluginMetrics {
        let labels = [("plugin", name)];
        PluginMetrics {
            created: self.created.counter(&labels),
            active: self.active.gauge(&labels),
            traps: self.traps.counter(&labels),
            memory: self.memory.gauge(&labels),
            rebuilds: self.rebuilds.counter(&labels),
            limits: Some((self.limits.clone(), name.to_owned())),
        }
    }

    /// A version was fetched, compiled and configured, or not.
    pub(crate) fn loaded(&self, outcome: &str, took: Duration) {
        self.loads.histogram(&[("outcome", outcome)]).observe(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_names_of_all_generations_become_labelled_series() {
        let labels = |name: &str| {
            let (family, labels) = translate(name).unwrap();
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{family}{{{}}}", labels.join(","))
        };
        let cases = [
            (
                "route.qwen.upstream.outbound|443||qwen.dns.model.qwen-max.consumer.none.metric.input_token",
                "route_upstream_model_consumer_metric_input_token{ai_route=qwen,ai_cluster=outbound|443||qwen.dns,ai_model=qwen-max,ai_consumer=none}",
            ),
            (
                "route.r.upstream.u.model.gpt-4.1.input_token",
                "route_upstream_model_input_token{ai_route=r,ai_cluster=u,ai_model=gpt-4.1}",
            ),
            (
                "route.r.upstream.u.model.m.metric.output_token",
                "route_upstream_model_metric_output_token{ai_route=r,ai_cluster=u,ai_model=m}",
            ),
            ("my-plugin.requests", "my_plugin_requests{}"),
            ("x.upstream_rq_5xx", "x_upstream_rq{response_code_class=5xx}"),
        ];
        for (name, expected) in cases {
            assert_eq!(labels(name), expected);
        }
        assert_eq!(translate("5xx"), None);
        assert_eq!(translate(""), None);
    }

    #[test]
    fn a_name_taken_by_another_kind_is_not_shown() {
        let metrics = Metrics::new();
        assert!(matches!(
            define(&metrics, Kind::Counter, "a.b"),
            Some(Series::Counter(_))
        ));
        assert!(define(&metrics, Kind::Gauge, "a.b").is_none());
    }
}
