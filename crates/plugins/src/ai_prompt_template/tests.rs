//! The plugin through its front door.

use serde_json::{Value, json};

use crate::scene::Scene;
use crate::table::ParseContext;

fn config() -> Value {
    json!({"templates": [
        {"name": "code", "template": {"model": "old"}},
        {"name": "code", "template": {
            "model": "gpt", "n": "{{count}}",
            "messages": [{"role": "system", "content": "You write {{language}}. Not {{this}}."}, {"role": "user", "content": "{{program}}"}]
        }},
        {"name": "text", "template": "{\"max_tokens\": {{n}}, \"messages\": [{\"content\": \"\\\"{{q}}\"}]}"}
    ]})
}

async fn sent(headers: &[(&str, &str)], body: &str) -> String {
    let scene = Scene::new(super::parse(Some(&config()), None, &ParseContext::default()).unwrap());
    scene.forwards(200, "{}");
    scene
        .send("POST", "/v1/chat/completions", headers, body.to_owned())
        .await
        .unwrap();
    String::from_utf8(scene.forwarded().remove(0).body.to_vec()).unwrap()
}

#[tokio::test]
async fn places_are_filled_and_missing_ones_stay() {
    let body = r#"{"template":"code","properties":{"language":"Go","program":"say \"hi\"\n","count":3}}"#;
    assert_eq!(
        sent(&[], body).await,
        r#"{"model":"gpt","n":"3","messages":[{"role":"system","content":"You write Go. Not {{this}}."},{"role":"user","content":"say \"hi\"\n"}]}"#
    );
}

#[tokio::test]
async fn values_cannot_leave_their_place() {
    let hostile =
        json!({"template": "code", "properties": {"program": "\"}],\"model\":\"mine\",\"x\":[{\"y\":\""}});
    let filled: Value = serde_json::from_str(&sent(&[], &hostile.to_string()).await).unwrap();
    assert_eq!(filled["model"], "gpt");
    assert_eq!(filled["messages"][1]["content"], hostile["properties"]["program"]);
    for (value, expected) in [
        (json!(7), "7"),
        (json!("7"), "7"),
        (json!({"a": 1}), "{\"a\":1}"),
        (
            json!("1, \"model\": \"mine\""),
            "\"1, \\\"model\\\": \\\"mine\\\"\"",
        ),
    ] {
        let body = json!({"template": "text", "properties": {"n": value, "q": "x\""}});
        let filled = sent(&[], &body.to_string()).await;
        assert_eq!(
            filled,
            format!("{{\"max_tokens\": {expected}, \"messages\": [{{\"content\": \"\\\"x\\\"\"}}]}}")
        );
    }
}

#[tokio::test]
async fn other_requests_pass() {
    for (headers, body) in [
        (
            &[("template-enable", "false")][..],
            r#"{"template":"code","properties":{}}"#,
        ),
        (&[][..], r#"{"template":"unknown","properties":{}}"#),
        (&[][..], r#"{"template":"code"}"#),
        (&[][..], r#"{"properties":{}}"#),
        (&[][..], "not json"),
    ] {
        assert_eq!(sent(headers, body).await, body);
    }
    let enabled = [("template-enable", "true")];
    assert!(
        sent(&enabled, r#"{"template":"code","properties":{}}"#)
            .await
            .contains("{{program}}")
    );
}
