//! DashScope's own wire format, qwen's native mode (ai-proxy spec §9.4): chat and embeddings, both directions.
//!
//! Differences from Higress, all of them repairs: an absent `top_p` stays absent, zeroes, `stop`, `tool_choice` and
//! `tool_call_id` arrive, an error in a 200 is an error.

mod stream;

use http::HeaderValue;
use http::header::{ACCEPT, HeaderName};
use serde_json::{Map, Value, json};
use tollgate_base::clock;

use crate::Api;
use crate::openai::{self, RequestFault};
use crate::providers::config::ReasoningMode;
use crate::providers::wire::{Outgoing, VendorStream, Wire};
use crate::usage::Usage;

pub use stream::DashScopeStream;

const X_DASHSCOPE_SSE: HeaderName = HeaderName::from_static("x-dashscope-sse");
const MULTIMODAL_PATH: &str = "/api/v1/services/aigc/multimodal-generation/generation";
const DEFAULT_SYSTEM: &str = "You are a helpful assistant.";
/// The model that reads uploaded files.
const FILE_MODEL: &str = "qwen-long";

/// The wire of provider `qwen` with `qwenEnableCompatible: false`.
#[derive(Debug)]
pub struct DashScope {
    /// `qwenEnableSearch`.
    pub enable_search: bool,
    /// `qwenFileIds`.
    pub file_ids: Vec<String>,
    /// `reasoningContentMode`.
    pub reasoning: ReasoningMode,
}

impl Wire for DashScope {
    fn translates(&self, api: Api) -> bool {
        matches!(api, Api::Chat | Api::Embeddings)
    }

    fn request(&self, api: Api, request: &Value, outgoing: &mut Outgoing<'_>) -> Result<Value, RequestFault> {
        if api == Api::Embeddings {
            return embeddings_request(request);
        }
        set_stream_headers(request["stream"] == true, outgoing);
        if request["model"]
            .as_str()
            .is_some_and(|model| model.starts_with("qwen-vl"))
        {
            *outgoing.path = outgoing.provider.with_base_path(MULTIMODAL_PATH);
        }
        self.chat_request(request)
    }

    fn answer(&self, api: Api, model: &str, answer: &[u8]) -> Result<Value, String> {
        let answer: Value = serde_json::from_slice(answer)
            .map_err(|cause| format!("unable to unmarshal qwen response: {cause}"))?;
        if !answer["output"].is_object() {
            return Err(format!(
                "qwen response error, error_code: {}, error_message: {}",
                answer["code"].as_str().unwrap_or_default(),
                answer["message"].as_str().unwrap_or_default()
            ));
        }
        Ok(match api {
            Api::Embeddings => embeddings_answer(&answer, model),
            _ => self.chat_answer(&answer, model),
        })
    }

    fn stream(&self, _api: Api, model: &str, with_tools: bool) -> Box<dyn VendorStream> {
        Box::new(DashScopeStream::new(model, self.reasoning, with_tools))
    }
}

fn set_stream_headers(streams: bool, outgoing: &mut Outgoing<'_>) {
    if streams {
        outgoing
            .headers
            .insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        outgoing
            .headers
            .insert(X_DASHSCOPE_SSE, HeaderValue::from_static("enable"));
    } else {
        outgoing.headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        outgoing.headers.remove(X_DASHSCOPE_SSE);
    }
}

impl DashScope {
    fn chat_request(&self, request: &Value) -> Result<Value, RequestFault> {
        let mut messages = Vec::new();
        for message in openai::messages(request)? {
            messages.push(message_for_vendor(message)?);
        }
        if !self.file_ids.is_empty() && request["model"] == FILE_MODEL {
            messages = self.with_files(messages);
        }
        Ok(json!({
            "model": request["model"],
            "input": {"messages": messages},
            "parameters": self.parameters(request)?,
        }))
    }

    fn parameters(&self, request: &Value) -> Result<Map<String, Value>, RequestFault> {
        let mut parameters = Map::new();
        parameters.insert("result_format".into(), "message".into());
        for name in ["max_tokens", "n", "seed", "temperature", "tool_choice"] {
            if let Some(value) = request.get(name).filter(|value| !value.is_null()) {
                parameters.insert(name.into(), value.clone());
            }
        }
        if let Some(top_p) = request["top_p"].as_f64() {
            parameters.insert("top_p".into(), top_p.clamp(0.000_001, 0.999_999).into());
        }
        let stop = openai::stop(request)?;
        if !stop.is_empty() {
            parameters.insert("stop".into(), stop.into());
        }
        let tools = request["tools"].as_array().filter(|tools| !tools.is_empty());
        if request["stream"] == true && tools.is_none() {
            parameters.insert("incremental_output".into(), true.into());
        }
        if let Some(tools) = tools {
            parameters.insert("tools".into(), tools.clone().into());
        }
        if self.enable_search {
            parameters.insert("enable_search".into(), true.into());
        }
        Ok(parameters)
    }

