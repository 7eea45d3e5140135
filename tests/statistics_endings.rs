//! `ai-statistics` at every end that is no ordinary one: what it tells is the same in log, counters and ledger.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tollgate_mock_llm::{Options, SilentPort};
use tollgate_testkit::client::{open, send};

use crate::support::{
    BINARY, CHAT, CHAT_STREAM, Scene, Sight, ai_proxy, bridge, counted, documents, gateway, ingress, mock,
    ordered, raw_server, wasm_plugin,
};

const LOG: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: higress-config
  namespace: higress-system
data:
  mesh: |
    accessLogFormat: |
      {"id":"%REQ(X-REQUEST-ID)%","ai_log":"%FILTER_STATE(wasm.ai_log:PLAIN)%","code":"%RESPONSE_CODE%","attempts":"%TOLLGATE(attempts)%","cluster":"%UPSTREAM_CLUSTER%","arm":"%TOLLGATE(arm)%","termination":"%TOLLGATE(termination)%"}
"#;

/// A module that breaks at the thirteenth piece of an answer.
const BREAKING: &str = r#"(module
    (memory (export "memory") 1)
    (global $pieces (mut i32) (i32.const 0))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
      (global.set $pieces (i32.add (global.get $pieces) (i32.const 1)))
      (if (i32.gt_u (global.get $pieces) (i32.const 12)) (then unreachable))
      (i32.const 0)))"#;

/// A gateway with `ai-proxy` for `api`, `ai-statistics` for all, and these documents, in which `MOCK` is the vendor's
/// address and `MOCK_PORT` its port.
pub(crate) fn scene(data: &Path, more: &[String]) -> Scene {
    let mock = mock(Options::default());
    let mut parts = vec![
        ai_proxy("api", "{ type: openai, apiTokens: [sk-gateway] }"),
        wasm_plugin("ai-statistics", "  defaultConfig: { enable: true }\n"),
        LOG.to_owned(),
    ];
    let here = |text: &String| {
        let with_port = text.replace("MOCK_PORT", &mock.addr().port().to_string());
        with_port.replace("MOCK", &mock.addr().to_string())
    };
    parts.extend(more.iter().map(here));
    Scene {
        gateway: gateway()
            .option("--data", data.display())
            .file("scene.yaml", &documents(&parts))
            .unwrap()
            .go()
            .unwrap(),
        mock,
    }
}

/// Two static services: the mock, and another address.
pub(crate) fn two_services(other: std::net::SocketAddr) -> String {
    bridge(&[("mock", other), ("other", other)]).replacen(&format!("\"{other}\""), "\"MOCK\"", 1)
}

/// What a line says of tokens: source, input, output.
pub(crate) fn tokens(line: &Value) -> Option<(String, u64, u64)> {
    let log: Value = serde_json::from_str(line["ai_log"].as_str().unwrap()).unwrap_or_default();
    let count = |name: &str| log[name].as_u64();
    let source = log["usage_source"].as_str().unwrap_or("provider").to_owned();
    Some((source, count("input_token")?, count("output_token")?))
}

/// Ends the gateway and compares lines, counters, rows and sums of the ledger: each request of these lines, and no
/// other, stands once in each of them.
pub(crate) fn agree(scene: Scene, data: &Path, lines: &[Value], page: &str) {
    assert_eq!(scene.gateway.log.all().len(), lines.len(), "one line a request");
    assert_eq!(counted(page, "tollgate_requests_total", ""), lines.len() as u64);
    let told: Vec<_> = lines.iter().filter_map(tokens).collect();
    for source in ["provider", "estimated", "counted"] {
        let mine = told.iter().filter(|told| told.0 == source);
        let (input, output) = mine.fold((0, 0), |sum, told| (sum.0 + told.1, sum.1 + told.2));
        for (direction, sum) in [("input", input), ("output", output)] {
            let labels = format!("source=\"{source}\",type=\"{direction}\"");
            assert_eq!(
                counted(page, "tollgate_usage_tokens_total", &labels),
                sum,
                "{labels}"
            );
        }
    }
    let input: u64 = told.iter().map(|told| told.1).sum();
    let output: u64 = told.iter().map(|told| told.2).sum();
    for (direction, sum) in [("input", input), ("output", output)] {
        for family in ["route_upstream_model", "route_upstream_model_consumer_metric"] {
            let family = format!("{family}_{direction}_token");
            assert_eq!(counted(page, &family, ""), sum, "{family}");
        }
    }
    scene.gateway.signal("TERM").unwrap();
    assert!(scene.gateway.wait().unwrap().success());
    let rows = usage(data, &["--rows"]);
    assert_eq!(rows.len(), lines.len(), "one row a request");
    for line in lines {
        row_agrees(&rows, line);
    }
    let all = &usage(data, &[])[0];
    assert_eq!(
        (&all["requests"], &all["input"], &all["output"]),
        (&lines.len().into(), &input.into(), &output.into())
    );
}

