//! The exposition, read back by a strict parser of the text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tollgate_base::{Termination, Timer};

use super::*;

type Labels = BTreeMap<String, String>;

/// What a scrape sees.
#[derive(Debug, Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    fn of(metrics: &Metrics) -> Self {
        let mut text = String::new();
        metrics.render(&mut text);
        parse(&text)
    }

    /// The sample with exactly these labels.
    fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.samples.get(&(name.to_owned(), labels.collect())).copied()
    }
}

/// Parses or panics: a family has one TYPE line, before all its samples, which stand together; no sample comes twice;
/// names are legal; a histogram's buckets grow, end in +Inf and agree with its count.
fn parse(text: &str) -> Scrape {
    let mut scrape = Scrape::default();
    let mut current = (String::new(), String::new());
    assert!(text.is_empty() || text.ends_with('\n'));
    for line in text.lines() {
        if let Some(declaration) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declaration.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(is_name(name) && !name.contains("__"), "{line}");
            assert_eq!(
                scrape.kinds.insert(name.into(), kind.into()),
                None,
                "declared twice: {name}"
            );
            current = (name.into(), kind.into());
            continue;
        }
        let (name, labels, value) = sample(line);
        let family = if current.1 == "histogram" {
            let suffixes = ["_bucket", "_sum", "_count"];
            suffixes
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap()
        } else {
            &name
        };
        assert_eq!(family, current.0, "a sample outside its family");
        assert!(current.1 != "counter" || value >= 0.0, "{line}");
        assert_eq!(
            scrape.samples.insert((name, labels), value),
            None,
            "twice: {line}"
        );
    }
    check_histograms(&scrape);
    scrape
}

fn is_name(name: &str) -> bool {
    let legal = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == ':';
    name.chars().all(legal) && name.starts_with(|first: char| !first.is_ascii_digit())
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (name, rest) = line
        .split_once('{')
        .unwrap_or_else(|| panic!("no labels: {line}"));
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    let mut rest = rest;
    while !rest.starts_with('}') {
        let (label, tail) = rest.split_once("=\"").unwrap();
        assert!(is_name(label) && !label.contains(':'), "{line}");
        let mut value = String::new();
        let mut characters = tail.char_indices();
        let end = loop {
            match characters.next().unwrap_or_else(|| panic!("open quote: {line}")) {
                (index, '"') => break index,
                (_, '\\') => value.push(match characters.next().unwrap().1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("bad escape {other}: {line}"),
                }),
                (_, other) => value.push(other),
            }
        };
        assert_eq!(labels.insert(label.into(), value), None, "label twice: {line}");
        rest = &tail[end + 1..];
        if let Some(more) = rest.strip_prefix(',') {
            assert!(!more.starts_with('}'), "{line}");
            rest = more;
        }
    }
    let value = rest.strip_prefix("} ").unwrap_or_else(|| panic!("{line}"));
    (name.into(), labels, value.parse().unwrap())
}

fn check_histograms(scrape: &Scrape) {
    let mut series: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), value) in &scrape.samples {
        let family = name
            .strip_suffix("_bucket")
            .filter(|family| scrape.kinds.contains_key(*family));
        let Some(family) = family else { continue };
        let mut others = labels.clone();
        let bound = others.remove("le").unwrap();
        series
            .entry((family.into(), others))
            .or_default()
            .push((bound.parse().unwrap(), *value));
    }
    for ((family, labels), mut buckets) in series {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{family}");
        let (bound, total) = buckets.last().unwrap();
        assert_eq!(*bound, f64::INFINITY);
        assert_eq!(
            scrape.samples[&(format!("{family}_count"), labels.clone())],
            *total
        );
        assert!(scrape.samples.contains_key(&(format!("{family}_sum"), labels)));
    }
}

