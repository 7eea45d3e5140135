//! A vendor's answer on its way through the translation between dialects: any bytes, whole or as a stream.
//!
//! The first byte of an input says which vendor, the second who asks and for what, the third how long the frames are.

use bytes::Bytes;
use serde_json::json;
use tollgate_body::SseDecoder;
use tollgate_llm::Api;
use tollgate_llm::providers::Provider;
use tollgate_llm::providers::wire::Ended;
use tollgate_llm::translate::{AnswerPlan, OutData};

/// Vendors of every wire, with what makes them look at an answer.
fn vendor(number: u8) -> Option<Provider> {
    let config = match number % 5 {
        0 => json!({"type": "openai", "apiTokens": ["t"]}),
        1 => json!({"type": "claude", "apiTokens": ["t"]}),
        2 => json!({"type": "qwen", "apiTokens": ["t"], "qwenEnableCompatible": false}),
        3 => json!({"type": "deepseek", "apiTokens": ["t"], "promoteThinkingOnEmpty": true}),
        _ => json!({"type": "moonshot", "apiTokens": ["t"]}),
    };
    Provider::parse(&config).ok()
}

/// Answers, buffered and streamed.
pub(crate) fn answers(input: &[u8]) {
    let [number, ask, size, answer @ ..] = input else {
        return;
    };
    let Some(provider) = vendor(*number) else {
        return;
    };
    let apis = [Api::Chat, Api::Embeddings, Api::Completions];
    let plan = AnswerPlan {
        api: apis[usize::from(*ask >> 2) % apis.len()],
        model: "model".to_owned(),
        with_tools: ask & 2 != 0,
        claude_client: ask & 1 != 0,
        original: false,
    };
    if let Ok(Some(translated)) = plan.answer(&provider, answer) {
        let read = serde_json::from_slice::<serde_json::Value>(&translated);
        assert!(read.is_ok(), "a translated answer is no JSON");
    }
    stream(&provider, &plan, answer, usize::from(*size));
}

fn stream(provider: &Provider, plan: &AnswerPlan, answer: &[u8], size: usize) {
    let mut translator = plan.stream(provider);
    let mut decoder = SseDecoder::new();
    let mut out = Vec::new();
    for frame in answer.chunks(size.max(1)) {
        for event in decoder.push(Bytes::copy_from_slice(frame)).flatten() {
            let data = event.data().unwrap_or_default();
            translator.event(event.event().unwrap_or_default(), &data, &mut out);
        }
    }
    let is_done =
        |out: &[tollgate_llm::translate::OutEvent]| out.iter().any(|event| event.data == OutData::Done);
    let was_done = is_done(&out);
    if translator.end(&mut out) == Ended::Truncated {
        assert_eq!(is_done(&out), was_done, "a stream that is cut is told to be done");
    }
}
