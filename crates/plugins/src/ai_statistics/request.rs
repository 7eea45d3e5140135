//! What is noted of a request on its way in: attributes, session, the model asked for (plugins spec §1.5).

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;
use serde_json::Value;
use tollgate_base::Error;
use tollgate_base::headers::X_MSE_CONSUMER;
use tollgate_body::path::{Path, PathValue};
use tollgate_body::{JsonBodyError, Request};
use tollgate_observe::conversation::{LAST_CONTENT, SESSION_HEADERS};
use tollgate_observe::{Record, Usual};
use tollgate_plugin::Exchange;

use super::attribute::{Attribute, Found, ValueSource, header};
use super::config::{Config, Span, SpanSource};
use crate::answer_watch::{self, Asked, bounded, header_text};
use crate::token_usage;

/// Name and size of the limit on request bodies that are read.
const BODY_LIMIT_NAME: &str = "ai-statistics body limit";
const BODY_LIMIT: usize = 100 * 1024 * 1024;
/// Notes the head.
pub(super) fn head(config: &Config, exchange: &Exchange, request: &Request) {
    let record = &exchange.record;
    let headers = request.headers();
    let route = exchange.route.as_deref().unwrap_or("-");
    let api = api_route(route).map_or(Cow::Borrowed("-"), |api| api.to_owned().into());
    record.set_ai_log_text(Usual::Api, api);
    let own = config.session_header.as_deref();
    let hides = |name: &str, value: &HeaderValue| record.hides(name, value);
    if record.turn.borrow_mut().head(headers, own, hides) {
        let named = own
            .into_iter()
            .chain(SESSION_HEADERS)
            .find_map(|name| header(record, headers, name).filter(|value| !value.is_empty()));
        if let Some(session) = named {
            record.set_ai_log_text(Usual::SessionId, bounded(session));
        }
    }
    for attribute in config.attributes_of(ValueSource::Fixed) {
        attribute.put(record, attribute.value.as_str().into(), config.value_limit);
    }
    for attribute in config.attributes_of(ValueSource::RequestHeader) {
        attribute.put(record, attribute.in_headers(record, headers), config.value_limit);
    }
    spans(config, record, SpanSource::RequestHeader, |span| {
        header(record, headers, span.value.as_str())
    });
    note_consumer(record, headers);
}

/// A plugin that recognised a consumer may have told it by the header alone; a client cannot.
fn note_consumer(record: &Record, headers: &HeaderMap) {
    if record.consumer.borrow().is_some() {
        return;
    }
    let value = headers.get(X_MSE_CONSUMER).filter(|value| !value.is_empty());
    if let Some(value) = value {
        let name = String::from_utf8_lossy(value.as_bytes()).into_owned();
        record.consumer.replace(Some(bounded(name).into()));
    }
}

/// The API that a route of the form `api@version@…` belongs to.
pub(super) fn api_route(route: &str) -> Option<&str> {
    // Hardly a route is one.
    memchr::memchr(b'@', route.as_bytes())?;
    let (third, _) = route.match_indices('@').nth(1)?;
    let end = route.get(third + 1..)?.find('@');
    Some(end.map_or(route, |end| route.get(..third + 1 + end).unwrap_or(route)))
}

/// Reads and notes the body, if it is one to be read; returns the texts that it asks the model to read.
///
/// # Errors
/// The body could not be read, or is larger than anybody may buffer.
pub(super) async fn body(
    config: &Config,
    exchange: &mut Exchange,
    request: &mut Request,
) -> Result<Asked, Error> {
    if !is_readable(request) {
        return Ok(Asked::default());
    }
    exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
    let body = request.body_mut();
    match body.json(BODY_LIMIT_NAME, BODY_LIMIT).await {
        Ok(_) => {}
        Err(JsonBodyError::NotJson(_)) => {
            let text = body.as_bytes().cloned().unwrap_or_default();
            let path = request.uri().path();
            // Nobody else keeps this body: nothing may lie in it.
            let nowhere = Bytes::new();
            note(config, &exchange.record, path, &nowhere, None, |at| at.get(&text));
            return Ok(Asked::default());
        }
        Err(JsonBodyError::Unread(error)) => return Err(error),
    }
    let Some(document) = request.body().as_json() else {
        return Ok(Asked::default());
    };
    let messages = exchange
        .record
        .turn
        .borrow_mut()
        .body(document)
        .unwrap_or_default();
    let path = request.uri().path();
    // Most ask for the last question, which has just been come by.
    let find = |at: &Path| match messages.last {
        Some(last) if at.as_str() == LAST_CONTENT => Some(last.value()),
        _ => document.find(at),
    };
    let body = document.to_bytes();
    note(config, &exchange.record, path, &body, messages.users, find);
    Ok(Asked::Unread {
        body,
        countable: answer_watch::is_countable(&exchange.record),
    })
}

