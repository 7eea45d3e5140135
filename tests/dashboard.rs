//! The Grafana dashboard asks for nothing that the exposition does not have.

use std::collections::BTreeSet;

use serde_json::Value;
use tollgate_mock_llm::Options;
use tollgate_testkit::client::send;

use crate::support::{
    CHAT, CHAT_STREAM, Sight, ai_proxy, bridge, documents, gateway, higress_config, ingress, mock, ordered,
    wasm_plugin,
};

const DASHBOARD: &str = include_str!("../deploy/grafana/higress-ai.json");
const TRACING: &str = "    tracing: { enable: true, zipkin: { service: mock.static, port: 80 } }\n";

/// Words of an expression.
fn words(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
}

/// Metrics and labels that the queries name.
fn asked(dashboard: &Value) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let panels = dashboard["panels"].as_array().unwrap().iter();
    for target in panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten()) {
        let expression = target["expr"].as_str().unwrap();
        let ours = ["envoy_", "route_", "tollgate_", "process_"];
        let before = metrics.len();
        metrics.extend(words(expression).filter(|word| ours.iter().any(|prefix| word.starts_with(prefix))));
        assert!(metrics.len() > before || before > 0, "no metric in {expression}");
        for by in expression.split("by").skip(1) {
            let Some(list) = by.trim_start().strip_prefix('(') else {
                continue;
            };
            let list = list.split(')').next().unwrap();
            labels.extend(list.split(',').map(str::trim));
        }
    }
    (metrics, labels)
}

#[tokio::test]
async fn every_query_of_the_dashboard_finds_its_metrics() {
    let vendor = mock(Options::default());
    let text = documents(&[
        bridge(&[("mock", vendor.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ai_proxy("api", "{ type: openai, apiTokens: [sk-gateway] }"),
        wasm_plugin("ai-statistics", "  defaultConfig: {}\n"),
        higress_config(TRACING),
    ]);
    let gateway = gateway().file("scene.yaml", &text).unwrap().go().unwrap();
    for body in [CHAT, CHAT_STREAM] {
        let (request, id) = ordered("", body);
        assert_eq!(send(gateway.http, request).await.unwrap().status, 200);
        gateway.line_of(&id);
    }
    let page = gateway.admin("/stats/prometheus").await.text();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (metrics, labels) = asked(&dashboard);
    assert!(metrics.len() >= 25 && labels.len() >= 6, "{metrics:?} {labels:?}");
    for name in metrics {
        assert!(
            page.contains(&format!("\n{name}{{")),
            "{name} is not exposed:\n{page}"
        );
    }
    for label in labels {
        assert!(
            page.contains(&format!("{label}=\"")),
            "no series has the label {label}:\n{page}"
        );
    }
}
