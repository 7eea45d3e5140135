//! `Metrics`: every family and series of the process, and their Prometheus text (version 0.0.4).
//!
//! Looking a series up takes a short lock; counting does not. Label texts are made once, when a series is born, so that
//! rendering only copies.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::groups::{ClusterMetrics, ListenerMetrics, ServerMetrics};
use super::handle::{BOUND_TEXTS, Counter, Gauge, Histogram};
use super::usage::UsageMetrics;

/// `Content-Type` of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Series that a family may have before new ones go into its `other` series.
const SERIES_LIMIT: usize = 10_000;
/// Bytes of a label's value that are kept.
const LABEL_LIMIT: usize = 256;

/// What a family's series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in Envoy's buckets, in milliseconds.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Why a family was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The name is taken by a family of another kind.
    #[error("metric {name} is a {existing} already")]
    OtherKind {
        /// The family.
        name: String,
        /// What it is.
        existing: &'static str,
    },
    /// The name is empty.
    #[error("a metric needs a name")]
    NoName,
}

/// All metrics of the process. Made once, shared in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    families: Arc<Families>,
    clusters: Mutex<HashMap<Box<str>, Arc<ClusterMetrics>>>,
    listeners: Mutex<HashMap<Box<str>, Arc<ListenerMetrics>>>,
    /// Counts of the process as a whole.
    pub server: ServerMetrics,
    /// Token usage.
    pub usage: UsageMetrics,
}

#[derive(Debug, Default)]
pub(super) struct Families(Mutex<FamilyTable>);

#[derive(Debug, Default)]
struct FamilyTable {
    index: HashMap<Box<str>, usize>,
    /// In the order of their birth, which is the order of the exposition.
    list: Vec<Arc<FamilyState>>,
}

#[derive(Debug)]
struct FamilyState {
    name: Box<str>,
    kind: Kind,
    limit: usize,
    series: Mutex<SeriesTable>,
    /// Look-ups that found the family full.
    capped: Counter,
}

#[derive(Debug, Default)]
struct SeriesTable {
    index: HashMap<Arc<str>, usize>,
    list: Vec<Series>,
}

#[derive(Debug, Clone)]
struct Series {
    /// `a="b",c="d"`.
    labels: Arc<str>,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// One metric name with its series.
#[derive(Debug, Clone)]
pub struct Family(Arc<FamilyState>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// A fresh registry with the process's own metrics in it.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let families = Arc::new(Families::default());
        let server = ServerMetrics::new(&families);
        let usage = UsageMetrics::new(&families);
        Arc::new(Self {
            families,
            clusters: Mutex::default(),
            listeners: Mutex::default(),
            server,
            usage,
        })
    }

    /// The handles of one cluster (`outbound|443||qwen.dns`); the caller keeps them.
    pub fn cluster(&self, name: &str) -> Arc<ClusterMetrics> {
        let mut clusters = lock(&self.clusters);
        if let Some(known) = clusters.get(name) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(ClusterMetrics::new(&self.families, name));
        clusters.insert(name.into(), Arc::clone(&fresh));
        fresh
    }

    /// The handles of one listener (`outbound_0.0.0.0_80`); the caller keeps them.
    pub fn listener(&self, prefix: &str) -> Arc<ListenerMetrics> {
        let mut listeners = lock(&self.listeners);
        if let Some(known) = listeners.get(prefix) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(ListenerMetrics::new(&self.families, prefix));
        listeners.insert(prefix.into(), Arc::clone(&fresh));
        fresh
    }

    /// Forgets the clusters that `keep` refuses, with their series: call it when a configuration without them is in
    /// force. Who still holds their handles counts where nobody sees it.
    pub fn retain_clusters(&self, keep: impl Fn(&str) -> bool) {
        let mut clusters = lock(&self.clusters);
        let gone: Vec<_> = clusters.extract_if(|name, _| !keep(name)).collect();
        for (name, _) in &gone {
            self.families
                .forget(&label_text([("cluster_name", &**name)].into_iter()));
        }
    }

