//! The vendors' side of the mock: checks the key, reads the question in its dialect, answers in the same.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Ask, reply};
use crate::dialect::Endpoint;
use crate::hash;
use crate::reply::{Exchange, Reply};
use crate::server::Server;
use crate::stream::{Encoder, Player};
use crate::{anthropic, dashscope, faults, gemini, openai, responses};

/// A key that begins like this is refused.
const BAD_KEY: &str = "sk-bad";

/// The key that a request carries, in any of the vendors' headers.
fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(key) = ["x-api-key", "api-key", "x-goog-api-key"]
        .into_iter()
        .find_map(text)
    {
        return Some(key);
    }
    let given = text("authorization")?;
    Some(given.strip_prefix("Bearer ").unwrap_or(given).trim())
}

/// Answers one request to a vendor's endpoint.
pub(crate) async fn answer(
    server: &Server,
    mut exchange: Exchange,
    endpoint: Endpoint,
    head: &http::request::Parts,
    body: &Bytes,
) -> (Exchange, Reply) {
    let parsed = serde_json::from_slice::<Value>(body);
    if let Ok(body) = &parsed
        && let Some(model) = body["model"].as_str()
        && let Some(ordered) = faults::in_model(model)
        && let Err(message) = server.order(&mut exchange.plan, ordered, faults::Source::Model, &head.headers)
    {
        let reply = exchange.error(StatusCode::BAD_REQUEST, &message);
        return (exchange, reply);
    }
    if let Some(reply) = exchange.before_reply().await {
        return (exchange, reply);
    }
    let key = key(&head.headers);
    if key.is_some_and(|key| key.starts_with(BAD_KEY)) || (server.options.require_key && key.is_none()) {
        let reply = exchange.error(StatusCode::UNAUTHORIZED, "Incorrect API key provided.");
        return (exchange, reply);
    }
    let anthropic = matches!(endpoint, Endpoint::Messages | Endpoint::CountTokens);
    if anthropic && let Err((status, message)) = anthropic::check(&head.headers) {
        let reply = exchange.error(status, message);
        return (exchange, reply);
    }
    let reply = if head.method == Method::GET && endpoint == Endpoint::Models {
        models(&exchange, head.uri.path())
    } else if head.method != Method::POST {
        let message = format!("Not allowed to {} on {}", head.method, head.uri.path());
        exchange.error(StatusCode::METHOD_NOT_ALLOWED, &message)
    } else {
        match parsed {
            Ok(body) if body.is_object() => post(server, &exchange, endpoint, head, &body),
            Ok(_) => exchange.error(StatusCode::BAD_REQUEST, "the body is not a JSON object"),
            Err(error) => {
                let message = format!("We could not parse the JSON body of your request: {error}");
                exchange.error(StatusCode::BAD_REQUEST, &message)
            }
        }
    };
    let name = if anthropic { "request-id" } else { "x-request-id" };
    let reply = reply.with_header(HeaderName::from_static(name), &hash::request_id(exchange.hash));
    (exchange, reply)
}

fn models(exchange: &Exchange, path: &str) -> Reply {
    let Some((_, id)) = path.split_once("/models/") else {
        return Reply::json(StatusCode::OK, &openai::models());
    };
    let id = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
    match openai::model(&id) {
        Some(model) => Reply::json(StatusCode::OK, &model),
        None => exchange.error(StatusCode::NOT_FOUND, &format!("The model '{id}' does not exist")),
    }
}

/// Asks the mock's model and plays or prints the answer.
fn ask(
    server: &Server,
    exchange: &Exchange,
    asked: &Ask,
    stream: Option<Box<dyn Encoder>>,
    print: impl FnOnce(&Answer) -> Value,
) -> Reply {
    let answer = reply(asked, server.options.reply_tokens, &exchange.plan.answer);
    match stream {
        Some(encoder) => {
            let plan = exchange.plan.clone();
            let control = Arc::clone(&exchange.control);
            let player = Player::new(answer, encoder, plan, server.options.pace, control);
            match exchange.endpoint {
                Some(Endpoint::GeminiArray) => Reply::growing(player),
                _ => Reply::events(player),
            }
        }
        None => Reply::json(StatusCode::OK, &print(&answer)),
    }
}

/// `stream: true`, with the encoder for it.
fn when<E: Encoder + 'static>(streams: bool, encoder: E) -> Option<Box<dyn Encoder>> {
    streams.then(|| Box::new(encoder) as Box<dyn Encoder>)
}

fn post(
    server: &Server,
    exchange: &Exchange,
    endpoint: Endpoint,
    head: &http::request::Parts,
    body: &Value,
) -> Reply {
    let mode = exchange.plan.stream.usage;
    let streams = body["stream"] == true;
    let include_usage = body["stream_options"]["include_usage"] == true;
    let document = |body: Value| Reply::json(StatusCode::OK, &body);
    let outcome = match endpoint {
        Endpoint::Chat => openai::chat(body).map(|asked| {
            let chunks = openai::Chunks {
                text_only: false,
                include_usage,
            };
            ask(server, exchange, &asked, when(streams, chunks), |answer| {
                openai::chat_answer(answer, mode)
            })
        }),
        Endpoint::Completions => openai::completion(body).map(|asked| {
            let chunks = openai::Chunks {
                text_only: true,
                include_usage,
            };
            ask(server, exchange, &asked, when(streams, chunks), |answer| {
                openai::completion_answer(answer, mode)
            })
        }),
        Endpoint::Responses => responses::request(body).map(|asked| {
            let events = responses::Events::default();
            ask(server, exchange, &asked, when(streams, events), |answer| {
                responses::answer(answer, mode)
            })
        }),
        Endpoint::Messages => anthropic::messages(body, true).map(|asked| {
            let events = anthropic::Events::default();
            ask(server, exchange, &asked, when(streams, events), |answer| {
                anthropic::answer(answer, mode)
            })
        }),
        Endpoint::CountTokens => anthropic::messages(body, false)
            .map(|asked| document(json!({ "input_tokens": asked.prompt_tokens() }))),
        Endpoint::DashScopeGeneration => dashscope::generation(body).map(|asked| {
            let streams = dashscope::streams(&head.headers, body);
            let events = dashscope::Events::new(body);
            ask(server, exchange, &asked, when(streams, events), |answer| {
                dashscope::answer(answer, mode)
            })
        }),
        Endpoint::Gemini | Endpoint::GeminiArray | Endpoint::GeminiEvents => {
            gemini::request(head.uri.path(), body).map(|asked| {
                let responses = gemini::Responses::new(endpoint == Endpoint::GeminiArray);
                let streams = endpoint != Endpoint::Gemini;
                ask(server, exchange, &asked, when(streams, responses), |answer| {
                    gemini::answer(answer, mode)
                })
            })
        }
        Endpoint::DashScopeEmbeddings => dashscope::embeddings(body).map(document),
        Endpoint::Embeddings => openai::embeddings(body).map(document),
        Endpoint::Images => openai::images(body).map(document),
        Endpoint::Models => {
            return exchange.error(
                StatusCode::METHOD_NOT_ALLOWED,
                "Not allowed to POST on /v1/models",
            );
        }
    };
    outcome.unwrap_or_else(|message| exchange.error(StatusCode::BAD_REQUEST, &message))
}