    /// The instructions as one message, then the files, then the conversation.
    fn with_files(&self, messages: Vec<Value>) -> Vec<Value> {
        let leading = messages
            .iter()
            .take_while(|message| openai::is_system(message))
            .count();
        let texts: Vec<String> = messages[..leading].iter().map(openai::text).collect();
        let instructions = if texts.is_empty() {
            DEFAULT_SYSTEM.to_owned()
        } else {
            texts.join("\n")
        };
        let files: Vec<String> = self.file_ids.iter().map(|id| format!("fileid://{id}")).collect();
        let mut whole = vec![
            json!({"role": "system", "content": instructions}),
            json!({"role": "system", "content": files.join(",")}),
        ];
        whole.extend(messages.into_iter().skip(leading));
        whole
    }

    fn chat_answer(&self, answer: &Value, model: &str) -> Value {
        let choices: Vec<Value> = answer["output"]["choices"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, choice)| {
                json!({
                    "index": index,
                    "message": self.message_for_client(&choice["message"]),
                    "finish_reason": choice["finish_reason"],
                    "logprobs": null,
                })
            })
            .collect();
        json!({
            "id": answer["request_id"],
            "object": "chat.completion",
            "created": clock::unix_seconds(),
            "model": model,
            "choices": choices,
            "usage": Usage::of_responses(&answer["usage"]).map(Usage::to_openai),
        })
    }

    fn message_for_client(&self, message: &Value) -> Value {
        let mut content = content_text(&message["content"]);
        let reasoning = message["reasoning_content"]
            .as_str()
            .filter(|text| !text.is_empty());
        let mut translated = json!({"role": message["role"]});
        match (self.reasoning, reasoning) {
            (ReasoningMode::Concat, Some(text)) => content = format!("<think>{text}</think>\n{content}"),
            (ReasoningMode::PassThrough, Some(text)) => translated["reasoning_content"] = text.into(),
            _ => {}
        }
        translated["content"] = content.into();
        if let Some(calls) = message["tool_calls"].as_array().filter(|calls| !calls.is_empty()) {
            translated["tool_calls"] = calls.clone().into();
        }
        translated
    }
}

/// Text of an answer's content: a string, or the texts of a multimodal list.
fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

fn message_for_vendor(message: &Value) -> Result<Value, RequestFault> {
    let mut translated = Map::new();
    for name in ["name", "role"] {
        if let Some(value) = message.get(name).filter(|value| !value.is_null()) {
            translated.insert(name.into(), value.clone());
        }
    }
    let content = match &message["content"] {
        Value::Array(parts) => {
            let mut translated_parts = Vec::with_capacity(parts.len());
            for part in parts {
                match part["type"].as_str().unwrap_or_default() {
                    "text" => translated_parts.push(json!({"text": part["text"]})),
                    "image_url" => translated_parts.push(json!({"image": openai::image_url(part)?})),
                    _ => {}
                }
            }
            Value::Array(translated_parts)
        }
        other => other.clone(),
    };
    translated.insert("content".into(), content);
    for name in ["tool_calls", "tool_call_id"] {
        if let Some(value) = message.get(name).filter(|value| !value.is_null()) {
            translated.insert(name.into(), value.clone());
        }
    }
    Ok(Value::Object(translated))
}

fn embeddings_request(request: &Value) -> Result<Value, RequestFault> {
    let texts = match &request["input"] {
        Value::Null => return Err(RequestFault::BadRequest("missing input in request".into())),
        Value::String(text) => vec![Value::String(text.clone())],
        Value::Array(items) => {
            if let Some(odd) = items.iter().find(|item| !item.is_string()) {
                let text = format!("unsupported input type in array: {}", go_type(odd));
                return Err(RequestFault::Refused(text));
            }
            items.clone()
        }
        other => {
            let text = format!("unsupported input type: {}", go_type(other));
            return Err(RequestFault::Refused(text));
        }
    };
    Ok(json!({"model": request["model"], "input": {"texts": texts}, "parameters": {}}))
}

