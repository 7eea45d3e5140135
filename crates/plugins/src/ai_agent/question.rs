//! The client's request, and the first one that goes out in its place (plugins spec §3.3).

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::{Map, Value, json};
use tollgate_body::{Body, Request};

use crate::framing::remove_framing;

/// What is read of the client's request.
pub(super) struct Question {
    pub(super) stream: bool,
    pub(super) history: String,
    pub(super) text: String,
    pub(super) model: Value,
    /// Penalties, temperature and top_p, in Higress's order.
    numbers: [(&'static str, Value); 4],
}

impl Question {
    /// `None`: the request is none that the agent answers, and passes untouched.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
            return None;
        };
        let model = members.get("model").cloned().unwrap_or_else(|| Value::from(""));
        let stream = match members.get("stream") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(stream)) => *stream,
            Some(_) => return None,
        };
        let messages = members.get("messages")?.as_array()?;
        let mut texts = Vec::with_capacity(messages.len());
        for message in messages {
            // Content of several parts is not for a prompt that is text.
            texts.push(match message.get("content") {
                None | Some(Value::Null) => "",
                Some(content) => content.as_str()?,
            });
        }
        let text = texts.last().filter(|text| !text.is_empty())?;
        let number = |name: &'static str| match members.get(name) {
            None | Some(Value::Null) => Some((name, json!(0))),
            Some(Value::Number(number)) => Some((name, Value::Number(number.clone()))),
            Some(_) => None,
        };
        let mut history = String::new();
        if texts.len() >= 3 {
            for pair in texts.get(..texts.len() - 1)?.chunks(2) {
                let (human, answer) = (pair.first().unwrap_or(&""), pair.get(1).unwrap_or(text));
                history.push_str(&format!("human: {human}\nAI: {answer}"));
            }
        }
        Some(Self {
            stream,
            history,
            text: (*text).to_owned(),
            model: model.is_string().then_some(model)?,
            numbers: [
                number("frequency_penalty")?,
                number("presence_penalty")?,
                number("temperature")?,
                number("top_p")?,
            ],
        })
    }

    /// The first request's body.
    pub(super) fn first_body(&self, prompt: &str) -> Bytes {
        let mut body = Map::new();
        body.insert("model".to_owned(), self.model.clone());
        body.insert(
            "messages".to_owned(),
            json!([{"role": "user", "content": prompt}]),
        );
        let [frequency, presence, temperature, top_p] = self.numbers.clone();
        for (name, value) in [frequency, presence, ("stream", json!(false)), temperature, top_p] {
            body.insert(name.to_owned(), value);
        }
        Value::Object(body).to_string().into()
    }
}

/// Head of the rounds that go through the chain: the client's, with a body of ours.
pub(super) struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Head {
    pub(super) fn of(request: &Request) -> Self {
        let mut headers = request.headers().clone();
        remove_framing(&mut headers);
        headers.remove(ACCEPT_ENCODING);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers,
        }
    }

    pub(super) fn request(&self, body: Bytes) -> Request {
        let mut request = Request::new(Body::bytes(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}
