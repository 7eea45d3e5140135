//! However requests end, each is told exactly once: in the log, in the metrics, and the same way in both.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use http::HeaderValue;
use tollgate_testkit::client::{open, send};

use crate::support::{
    CHAT_STREAM, PATIENCE, Scene, Sight, ai_proxy, bridge, documents, gateway, ingress, mock, ordered,
    verbose_log, wasm_plugin,
};

const TERMINATIONS: [&str; 5] = [
    "completed",
    "client_gone",
    "upstream_cut",
    "upstream_error",
    "timeout_silence",
];

/// The header whose requests take the route that waits only a second for a silent vendor.
const SILENT: &str = "x-silent";

/// Two routes to one vendor. Only where a silence is wanted it has a limit: under load a vendor that means to go on can be
/// silent for a second too.
fn two_routes() -> Scene {
    let mock = mock(tollgate_mock_llm::Options::default());
    let silent = [
        ("higress.io/exact-match-header-x-silent", "yes"),
        ("tollgate.dev/timeout-silence", "1s"),
    ];
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ingress("silent", "/", "mock.static", &silent),
        ai_proxy("api, silent", "{ type: openai, apiTokens: [sk-gateway] }"),
        verbose_log(),
    ]);
    Scene {
        gateway: gateway().file("scene.yaml", &text).unwrap().go().unwrap(),
        mock,
    }
}

#[tokio::test]
async fn three_hundred_ends_of_every_kind_add_up() {
    let scene = two_routes();
    let mut wanted: BTreeMap<&str, u32> = BTreeMap::new();
    let mut asks = Vec::new();
    for number in 0..300u32 {
        let after = number % 11;
        let (fault, ends) = match number % 6 {
            0 => (format!("split;bytes={}", after + 1), "completed"),
            1 => (format!("cut;after={after}"), "upstream_cut"),
            2 => (
                format!("cut-in-data;after={after};at={after};how=reset"),
                "upstream_cut",
            ),
            3 => ("reset".to_owned(), "upstream_error"),
            4 => (format!("stall-between;after={after}"), "timeout_silence"),
            // It never ends by itself, however late the client leaves.
            _ => (format!("stall-between;after={}", after + 1), "client_gone"),
        };
        *wanted.entry(ends).or_default() += 1;
        let (mut request, id) = ordered(&fault, CHAT_STREAM);
        if ends == "timeout_silence" {
            request
                .headers_mut()
                .insert(SILENT, HeaderValue::from_static("yes"));
        }
        let http = scene.gateway.http;
        asks.push(async move {
            if ends == "client_gone" {
                let mut stream = open(http, request).await.unwrap();
                stream.read_until("data:").await.unwrap();
            } else {
                drop(send(http, request).await);
            }
            (id, ends)
        });
    }
    // Thirty at a time, so that the machine's speed decides nothing.
    let mut ended = Vec::new();
    while !asks.is_empty() {
        let rest = asks.split_off(asks.len().min(30));
        ended.extend(futures_util::future::join_all(std::mem::replace(&mut asks, rest)).await);
    }
    for (id, ends) in &ended {
        let line = scene.gateway.line_of(id);
        assert_eq!(line["termination"], *ends, "{line}");
    }
    assert_eq!(scene.gateway.log.all().len(), 300, "one line a request");
    for termination in TERMINATIONS {
        scene
            .gateway
            .terminated(termination, f64::from(wanted[termination]))
            .await;
    }
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    let all: f64 = page
        .lines()
        .filter_map(|line| {
            line.strip_prefix("tollgate_requests_total{")?
                .rsplit(' ')
                .next()?
                .parse::<f64>()
                .ok()
        })
        .sum();
    assert_eq!(all, 300.0, "{page}");
    let idle = |page: &str| {
        page.lines()
            .filter(|line| line.contains("_rq_active{"))
            .all(|line| line.ends_with(" 0"))
    };
    assert!(idle(&page), "requests are counted as active for ever: {page}");
    let closed = scene.mock.log().wait_until(PATIENCE, |seen| {
        seen.iter()
            .all(|request| request.end != tollgate_mock_llm::End::Open)
    });
    assert!(
        closed.await.is_ok(),
        "the vendor still works for somebody who left"
    );
}