#[test]
fn the_text_of_a_small_registry() {
    let metrics = Metrics::new();
    let mut text = String::new();
    metrics.server.live.set(1);
    metrics.server.requests(Some(Termination::UpstreamCut)).add(3);
    metrics.render(&mut text);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "# TYPE tollgate_requests_total counter\n\
         tollgate_requests_total{{termination=\"completed\"}} 0\n\
         tollgate_requests_total{{termination=\"client_gone\"}} 0\n\
         tollgate_requests_total{{termination=\"upstream_cut\"}} 3\n\
         tollgate_requests_total{{termination=\"upstream_error\"}} 0\n\
         tollgate_requests_total{{termination=\"timeout_connect\"}} 0\n\
         tollgate_requests_total{{termination=\"timeout_response_head\"}} 0\n\
         tollgate_requests_total{{termination=\"timeout_first_event\"}} 0\n\
         tollgate_requests_total{{termination=\"timeout_silence\"}} 0\n\
         tollgate_requests_total{{termination=\"timeout_total\"}} 0\n\
         tollgate_requests_total{{termination=\"refused\"}} 0\n\
         tollgate_requests_total{{termination=\"shutdown\"}} 0\n\
         tollgate_requests_total{{termination=\"unknown\"}} 0\n\
         # TYPE tollgate_build_info gauge\n\
         tollgate_build_info{{version=\"{version}\"}} 1\n\
         # TYPE envoy_server_hot_restart_epoch gauge\n\
         envoy_server_hot_restart_epoch{{}} 0\n\
         # TYPE envoy_server_live gauge\n\
         envoy_server_live{{}} 1\n\
         # TYPE tollgate_config_generation gauge\n\
         tollgate_config_generation{{}} 0\n\
         # TYPE tollgate_access_log_lines_total counter\n\
         tollgate_access_log_lines_total{{}} 0\n\
         # TYPE tollgate_access_log_dropped_total counter\n\
         tollgate_access_log_dropped_total{{}} 0\n\
         # TYPE tollgate_access_log_errors_total counter\n\
         tollgate_access_log_errors_total{{}} 0\n\
         # TYPE tollgate_usage_tokens_total counter\n\
         tollgate_usage_tokens_total{{source=\"provider\",type=\"input\"}} 0\n\
         tollgate_usage_tokens_total{{source=\"provider\",type=\"output\"}} 0\n\
         tollgate_usage_tokens_total{{source=\"counted\",type=\"input\"}} 0\n\
         tollgate_usage_tokens_total{{source=\"counted\",type=\"output\"}} 0\n\
         tollgate_usage_tokens_total{{source=\"estimated\",type=\"input\"}} 0\n\
         tollgate_usage_tokens_total{{source=\"estimated\",type=\"output\"}} 0\n\
         # TYPE tollgate_usage_labels_capped_total counter\n\
         tollgate_usage_labels_capped_total{{}} 0\n"
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(text[expected.len()..].starts_with("# TYPE process_"), "{text}");
    parse(&text);
}

#[test]
fn each_termination_has_its_own_series_under_its_own_name() {
    let timers = [
        Timer::Connect,
        Timer::ResponseHead,
        Timer::FirstEvent,
        Timer::Silence,
        Timer::Total,
    ];
    let mut all = vec![
        Termination::Completed,
        Termination::ClientGone,
        Termination::UpstreamCut,
        Termination::UpstreamError,
        Termination::Refused,
        Termination::Shutdown,
    ];
    all.extend(timers.map(Termination::Timeout));
    let metrics = Metrics::new();
    for (index, termination) in all.iter().enumerate() {
        metrics.server.requests(Some(*termination)).add(index as u64 + 1);
    }
    metrics.server.requests(None).add(100);
    let scrape = Scrape::of(&metrics);
    let value = |name| scrape.get("tollgate_requests_total", &[("termination", name)]);
    for (index, termination) in all.iter().enumerate() {
        assert_eq!(
            value(termination.name()),
            Some(index as f64 + 1.0),
            "{termination:?}"
        );
    }
    assert_eq!(value("unknown"), Some(100.0));
}

