//! The model's own function calling in place of ReAct (`tollgate.dev/agent: tools`): the config's tools join the
//! client's request, their calls are answered here, and the last answer passes as it comes, streamed or not.
//!
//! Every round goes through the rest of the chain. A streamed round is held back only until it is clear whether it
//! calls a tool.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::{Map, Value, json};
use tollgate_base::Error;
use tollgate_body::{Body, EventStream, Response, SseEvent};
use tollgate_plugin::{Exchange, Next};

use super::config::Config;
use super::question::Head;
use super::react::Call;
use super::{ANSWER_LIMIT, MEMORY_LIMIT, observe};
use crate::rounds::{Failure, Rounds, Way, count};

/// Bytes of text that a streamed round may say before a tool's call; beyond them the text is the answer.
const PREAMBLE: usize = 300;
/// Calls of one round that are carried out.
const CALLS_A_ROUND: usize = 16;

/// The client's request, if the agent can join it.
pub(super) fn read(body: &[u8]) -> Option<Map<String, Value>> {
    let Ok(Value::Object(request)) = serde_json::from_slice(body) else {
        return None;
    };
    let is_chat = request
        .get("messages")
        .and_then(Value::as_array)
        .is_some_and(|messages| !messages.is_empty());
    let has_tools = request
        .get("tools")
        .is_none_or(|tools| tools.is_array() || tools.is_null());
    (is_chat && has_tools).then_some(request)
}

/// What a round came to.
enum Round {
    /// The answer, or what is none of the agent's business.
    Passes(Response),
    /// Calls of tools.
    Tools(Turn),
}

/// What the model said in a round that calls tools.
#[derive(Default)]
struct Turn {
    text: String,
    calls: Vec<Wanted>,
    /// The completion, as far as it tells what it cost.
    told: Map<String, Value>,
}

/// A call as the model wrote it.
#[derive(Default)]
struct Wanted {
    id: String,
    name: String,
    arguments: String,
}

/// Answers one request.
pub(super) async fn run(
    config: &Config,
    exchange: &mut Exchange,
    mut request: Map<String, Value>,
    head: Head,
    next: Next<'_>,
) -> Result<Response, Error> {
    let own = add_tools(config, &mut request);
    let mut rounds = Rounds::begin(exchange, config.llm.budget);
    let mut calls = 0;
    loop {
        let is_last = calls >= config.llm.max_iterations || !rounds.may_go_on();
        if is_last {
            request.insert("tool_choice".to_owned(), "none".into());
        }
        let body = Bytes::from(Value::Object(request.clone()).to_string());
        if body.len() > ANSWER_LIMIT + MEMORY_LIMIT && calls > 0 {
            return Err(gave_up("the conversation with the tools is too long"));
        }
        let round = match calls {
            // The client's own request has the route's time.
            0 => judge(next.run(exchange, head.request(body.clone())).await?, &own).await?,
            _ => {
                let sent = head.request(body.clone());
                let read = async |response: Response| judge(response, &own).await;
                let way = Way::Chain(next);
                let judged = rounds.fetch(exchange, &way, sent, config.llm.time, read).await;
                judged.map_err(|failure| match failure {
                    Failure::Failed(error) => error,
                    Failure::Late | Failure::Spent => gave_up("the rounds with the tools took too long"),
                })?
            }
        };
        let turn = match round {
            Round::Passes(response) => {
                count(
                    exchange,
                    "ai-agent",
                    if calls == 0 { "passed" } else { "answered" },
                );
                return Ok(response);
            }
            Round::Tools(turn) => turn,
        };
        let told = Value::Object(turn.told.clone()).to_string();
        rounds.charge(&body, StatusCode::OK, told.as_bytes());
        if is_last {
            count(exchange, "ai-agent", "gave_up");
            return Err(gave_up("the model keeps calling tools"));
        }
        calls += u64::try_from(turn.calls.len()).unwrap_or(u64::MAX);
        let messages = answer_calls(config, exchange, &mut rounds, next, turn).await;
        if let Some(Value::Array(all)) = request.get_mut("messages") {
            all.extend(messages);
        }
        // A forced call has been made.
        request.shift_remove("tool_choice");
    }
}

fn gave_up(why: &'static str) -> Error {
    Error::upstream(StatusCode::BAD_GATEWAY, "ai_agent_gave_up", why)
}

/// Adds the config's tools to the request; those of a name that the client has taken are left out. Their names.
fn add_tools(config: &Config, request: &mut Map<String, Value>) -> Vec<String> {
    let mut tools = match request.shift_remove("tools") {
        Some(Value::Array(tools)) => tools,
        _ => Vec::new(),
    };
    let mut own = Vec::new();
    for tool in config.apis.iter().flat_map(|api| &api.tools) {
        let is_taken = tools
            .iter()
            .any(|known| known.pointer("/function/name") == Some(&Value::from(tool.name.as_str())));
        if tool.method.is_none() || is_taken {
            continue;
        }
        let function = json!({"name": tool.name, "description": tool.description, "parameters": tool.schema});
        tools.push(json!({"type": "function", "function": function}));
        own.push(tool.name.clone());
    }
    request.insert("tools".to_owned(), Value::Array(tools));
    own
}

