//! Small edits that single OpenAI-like vendors need, in requests and in streamed chunks (ai-proxy spec §9.12–9.13).
//!
//! Each runs after customSettings and the mapping of the model; it touches its own fields only.

use serde_json::{Value, json};
use tollgate_body::{JsonDocument, PathError};

use crate::Api;
use crate::anthropic::Thinking;

use super::Provider;

/// What an edit may look at.
#[derive(Debug, Clone, Copy)]
pub struct EditContext<'a> {
    /// The provider.
    pub provider: &'a Provider,
    /// The API of the upstream request.
    pub api: Api,
    /// Thinking settings of a Claude client whose request was translated.
    pub thinking: Option<&'a Thinking>,
}

/// Edits a request.
pub type Edit = fn(EditContext<'_>, &mut JsonDocument) -> Result<(), PathError>;

/// An edit of streamed chunks.
#[derive(Debug, Clone, Copy)]
pub struct ChunkEdit {
    /// Chunks without this text are left alone, unparsed.
    pub marker: &'static str,
    /// The edit; says whether it changed anything.
    pub apply: fn(&mut Value) -> bool,
}

/// Moonshot's.
pub(super) const HOIST_USAGE: ChunkEdit = ChunkEdit {
    marker: "\"usage\"",
    apply: hoist_usage,
};

pub(super) fn doubao(context: EditContext<'_>, request: &mut JsonDocument) -> Result<(), PathError> {
    match context.api {
        Api::Responses => {
            request.remove("parallel_tool_calls")?;
            request.remove("tool_choice")?;
        }
        Api::ImageGeneration if !request.contains("watermark") => request.set("watermark", false)?,
        _ => {}
    }
    Ok(())
}

pub(super) fn response_schema(context: EditContext<'_>, request: &mut JsonDocument) -> Result<(), PathError> {
    match &context.provider.response_schema {
        Some(schema) if context.api == Api::Chat => request.set_raw("response_format", schema.to_string()),
        _ => Ok(()),
    }
}

pub(super) fn openrouter(context: EditContext<'_>, request: &mut JsonDocument) -> Result<(), PathError> {
    if context.api != Api::Chat {
        return Ok(());
    }
    let asked = request
        .get_i64("reasoning_max_tokens")
        .filter(|tokens| *tokens != 0);
    if let Some(tokens) = asked {
        request.remove("reasoning_max_tokens")?;
        request.remove("reasoning_effort")?;
        return request.set("reasoning.max_tokens", tokens);
    }
    let budget = context.thinking.and_then(|thinking| thinking.budget);
    if let Some(tokens) = budget {
        request.remove("reasoning_effort")?;
        request.set("reasoning.max_tokens", tokens)?;
    }
    Ok(())
}

pub(super) fn zhipuai(context: EditContext<'_>, request: &mut JsonDocument) -> Result<(), PathError> {
    if context.api != Api::Chat {
        return Ok(());
    }
    let effort = request.get_str("reasoning_effort");
    if effort.is_some_and(|effort| !effort.is_empty()) {
        request.remove("reasoning_effort")?;
        return request.set("thinking", json!({"type": "enabled"}));
    }
    if context.thinking.is_some_and(|thinking| !thinking.is_enabled()) {
        request.set("thinking", json!({"type": "disabled"}))?;
    }
    Ok(())
}

/// Moonshot reports usage inside the first choice; clients look for it outside.
fn hoist_usage(chunk: &mut Value) -> bool {
    let first = chunk.pointer_mut("/choices/0").and_then(Value::as_object_mut);
    let Some(usage) = first.and_then(|choice| choice.shift_remove("usage")) else {
        return false;
    };
    chunk["usage"] = usage;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_moves_out_of_the_choice() {
        let mut chunk =
            json!({"id": "c", "choices": [{"index": 0, "delta": {}, "usage": {"total_tokens": 3}}]});
        assert!(hoist_usage(&mut chunk));
        assert_eq!(
            chunk,
            json!({"id": "c", "choices": [{"index": 0, "delta": {}}], "usage": {"total_tokens": 3}})
        );
        for mut other in [
            json!({"choices": []}),
            json!({"choices": [1]}),
            json!({}),
            json!(0),
            json!("a"),
        ] {
            let before = other.clone();
            assert!(!hoist_usage(&mut other));
            assert_eq!(other, before);
        }
    }
}