    /// A family by name, made when it is new; characters that a metric's name cannot hold become `_`.
    ///
    /// # Errors
    /// The name is empty or taken by another kind.
    pub fn family(&self, name: &str, kind: Kind) -> Result<Family, MetricError> {
        self.families.find(name, kind)
    }

    /// Appends the exposition. Counts that change meanwhile may or may not be in it; no worker waits for it.
    pub fn render(&self, out: &mut String) {
        self.families.render(out);
        super::process::render(out);
    }
}

impl Families {
    fn find(&self, name: &str, kind: Kind) -> Result<Family, MetricError> {
        let name = clean_name(name);
        if name.is_empty() {
            return Err(MetricError::NoName);
        }
        let mut table = lock(&self.0);
        if let Some(known) = table
            .index
            .get(name.as_str())
            .and_then(|index| table.list.get(*index))
        {
            if known.kind != kind {
                let existing = known.kind.name();
                return Err(MetricError::OtherKind { name, existing });
            }
            return Ok(Family(Arc::clone(known)));
        }
        let state = Arc::new(FamilyState::new(&name, kind));
        let position = table.list.len();
        table.index.insert(name.into(), position);
        table.list.push(Arc::clone(&state));
        Ok(Family(state))
    }

    /// A family of our own tables; a clash of kinds, which a test rules out, counts where nobody sees it.
    pub(super) fn own(&self, name: &'static str, kind: Kind) -> Family {
        self.find(name, kind)
            .unwrap_or_else(|_| Family(Arc::new(FamilyState::new(name, kind))))
    }

    /// Drops every series that has this label, given as `name="value"`.
    fn forget(&self, label: &str) {
        let families = lock(&self.0).list.clone();
        for family in &families {
            family.forget(label);
        }
    }

    fn render(&self, out: &mut String) {
        let families = lock(&self.0).list.clone();
        for family in &families {
            family.render(out);
        }
        let capped: Vec<_> = families.iter().filter(|family| family.capped.get() > 0).collect();
        if !capped.is_empty() {
            out.push_str("# TYPE tollgate_metric_series_capped_total counter\n");
        }
        for family in capped {
            let labels = format!("family=\"{}\"", family.name);
            line(
                out,
                "tollgate_metric_series_capped_total",
                "",
                &labels,
                family.capped.get(),
            );
        }
    }
}

impl FamilyState {
    fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            limit: SERIES_LIMIT,
            series: Mutex::default(),
            capped: Counter::default(),
        }
    }

    fn value(&self, labels: &[(&str, &str)]) -> Value {
        let mut text = label_text(labels.iter().copied());
        let mut table = lock(&self.series);
        if !table.index.contains_key(text.as_str()) && table.list.len() >= self.limit {
            self.capped.increment();
            text = label_text(labels.iter().map(|(name, _)| (*name, "other")));
        }
        let known = table
            .index
            .get(text.as_str())
            .and_then(|index| table.list.get(*index));
        if let Some(known) = known {
            return known.value.clone();
        }
        let value = match self.kind {
            Kind::Counter => Value::Counter(Counter::default()),
            Kind::Gauge => Value::Gauge(Gauge::default()),
            Kind::Histogram => Value::Histogram(Histogram::default()),
        };
        let key: Arc<str> = text.into();
        let position = table.list.len();
        table.index.insert(Arc::clone(&key), position);
        table.list.push(Series {
            labels: key,
            value: value.clone(),
        });
        value
    }

    fn forget(&self, label: &str) {
        let has_label = |labels: &str| {
            let begins = |(at, _): (usize, &str)| at == 0 || labels.as_bytes().get(at - 1) == Some(&b',');
            labels.match_indices(label).any(begins)
        };
        let mut table = lock(&self.series);
        let before = table.list.len();
        table.list.retain(|series| !has_label(&series.labels));
        if table.list.len() < before {
            let index = table.list.iter().enumerate();
            table.index = index
                .map(|(at, series)| (Arc::clone(&series.labels), at))
                .collect();
        }
    }

    fn render(&self, out: &mut String) {
        let series = lock(&self.series).list.clone();
        if series.is_empty() {
            return;
        }
        for part in ["# TYPE ", &self.name, " ", self.kind.name(), "\n"] {
            out.push_str(part);
        }
        for one in &series {
            match &one.value {
                Value::Counter(counter) => line(out, &self.name, "", &one.labels, counter.get()),
                Value::Gauge(gauge) => line(out, &self.name, "", &one.labels, gauge.get()),
                Value::Histogram(histogram) => histogram_lines(out, &self.name, &one.labels, histogram),
            }
        }
    }
}

