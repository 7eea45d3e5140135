//! The JSON in a model's answer (plugins spec §2.2). Model output is hostile: nothing here recurses or believes it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use tollgate_body::path;

use super::QUOTE_LIMIT;
use super::config::Reject;
use super::schema::Schema;
use crate::go_json;

/// The text at the content's path.
pub(super) fn content(at: &str, answer: &[u8]) -> Result<String, Reject> {
    if serde_json::from_slice::<Option<Completion>>(answer).is_err() {
        return Err(Reject::new(
            1007,
            format!("service unavailable: {}", quote(answer)),
        ));
    }
    match path::get(answer, at) {
        Some(found) => Ok(found.text().into_owned()),
        None => {
            let text = format!("response body does not contain the content: {}", quote(answer));
            Err(Reject::new(1007, text))
        }
    }
}

/// The JSON object in a text, as it is written, when it fits the schema.
pub(super) fn json(schema: Option<&Schema>, content: &str) -> Result<String, Reject> {
    if content.is_empty() {
        return Err(Reject::new(1004, "response body does not contain the content"));
    }
    let invalid = |fault: &str| {
        let text = format!("response body does not contain the valid json: {fault}");
        Reject::new(1003, text)
    };
    let (start, end) = (content.find('{'), content.rfind('}'));
    let bounds = start.zip(end).filter(|(start, end)| start < end);
    let found = bounds.and_then(|(start, end)| content.get(start..=end));
    let written = found.ok_or_else(|| invalid("cannot find json in the response body"))?;
    go_json::check(written.as_bytes()).map_err(|fault| invalid(&fault))?;
    if let Some(schema) = schema {
        let value: Value = serde_json::from_str(&without_lone_surrogates(written))
            .map_err(|fault| invalid(&fault.to_string()))?;
        schema.check(&value, written.len()).map_err(|fault| {
            let text = format!("response body does not match the Json Schema: {fault}");
            Reject::new(1005, text)
        })?;
    }
    Ok(written.to_owned())
}

/// An answer in an error's text.
fn quote(answer: &[u8]) -> String {
    let cut = answer.get(..QUOTE_LIMIT).unwrap_or(answer);
    String::from_utf8_lossy(cut).into_owned()
}

/// Half a surrogate pair is valid JSON without a meaning; Go reads it as a replacement character.
fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    if memchr::memmem::find(json.as_bytes(), b"\\u").is_none() {
        return Cow::Borrowed(json);
    }
    let mut mended = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        mended.push_str(before);
        let unit = |text: &str| {
            let digits = text.strip_prefix("\\u")?.get(..4)?;
            u16::from_str_radix(digits, 16).ok()
        };
        let (length, is_whole) = match unit(escape) {
            Some(0xd800..=0xdbff) => match escape.get(6..).and_then(unit) {
                Some(0xdc00..=0xdfff) => (12, true),
                _ => (6, false),
            },
            Some(0xdc00..=0xdfff) => (6, false),
            Some(_) => (6, true),
            None => (2, true),
        };
        let (taken, behind) = escape.split_at_checked(length).unwrap_or((escape, ""));
        mended.push_str(if is_whole { taken } else { "\\ufffd" });
        rest = behind;
    }
    mended.push_str(rest);
    Cow::Owned(mended)
}

/// An OpenAI completion as far as Higress decodes it: another shape is no answer.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Completion {
    #[serde(rename = "id")]
    _id: Option<String>,
    #[serde(rename = "choices")]
    _choices: Option<Vec<Option<Choice>>>,
    #[serde(rename = "created")]
    _created: Option<i64>,
    #[serde(rename = "model")]
    _model: Option<String>,
    #[serde(rename = "object")]
    _object: Option<String>,
    #[serde(rename = "usage")]
    _usage: Option<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Choice {
    #[serde(rename = "index")]
    _index: Option<i64>,
    #[serde(rename = "message")]
    _message: Option<Message>,
    #[serde(rename = "finish_reason")]
    _finish_reason: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message {
    #[serde(rename = "role")]
    _role: Option<String>,
    #[serde(rename = "content")]
    _content: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Usage {
    #[serde(rename = "prompt_tokens")]
    _prompt: Option<i64>,
    #[serde(rename = "completion_tokens")]
    _completion: Option<i64>,
    #[serde(rename = "total_tokens")]
    _total: Option<i64>,
}