/// What `tollgate usage` says.
pub(crate) fn usage(data: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(BINARY)
        .args(["usage", "--json", "--data"])
        .arg(data)
        .args(arguments)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One row, with the line's tokens and end.
fn row_agrees(rows: &[Value], line: &Value) {
    let mine: Vec<_> = rows
        .iter()
        .filter(|row| row["request_id"] == line["id"])
        .collect();
    assert_eq!(mine.len(), 1, "{line}");
    assert_eq!(mine[0]["termination"], line["termination"], "{line}");
    let told = tokens(line);
    let (source, input, output) = told.clone().unwrap_or_default();
    assert_eq!(
        mine[0]["source"].as_str(),
        told.map(|_| source).as_deref(),
        "{line}"
    );
    assert_eq!(
        (mine[0]["input"].as_u64(), mine[0]["output"].as_u64()),
        (Some(input), Some(output)),
        "{line}"
    );
}

#[tokio::test]
async fn every_timer_leaves_what_had_been_said() {
    let data = tempfile::tempdir().unwrap();
    let silent = SilentPort::new().unwrap();
    let timers = [
        ("tollgate.dev/timeout-response-head", "700ms"),
        ("tollgate.dev/timeout-first-event", "700ms"),
        ("tollgate.dev/timeout-silence", "700ms"),
        ("tollgate.dev/timeout-total", "3s"),
    ];
    let scene = scene(
        data.path(),
        &[
            two_services(silent.addr()),
            ingress("api", "/v1", "mock.static", &timers),
            ingress(
                "dead",
                "/dead",
                "other.static",
                &[("tollgate.dev/timeout-connect", "700ms")],
            ),
        ],
    );
    let mut lines = Vec::new();
    for (path, fault, ends, is_told) in [
        ("/dead/v1/chat/completions", "", "timeout_connect", false),
        ("", "stall-head", "timeout_response_head", false),
        ("", "stall-first", "timeout_first_event", false),
        ("", "stall-between;after=3", "timeout_silence", true),
        ("", "pace;ms=50,tokens;n=500", "timeout_total", true),
    ] {
        let (mut request, id) = ordered(fault, CHAT_STREAM);
        if !path.is_empty() {
            *request.uri_mut() = path.parse().unwrap();
        }
        drop(send(scene.gateway.http, request).await);
        let line = scene.gateway.line_of(&id);
        assert_eq!(line["termination"], ends, "{line}");
        let told = tokens(&line);
        assert_eq!(
            told.as_ref().map(|told| told.0.as_str()),
            is_told.then_some("estimated"),
            "{line}"
        );
        lines.push(line);
    }
    let outputs: Vec<u64> = lines.iter().filter_map(tokens).map(|told| told.2).collect();
    assert!(outputs.is_sorted() && outputs[0] > 0, "{outputs:?}");
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    agree(scene, data.path(), &lines, &page);
}

#[tokio::test]
async fn a_retry_counts_the_answer_that_the_client_got() {
    let data = tempfile::tempdir().unwrap();
    let down =
        raw_server(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await;
    let retries = [
        ("higress.io/proxy-next-upstream", "error,http_503,non_idempotent"),
        ("higress.io/proxy-next-upstream-tries", "3"),
    ];
    let both = bridge(&[("mock", down)]).replacen(&format!("\"{down}\""), &format!("\"{down},MOCK\""), 1);
    let scene = scene(
        data.path(),
        &[both, ingress("api", "/v1", "mock.static", &retries)],
    );
    let mut lines = Vec::new();
    for number in 0..24 {
        let (request, id) = ordered("", if number % 2 == 0 { CHAT } else { CHAT_STREAM });
        send(scene.gateway.http, request).await.unwrap();
        lines.push(scene.gateway.line_of(&id));
    }
    let good = lines.iter().filter(|line| line["code"] == "200");
    let retried = good.clone().filter(|line| line["attempts"] != "1");
    assert!(retried.count() > 0, "{lines:#?}");
    let first = good.clone().next().and_then(tokens).unwrap();
    assert_eq!(first.0, "provider");
    for line in &lines {
        let told = (line["code"] == "200").then_some(&first);
        assert_eq!(tokens(line).as_ref(), told, "{line}");
    }
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    agree(scene, data.path(), &lines, &page);
}

#[tokio::test]
async fn a_stop_in_the_middle_of_an_answer_counts_what_had_been_said() {
    let data = tempfile::tempdir().unwrap();
    let services = two_services("127.0.0.1:9".parse().unwrap());
    let scene = scene(
        data.path(),
        &[services, ingress("api", "/v1", "mock.static", &[])],
    );
    let (request, id) = ordered("stall-between;after=3", CHAT_STREAM);
    let mut stream = open(scene.gateway.http, request).await.unwrap();
    stream.read_until("content").await.unwrap();
    scene.gateway.signal("TERM").unwrap();
    scene.gateway.signal("TERM").unwrap();
    let line = scene.gateway.line_of(&id);
    assert_eq!(line["termination"], "shutdown", "{line}");
    assert_eq!(tokens(&line).unwrap().0, "estimated", "{line}");
    assert!(scene.gateway.wait().unwrap().success());
    row_agrees(&usage(data.path(), &["--rows"]), &line);
}

#[tokio::test]
async fn an_error_inside_a_stream_and_a_module_that_breaks_it_count_what_had_been_said() {
    let data = tempfile::tempdir().unwrap();
    let module = data.path().join("breaks.wasm");
    std::fs::write(&module, wat::parse_str(BREAKING).unwrap()).unwrap();
    let breaking = format!(
        "apiVersion: extensions.higress.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: breaking\n  namespace: \
         higress-system\nspec:\n  url: file://{}\n  matchRules:\n  - ingress: [broken]\n    config: {{ a: 1 }}\n",
        module.display()
    );
    let scene = scene(
        data.path(),
        &[
            two_services("127.0.0.1:9".parse().unwrap()),
            ingress("api", "/v1", "mock.static", &[]),
            ingress("broken", "/broken", "mock.static", &[]),
            wasm_plugin(
                "ai-proxy",
                "  matchRules:\n  - ingress: [broken]\n    config: { provider: { type: openai, apiTokens: [sk] } }\n",
            )
            .replacen("name: ai-proxy\n", "name: ai-proxy-broken\n", 1),
            breaking,
        ],
    );
    let mut lines = Vec::new();
    for (path, fault, ends) in [
        ("", "error-event;after=3;code=529", "upstream_error"),
        ("/broken/v1/chat/completions", "pace;ms=5,tokens;n=400", "refused"),
    ] {
        let (mut request, id) = ordered(fault, CHAT_STREAM);
        if !path.is_empty() {
            *request.uri_mut() = path.parse().unwrap();
        }
        let answer = send(scene.gateway.http, request).await.unwrap();
        assert!(!answer.text().contains("[DONE]"), "{answer:?}");
        let line = scene.gateway.line_of(&id);
        assert_eq!(
            (&line["code"], &line["termination"]),
            (&"200".into(), &ends.into()),
            "{line}"
        );
        let (source, _, output) = tokens(&line).unwrap();
        assert!(source == "estimated" && output > 0, "{line}");
        lines.push(line);
    }
    let page = scene.gateway.admin("/stats/prometheus").await.text();
    agree(scene, data.path(), &lines, &page);
}
