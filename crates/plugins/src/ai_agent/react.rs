//! The ReAct loop (plugins spec §3.4–3.6): the model names a tool in its text, the tool's answer goes back as an
//! observation, until there is a final answer.
//!
//! State is the request's own. Number, time, tokens and memory of the rounds have an end.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Uri};
use serde_json::{Map, Value, json};
use tollgate_base::Error;
use tollgate_body::{Body, Request, Response};
use tollgate_plugin::{Exchange, Next};

use super::config::{Api, Config};
use super::openapi::Tool;
use super::question::{Head, Question};
use super::step::{self, Step};
use super::{ANSWER_LIMIT, MEMORY_LIMIT, answer, observe, prompt};
use crate::rounds::{Limits, Rounds, Way, count};

/// A tool and its arguments.
pub(super) struct Call<'c> {
    pub(super) api: &'c Api,
    pub(super) tool: &'c Tool,
    pub(super) arguments: Map<String, Value>,
}

impl<'c> Call<'c> {
    /// `None`: a tool that does not exist or cannot be called, or arguments that are no object.
    pub(super) fn parse(config: &'c Config, name: &str, arguments: &str) -> Option<Self> {
        let (api, tool) = config.find(name)?;
        tool.method.as_ref()?;
        let arguments = serde_json::from_str(arguments).ok()?;
        Some(Self { api, tool, arguments })
    }
}

/// One request's conversation.
struct Talk<'t> {
    config: &'t Config,
    head: Head,
    model: Value,
    next: Next<'t>,
    rounds: Rounds,
    memory: Vec<Value>,
    remembered: usize,
}

/// Answers one question.
pub(super) async fn run(
    config: &Config,
    exchange: &mut Exchange,
    question: Question,
    head: Head,
    next: Next<'_>,
) -> Result<Response, Error> {
    let prompt = prompt::react(config, &question.history, &question.text);
    let mut talk = Talk {
        config,
        model: question.model.clone(),
        next,
        rounds: Rounds::begin(exchange, config.llm.budget),
        memory: Vec::new(),
        remembered: 0,
        head,
    };
    talk.remember("user", &prompt);
    let body = question.first_body(&prompt);
    let mut response = next.run(exchange, talk.head.request(body.clone())).await?;
    let Some((completion, call)) = talk.first(&mut response, &body).await? else {
        count(exchange, "ai-agent", "passed");
        return Ok(response);
    };
    let outcome = talk.work(exchange, call).await;
    exchange.record.usage.borrow_mut().close();
    let told = if outcome.is_some() { "answered" } else { "gave_up" };
    count(exchange, "ai-agent", told);
    let text = outcome.unwrap_or_default();
    Ok(match question.stream {
        true => answer::streamed(response, &completion, &text),
        false => answer::whole(response, completion, &text),
    })
}

impl<'t> Talk<'t> {
    /// The first answer and the call in it; without one it goes to the client as it is.
    async fn first(
        &mut self,
        response: &mut Response,
        asked: &Bytes,
    ) -> Result<Option<(Value, Call<'t>)>, Error> {
        let config = self.config;
        let body = response
            .body_mut()
            .buffer("ai-agent answer limit", ANSWER_LIMIT)
            .await;
        let body = body.map_err(super::as_upstreams)?;
        let Ok(completion) = serde_json::from_slice::<Value>(&body) else {
            return Ok(None);
        };
        let Some(text) = answer::content(&completion) else {
            return Ok(None);
        };
        let Step::Call(name, arguments) = step::read(text) else {
            return Ok(None);
        };
        let Some(call) = Call::parse(config, &name, &arguments) else {
            return Ok(None);
        };
        self.rounds.charge(asked, response.status(), &body);
        self.remember("assistant", text);
        Ok(Some((completion, call)))
    }

    /// Uses tools until there is an answer; `None`: there is none within the limits.
    async fn work(&mut self, exchange: &mut Exchange, first: Call<'t>) -> Option<String> {
        let mut call = first;
        let mut calls = 0;
        loop {
            calls += 1;
            if calls > self.config.llm.max_iterations {
                return None;
            }
            let observation = observe::call(&mut self.rounds, exchange, self.next, call).await;
            self.remember("user", &format!("Observation: {observation}"));
            let messages = Value::Array(self.memory.clone());
            let text = self
                .ask(exchange, messages, Some(self.config.llm.max_tokens))
                .await?;
            self.remember("assistant", &text);
            match step::read(&text) {
                Step::Final(answer) => return Some(self.formatted(exchange, answer).await),
                Step::Call(name, arguments) => call = Call::parse(self.config, &name, &arguments)?,
                Step::Nothing => return None,
            }
        }
    }

    /// The answer in the form that the config asks for.
    async fn formatted(&mut self, exchange: &mut Exchange, answer: String) -> String {
        let Some(schema) = &self.config.json else {
            return answer;
        };
        let messages = json!([{"role": "user", "content": prompt::to_json(schema, &answer)}]);
        match self.ask(exchange, messages, None).await {
            Some(text) => answer::json_in(&text).to_owned(),
            None => answer,
        }
    }

    fn remember(&mut self, role: &str, text: &str) {
        self.remembered = self.remembered.saturating_add(text.len());
        self.memory.push(json!({"role": role, "content": text}));
    }

    /// What the model says to a conversation; `None` when it says nothing.
    async fn ask(
        &mut self,
        exchange: &mut Exchange,
        messages: Value,
        max_tokens: Option<u64>,
    ) -> Option<String> {
        if self.remembered > MEMORY_LIMIT {
            return None;
        }
        let llm = &self.config.llm;
        let model = if llm.model.is_empty() {
            self.model.clone()
        } else {
            Value::from(llm.model.as_str())
        };
        let mut body = json!({"model": model, "messages": messages});
        if let (Some(members), Some(limit)) = (body.as_object_mut(), max_tokens) {
            members.insert("max_tokens".to_owned(), limit.into());
        }
        let body = Bytes::from(body.to_string());
        let (way, request) = match &llm.service {
            None => (Way::Chain(self.next), self.head.request(body)),
            Some(service) => {
                let mut request = Request::new(Body::bytes(body));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = Uri::try_from(service.path.as_str()).ok()?;
                *request.headers_mut() = service.headers.clone();
                let kind = HeaderValue::from_static("application/json");
                request.headers_mut().insert(CONTENT_TYPE, kind);
                let caller = self.next.caller(exchange);
                (
                    Way::Service(caller, Cow::Borrowed(service.cluster.as_str())),
                    request,
                )
            }
        };
        let limits = Limits {
            time: llm.time,
            bytes: ANSWER_LIMIT,
        };
        let answered = self.rounds.ask(exchange, &way, request, limits).await;
        let answer = answered
            .inspect_err(|failure| tracing::debug!(?failure, "ai-agent: a round failed"))
            .ok()?;
        let completion: Value = serde_json::from_slice(&answer.body).ok()?;
        answer::content(&completion).map(str::to_owned)
    }
}