#[test]
fn a_listener_shows_what_the_dashboards_ask_for() {
    let metrics = Metrics::new();
    let listener = metrics.listener("outbound_0.0.0.0_80");
    assert!(std::sync::Arc::ptr_eq(
        &listener,
        &metrics.listener("outbound_0.0.0.0_80")
    ));
    for status in [200, 200, 204, 404, 503, 0, 600, 999] {
        listener.requests_by_status.increment(status);
    }
    listener.requests.add(8);
    listener.request_time.observe(Duration::from_micros(1_500));
    listener.request_time.observe(Duration::from_millis(20));
    let open = listener.connections_active.hold();
    let prefix = [
        ("http_conn_manager_prefix", "outbound_0.0.0.0_80"),
        ("envoy_http_conn_manager_prefix", "outbound_0.0.0.0_80"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&prefix[..], more].concat();
    let scrape = Scrape::of(&metrics);
    let by_status = |code, class| {
        let labels = with(&[("response_code", code), ("response_code_class", class)]);
        scrape.get("envoy_http_downstream_rq", &labels)
    };
    assert_eq!(by_status("200", "2xx"), Some(2.0));
    assert_eq!(by_status("204", "2xx"), Some(1.0));
    assert_eq!(by_status("404", "4xx"), Some(1.0));
    assert_eq!(by_status("503", "5xx"), Some(1.0));
    let counted: f64 = scrape
        .samples
        .iter()
        .filter(|(key, _)| key.0 == "envoy_http_downstream_rq")
        .map(|(_, value)| value)
        .sum();
    assert_eq!(counted, 5.0, "a status that is none is in no class");
    assert_eq!(scrape.get("envoy_http_downstream_rq_total", &prefix), Some(8.0));
    assert_eq!(scrape.get("envoy_http_downstream_cx_active", &prefix), Some(1.0));
    let bucket = |bound| scrape.get("envoy_http_downstream_rq_time_bucket", &with(&[("le", bound)]));
    let expected = [
        ("0.5", 0.0),
        ("1", 0.0),
        ("5", 1.0),
        ("10", 1.0),
        ("25", 2.0),
        ("3600000", 2.0),
        ("+Inf", 2.0),
    ];
    for (bound, count) in expected {
        assert_eq!(bucket(bound), Some(count), "{bound}");
    }
    assert_eq!(
        scrape.get("envoy_http_downstream_rq_time_sum", &prefix),
        Some(21.5)
    );
    assert_eq!(
        scrape.get("envoy_http_downstream_rq_time_count", &prefix),
        Some(2.0)
    );
    drop(open);
    assert_eq!(listener.connections_active.get(), 0);
}

#[test]
fn histogram_bounds_are_envoys() {
    let metrics = Metrics::new();
    metrics.listener("x").request_time.observe(Duration::ZERO);
    let mut text = String::new();
    metrics.render(&mut text);
    let bounds: Vec<_> = text
        .split("le=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let expected = [
        "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000",
        "60000", "300000", "600000", "1800000", "3600000", "+Inf",
    ];
    assert_eq!(bounds, expected);
}

#[test]
fn a_cluster_shows_status_time_connections_and_timers() {
    let metrics = Metrics::new();
    let cluster = metrics.cluster("outbound|443||qwen.dns");
    cluster.requests.increment();
    cluster.answered(429, Duration::from_millis(12));
    cluster.timed_out(Timer::Silence);
    cluster.connections.increment();
    cluster.connect_failures.increment();
    cluster.received_bytes.add(10);
    cluster.sent_bytes.add(20);
    let name = ("cluster_name", "outbound|443||qwen.dns");
    let scrape = Scrape::of(&metrics);
    let status = [name, ("response_code", "429"), ("response_code_class", "4xx")];
    assert_eq!(scrape.get("envoy_cluster_upstream_rq", &status), Some(1.0));
    let expected = [
        ("rq_total", 1.0),
        ("rq_time_sum", 12.0),
        ("rq_timeout", 1.0),
        ("cx_total", 1.0),
        ("cx_active", 0.0),
        ("cx_connect_fail", 1.0),
        ("cx_rx_bytes_total", 10.0),
        ("cx_tx_bytes_total", 20.0),
    ];
    for (suffix, value) in expected {
        assert_eq!(
            scrape.get(&format!("envoy_cluster_upstream_{suffix}"), &[name]),
            Some(value),
            "{suffix}"
        );
    }
    let timer = |timer| scrape.get("tollgate_upstream_timeouts_total", &[name, ("timer", timer)]);
    assert_eq!((timer("silence"), timer("total")), (Some(1.0), Some(0.0)));
}

#[test]
fn a_cluster_that_is_gone_leaves_the_exposition() {
    let metrics = Metrics::new();
    let names = ["outbound|80||a.dns", "outbound|80||b.dns", "a\"\\"];
    for name in names {
        metrics.cluster(name).answered(200, Duration::ZERO);
    }
    let other = metrics.family("x", Kind::Counter).unwrap();
    other.counter(&[("ai_cluster_name", names[0])]).increment();
    let held = metrics.cluster(names[0]);
    metrics.retain_clusters(|name| name == names[1]);
    held.requests.increment();
    let scrape = Scrape::of(&metrics);
    let total = |name| scrape.get("envoy_cluster_upstream_rq_total", &[("cluster_name", name)]);
    assert_eq!(
        (total(names[0]), total(names[1]), total(names[2])),
        (None, Some(0.0), None)
    );
    let clusters = scrape.samples.keys().filter_map(|key| key.1.get("cluster_name"));
    assert!(clusters.into_iter().all(|name| name == names[1]));
    assert_eq!(scrape.get("x", &[("ai_cluster_name", names[0])]), Some(1.0));
    // It begins anew when it comes back; its neighbour goes on.
    metrics.cluster(names[0]).requests.add(5);
    metrics.cluster(names[1]).requests.add(7);
    let scrape = Scrape::of(&metrics);
    let total = |name| scrape.get("envoy_cluster_upstream_rq_total", &[("cluster_name", name)]);
    assert_eq!((total(names[0]), total(names[1])), (Some(5.0), Some(7.0)));
}

#[test]
fn hostile_labels_and_names_leave_the_text_readable() {
    let metrics = Metrics::new();
    let family = metrics.family("1st bad-name", Kind::Counter).unwrap();
    let hostile = "a\"b\\c\nd\r\u{85}\u{2028}}{,é";
    family.counter(&[("ai model", hostile)]).add(2);
    family.counter(&[("ai model", &"é".repeat(500))]).increment();
    let scrape = Scrape::of(&metrics);
    assert_eq!(
        scrape.get("_1st_bad_name", &[("ai_model", "a\"b\\c\nd___}{,é")]),
        Some(2.0)
    );
    assert_eq!(
        scrape.get("_1st_bad_name", &[("ai_model", &"é".repeat(128))]),
        Some(1.0)
    );
}

#[test]
fn a_full_family_counts_the_rest_as_other() {
    let metrics = Metrics::new();
    let family = metrics
        .family("route_upstream_model_input_token", Kind::Counter)
        .unwrap();
    let label = |number: usize| format!("model-{number}");
    for number in 0..10_003 {
        family
            .counter(&[("ai_route", "r"), ("ai_model", &label(number))])
            .increment();
    }
    family
        .counter(&[("ai_route", "r"), ("ai_model", &label(5))])
        .increment();
    let scrape = Scrape::of(&metrics);
    let value = |route, model: &str| {
        scrape.get(
            "route_upstream_model_input_token",
            &[("ai_route", route), ("ai_model", model)],
        )
    };
    assert_eq!(value("other", "other"), Some(3.0));
    assert_eq!(value("r", "model-10000"), None);
    assert_eq!(value("r", "model-5"), Some(2.0), "a known series goes on");
    let capped = [("family", "route_upstream_model_input_token")];
    assert_eq!(
        scrape.get("tollgate_metric_series_capped_total", &capped),
        Some(3.0)
    );
}

#[test]
fn ten_thousand_series_are_written_in_a_moment() {
    let metrics = Metrics::new();
    for family in [
        "route_upstream_model_input_token",
        "route_upstream_model_output_token",
    ] {
        let family = metrics.family(family, Kind::Counter).unwrap();
        for number in 0..5_000 {
            let model = format!("model-{number}");
            let labels = [
                ("ai_route", "qwen"),
                ("ai_cluster", "outbound|443||qwen.dns"),
                ("ai_model", &model),
            ];
            family.counter(&labels).increment();
        }
    }
    let mut text = String::new();
    let took = (0..5).map(|_| {
        text.clear();
        let began = tollgate_base::clock::now();
        metrics.render(&mut text);
        began.elapsed()
    });
    let best = took.min().unwrap();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("route_")).count(),
        10_000
    );
    println!("10,000 series, {} KB, are written in {best:?}", text.len() / 1024);
    // The limit holds with optimisation; without, and beside other tests, it is far below a second.
    let limit = if cfg!(debug_assertions) { 500 } else { 50 };
    assert!(best < std::time::Duration::from_millis(limit), "{best:?}");
}

