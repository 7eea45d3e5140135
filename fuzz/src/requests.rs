//! A client's body on its way into a vendor's: any bytes, for every way of changing or translating it.
//!
//! The first byte of an input says which vendor, the second who asks and for what.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use tollgate_body::JsonDocument;
use tollgate_llm::Api;
use tollgate_llm::providers::Provider;
use tollgate_llm::providers::request::BodyContext;
use tollgate_llm::providers::wire::Outgoing;

/// Vendors of every wire, with whatever makes them look into a body.
fn vendor(number: u8) -> Option<Provider> {
    let mut config = match number % 6 {
        0 => json!({"type": "openai"}),
        1 => json!({"type": "claude", "claudeCodeMode": number >= 128}),
        2 => json!({"type": "qwen", "qwenEnableCompatible": false, "reasoningContentMode": "concat"}),
        3 => json!({"type": "qwen", "qwenEnableCompatible": true, "qwenFileIds": ["f"]}),
        4 => json!({"type": "doubao", "mergeConsecutiveMessages": true}),
        _ => {
            json!({"type": "zhipuai", "contextCleanupCommands": ["clear"], "mergeConsecutiveMessages": true})
        }
    };
    let more = json!({
        "apiTokens": ["t"],
        "modelMapping": {"gpt-*": "mapped", "*": ""},
        "customSettings": [{"name": "max_tokens", "value": 5, "overwrite": false}],
    });
    config.as_object_mut()?.extend(more.as_object()?.clone());
    Provider::parse(&config).ok()
}

/// A body that is edited in place or translated; what comes out is JSON, or a refusal.
pub(crate) fn bodies(input: &[u8]) {
    let [number, ask, body @ ..] = input else {
        return;
    };
    let Some(provider) = vendor(*number) else {
        return;
    };
    let Ok(mut document) = JsonDocument::parse(Bytes::copy_from_slice(body)) else {
        return;
    };
    let apis = [Api::Chat, Api::Embeddings, Api::Completions, Api::Responses];
    let context = BodyContext {
        api: apis[usize::from(*ask >> 2) % apis.len()],
        claude_client: ask & 1 != 0,
        context_file: (ask & 2 != 0).then_some("what is known"),
    };
    let (mut headers, mut path) = (HeaderMap::new(), String::from("/v1/chat/completions"));
    let mut outgoing = Outgoing {
        provider: &provider,
        headers: &mut headers,
        path: &mut path,
    };
    if provider.edit_body(context, &mut document, &mut outgoing).is_ok() {
        let bytes = document.to_bytes();
        // Strings are not looked into where nobody has to: what was no JSON there stays so.
        let was_json = serde_json::from_slice::<serde_json::Value>(body).is_ok();
        let is_json = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok();
        assert!(is_json || !was_json, "a vendor's body is no JSON: {bytes:?}");
    }
}
