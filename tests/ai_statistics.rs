//! `ai-statistics` through the binary: the documents' outputs, and sums that agree however streams end.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollgate_mock_llm::Options;
use tollgate_testkit::client::send;
use tollgate_testkit::process::Gateway;

use crate::support::{
    CHAT, CHAT_STREAM, Scene, Sight, ai_proxy, bridge, dashscope, documents, gateway, ingress, mock, ordered,
    wasm_plugin,
};

const DOCUMENTS: &str = include_str!("../examples/ai-statistics/04-ai-statistics.yaml");
const QUESTION_AND_ANSWER: &str = include_str!("../examples/ai-statistics/question-and-answer.yaml");

/// The log of the older page, with what tests look for besides.
const LOG: &str = r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: higress-config
  namespace: higress-system
data:
  mesh: |
    accessLogFile: /dev/stdout
    accessLogFormat: |
      {"ai_log":"%FILTER_STATE(wasm.ai_log:PLAIN)%","model":"%FILTER_STATE(wasm.model:PLAIN)%","input_token":"%FILTER_STATE(wasm.input_token:PLAIN)%","output_token":"%FILTER_STATE(wasm.output_token:PLAIN)%","authority":"%REQ(X-ENVOY-ORIGINAL-HOST?:AUTHORITY)%","bytes_received":"%BYTES_RECEIVED%","bytes_sent":"%BYTES_SENT%","duration":"%DURATION%","istio_policy_status":"%DYNAMIC_METADATA(istio.mixer:status)%","method":"%REQ(:METHOD)%","path":"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%","protocol":"%PROTOCOL%","request_id":"%REQ(X-REQUEST-ID)%","requested_server_name":"%REQUESTED_SERVER_NAME%","response_code":"%RESPONSE_CODE%","response_flags":"%RESPONSE_FLAGS%","route_name":"%ROUTE_NAME%","start_time":"%START_TIME%","trace_id":"%REQ(X-B3-TRACEID)%","upstream_cluster":"%UPSTREAM_CLUSTER%","upstream_service_time":"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%","upstream_transport_failure_reason":"%UPSTREAM_TRANSPORT_FAILURE_REASON%","user_agent":"%REQ(USER-AGENT)%","x_forwarded_for":"%REQ(X-FORWARDED-FOR)%","termination":"%TOLLGATE(termination)%"}
"#;

