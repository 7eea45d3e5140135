//! `ai-prompt-template` and `ai-prompt-decorator` together, in their order: what the vendor is sent.

use serde_json::{Value, json};
use tollgate_mock_llm::Handle;
use tollgate_testkit::client::{post_json, send};
use tollgate_testkit::process::Gateway;

use crate::support::{CHAT_PATH, dashscope};

const DOCUMENTS: &str = include_str!("../examples/ai-prompts/05-ai-prompts.yaml");

fn scene() -> (Handle, Gateway) {
    let (vendor, start) = dashscope("05-ai-prompts.yaml", DOCUMENTS);
    (vendor, start.go().unwrap())
}

#[tokio::test]
async fn a_template_is_filled_and_decorated() {
    let (vendor, gateway) = scene();
    let body = json!({"template": "developer-chat", "properties": {"language": "Rust", "program": "\"sort\" 13800138000"}});
    let answer = send(gateway.http, post_json(CHAT_PATH, body.to_string()))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent: Value = vendor.requests().pop().unwrap().json();
    assert_eq!(
        sent,
        json!({"model": "qwen-max-0403", "messages": [
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "system", "content": "You are an expert of Rust."},
            {"role": "user", "content": "Write a program for \"sort\" ***."}
        ]})
    );
}

#[tokio::test]
async fn an_ordinary_conversation_is_only_decorated() {
    let (vendor, gateway) = scene();
    let body = r#"{"model":"qwen-plus","seed":7, "messages":[{"role":"user","content":"13800138000"}]}"#;
    let answer = send(gateway.http, post_json(CHAT_PATH, body)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = vendor.requests().pop().unwrap();
    assert_eq!(
        sent.body,
        r#"{"model":"qwen-plus","seed":7, "messages":[{"role":"system","content":"Answer in one sentence."},{"role":"user","content":"***"}]}"#
    );
}