/// Go's name of a JSON value's type, as Higress prints it.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn embeddings_answer(answer: &Value, model: &str) -> Value {
    let data: Vec<Value> = answer["output"]["embeddings"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| json!({"object": "embedding", "index": entry["text_index"], "embedding": entry["embedding"]}))
        .collect();
    let total = &answer["usage"]["total_tokens"];
    json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": total, "total_tokens": total},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> DashScope {
        DashScope {
            enable_search: false,
            file_ids: Vec::new(),
            reasoning: ReasoningMode::PassThrough,
        }
    }

    #[test]
    fn a_chat_request() {
        let request = json!({"model": "qwen-max", "stream": true, "temperature": 0, "max_tokens": 5, "stop": "E", "top_p": 1,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "tool_call_id": "1", "content": "r"}]});
        let expected = json!({"model": "qwen-max", "input": {"messages": [
                {"role": "user", "content": [{"text": "a"}, {"image": "u"}]},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "r", "tool_call_id": "1"}]},
            "parameters": {"result_format": "message", "max_tokens": 5, "temperature": 0, "top_p": 0.999_999,
                "stop": ["E"], "incremental_output": true}});
        assert_eq!(wire().chat_request(&request).unwrap(), expected);
        let tools = json!({"model": "m", "stream": true, "tools": [{"type": "function"}], "messages": [{"role": "user"}]});
        let parameters = wire().chat_request(&tools).unwrap()["parameters"].clone();
        assert_eq!(
            parameters,
            json!({"result_format": "message", "tools": [{"type": "function"}]})
        );
    }

    #[test]
    fn files_follow_the_instructions() {
        let with_files = DashScope {
            file_ids: vec!["a".into(), "b".into()],
            ..wire()
        };
        let ask = |messages: Value| {
            let request = json!({"model": "qwen-long", "messages": messages});
            with_files.chat_request(&request).unwrap()["input"]["messages"].clone()
        };
        let user = json!({"role": "user", "content": "x"});
        let files = json!({"role": "system", "content": "fileid://a,fileid://b"});
        let default = json!({"role": "system", "content": "You are a helpful assistant."});
        assert_eq!(ask(json!([user])), json!([default, files, user]));
        let two = json!([{"role": "system", "content": "1"}, {"role": "system", "content": "2"}, user]);
        assert_eq!(
            ask(two),
            json!([{"role": "system", "content": "1\n2"}, files, user])
        );
    }

    #[test]
    fn answers() {
        let answer = json!({"request_id": "r", "output": {"choices": [{"finish_reason": "stop",
            "message": {"role": "assistant", "content": [{"text": "hi"}], "reasoning_content": "hm"}}]},
            "usage": {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3}});
        let text = answer.to_string();
        let translate = |reasoning| {
            let wire = DashScope { reasoning, ..wire() };
            wire.answer(Api::Chat, "m", text.as_bytes()).unwrap()
        };
        let passed = translate(ReasoningMode::PassThrough);
        assert_eq!(passed["id"], "r");
        assert_eq!(
            passed["choices"][0]["message"],
            json!({"role": "assistant", "reasoning_content": "hm", "content": "hi"})
        );
        assert_eq!(
            passed["usage"],
            json!({"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3})
        );
        let message = |reasoning| translate(reasoning)["choices"][0]["message"].clone();
        assert_eq!(
            message(ReasoningMode::Ignore),
            json!({"role": "assistant", "content": "hi"})
        );
        assert_eq!(message(ReasoningMode::Concat)["content"], "<think>hm</think>\nhi");
        let error = br#"{"code":"Throttling","message":"slow","request_id":"r"}"#;
        assert_eq!(
            wire().answer(Api::Chat, "m", error).unwrap_err(),
            "qwen response error, error_code: Throttling, error_message: slow"
        );
    }

    #[test]
    fn embeddings() {
        let both = embeddings_request(&json!({"model": "m", "input": ["a", "b"]})).unwrap();
        assert_eq!(
            both,
            json!({"model": "m", "input": {"texts": ["a", "b"]}, "parameters": {}})
        );
        let fault = |input: Value| {
            embeddings_request(&json!({"input": input}))
                .unwrap_err()
                .text()
                .to_owned()
        };
        assert_eq!(fault(json!([1])), "unsupported input type in array: float64");
        assert_eq!(
            fault(json!({})),
            "unsupported input type: map[string]interface {}"
        );
        assert!(matches!(
            embeddings_request(&json!({})),
            Err(RequestFault::BadRequest(_))
        ));
        let answer = json!({"output": {"embeddings": [{"text_index": 0, "embedding": [0.5]}]}, "usage": {"total_tokens": 4}});
        let expected = json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "model": "m", "usage": {"prompt_tokens": 4, "total_tokens": 4}});
        assert_eq!(embeddings_answer(&answer, "m"), expected);
    }
}