/// The `ai_log` of a log line, as its reader unpacks it.
fn ai_log(line: &Value) -> Value {
    let text = line["ai_log"].as_str().unwrap();
    if text == "-" {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every series of the families that count usage.
async fn usage_series(gateway: &Gateway) -> BTreeMap<String, u64> {
    let page = gateway.admin("/stats/prometheus").await.text();
    page.lines()
        .filter(|line| line.starts_with("route_") || line.starts_with("tollgate_usage_"))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn the_first_documents_metrics_and_log() {
    let (_vendor, start) = dashscope("04-ai-statistics.yaml", DOCUMENTS);
    let gateway = start.file("log.yaml", LOG).unwrap().go().unwrap();
    let body = r#"{"model":"qwen-max-0403","messages":[{"role":"user","content":"你是谁？"}]}"#;
    let mut sums = [0, 0];
    for streamed in [false, true] {
        let (mut request, id) = ordered("", body);
        if streamed {
            *request.body_mut() = body.replacen('{', r#"{"stream":true,"#, 1).into();
            request.headers_mut().remove("content-length");
        }
        request
            .headers_mut()
            .insert("user-agent", "PostmanRuntime/7.37.3".parse().unwrap());
        let answer = send(gateway.http, request).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let line = gateway.line_of(&id);
        sums = [sums[0] + 11, sums[1] + 111];
        for (field, value) in [
            ("model", "qwen-max-0403"),
            ("input_token", "11"),
            ("output_token", "111"),
            ("istio_policy_status", "-"),
            ("method", "POST"),
            ("path", "/v1/chat/completions"),
            ("protocol", "HTTP/1.1"),
            ("requested_server_name", "-"),
            ("response_code", "200"),
            ("response_flags", "-"),
            ("route_name", "qwen"),
            ("trace_id", "-"),
            ("upstream_cluster", "outbound|443||qwen.dns"),
            ("upstream_transport_failure_reason", "-"),
            ("user_agent", "PostmanRuntime/7.37.3"),
        ] {
            assert_eq!(line[field], value, "{field} {line}");
        }
        let log = ai_log(&line);
        assert_eq!(
            [
                &log["model"],
                &log["input_token"],
                &log["output_token"],
                &log["total_token"]
            ],
            [&json!("qwen-max-0403"), &json!(11), &json!(111), &json!(122)],
            "{log}"
        );
    }
    let series = usage_series(&gateway).await;
    let labels = r#"ai_route="qwen",ai_cluster="outbound|443||qwen.dns",ai_model="qwen-max-0403""#;
    for (name, sum) in [("input_token", sums[0]), ("output_token", sums[1])] {
        assert_eq!(series[&format!("route_upstream_model_{name}{{{labels}}}")], sum);
        let consumer =
            format!("route_upstream_model_consumer_metric_{name}{{{labels},ai_consumer=\"none\"}}");
        assert_eq!(series[&consumer], sum);
    }
}

/// A route with ai-proxy and these documents besides.
fn scene(options: Options, statistics: String) -> Scene {
    let mock = mock(options);
    let text = documents(&[
        bridge(&[("mock", mock.addr())]),
        ingress("api", "/", "mock.static", &[]),
        ai_proxy("api", "{ type: openai, apiTokens: [sk-gateway] }"),
        statistics,
        LOG.to_owned(),
    ]);
    Scene {
        gateway: gateway().file("scene.yaml", &text).unwrap().go().unwrap(),
        mock,
    }
}

#[tokio::test]
async fn the_newer_documents_question_and_answer() {
    let scene = scene(Options::default(), QUESTION_AND_ANSWER.to_owned());
    for body in [CHAT, CHAT_STREAM] {
        let (answer, line) = scene.chat("", body).await;
        let log = ai_log(&line);
        assert_eq!(log["question"], "Who are you?", "{log}");
        let said: String = if body == CHAT {
            answer.json()["choices"][0]["message"]["content"]
                .as_str()
                .unwrap()
                .to_owned()
        } else {
            let chunks = answer
                .events()
                .into_iter()
                .filter_map(|event| serde_json::from_str::<Value>(&event).ok());
            chunks
                .filter_map(|chunk| {
                    chunk["choices"][0]["delta"]["content"]
                        .as_str()
                        .map(str::to_owned)
                })
                .collect()
        };
        assert_eq!(log["answer"], said, "{log}");
        assert_eq!(log["consumer"], Value::Null);
        let kind = if body == CHAT { "normal" } else { "stream" };
        assert_eq!(log["response_type"], kind);
        assert_eq!(log.get("llm_first_token_duration").is_some(), body == CHAT_STREAM);
    }
    let series = usage_series(&scene.gateway).await;
    let families: Vec<&str> = series
        .keys()
        .filter_map(|series| {
            series
                .strip_prefix("route_upstream_model_consumer_metric_")?
                .split('{')
                .next()
        })
        .collect();
    assert_eq!(
        families,
        [
            "input_token",
            "llm_duration_count",
            "llm_first_token_duration",
            "llm_service_duration",
            "llm_stream_duration_count",
            "output_token",
            "total_token"
        ]
        .into_iter()
        .filter(|family| families.contains(family))
        .collect::<Vec<_>>()
    );
    assert!(
        series
            .keys()
            .all(|series| !series.starts_with("route_upstream_model_input")),
        "{series:?}"
    );
}

#[tokio::test]
async fn usage_is_right_in_every_shape_that_vendors_send() {
    let scene = scene(
        Options::default(),
        wasm_plugin("ai-statistics", "  defaultConfig: {}\n"),
    );
    let (answer, _) = scene.chat("", CHAT).await;
    let told = answer.json()["usage"].clone();
    for fault in [
        "",
        "crlf",
        "cr",
        "split;bytes=1",
        "packed;events=1000",
        "bom",
        "keep-alive",
        "usage-cumulative",
        "usage-after-done",
        "usage-in-choice",
        "done-twice",
        "unknown-events",
        "gzip",
        "deflate",
        "br",
        "zstd",
    ] {
        let (answer, line) = scene.chat(fault, CHAT_STREAM).await;
        let log = ai_log(&line);
        assert_eq!(
            (&log["input_token"], &log["output_token"], log.get("usage_source")),
            (&told["prompt_tokens"], &told["completion_tokens"], None),
            "{fault} {log} {}",
            answer.text()
        );
    }
    for fault in ["usage-absent", "usage-null", "error-event;after=3;code=503"] {
        let (_, line) = scene.chat(fault, CHAT_STREAM).await;
        let log = ai_log(&line);
        assert_eq!(log["usage_source"], "estimated", "{fault} {log}");
        assert!(log["input_token"].as_u64().unwrap() > 0 && log["output_token"].as_u64().unwrap() > 0);
    }
    let (answer, line) = scene.chat("429", CHAT_STREAM).await;
    assert_eq!(answer.status, 429);
    assert_eq!(ai_log(&line).get("input_token"), None);
}
