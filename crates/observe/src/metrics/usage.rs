//! Token usage by route, cluster, model and consumer, under Higress's names: two families of counters, and our own
//! by source.
//!
//! Models and consumers may be words of clients: beyond a number of label sets, new ones share the value `other`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::handle::Counter;
use super::registry::{Families, Family, Kind};
use crate::usage::{Source, Tokens};

/// Label sets before new models are counted as `other`.
const MODEL_LIMIT: usize = 2_000;
/// Label sets before new consumers are counted as `other` too.
const CONSUMER_LIMIT: usize = 4_000;
/// What stands for the values that came too late.
const OTHER: &str = "other";
/// Label sets that a worker keeps at hand.
const RECENT_LIMIT: usize = 16;

static NUMBER: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The label sets of this worker's last requests, the last one first, each with the number of its metrics. Most
    /// requests are counted as one of the last few were, and need neither a key nor its hash.
    static RECENT: RefCell<Vec<(u64, Arc<UsageSeries>)>> = const { RefCell::new(Vec::new()) };
}

/// What a request is counted under.
#[derive(Debug, Clone, Copy)]
pub struct UsageLabels<'a> {
    /// `ai_route`
    pub route: &'a str,
    /// `ai_cluster`
    pub cluster: &'a str,
    /// `ai_model`
    pub model: &'a str,
    /// `ai_consumer`; `none` for nobody.
    pub consumer: &'a str,
}

/// The counters of Higress's family with a consumer, by the end of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageMetric {
    /// `input_token`
    InputToken,
    /// `output_token`
    OutputToken,
    /// `total_token`
    TotalToken,
    /// `llm_service_duration`, in milliseconds
    ServiceDuration,
    /// `llm_duration_count`
    DurationCount,
    /// `llm_first_token_duration`, in milliseconds; streams only
    FirstTokenDuration,
    /// `llm_stream_duration_count`; streams only
    StreamDurationCount,
    /// `token_ratelimit_count`: requests that a token limit refused
    TokenRatelimitCount,
}

const CONSUMER_FAMILIES: [&str; 8] = [
    "route_upstream_model_consumer_metric_input_token",
    "route_upstream_model_consumer_metric_output_token",
    "route_upstream_model_consumer_metric_total_token",
    "route_upstream_model_consumer_metric_llm_service_duration",
    "route_upstream_model_consumer_metric_llm_duration_count",
    "route_upstream_model_consumer_metric_llm_first_token_duration",
    "route_upstream_model_consumer_metric_llm_stream_duration_count",
    "route_upstream_model_consumer_metric_token_ratelimit_count",
];

impl UsageMetric {
    fn index(self) -> usize {
        match self {
            UsageMetric::InputToken => 0,
            UsageMetric::OutputToken => 1,
            UsageMetric::TotalToken => 2,
            UsageMetric::ServiceDuration => 3,
            UsageMetric::DurationCount => 4,
            UsageMetric::FirstTokenDuration => 5,
            UsageMetric::StreamDurationCount => 6,
            UsageMetric::TokenRatelimitCount => 7,
        }
    }
}

/// All usage counters.
#[derive(Debug)]
pub struct UsageMetrics {
    with_consumer: [Family; 8],
    plain: [Family; 2],
    /// `tollgate_usage_tokens_total{source,type}`: input and output of each source.
    by_source: [[Counter; 2]; 3],
    /// `tollgate_usage_labels_capped_total`: requests counted under `other`.
    capped: Counter,
    /// Tells these apart from others in the process.
    number: u64,
    /// Read by a request whose labels its worker has not seen of late, written by the first one with its labels.
    sets: ArcSwap<HashMap<Box<str>, Arc<UsageSeries>>>,
}

/// The counters of one label set; each is made when it first counts, so that what never counts is not shown.
#[derive(Debug)]
pub struct UsageSeries {
    /// Route, cluster, model, consumer.
    labels: [Box<str>; 4],
    with_consumer: [OnceLock<Counter>; 8],
    plain: [OnceLock<Counter>; 2],
}

impl UsageMetrics {
    pub(super) fn new(families: &Families) -> Self {
        let family = |name| families.own(name, Kind::Counter);
        let plain = [
            "route_upstream_model_input_token",
            "route_upstream_model_output_token",
        ]
        .map(family);
        let with_consumer = CONSUMER_FAMILIES.map(family);
        let tokens = family("tollgate_usage_tokens_total");
        Self {
            with_consumer,
            plain,
            by_source: Source::ALL.map(|source| {
                ["input", "output"]
                    .map(|direction| tokens.counter(&[("source", source.name()), ("type", direction)]))
            }),
            capped: family("tollgate_usage_labels_capped_total").counter(&[]),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            sets: ArcSwap::default(),
        }
    }

    /// The counters for these labels; `other` stands for a model or consumer that is one too many.
    pub fn series(&self, labels: UsageLabels<'_>) -> Arc<UsageSeries> {
        RECENT.with_borrow_mut(|recent| {
            let is_meant = |known: &(u64, Arc<UsageSeries>)| known.0 == self.number && known.1.is_of(labels);
            if let Some(place) = recent.iter().position(is_meant)
                && let Some(before) = recent.get_mut(..=place)
            {
                before.rotate_right(1);
                if let Some((_, known)) = recent.first() {
                    return known.clone();
                }
            }
            let found = self.look_up(labels);
            if found.is_of(labels) {
                recent.truncate(RECENT_LIMIT - 1);
                recent.insert(0, (self.number, found.clone()));
            }
            found
        })
    }

