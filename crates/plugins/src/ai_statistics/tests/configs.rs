//! Which configs are refused, which are warned about, and which requests a config leaves alone.

use serde_json::{Value, json};

use super::{Scene, parse, play};

#[test]
fn wrong_configs_name_their_place() {
    for (config, expected) in [
        (json!([]), "must be an object"),
        (json!({"attributes": {}}), "attributes: must be a list"),
        (json!({"attributes": ["x"]}), "attributes[0]: must be an object"),
        (
            json!({"attributes": [{"key": "a"}, {"key": 7}]}),
            "attributes[1].key: must be a string",
        ),
        (
            json!({"attributes": [{"key": "a", "apply_to_log": "yes"}]}),
            "attributes[0].apply_to_log: must be true or false",
        ),
        (
            json!({"attributes": [{"key": "a", "rule": "last"}]}),
            "attributes[0].rule: value of rule must be one of [nil, first, replace, append]",
        ),
        (
            json!({"value_length_limit": -1}),
            "value_length_limit: must be a number of bytes from 0 to 104857600",
        ),
        (
            json!({"session_id_header": "Authorization"}),
            "session_id_header: carries credentials, which are never recorded",
        ),
    ] {
        assert_eq!(parse(&config).err().as_deref(), Some(expected), "{config}");
    }
    for config in [json!(null), json!({}), json!({"value_length_limit": "100"})] {
        assert!(parse(&config).is_ok(), "{config}");
    }
}

#[test]
fn what_does_nothing_is_warned_about() {
    let warnings = |config: Value| parse(&config).unwrap().1;
    assert_eq!(
        warnings(
            json!({"attributes": [{"key": "a", "value_source": "requst_body"}, {"key": "b"},
            {"key": "c", "value_source": "response_streaming_body", "value": "x"}, {"key": "answer"}]})
        ),
        [
            "attributes[0].value_source: \"requst_body\" is no source: the attribute is never set",
            "attributes[1].value_source: missing: the attribute is never set",
            "attributes[2].rule: missing: nothing is taken from streams",
        ]
    );
    assert_eq!(
        warnings(json!({"tracing_span": [{"key": "a", "value_source": "x"}]})),
        [
            "enable: missing: taken as true",
            "tracing_span[0].value_source: \"x\" is no source: the entry is ignored"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn paths_and_content_types_choose() {
    for (config, path, is_seen) in [
        (
            json!({"enable_path_suffixes": ["/completions"]}),
            "/v1/chat/completions?stream=true",
            true,
        ),
        (
            json!({"enable_path_suffixes": ["/completions"]}),
            "/v1/embeddings",
            false,
        ),
        (
            json!({"enable_path_suffixes": ["/x", "*"]}),
            "/v1/embeddings",
            true,
        ),
        (
            json!({"use_default_response_attributes": true}),
            "/v1/messages",
            true,
        ),
        (
            json!({"use_default_response_attributes": true}),
            "/v1/models",
            false,
        ),
        (
            json!({"use_default_attributes": true, "enable_path_suffixes": ["*"]}),
            "/v1/models",
            true,
        ),
    ] {
        let mut scene = Scene::chat(config.clone());
        scene.path = path;
        let left = play(scene).await;
        assert_eq!(!left.ai_log().is_null(), is_seen, "{config} {path}");
        assert_eq!(left.families().is_empty(), !is_seen, "{config} {path}");
    }
    let mut scene = Scene::chat(json!({"enable_content_types": ["application/json"]}));
    scene.content_type = "application/json; charset=utf-8";
    assert!(!play(scene).await.families().is_empty());
    let left = play(Scene::chat(
        json!({"enable_content_types": ["text/event-stream"]}),
    ))
    .await;
    assert!(left.families().is_empty());
    assert_eq!(left.ai_log(), json!({"api": "-", "chat_round": 1}));
}

#[tokio::test(start_paused = true)]
async fn without_usage_there_are_no_metrics() {
    let config =
        json!({"disable_openai_usage": true, "attributes": [{"key": "answer", "apply_to_log": true}]});
    let left = play(Scene::chat(config)).await;
    assert!(left.families().is_empty());
    // The accounts hold for every answer, also where nobody wants them in the log.
    assert_eq!(left.record.usage.borrow().tokens.output, 101);
    let log = left.ai_log();
    assert_eq!(
        (&log["answer"], log.get("input_token")),
        (&json!("我是通义千问"), None)
    );
}

#[tokio::test(start_paused = true)]
async fn bodies_pass_byte_for_byte() {
    let mut scene = Scene::chat(json!({"use_default_attributes": true}));
    scene.request = "{ \"model\" : \"m\",\n \"n\":1.50 }".to_owned();
    let left = play(scene).await;
    assert_eq!(left.upstream_body, "{ \"model\" : \"m\",\n \"n\":1.50 }");
    let mut scene = Scene::chat(
        json!({"attributes": [{"key": "m", "value_source": "request_body", "value": "model", "apply_to_log": true}]}),
    );
    scene.request = "not json {\"model\":\"m\"}".to_owned();
    let left = play(scene).await;
    assert_eq!(
        (left.upstream_body.as_ref(), &left.ai_log()["m"]),
        (&b"not json {\"model\":\"m\"}"[..], &json!("m"))
    );
}
