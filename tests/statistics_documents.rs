//! The documents' configs of `ai-statistics` as they stand there, and the outputs that they promise.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tollgate_mock_llm::Options;
use tollgate_testkit::client::{Answer, send};
use tollgate_testkit::process::Gateway;

use crate::support::{
    Sight, ai_proxy, bridge, documents, gateway, ingress, mock, ordered, raw_server, wasm_plugin,
};

const TRACING_SPAN: &str = include_str!("../examples/ai-statistics/documents/000-tracing-span.yaml");
const OTHER_PROTOCOL: &str = include_str!("../examples/ai-statistics/documents/001-other-protocol.yaml");
const CONSUMER: &str = include_str!("../examples/ai-statistics/documents/001-consumer.yaml");
const QUESTION_AND_ANSWER: &str =
    include_str!("../examples/ai-statistics/documents/001-question-and-answer.yaml");
const TRACING_LABEL: &str = include_str!("../examples/ai-statistics/documents/003-tracing-label.yaml");

/// What a document's `ai_log` field is made with.
const AI_LOG: &str = r#"{"id":"%REQ(X-REQUEST-ID)%","ai_log":"%FILTER_STATE(wasm.ai_log:PLAIN)%"}"#;
/// What the older page's log example is made with, field by field in its order.
const OLDER_LOG: &str = r#"{"model":"%FILTER_STATE(wasm.model:PLAIN)%","input_token":"%FILTER_STATE(wasm.input_token:PLAIN)%","output_token":"%FILTER_STATE(wasm.output_token:PLAIN)%","authority":"%REQ(X-ENVOY-ORIGINAL-HOST?:AUTHORITY)%","bytes_received":"%BYTES_RECEIVED%","bytes_sent":"%BYTES_SENT%","duration":"%DURATION%","istio_policy_status":"%DYNAMIC_METADATA(istio.mixer:status)%","method":"%REQ(:METHOD)%","path":"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%","protocol":"%PROTOCOL%","request_id":"%REQ(X-REQUEST-ID)%","requested_server_name":"%REQUESTED_SERVER_NAME%","response_code":"%RESPONSE_CODE%","response_flags":"%RESPONSE_FLAGS%","route_name":"%ROUTE_NAME%","start_time":"%START_TIME%","trace_id":"%REQ(X-B3-TRACEID)%","upstream_cluster":"%UPSTREAM_CLUSTER%","upstream_service_time":"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%","upstream_transport_failure_reason":"%UPSTREAM_TRANSPORT_FAILURE_REASON%","user_agent":"%REQ(USER-AGENT)%","x_forwarded_for":"%REQ(X-FORWARDED-FOR)%"}"#;

/// The `ai-statistics` whose whole config is this text.
fn statistics(config: &str) -> String {
    let lines = config.lines().map(|line| format!("    {line}\n"));
    let config = lines.collect::<String>();
    let config = if config.is_empty() {
        "    {}\n".to_owned()
    } else {
        config
    };
    wasm_plugin("ai-statistics", &format!("  defaultConfig:\n{config}"))
}

fn log(format: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: higress-config\n  namespace: higress-system\ndata:\n  mesh: |\n    accessLogFormat: |\n      {format}\n"
    )
}

/// The route `openai` to this address with this config.
fn start(vendor: SocketAddr, provider: &str, config: &str, format: &str) -> Gateway {
    let text = documents(&[
        bridge(&[("mock", vendor)]),
        ingress("openai", "/", "mock.static", &[]),
        ai_proxy("openai", provider),
        statistics(config),
        log(format),
    ]);
    gateway().file("scene.yaml", &text).unwrap().go().unwrap()
}

const OPENAI: &str = "{ type: openai, apiTokens: [sk-gateway] }";
const QUESTION: &str = r#"{"model":"qwen-max-0403","messages":[{"role":"system","content":"be short"},{"role":"user","content":"你是谁？"}]}"#;

