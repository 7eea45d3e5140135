//! What is noted of a request on its way in: attributes, session, the model asked for (plugins spec §1.5).

use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName};
use http_body::Body as _;
use serde_json::Value;
use tollgate_base::Error;
use tollgate_base::headers::X_MSE_CONSUMER;
use tollgate_body::path::{self, PathValue};
use tollgate_body::{JsonBodyError, Request};
use tollgate_observe::Record;
use tollgate_observe::conversation::SESSION_HEADERS;
use tollgate_plugin::Exchange;

use super::attribute::{Attribute, ValueSource, header, is_nothing, typed};
use super::config::{Config, SpanSource};
use crate::answer_watch::{self, Prose, bounded, header_text};
use crate::token_usage;

/// Name and size of the limit on request bodies that are read.
const BODY_LIMIT_NAME: &str = "ai-statistics body limit";
const BODY_LIMIT: usize = 100 * 1024 * 1024;
/// Notes the head.
pub(super) fn head(config: &Config, exchange: &Exchange, request: &Request) {
    let record = &exchange.record;
    let headers = request.headers();
    let route = exchange.route.as_deref().unwrap_or("-");
    let api = api_route(route).unwrap_or("-");
    record.set_ai_log("api", api);
    let own = config.session_header.as_deref();
    if record.turn.borrow_mut().head(headers, own) {
        let named = own
            .into_iter()
            .chain(SESSION_HEADERS)
            .find_map(|name| header(headers, name).filter(|value| !value.is_empty()));
        if let Some(session) = named {
            record.set_ai_log("session_id", bounded(session));
        }
    }
    for attribute in config.attributes_of(ValueSource::Fixed) {
        attribute.put(record, attribute.value.as_str().into(), config.value_limit);
    }
    for attribute in config.attributes_of(ValueSource::RequestHeader) {
        let value = header(headers, &attribute.value);
        attribute.put(record, value.map_or(Value::Null, Value::from), config.value_limit);
    }
    spans(config, record, SpanSource::RequestHeader, |name| {
        header(headers, name)
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
) -> Result<Prose, Error> {
    if !is_readable(request) {
        return Ok(Prose::default());
    }
    exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
    let path = request.uri().path().to_owned();
    let body = request.body_mut();
    match body.json(BODY_LIMIT_NAME, BODY_LIMIT).await {
        Ok(_) => {}
        Err(JsonBodyError::NotJson(_)) => {
            let text = body.as_bytes().cloned().unwrap_or_default();
            note(config, &exchange.record, &path, None, |at| path::get(&text, at));
            return Ok(Prose::default());
        }
        Err(JsonBodyError::Unread(error)) => return Err(error),
    }
    let Some(document) = request.body().as_json() else {
        return Ok(Prose::default());
    };
    let users = exchange.record.turn.borrow_mut().body(document);
    note(config, &exchange.record, &path, users, |at| document.get(at));
    Ok(Prose::of_document(
        document,
        answer_watch::is_countable(&exchange.record),
    ))
}

/// `users`: messages of the user, where they are counted already.
fn note<'b>(
    config: &Config,
    record: &Record,
    path: &str,
    users: Option<usize>,
    get: impl Fn(&str) -> Option<PathValue<'b>> + Copy,
) {
    for attribute in config.attributes_of(ValueSource::RequestBody) {
        attribute.put(record, body_value(attribute, get), config.value_limit);
    }
    spans(config, record, SpanSource::RequestBody, |at| {
        let text = get(at)?.text().into_owned();
        Some(text).filter(|text| !text.is_empty())
    });
    let model = get("model").map(|model| model.text().into_owned());
    let model = model
        .filter(|name| !name.is_empty())
        .or_else(|| token_usage::model_of_path(path).map(std::borrow::Cow::into_owned))
        .map(bounded);
    record.set_span_tag("gen_ai.request.model", model.as_deref().unwrap_or("UNKNOWN"));
    record.usage.borrow_mut().model_requested = model.map(String::into_boxed_str);
    record.set_ai_log("chat_round", users.unwrap_or_else(|| rounds(get)));
}

/// Messages of the user.
fn rounds<'b>(get: impl Fn(&str) -> Option<PathValue<'b>>) -> usize {
    let with_role = |list: PathValue<'_>, absent_counts: bool| {
        let entries = list.entries();
        let roles = entries.filter(|(_, message)| match message.get("role") {
            Some(role) => role.text() == "user",
            None => absent_counts,
        });
        roles.count()
    };
    if let Some(messages) = get("messages").filter(PathValue::is_array) {
        return with_role(messages, false);
    }
    get("contents")
        .filter(PathValue::is_array)
        .map_or(0, |contents| with_role(contents, true))
}

/// A value out of a whole body: by the attribute's own path, else by its built-in's.
pub(super) fn body_value<'b>(attribute: &Attribute, get: impl Fn(&str) -> Option<PathValue<'b>>) -> Value {
    let read = |at: &str| get(at).as_ref().map_or(Value::Null, typed);
    let own = match attribute.value.as_str() {
        "" => Value::Null,
        at => read(at),
    };
    if !is_nothing(&own) {
        return own;
    }
    let paths = attribute
        .built_in
        .map_or(&[][..], |built_in| built_in.body_paths());
    let found = paths.iter().map(|at| read(at)).find(|value| !is_nothing(value));
    found.unwrap_or(own)
}

/// Sets the tags of the first generation that come from `source`.
pub(super) fn spans(
    config: &Config,
    record: &Record,
    source: SpanSource,
    read: impl Fn(&str) -> Option<String>,
) {
    let all = config.first_generation.iter().flat_map(|first| &first.spans);
    for span in all.filter(|span| span.source == source) {
        if let Some(value) = read(&span.value) {
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
    let content_type = text(CONTENT_TYPE);
    let types = ["json", "text/", "x-www-form-urlencoded"];
    content_type.is_empty() || types.iter().any(|part| content_type.contains(part))
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