/// `body`: where texts may stay; `users`: messages of the user, where they are counted already.
fn note<'b>(
    config: &Config,
    record: &Record,
    path: &str,
    body: &Bytes,
    users: Option<usize>,
    get: impl Fn(&Path) -> Option<PathValue<'b>> + Copy,
) {
    static MODEL: LazyLock<Path> = LazyLock::new(|| Path::new("model"));
    for attribute in config.attributes_of(ValueSource::RequestBody) {
        attribute.put_found(record, body_value(attribute, body, get), config.value_limit);
    }
    spans(config, record, SpanSource::RequestBody, |span| {
        let text = get(&span.path)?.text().into_owned();
        Some(text).filter(|text| !text.is_empty())
    });
    let model = get(&MODEL).map(|model| model.text().into_owned());
    let model = model
        .filter(|name| !name.is_empty())
        .or_else(|| token_usage::model_of_path(path).map(std::borrow::Cow::into_owned))
        .map(bounded);
    record.set_span_tag("gen_ai.request.model", model.as_deref().unwrap_or("UNKNOWN"));
    record.usage.borrow_mut().model_requested = model.map(String::into_boxed_str);
    let rounds = users.unwrap_or_else(|| rounds(get));
    record.set_ai_log_count(Usual::ChatRound, rounds as u64);
}

/// Messages of the user.
fn rounds<'b>(get: impl Fn(&Path) -> Option<PathValue<'b>>) -> usize {
    static MESSAGES: LazyLock<Path> = LazyLock::new(|| Path::new("messages"));
    static CONTENTS: LazyLock<Path> = LazyLock::new(|| Path::new("contents"));
    let with_role = |list: PathValue<'_>, absent_counts: bool| {
        let entries = list.entries();
        let roles = entries.filter(|(_, message)| match message.get("role") {
            Some(role) => role.text() == "user",
            None => absent_counts,
        });
        roles.count()
    };
    if let Some(messages) = get(&MESSAGES).filter(PathValue::is_array) {
        return with_role(messages, false);
    }
    get(&CONTENTS)
        .filter(PathValue::is_array)
        .map_or(0, |contents| with_role(contents, true))
}

/// A value out of a whole body: by the attribute's own path, else by its built-in's.
pub(super) fn body_value<'b>(
    attribute: &Attribute,
    body: &Bytes,
    get: impl Fn(&Path) -> Option<PathValue<'b>>,
) -> Found {
    let nothing = || Found::Value(Value::Null);
    let read = |at: &Path| get(at).map_or_else(nothing, |found| Found::of(&found, body));
    let own = attribute.places.own.as_ref().map_or_else(nothing, read);
    if !own.is_nothing() {
        return own;
    }
    let found = attribute.places.of_body.iter().map(read);
    let mut something = found.filter(|value| !value.is_nothing());
    something.next().unwrap_or(own)
}

/// Sets the tags of the first generation that come from `source`.
pub(super) fn spans(
    config: &Config,
    record: &Record,
    source: SpanSource,
    read: impl Fn(&Span) -> Option<String>,
) {
    let all = config.first_generation.iter().flat_map(|first| &first.spans);
    for span in all.filter(|span| span.source == source) {
        if let Some(value) = read(span) {
            let kept = super::text::shortened(&value, config.value_limit).unwrap_or(value);
            record.set_span_tag(span.key.clone(), kept);
        }
    }
}

fn is_readable(request: &Request) -> bool {
    let headers = request.headers();
    let text = |name: HeaderName| header_text(headers, name);
    if request.body().is_end_stream() || headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    if text(UPGRADE).eq_ignore_ascii_case("websocket")
        && text(CONNECTION).to_ascii_lowercase().contains("upgrade")
    {
        return false;
    }
    let length: Option<usize> = text(CONTENT_LENGTH).parse().ok();
    if length.is_some_and(|length| length > BODY_LIMIT) {
        return false;
    }
    // What nearly every request says needs no search.
    let content_type = text(CONTENT_TYPE);
    let types = ["json", "text/", "x-www-form-urlencoded"];
    matches!(content_type, "" | "application/json") || types.iter().any(|part| content_type.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_of_a_route() {
        assert_eq!(api_route("api@v1@service@extra"), Some("api@v1@service"));
        assert_eq!(api_route("api@v1@service"), Some("api@v1@service"));
        assert_eq!(api_route("api@v1"), None);
        assert_eq!(api_route("qwen"), None);
    }
}