    fn look_up(&self, labels: UsageLabels<'_>) -> Arc<UsageSeries> {
        let key = key_of(labels);
        let sets = self.sets.load();
        let count = sets.len();
        if let Some(known) = sets.get(key.as_str()) {
            return Arc::clone(known);
        }
        drop(sets);
        if count >= MODEL_LIMIT && labels.model != OTHER {
            self.capped.increment();
            return self.look_up(UsageLabels {
                model: OTHER,
                ..labels
            });
        }
        if count >= CONSUMER_LIMIT && labels.consumer != OTHER {
            return self.look_up(UsageLabels {
                consumer: OTHER,
                ..labels
            });
        }
        let fresh = Arc::new(UsageSeries {
            labels: [labels.route, labels.cluster, labels.model, labels.consumer].map(Box::from),
            with_consumer: Default::default(),
            plain: Default::default(),
        });
        let mut chosen = Arc::clone(&fresh);
        self.sets.rcu(|sets| {
            let mut more = HashMap::clone(sets);
            let entry = more
                .entry(key.as_str().into())
                .or_insert_with(|| Arc::clone(&fresh));
            chosen = Arc::clone(entry);
            more
        });
        chosen
    }

    /// Adds to a counter of Higress's family with a consumer.
    pub fn add(&self, series: &UsageSeries, metric: UsageMetric, amount: u64) {
        let index = metric.index();
        let (Some(slot), Some(family)) = (series.with_consumer.get(index), self.with_consumer.get(index))
        else {
            return;
        };
        slot.get_or_init(|| family.counter(&series.label_list()))
            .add(amount);
    }

    /// Adds to Higress's older family, which knows no consumer.
    pub fn add_plain(&self, series: &UsageSeries, tokens: Tokens) {
        let [route, cluster, model, _] = series.label_list();
        for ((slot, family), amount) in series
            .plain
            .iter()
            .zip(&self.plain)
            .zip([tokens.input, tokens.output])
        {
            slot.get_or_init(|| family.counter(&[route, cluster, model]))
                .add(amount);
        }
    }

    /// Adds to `tollgate_usage_tokens_total`.
    pub fn add_by_source(&self, source: Source, tokens: Tokens) {
        if let Some([input, output]) = self.by_source.get(source.index()) {
            input.add(tokens.input);
            output.add(tokens.output);
        }
    }
}

impl UsageSeries {
    #[inline]
    fn is_of(&self, labels: UsageLabels<'_>) -> bool {
        let [route, cluster, model, consumer] = &self.labels;
        **model == *labels.model
            && **consumer == *labels.consumer
            && **route == *labels.route
            && **cluster == *labels.cluster
    }

    fn label_list(&self) -> [(&'static str, &str); 4] {
        let [route, cluster, model, consumer] = &self.labels;
        [
            ("ai_route", route),
            ("ai_cluster", cluster),
            ("ai_model", model),
            ("ai_consumer", consumer),
        ]
    }
}

/// One text for all labels; a control character parts them, and none is left in them.
fn key_of(labels: UsageLabels<'_>) -> String {
    let parts = [labels.route, labels.cluster, labels.model, labels.consumer];
    let mut key = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for part in parts {
        for piece in part.split('\u{1}') {
            key.push_str(piece);
        }
        key.push('\u{1}');
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    fn labels<'a>(model: &'a str, consumer: &'a str) -> UsageLabels<'a> {
        UsageLabels {
            route: "qwen",
            cluster: "outbound|443||qwen.dns",
            model,
            consumer,
        }
    }

    #[test]
    fn both_families_have_higress_names_and_labels() {
        let metrics = Metrics::new();
        let tokens = Tokens {
            input: 26,
            output: 856,
            ..Tokens::default()
        };
        let series = metrics.usage.series(labels("qwen-max-0403", "none"));
        metrics.usage.add_plain(&series, tokens);
        metrics.usage.add(&series, UsageMetric::InputToken, 24);
        metrics.usage.add_by_source(Source::Estimated, tokens);
        let again = metrics.usage.series(labels("qwen-max-0403", "none"));
        assert!(Arc::ptr_eq(&series, &again));
        let mut text = String::new();
        metrics.render(&mut text);
        for line in [
            "# TYPE route_upstream_model_input_token counter\nroute_upstream_model_input_token{ai_route=\"qwen\",ai_cluster=\"outbound|443||qwen.dns\",ai_model=\"qwen-max-0403\"} 26\n",
            "\nroute_upstream_model_output_token{ai_route=\"qwen\",ai_cluster=\"outbound|443||qwen.dns\",ai_model=\"qwen-max-0403\"} 856\n",
            "\nroute_upstream_model_consumer_metric_input_token{ai_route=\"qwen\",ai_cluster=\"outbound|443||qwen.dns\",ai_model=\"qwen-max-0403\",ai_consumer=\"none\"} 24\n",
            "\ntollgate_usage_tokens_total{source=\"estimated\",type=\"output\"} 856\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("metric_output_token"), "{text}");
    }

    #[test]
    fn clients_cannot_make_series_without_end() {
        let metrics = Metrics::new();
        for number in 0..CONSUMER_LIMIT + 2_000 {
            let (model, consumer) = (format!("m{number}"), format!("c{number}"));
            let series = metrics.usage.series(labels(&model, &consumer));
            metrics.usage.add(&series, UsageMetric::InputToken, 1);
        }
        assert_eq!(metrics.usage.sets.load().len(), CONSUMER_LIMIT + 1);
        let mut text = String::new();
        metrics.render(&mut text);
        assert!(text.contains("ai_model=\"other\",ai_consumer=\"other\"} 2000\n"));
        assert!(text.contains("tollgate_usage_labels_capped_total{} 4000\n"));
    }
}