async fn ask(gateway: &Gateway, body: &str) -> (Answer, Value, Value) {
    let (mut request, id) = ordered("", body);
    let headers = request.headers_mut();
    headers.insert("user-agent", "PostmanRuntime/7.37.3".parse().unwrap());
    let answer = send(gateway.http, request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let line = gateway.line_of(&id);
    let inner = line["ai_log"].as_str().unwrap_or("null");
    let inner = serde_json::from_str(inner).unwrap_or_else(|error| panic!("{error}: {line}"));
    (answer, line, inner)
}

fn streamed(body: &str) -> String {
    body.replacen('{', r#"{"stream":true,"#, 1)
}

/// Series of Higress's families by name and labels.
async fn families(gateway: &Gateway) -> BTreeMap<String, u64> {
    let page = gateway.admin("/stats/prometheus").await.text();
    page.lines()
        .filter(|line| line.starts_with("route_"))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn an_empty_config() {
    let vendor = mock(Options::default());
    let gateway = start(vendor.addr(), OPENAI, "", AI_LOG);
    let (answer, _, plain) = ask(&gateway, QUESTION).await;
    let usage = &answer.json()["usage"];
    let (_, _, stream) = ask(&gateway, &streamed(QUESTION)).await;
    for log in [&plain, &stream] {
        assert_eq!(
            [&log["model"], &log["input_token"], &log["output_token"]],
            [
                &json!("qwen-max-0403"),
                &usage["prompt_tokens"],
                &usage["completion_tokens"]
            ]
        );
        assert!(log["llm_service_duration"].is_u64(), "{log}");
    }
    assert!(stream["llm_first_token_duration"].is_u64() && plain.get("llm_first_token_duration").is_none());
    let counted = families(&gateway).await;
    let series = |name: &str| {
        format!(
            "route_upstream_model_consumer_metric_{name}{{ai_route=\"openai\",ai_cluster=\"outbound|80||mock.static\",ai_model=\"qwen-max-0403\",ai_consumer=\"none\"}}"
        )
    };
    let tokens = |name: &str| usage[name].as_u64().unwrap() * 2;
    assert_eq!(counted[&series("input_token")], tokens("prompt_tokens"));
    assert_eq!(counted[&series("output_token")], tokens("completion_tokens"));
    assert_eq!(counted[&series("llm_duration_count")], 2);
    assert_eq!(counted[&series("llm_stream_duration_count")], 1);
    let told = |log: &Value, name: &str| log[name].as_u64().unwrap();
    let durations = told(&plain, "llm_service_duration") + told(&stream, "llm_service_duration");
    assert_eq!(
        counted.get(&series("llm_service_duration")).copied().unwrap_or(0),
        durations
    );
    let first = told(&stream, "llm_first_token_duration");
    assert_eq!(
        counted
            .get(&series("llm_first_token_duration"))
            .copied()
            .unwrap_or(0),
        first
    );
    assert!(
        counted.keys().all(|series| series.contains("_consumer_metric_")),
        "{counted:?}"
    );
}

#[tokio::test]
async fn usage_of_another_protocol() {
    let vendor = raw_server(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"output\":{\"text\":\"hi\"},\"usage\":{\"models\":[{\"model_id\":\"qwen-max\",\"input_tokens\":343,\"output_tokens\":153}]},\"request_id\":\"1\"}",
    )
    .await;
    let provider = "{ type: qwen, protocol: original, apiTokens: [sk-gateway] }";
    let gateway = start(vendor, provider, OTHER_PROTOCOL, AI_LOG);
    let (_, _, log) = ask(&gateway, r#"{"input":{"prompt":"hi"}}"#).await;
    assert_eq!(
        [&log["model"], &log["input_token"], &log["output_token"]],
        [&json!("qwen-max"), &json!(343), &json!(153)]
    );
    let counted = families(&gateway).await;
    for (name, value) in [
        ("input_token", 343),
        ("output_token", 153),
        ("llm_duration_count", 1),
    ] {
        let series = format!(
            "route_upstream_model_consumer_metric_{name}{{ai_route=\"openai\",ai_cluster=\"outbound|80||mock.static\",ai_model=\"qwen-max\",ai_consumer=\"none\"}}"
        );
        assert_eq!(counted[&series], value, "{counted:?}");
    }
}

#[tokio::test]
async fn question_answer_and_consumer() {
    let vendor = mock(Options::default());
    let gateway = start(vendor.addr(), OPENAI, QUESTION_AND_ANSWER, AI_LOG);
    let (answer, _, plain) = ask(&gateway, QUESTION).await;
    let said = answer.json()["choices"][0]["message"]["content"].clone();
    assert!(said.as_str().unwrap().contains("通义千问"), "{said}");
    let (_, _, stream) = ask(&gateway, &streamed(QUESTION)).await;
    for log in [plain, stream] {
        assert_eq!([&log["question"], &log["answer"]], [&json!("你是谁？"), &said]);
    }
    // Nobody has authenticated: there is no consumer to be told.
    let gateway = start(vendor.addr(), OPENAI, CONSUMER, AI_LOG);
    let (_, _, log) = ask(&gateway, QUESTION).await;
    assert_eq!(log.get("consumer"), Some(&Value::Null));
}

#[tokio::test]
async fn the_older_pages_log_field_by_field() {
    let vendor = mock(Options::default());
    for config in [TRACING_SPAN, TRACING_LABEL] {
        let gateway = start(vendor.addr(), OPENAI, config, OLDER_LOG);
        let (answer, line, _) = ask(&gateway, QUESTION).await;
        let usage = &answer.json()["usage"];
        let digits = |name: &str| line[name].as_str().unwrap().parse::<u64>().unwrap();
        let fixed = json!({
            "model": "qwen-max-0403",
            "input_token": usage["prompt_tokens"].to_string(),
            "output_token": usage["completion_tokens"].to_string(),
            "authority": gateway.http.to_string(),
            "bytes_received": QUESTION.len().to_string(),
            "bytes_sent": answer.body.len().to_string(),
            "istio_policy_status": "-",
            "method": "POST",
            "path": "/v1/chat/completions",
            "protocol": "HTTP/1.1",
            "requested_server_name": "-",
            "response_code": "200",
            "response_flags": "-",
            "route_name": "openai",
            "trace_id": "-",
            "upstream_cluster": "outbound|80||mock.static",
            "upstream_transport_failure_reason": "-",
            "user_agent": "PostmanRuntime/7.37.3",
            "x_forwarded_for": "127.0.0.1",
        });
        for (name, value) in fixed.as_object().unwrap() {
            assert_eq!(line[name], *value, "{name}: {line}");
        }
        assert!(digits("upstream_service_time") <= digits("duration"), "{line}");
        assert_eq!(
            line["start_time"].as_str().unwrap().len(),
            "2024-06-18T09:37:14.078Z".len()
        );
        assert!(!line["request_id"].as_str().unwrap().is_empty());
        assert_eq!(line.as_object().unwrap().len(), 23, "{line}");
        let counted = families(&gateway).await;
        let labels = "ai_route=\"openai\",ai_cluster=\"outbound|80||mock.static\",ai_model=\"qwen-max-0403\"";
        for (name, tokens) in [
            ("input_token", "prompt_tokens"),
            ("output_token", "completion_tokens"),
        ] {
            let series = format!("route_upstream_model_{name}{{{labels}}}");
            assert_eq!(Some(counted[&series]), usage[tokens].as_u64(), "{counted:?}");
        }
    }
}