/// Carries out the calls; the messages that the conversation grows by.
async fn answer_calls(
    config: &Config,
    exchange: &mut Exchange,
    rounds: &mut Rounds,
    next: Next<'_>,
    turn: Turn,
) -> Vec<Value> {
    let calls: Vec<Value> = turn
        .calls
        .iter()
        .map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        })
        .collect();
    let text = if turn.text.is_empty() {
        Value::Null
    } else {
        Value::from(turn.text)
    };
    let mut messages = vec![json!({"role": "assistant", "content": text, "tool_calls": calls})];
    for (index, wanted) in turn.calls.iter().enumerate() {
        let result = match Call::parse(config, &wanted.name, &wanted.arguments) {
            Some(call) if index < CALLS_A_ROUND => observe::call(rounds, exchange, next, call).await,
            Some(_) => format!("error: more than {CALLS_A_ROUND} calls at once"),
            None => "error: the arguments are no JSON object".to_owned(),
        };
        messages.push(json!({"role": "tool", "tool_call_id": wanted.id, "content": result}));
    }
    messages
}

/// Whether a response calls tools of ours.
async fn judge(mut response: Response, own: &[String]) -> Result<Round, Error> {
    if response.status() != StatusCode::OK {
        return Ok(Round::Passes(response));
    }
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .map(|value| value.as_bytes().to_owned());
    if kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
        return judge_stream(response, own).await;
    }
    let body = response
        .body_mut()
        .buffer("ai-agent answer limit", ANSWER_LIMIT)
        .await;
    let body = body.map_err(super::as_upstreams)?;
    let Ok(Value::Object(completion)) = serde_json::from_slice(&body) else {
        return Ok(Round::Passes(response));
    };
    let completion = Value::Object(completion);
    let message = completion.pointer("/choices/0/message");
    let calls = message
        .and_then(|message| message.get("tool_calls"))
        .and_then(Value::as_array);
    let mut turn = Turn::default();
    for (index, call) in calls.into_iter().flatten().enumerate() {
        turn.add(index, call);
    }
    if !turn.is_ours(own) {
        return Ok(Round::Passes(response));
    }
    let text = message
        .and_then(|message| message.get("content"))
        .and_then(Value::as_str);
    turn.text = text.unwrap_or_default().to_owned();
    turn.note(&completion);
    Ok(Round::Tools(turn))
}

impl Turn {
    /// A call or a piece of one.
    fn add(&mut self, index: usize, piece: &Value) {
        let index = piece
            .get("index")
            .and_then(Value::as_u64)
            .map_or(index, |index| usize::try_from(index).unwrap_or(usize::MAX));
        // Beyond this nothing is carried out anyway.
        if index >= 8 * CALLS_A_ROUND {
            return;
        }
        while self.calls.len() <= index {
            self.calls.push(Wanted::default());
        }
        let Some(call) = self.calls.get_mut(index) else {
            return;
        };
        let text = |at: &str| piece.pointer(at).and_then(Value::as_str).unwrap_or_default();
        call.id.push_str(text("/id"));
        call.name.push_str(text("/function/name"));
        call.arguments.push_str(text("/function/arguments"));
    }

    /// What tells the cost.
    fn note(&mut self, completion: &Value) {
        for name in ["model", "usage"] {
            if let Some(value) = completion.get(name).filter(|value| !value.is_null()) {
                self.told.insert(name.to_owned(), value.clone());
            }
        }
    }

    fn is_ours(&self, own: &[String]) -> bool {
        !self.calls.is_empty() && self.calls.iter().all(|call| own.contains(&call.name))
    }
}

/// Reads a stream until it is clear what it is; an answer then passes, what was held back first.
async fn judge_stream(response: Response, own: &[String]) -> Result<Round, Error> {
    let (mut head, body) = response.into_parts();
    let mut events = body.into_events();
    let (mut held, mut size) = (Vec::new(), 0);
    let mut turn = Turn::default();
    let is_over = loop {
        let Some(event) = poll_fn(|context| Pin::new(&mut events).poll_next(context)).await else {
            break true;
        };
        let event = event?;
        size += event.raw().len();
        if size > ANSWER_LIMIT {
            return Err(gave_up("a tool's call is too long"));
        }
        if let Some(chunk) = event.json() {
            turn.note(chunk);
            let delta = chunk.pointer("/choices/0/delta");
            let text = delta
                .and_then(|delta| delta.get("content"))
                .and_then(Value::as_str);
            turn.text.push_str(text.unwrap_or_default());
            let pieces = delta
                .and_then(|delta| delta.get("tool_calls"))
                .and_then(Value::as_array);
            for (index, piece) in pieces.into_iter().flatten().enumerate() {
                turn.add(index, piece);
            }
        }
        held.push(event);
        if turn.calls.is_empty() && turn.text.len() > PREAMBLE {
            break false;
        }
    };
    if is_over && turn.is_ours(own) {
        return Ok(Round::Tools(turn));
    }
    head.headers.remove(CONTENT_LENGTH);
    let passing = futures_util::stream::iter(held.into_iter().map(Ok)).chain(late(events));
    Ok(Round::Passes(Response::from_parts(
        head,
        Body::events(EventStream::new(passing)),
    )))
}

/// The rest of an answer that passes: a call in it would come too late to be carried out.
fn late(events: EventStream) -> impl Stream<Item = Result<SseEvent, Error>> {
    events.map(|event| {
        let event = event?;
        let calls = event
            .json()
            .and_then(|chunk| chunk.pointer("/choices/0/delta/tool_calls").cloned());
        match calls {
            Some(Value::Array(calls)) if !calls.is_empty() => {
                Err(gave_up("the model called a tool after its answer had begun"))
            }
            _ => Ok(event),
        }
    })
}
