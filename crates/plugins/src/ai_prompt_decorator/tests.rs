//! The plugin through its front door.

use serde_json::{Value, json};

use crate::scene::Scene;
use crate::table::ParseContext;

fn scene(config: &Value) -> Scene {
    let scene = Scene::new(super::parse(Some(config), None, &ParseContext::default()).unwrap());
    scene.forwards(200, "{}");
    scene
}

async fn sent(scene: &Scene, body: &str) -> String {
    scene
        .send("POST", "/v1/chat/completions", &[], body.to_owned())
        .await
        .unwrap();
    String::from_utf8(scene.forwarded().remove(0).body.to_vec()).unwrap()
}

#[tokio::test]
async fn messages_in_front_and_behind_and_nothing_else_changes() {
    let config = json!({
        "prepend": [{"role": "system", "content": "be \"kind\""}],
        "append": [{"role": "user", "content": "thanks"}]
    });
    let body = r#"{ "n":1.0, "messages":[ {"role":"user", "content":"hi", "name":"x"} ],"model":"m"}"#;
    assert_eq!(
        sent(&scene(&config), body).await,
        r#"{ "n":1.0, "messages":[{"role":"system","content":"be \"kind\""},{"role":"user", "content":"hi", "name":"x"},{"role":"user","content":"thanks"}],"model":"m"}"#
    );
}

#[tokio::test]
async fn replacements_follow_their_order_and_role() {
    let config = json!({
        "prepend": [{"role": "system", "content": "call 123"}],
        "replace": [
            {"pattern": "secret", "replacement": "***"},
            {"pattern": "(\\d)(\\d+)", "replacement": "${1}-$2$$", "regex": true, "on_role": "user"},
            {"pattern": "$1", "replacement": ""}
        ]
    });
    let body = r#"{"messages":[{"role":"user","content":"secret 123"},{"role":"assistant","content":"123"},{"role":"user","content":[{"type":"text","text":"secret"}]}]}"#;
    assert_eq!(
        sent(&scene(&config), body).await,
        r#"{"messages":[{"role":"system","content":"call 123"},{"role":"user","content":"*** 1-23$"},{"role":"assistant","content":"123"},{"role":"user","content":[{"type":"text","text":"secret"}]}]}"#
    );
}

#[tokio::test]
async fn places_are_filled_in_or_the_prompt_stays() {
    let config =
        json!({"prepend": [{"role": "system", "content": "in ${geo-city}, ${geo-country} \\ ${geo-city}"}]});
    let body = r#"{"messages":[]}"#;
    let known = scene(&config);
    known
        .record
        .set_filter_state("wasm.geo-city", "杭州\"".to_owned());
    known
        .record
        .set_filter_state("wasm.geo-country", "中国".to_owned());
    assert_eq!(
        sent(&known, body).await,
        r#"{"messages":[{"role":"system","content":"in 杭州\", 中国 \\ 杭州\""}]}"#
    );
    let half = scene(&config);
    half.record.set_filter_state("wasm.geo-city", "x".to_owned());
    assert_eq!(sent(&half, body).await, body);
}

#[tokio::test]
async fn what_is_no_conversation_passes() {
    let config = json!({"prepend": [{"role": "system", "content": "x"}]});
    for body in [
        "{",
        "[]",
        "{}",
        r#"{"messages":"a"}"#,
        r#"{"messages":{}}"#,
        "not json",
        "7",
    ] {
        assert_eq!(sent(&scene(&config), body).await, body);
    }
    assert_eq!(
        sent(&scene(&json!({})), r#"{"messages":[]}"#).await,
        r#"{"messages":[]}"#
    );
}

#[test]
fn configs_that_are_refused() {
    for (config, expected) in [
        (json!({"prepend": "x"}), "invalid type"),
        (json!({"append": [{"role": 1}]}), "invalid type"),
        (
            json!({"replace": [{"pattern": ""}]}),
            "replace[0].pattern: must not be empty",
        ),
        (
            json!({"replace": [{"pattern": "(", "regex": true}]}),
            "replace[0].pattern: is not a valid regex: ",
        ),
        (
            json!({"replace": [{"pattern": "(?=a)", "regex": true}]}),
            "replace[0].pattern: is not a valid regex: ",
        ),
    ] {
        let fault = super::parse(Some(&config), None, &ParseContext::default())
            .err()
            .unwrap();
        assert!(fault.to_string().starts_with(expected), "{fault}");
    }
}