impl Family {
    /// The counter with these labels; one that nobody sees if the family is of another kind.
    #[must_use]
    pub fn counter(&self, labels: &[(&str, &str)]) -> Counter {
        match self.0.kind {
            Kind::Counter => match self.0.value(labels) {
                Value::Counter(counter) => counter,
                Value::Gauge(_) | Value::Histogram(_) => Counter::default(),
            },
            Kind::Gauge | Kind::Histogram => Counter::default(),
        }
    }

    /// The gauge with these labels; one that nobody sees if the family is of another kind.
    #[must_use]
    pub fn gauge(&self, labels: &[(&str, &str)]) -> Gauge {
        match self.0.kind {
            Kind::Gauge => match self.0.value(labels) {
                Value::Gauge(gauge) => gauge,
                Value::Counter(_) | Value::Histogram(_) => Gauge::default(),
            },
            Kind::Counter | Kind::Histogram => Gauge::default(),
        }
    }

    /// The histogram with these labels; one that nobody sees if the family is of another kind.
    #[must_use]
    pub fn histogram(&self, labels: &[(&str, &str)]) -> Histogram {
        match self.0.kind {
            Kind::Histogram => match self.0.value(labels) {
                Value::Histogram(histogram) => histogram,
                Value::Counter(_) | Value::Gauge(_) => Histogram::default(),
            },
            Kind::Counter | Kind::Gauge => Histogram::default(),
        }
    }
}

/// `a="b",c="d"`, values escaped and cut to a bounded length.
fn label_text<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::with_capacity(128);
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(name.chars().map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => character,
            _ => '_',
        }));
        text.push_str("=\"");
        let end = value.floor_char_boundary(LABEL_LIMIT);
        let value = value.get(..end).unwrap_or_default();
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if value.bytes().all(is_plain) {
            text.push_str(value);
            text.push('"');
            continue;
        }
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                // Readers that split at other line ends than \n must not see one.
                other if other.is_control() || matches!(other, '\u{2028}' | '\u{2029}') => text.push('_'),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

fn clean_name(name: &str) -> String {
    let mut cleaned: String = name
        .chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | ':' => character,
            _ => '_',
        })
        .collect();
    if cleaned.starts_with(|first: char| first.is_ascii_digit()) {
        cleaned.insert(0, '_');
    }
    cleaned
}

fn line(out: &mut String, name: &str, suffix: &str, labels: &str, value: impl itoa::Integer) {
    out.push_str(name);
    out.push_str(suffix);
    out.push('{');
    out.push_str(labels);
    out.push_str("} ");
    out.push_str(itoa::Buffer::new().format(value));
    out.push('\n');
}

fn histogram_lines(out: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut total: u64 = 0;
    let bounds = BOUND_TEXTS.iter().copied().chain(["+Inf"]);
    for (bound, count) in bounds.zip(histogram.counts()) {
        total += count;
        for part in [name, "_bucket{", labels, comma, "le=\"", bound, "\"} "] {
            out.push_str(part);
        }
        out.push_str(itoa::Buffer::new().format(total));
        out.push('\n');
    }
    let sum = histogram.sum_microseconds();
    for part in [
        name,
        "_sum{",
        labels,
        "} ",
        itoa::Buffer::new().format(sum / 1000),
    ] {
        out.push_str(part);
    }
    if !sum.is_multiple_of(1000) {
        let written = write!(out, ".{:03}", sum % 1000);
        debug_assert!(written.is_ok(), "a string takes every text");
    }
    out.push('\n');
    line(out, name, "_count", labels, total);
}