#[tokio::test]
async fn aborted_streams_leave_no_memory_behind() {
    let scene = Scene::openai(&[]);
    let round = async |count: u32| {
        for _ in 0..count {
            let opening = (0..20).map(|_| open(scene.gateway.http, ordered("stall-between", CHAT_STREAM).0));
            for stream in futures_util::future::join_all(opening).await {
                stream.unwrap().read_until("data:").await.unwrap();
            }
        }
    };
    round(10).await;
    let before = scene.gateway.memory_kib();
    round(50).await;
    let after = scene.gateway.memory_kib();
    assert!(
        after < before + 12 * 1024,
        "{before} KiB after 200 aborted streams, {after} KiB after 1200"
    );
}

/// Statistics with an attribute that grows with the stream, a log line that carries it, and the ledger.
fn accounted() -> Scene {
    let mock = mock(tollgate_mock_llm::Options::default());
    let log = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: higress-config
  namespace: higress-system
data:
  mesh: |
    accessLogFormat: |
      {"id":"%REQ(X-REQUEST-ID)%","ai_log":"%FILTER_STATE(wasm.ai_log:PLAIN)%"}
"#;
    let attributes = "  defaultConfig:
    attributes:
    - { key: question, value_source: request_body, value: messages.@reverse.0.content, apply_to_log: true }
    - { key: answer, value_source: response_streaming_body, value: choices.0.delta.content, rule: append, apply_to_log: true }
    - { key: id, value_source: response_streaming_body, value: id, rule: first, apply_to_log: true }
    - { key: finish, value_source: response_streaming_body, value: choices.0.finish_reason, rule: replace, apply_to_log: true }
    - { key: agent, value_source: request_header, value: user-agent, apply_to_log: true }
";
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ai_proxy("api", "{ type: openai, apiTokens: [sk-gateway] }"),
        wasm_plugin("ai-statistics", attributes),
        log.to_owned(),
    ]);
    let start = gateway().file("scene.yaml", &text).unwrap();
    let log = start.path("access.log").display().to_string();
    Scene {
        gateway: start.option("--access-log", log).go().unwrap(),
        mock,
    }
}

/// Streams as many, ten at a time, and looks at the memory after the first tenth and at the end.
async fn memory_stays_flat(streams: u32) {
    const EVENTS: u32 = 2_000;
    const AT_ONCE: u32 = 10;
    let scene = accounted();
    let stream = async || {
        let (request, _) = ordered(&format!("tokens;n={EVENTS},pace;ms=0"), CHAT_STREAM);
        let answer = send(scene.gateway.http, request).await.unwrap();
        assert!(answer.cut.is_none() && answer.body.trim_ascii_end().ends_with(b"[DONE]"));
    };
    let rounds = async |count: u32| {
        for _ in 0..count {
            join_all((0..AT_ONCE).map(|_| stream())).await;
        }
    };
    let tenth = streams.div_ceil(10 * AT_ONCE);
    rounds(tenth).await;
    let before = scene.gateway.memory_kib();
    rounds(streams / AT_ONCE - tenth).await;
    let after = scene.gateway.memory_kib();
    // A stream has an event for each token, and they were all seen.
    let tokens = "tollgate_usage_tokens_total{source=\"provider\",type=\"output\"}";
    scene.gateway.terminated("completed", f64::from(streams)).await;
    assert_eq!(scene.gateway.metric(tokens).await, f64::from(streams * EVENTS));
    println!(
        "{} events: {before} KiB after a tenth, {after} KiB at the end",
        streams * EVENTS
    );
    assert!(
        after < before + 4 * 1024,
        "{before} KiB after a tenth, {after} KiB after {} events",
        streams * EVENTS
    );
}

#[tokio::test]
async fn events_leave_no_memory_behind() {
    memory_stays_flat(50).await;
}

#[tokio::test]
#[ignore = "a million events take a minute or two without optimisation"]
async fn a_million_events_leave_no_memory_behind() {
    memory_stays_flat(500).await;
}
