//! What each generation of the config produces: the documents' own outputs among it.

use serde_json::{Value, json};

use super::{Scene, Step, data, delta, play, say};

fn usage_event() -> Step {
    data(&json!({"id": "c1", "model": "qwen-max-0403", "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 69, "total_tokens": 79}}))
}

fn streamed() -> Vec<Step> {
    vec![
        Step::Wait(100),
        data(
            &json!({"id": "c1", "model": "qwen-max-0403", "choices": [{"delta": {"role": "assistant", "content": ""}}], "usage": null}),
        ),
        Step::Wait(209),
        delta("我是"),
        say(": ping\n\n"),
        delta("通义"),
        Step::Wait(1646),
        usage_event(),
        say("data: [DONE]\n\n"),
    ]
}

/// The first document's config: the answer's tokens in tags and in the family without a consumer.
#[tokio::test(start_paused = true)]
async fn generation_a_as_in_the_first_document() {
    let config = json!({"enable": true, "tracing_span": [
        {"key": "user_content", "value_source": "request_body", "value": "messages.-1.content"},
        {"key": "llm_model", "value_source": "request_body", "value": "model"},
        {"key": "route", "value_source": "property", "value": "route_name"},
        {"key": "type", "value_source": "response_header", "value": "content-type"},
        {"key": "none", "value_source": "request_header", "value": "absent"},
    ]});
    let left = play(Scene::chat(config)).await;
    let labels = r#"ai_route="qwen",ai_cluster="outbound|443||qwen.dns",ai_model="qwen-max-0403""#;
    let lines = left.metrics();
    for (family, value) in [("input_token", 11), ("output_token", 101)] {
        let line = format!("route_upstream_model_{family}{{{labels}}} {value}");
        assert!(lines.contains(&line), "{line} {lines:?}");
        let line =
            format!("route_upstream_model_consumer_metric_{family}{{{labels},ai_consumer=\"none\"}} {value}");
        assert!(lines.contains(&line), "{line} {lines:?}");
    }
    for (tag, value) in [
        ("user_content", Some("你是谁？")),
        ("llm_model", Some("qwen-max")),
        ("route", Some("qwen")),
        ("type", Some("application/json")),
        ("none", None),
        ("input_tokens", Some("11")),
        ("output_tokens", Some("101")),
        ("total_time", Some("0")),
        ("first_token_time", None),
    ] {
        assert_eq!(left.tag(tag).as_deref(), value, "{tag}");
    }
    let states = ["wasm.model", "wasm.input_token", "wasm.output_token"].map(|key| left.state(key).unwrap());
    assert_eq!(states, ["qwen-max-0403", "11", "101"]);
}

/// The older page's own spelling of its list and its source.
#[tokio::test(start_paused = true)]
async fn generation_a_as_its_page_spells_it() {
    let config = json!({"enable": true, "tracing_label": [
        {"key": "session_id", "value_source": "requeset_header", "value": "session_id"},
        {"key": "user_content", "value_source": "request_body", "value": "messages.0.content"},
    ]});
    let mut scene = Scene::stream(config, streamed());
    scene.request_headers = vec![("session_id", "s1")];
    let left = play(scene).await;
    assert_eq!(left.tag("session_id").as_deref(), Some("s1"));
    assert_eq!(left.tag("user_content").as_deref(), Some("你是谁？"));
    let first: u64 = left.tag("first_token_time").unwrap().parse().unwrap();
    let started = left
        .record
        .start_time
        .duration_since(std::time::SystemTime::UNIX_EPOCH);
    assert_eq!(
        u128::from(first),
        (started.unwrap() + std::time::Duration::from_millis(100)).as_millis()
    );
}

#[tokio::test(start_paused = true)]
async fn generation_a_switched_off_does_nothing() {
    let left = play(Scene::chat(
        json!({"enable": false, "attributes": [{"key": "question", "apply_to_log": true}]}),
    ))
    .await;
    assert_eq!((left.ai_log(), left.metrics()), (Value::Null, Vec::new()));
    assert!(left.record.span_tags.borrow().is_empty());
}

/// The newer page's empty config.
#[tokio::test(start_paused = true)]
async fn generation_c_with_an_empty_config() {
    let left = play(Scene::stream(json!({}), streamed())).await;
    let labels =
        r#"ai_route="qwen",ai_cluster="outbound|443||qwen.dns",ai_model="qwen-max-0403",ai_consumer="none""#;
    let family =
        |name: &str, value: u64| format!("route_upstream_model_consumer_metric_{name}{{{labels}}} {value}");
    assert_eq!(
        left.metrics(),
        [
            family("input_token", 10),
            family("output_token", 69),
            family("total_token", 79),
            family("llm_service_duration", 1955),
            family("llm_duration_count", 1),
            family("llm_first_token_duration", 309),
            family("llm_stream_duration_count", 1),
            "tollgate_usage_tokens_total{source=\"provider\",type=\"input\"} 10".to_owned(),
            "tollgate_usage_tokens_total{source=\"provider\",type=\"output\"} 69".to_owned(),
        ]
    );
    assert_eq!(
        left.ai_log(),
        json!({"api": "-", "chat_round": 1, "model": "qwen-max-0403", "input_token": 10, "output_token": 69,
            "total_token": 79, "response_type": "stream", "chat_id": "c1",
            "llm_first_token_duration": 309, "llm_service_duration": 1955})
    );
    assert_eq!(left.tag("gen_ai.usage.total_tokens").as_deref(), Some("79"));
    assert_eq!(left.tag("gen_ai.request.model").as_deref(), Some("qwen-max"));
    assert_eq!(left.state("wasm.model"), None);
}

/// The newer page's question and answer, on a stream and on a plain answer.
#[tokio::test(start_paused = true)]
async fn question_and_answer() {
    let config = json!({"attributes": [
        {"key": "question", "value_source": "request_body", "value": "messages.@reverse.0.content", "apply_to_log": true},
        {"key": "answer", "value_source": "response_streaming_body", "value": "choices.0.delta.content", "rule": "append", "apply_to_log": true},
        {"key": "answer", "value_source": "response_body", "value": "choices.0.message.content", "apply_to_log": true},
        {"key": "consumer", "value_source": "request_header", "value": "x-mse-consumer", "apply_to_log": true},
    ]});
    let mut scene = Scene::stream(config.clone(), streamed());
    scene.request_headers = vec![("x-mse-consumer", "alice")];
    let left = play(scene).await;
    let log = left.ai_log();
    assert_eq!(
        (&log["question"], &log["answer"], &log["consumer"]),
        (&json!("你是谁？"), &json!("我是通义"), &json!("alice"))
    );
    assert!(
        left.metrics()
            .iter()
            .any(|line| line.contains("ai_consumer=\"alice\""))
    );
    assert!(!left.keeps_a_body(), "a stream would hold its request's body");
    let left = play(Scene::chat(config)).await;
    assert!(left.keeps_a_body(), "the texts are copies");
    assert_eq!(left.ai_log()["answer"], "我是通义千问");
    assert_eq!(left.ai_log()["consumer"], Value::Null);
}

/// The newer page's example of a vendor that does not speak OpenAI.
#[tokio::test(start_paused = true)]
async fn usage_from_attributes() {
    let attribute = |key: &str, value: &str| json!({"key": key, "value_source": "response_body", "value": value, "apply_to_log": true, "apply_to_span": false});
    let config = json!({"attributes": [
        attribute("model", "usage.models.0.model_id"),
        attribute("input_token", "usage.models.0.input_tokens"),
        attribute("output_token", "usage.models.0.output_tokens"),
    ]});
    let mut scene = Scene::chat(config);
    scene.path = "/api/v1/apps/1/completion";
    scene.request = r#"{"input":{"prompt":"hi"}}"#.to_owned();
    scene.answer = vec![
        Step::Wait(3725),
        say(
            r#"{"output":{},"usage":{"models":[{"output_tokens":153,"model_id":"qwen-max","input_tokens":343}]}}"#,
        ),
    ];
    let left = play(scene).await;
    let log = left.ai_log();
    assert_eq!(
        (&log["model"], &log["input_token"], &log["output_token"]),
        (&json!("qwen-max"), &json!(343), &json!(153))
    );
    let lines = left.metrics();
    for (name, value) in [
        ("input_token", 343),
        ("output_token", 153),
        ("llm_service_duration", 3725),
        ("llm_duration_count", 1),
    ] {
        let found = lines.iter().any(|line| {
            line.starts_with(&format!("route_upstream_model_consumer_metric_{name}{{"))
                && line.contains("ai_model=\"qwen-max\"")
                && line.ends_with(&format!(" {value}"))
        });
        assert!(found, "{name} {lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn values_keep_their_types_and_their_bounds() {
    let config = json!({"value_length_limit": 20, "attributes": [
        {"key": "temperature", "value_source": "request_body", "value": "temperature", "apply_to_log": true, "apply_to_span": true},
        {"key": "stream", "value_source": "request_body", "value": "stream", "apply_to_log": true},
        {"key": "stop", "value_source": "request_body", "value": "stop", "apply_to_log": true},
        {"key": "missing", "value_source": "request_body", "value": "nope", "apply_to_log": true, "apply_to_span": true},
        {"key": "filled", "value_source": "request_body", "value": "nope", "default_value": "d", "apply_to_log": true},
        {"key": "long", "value_source": "request_body", "value": "messages.0.content", "apply_to_log": true, "apply_to_span": true, "trace_span_key": "renamed"},
        {"key": "fixed", "value_source": "fixed_value", "value": "<v>\n", "apply_to_log": true, "as_separate_log_field": true},
        {"key": "secret", "value_source": "request_header", "value": "Authorization", "apply_to_log": true},
        {"key": "kind", "value_source": "response_header", "value": "x-kind", "apply_to_log": true},
    ]});
    let mut scene = Scene::chat(config);
    scene.request = json!({"temperature": 0.5, "stream": false, "stop": ["a"], "messages": [{"role": "user", "content": "你".repeat(100)}]}).to_string();
    scene.request_headers = vec![("authorization", "Bearer sk-1"), ("x-agent-session", "s9")];
    scene.response_headers = vec![("x-kind", "k")];
    scene.route = "api@v1@svc@x";
    let left = play(scene).await;
    let log = left.ai_log();
    let truncated = format!("{} [truncated] {}", "你".repeat(3), "你".repeat(3));
    for (key, value) in [
        ("temperature", json!(0.5)),
        ("stream", json!(false)),
        ("stop", json!(["a"])),
        ("missing", Value::Null),
        ("filled", json!("d")),
        ("long", json!(truncated)),
        ("secret", json!("***")),
        ("kind", json!("k")),
        ("api", json!("api@v1@svc")),
        ("session_id", json!("s9")),
    ] {
        assert_eq!(log[key], value, "{key}");
    }
    assert!(log.get("missing").is_some() && log.get("fixed").is_none());
    assert_eq!(left.state("wasm.fixed").as_deref(), Some("<v>\\n"));
    assert_eq!(left.tag("temperature").as_deref(), Some("0.5"));
    assert_eq!(left.tag("missing"), None);
    assert_eq!(left.tag("renamed").unwrap().chars().count(), 100);
    assert!(left.metrics()[0].contains("ai_route=\"api@v1@svc\""));
}

#[tokio::test(start_paused = true)]
async fn the_full_set_on_a_stream() {
    let answer = vec![
        data(&json!({"choices": [{"delta": {"reasoning_content": "let "}}]})),
        data(&json!({"choices": [{"delta": {"reasoning_content": "me"}}]})),
        delta("a"),
        data(
            &json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}}]}),
        ),
        data(
            &json!({"model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}}),
        ),
    ];
    let mut scene = Scene::stream(json!({"use_default_attributes": true}), answer);
    scene.request = json!({"system": "be kind", "messages": [{"role": "user", "content": "q"}]}).to_string();
    let log = play(scene).await.ai_log();
    for (key, value) in [
        ("messages", json!([{"role": "user", "content": "q"}])),
        ("question", json!("q")),
        ("system", json!("be kind")),
        ("answer", json!("a")),
        ("reasoning", json!("let me")),
        (
            "tool_calls",
            json!([{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
        ),
        ("reasoning_tokens", json!(1)),
        ("cached_tokens", json!(2)),
        ("input_token_details", json!("{\"cached_tokens\":2}")),
        ("output_token_details", json!("{\"reasoning_tokens\":1}")),
    ] {
        assert_eq!(log[key], value, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn rules_of_streams() {
    let rule = |key: &str, rule: &str| json!({"key": key, "value_source": "response_streaming_body", "value": "choices.0.delta.content", "rule": rule, "apply_to_log": true});
    let config = json!({"attributes": [rule("f", "first"), rule("r", "replace"), rule("a", "append"), rule("n", ""),
        {"key": "answer", "apply_to_log": true}]});
    let log = play(Scene::stream(config, vec![delta("x"), delta("y"), delta("z")]))
        .await
        .ai_log();
    assert_eq!(
        [&log["f"], &log["r"], &log["a"], &log["n"], &log["answer"]],
        [
            &json!("x"),
            &json!("z"),
            &json!("xyz"),
            &Value::Null,
            &json!("xyz")
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn other_dialects() {
    let anthropic = vec![
        say(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"model\":\"claude\",\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n",
        ),
        say(
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hi\"}}\n\n",
        ),
        say("event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":20}}\n\n"),
    ];
    let mut scene = Scene::stream(
        json!({"attributes": [{"key": "answer", "apply_to_log": true}]}),
        anthropic,
    );
    scene.path = "/v1/messages";
    let log = play(scene).await.ai_log();
    assert_eq!(
        [
            &log["model"],
            &log["input_token"],
            &log["output_token"],
            &log["total_token"],
            &log["answer"],
            &log["chat_id"]
        ],
        [
            &json!("claude"),
            &json!(10),
            &json!(20),
            &json!(30),
            &json!("hi"),
            &json!("msg")
        ]
    );
    let responses = vec![
        say(
            "data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp\",\"model\":\"gpt\",\"usage\":null}}\n\n",
        ),
        say(
            "data: {\"type\":\"response.completed\",\ndata: \"response\":{\"id\":\"resp\",\"model\":\"gpt\",\ndata: \"usage\":{\"input_tokens\":3,\"output_tokens\":4,\"total_tokens\":7}}}\n\n",
        ),
    ];
    let mut scene = Scene::stream(json!({"use_default_response_attributes": true}), responses);
    scene.path = "/v1/responses";
    let log = play(scene).await.ai_log();
    assert_eq!(
        [&log["model"], &log["total_token"], &log["chat_id"]],
        [&json!("gpt"), &json!(7), &json!("resp")]
    );
    let mut scene = Scene::chat(json!({}));
    scene.path = "/v1beta/models/gemini-2.5:generateContent?alt=sse";
    scene.request = json!({"contents": [{"parts": []}, {"role": "model"}, {"role": "user"}]}).to_string();
    scene.answer = vec![say(
        r#"{"candidates":[],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":6,"totalTokenCount":15,"thoughtsTokenCount":5},"responseId":"r"}"#,
    )];
    let left = play(scene).await;
    let log = left.ai_log();
    assert_eq!(
        [
            &log["model"],
            &log["total_token"],
            &log["chat_round"],
            &log["output_token_details"]
        ],
        [
            &json!("gemini-2.5"),
            &json!(15),
            &json!(2),
            &json!({"thoughts_token_count": 5})
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn credentials_stay_out_whatever_their_header_is_called() {
    let attribute = |name: &str| json!({"key": name, "value_source": "request_header", "value": name, "apply_to_log": true, "apply_to_span": true});
    let names = [
        "x-authorization",
        "x-amz-security-token",
        "x-mine",
        "x-marked",
        "x-other",
    ];
    let mut config = json!({
        "session_id_header": "x-mine", "enable": true,
        "tracing_span": [
            {"key": "of_header", "value_source": "request_header", "value": "x-mine"},
            {"key": "of_path", "value_source": "property", "value": "request.path"},
        ],
    });
    config["attributes"] = names.iter().map(|name| attribute(name)).collect();
    let mut scene = Scene::chat(config);
    scene.path = "/v1/chat/completions?a=1&x-mine=s3cret";
    scene.hidden = Some("x-mine");
    scene.request_headers = names.iter().map(|name| (*name, "s3cret")).collect();
    let left = play(scene).await;
    let log = left.ai_log();
    for name in names {
        let shown = if name == "x-other" { "s3cret" } else { "***" };
        assert_eq!(log[name], shown, "{name}");
        assert_eq!(left.tag(name).as_deref(), Some(shown), "{name}");
    }
    assert_eq!(
        (&log["session_id"], left.tag("of_header").as_deref()),
        (&json!("***"), Some("***"))
    );
    assert_eq!(
        left.tag("of_path").as_deref(),
        Some("/v1/chat/completions?a=1&x-mine=***")
    );
}
