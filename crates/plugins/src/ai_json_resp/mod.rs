//! `ai-json-resp`: answers that are JSON of a wanted shape, asked for again until they are (plugins spec §2).
//!
//! The request never passes: the plugin asks its service (or the rest of the chain), takes the JSON out of the answer,
//! checks it, and has the model repair what does not fit, a bounded number of times.

mod config;
mod explain;
mod extract;
mod repair;
mod reply;
mod request;
mod schema;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::readable::has_readable_body;
use crate::rounds::{Failure, Limits, Rounds, Way, count};
use crate::table::ParseContext;
pub(crate) use config::FIELDS;
use config::{Config, Reject};
use request::Template;

/// Name and size of the limit on requests that are read.
const BODY_LIMIT_NAME: &str = "ai-json-resp body limit";
const BODY_LIMIT: usize = 100 * 1024 * 1024;
/// Largest answer of a service, in bytes.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
/// Most of an answer, in bytes, that an error quotes.
const QUOTE_LIMIT: usize = 64 * 1024;

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let written = rule.or(global).unwrap_or(&Value::Null);
    let config = Config::parse(written, context)?;
    Ok(Arc::new(AiJsonResp { config }))
}

/// What is wrong with a value by a schema; draft 7 unless it names another.
pub(crate) fn schema_fault(schema: &Value, instance: &Value) -> Result<(), String> {
    schema::Schema::compile(schema, jsonschema::Draft::Draft7)?.check(instance, 0)
}

/// The plugin with one config.
struct AiJsonResp {
    config: Config,
}

#[async_trait(?Send)]
impl Plugin for AiJsonResp {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        if let Some(reject) = &self.config.reject {
            count(exchange, "ai-json-resp", "rejected");
            return Ok(reply::rejected(exchange, reject));
        }
        if request::is_own(&request) {
            return next.run(exchange, request).await;
        }
        if !has_readable_body(&request) {
            request::remove_credentials(&self.config, &mut request);
            return next.run(exchange, request).await;
        }
        exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
        let body = request.body_mut().buffer(BODY_LIMIT_NAME, BODY_LIMIT).await?;
        let template = Template::new(&self.config, &request);
        let caller = next.caller(exchange);
        let way = match &self.config.service {
            None => Way::Chain(next),
            Some(service) => Way::Service(
                caller,
                Cow::Borrowed(service.clusters.first().map_or("", |name| name)),
            ),
        };
        let talk = Talk {
            config: &self.config,
            template,
            way,
            rounds: Rounds::begin(exchange, self.config.budget),
        };
        Ok(talk.run(exchange, body).await)
    }
}

/// One request's calls.
struct Talk<'t> {
    config: &'t Config,
    template: Template<'t>,
    way: Way<'t>,
    rounds: Rounds,
}

impl Talk<'_> {
    async fn run(mut self, exchange: &mut Exchange, body: Bytes) -> Response {
        let outcome = self.until_it_fits(exchange, &body).await;
        exchange.record.usage.borrow_mut().close();
        match outcome {
            Ok((json, repairs)) => {
                let outcome = if repairs == 0 { "answered" } else { "repaired" };
                count(exchange, "ai-json-resp", outcome);
                reply::json(self.config.disposition, json)
            }
            Err(reject) => {
                count(exchange, "ai-json-resp", "failed");
                reply::failed(exchange, &reject)
            }
        }
    }

    async fn until_it_fits(
        &mut self,
        exchange: &mut Exchange,
        body: &Bytes,
    ) -> Result<(String, u64), Reject> {
        let mut history = repair::History::new(body);
        let mut asked = match self.way {
            Way::Chain(_) => request::without_stream(body),
            Way::Service(..) => body.clone(),
        };
        let mut repairs = 0;
        loop {
            let answer = self.ask(exchange, asked.clone()).await?;
            let content = extract::content(&self.config.content_path, &answer)?;
            history.add(&asked, &answer);
            let fault = match extract::json(self.config.schema.as_ref(), &content) {
                Ok(json) => return Ok((json, repairs)),
                Err(fault) => fault,
            };
            history.add_fault(&fault.message);
            if repairs >= self.config.max_retry || !self.rounds.may_go_on() {
                let text = format!("retry count exceeds max retry count: {}", fault.message);
                return Err(Reject::new(1006, text));
            }
            repairs += 1;
            asked = history.request(&self.config.schema_text, &content);
        }
    }

    /// One call; an answer that does not come is an empty one, as in Higress.
    async fn ask(&mut self, exchange: &mut Exchange, body: Bytes) -> Result<Bytes, Reject> {
        let limits = Limits {
            time: self.config.timeout,
            bytes: ANSWER_LIMIT,
        };
        let names = self
            .config
            .service
            .iter()
            .flat_map(|service| &service.clusters)
            .skip(1);
        let mut others = names.cloned();
        loop {
            let request = self.template.request(body.clone());
            match self.rounds.ask(exchange, &self.way, request, limits).await {
                Ok(answer) => return Ok(answer.body),
                Err(failure) if failure.is_unknown_cluster() => match (&mut self.way, others.next()) {
                    (Way::Service(_, cluster), Some(other)) => *cluster = Cow::Owned(other),
                    _ => return Err(unavailable(&failure)),
                },
                Err(failure) => return Err(unavailable(&failure)),
            }
        }
    }
}

fn unavailable(failure: &Failure) -> Reject {
    tracing::debug!(?failure, "ai-json-resp: a call failed");
    Reject::new(1007, "service unavailable: ")
}