#[test]
fn a_name_has_one_kind() {
    let metrics = Metrics::new();
    let gauge = metrics.family("x", Kind::Gauge).unwrap();
    gauge.gauge(&[]).set(-5);
    let error = metrics.family("x", Kind::Counter).unwrap_err();
    assert_eq!(error.to_string(), "metric x is a gauge already");
    assert_eq!(
        metrics.family("", Kind::Counter).unwrap_err(),
        MetricError::NoName
    );
    // A handle of the wrong kind counts where nobody sees it.
    gauge.counter(&[]).increment();
    gauge.histogram(&[]).observe(Duration::ZERO);
    let scrape = Scrape::of(&metrics);
    assert_eq!(scrape.get("x", &[]), Some(-5.0));
}

#[test]
fn rejected_documents_by_kind() {
    let metrics = Metrics::new();
    metrics.server.config_rejected("Ingress").set(2);
    metrics.server.config_rejected("Ingress").set(1);
    assert_eq!(
        Scrape::of(&metrics).get("tollgate_config_rejected", &[("kind", "Ingress")]),
        Some(1.0)
    );
}

#[test]
fn all_groups_together_read_back() {
    let metrics = Metrics::new();
    for number in 0..20 {
        let cluster = metrics.cluster(&format!("outbound|443||c{number}.dns"));
        cluster.answered(200, Duration::from_millis(number));
        metrics
            .listener(&format!("outbound_0.0.0.0_{number}"))
            .requests_by_status
            .increment(200);
    }
    let scrape = Scrape::of(&metrics);
    let families: BTreeSet<_> = scrape.kinds.keys().map(String::as_str).collect();
    for wanted in [
        "envoy_http_downstream_rq",
        "envoy_http_downstream_rq_total",
        "envoy_http_downstream_rq_time",
        "envoy_http_downstream_cx_rx_bytes_total",
        "envoy_http_downstream_cx_tx_bytes_total",
        "envoy_cluster_upstream_rq",
        "envoy_cluster_upstream_rq_total",
        "envoy_cluster_upstream_rq_time",
        "envoy_cluster_upstream_cx_active",
        "envoy_cluster_upstream_cx_total",
        "envoy_cluster_upstream_cx_connect_fail",
        "envoy_cluster_upstream_cx_rx_bytes_total",
        "envoy_cluster_upstream_cx_tx_bytes_total",
        "envoy_server_live",
        "envoy_server_hot_restart_epoch",
    ] {
        assert!(families.contains(wanted), "{wanted}");
    }
}
