//! `ai-agent`: a model that uses the APIs a config names (plugins spec §3).
//!
//! The first request goes out through the chain with a prompt in place of the client's messages; what the model then
//! asks for is called, and told to it, until it answers. With `tollgate.dev/agent: tools` the model's own function
//! calling is used instead of a prompt.

mod answer;
mod config;
mod observe;
mod openapi;
mod prompt;
mod question;
mod react;
mod references;
mod step;
mod tool_call;
mod tools;

#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_llm::Api;
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::readable::has_readable_body;
use crate::table::ParseContext;
use config::Config;
pub(crate) use config::FIELDS;
use question::{Head, Question};

/// Name and size of the limit on requests that are read.
const BODY_LIMIT_NAME: &str = "ai-agent body limit";
const BODY_LIMIT: usize = 100 * 1024 * 1024;
/// Largest answer of a model, in bytes.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
/// Most bytes of a conversation; beyond it the agent gives up.
const MEMORY_LIMIT: usize = 1024 * 1024;

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let written = rule.or(global).unwrap_or(&Value::Null);
    let config = Config::parse(written, context)?;
    Ok(Arc::new(AiAgent { config }))
}

/// The plugin with one config.
struct AiAgent {
    config: Config,
}

#[async_trait(?Send)]
impl Plugin for AiAgent {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let api = Api::of_path(request.uri().path());
        if api.is_some_and(|api| api != Api::Chat) || !has_readable_body(&request) {
            return next.run(exchange, request).await;
        }
        exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
        let body = request.body_mut().buffer(BODY_LIMIT_NAME, BODY_LIMIT).await?;
        if self.config.native {
            return match tools::read(&body) {
                Some(asked) => tools::run(&self.config, exchange, asked, Head::of(&request), next).await,
                None => next.run(exchange, request).await,
            };
        }
        match Question::read(&body) {
            Some(question) => react::run(&self.config, exchange, question, Head::of(&request), next).await,
            None => next.run(exchange, request).await,
        }
    }
}

/// An answer that is too long is not the client's fault.
fn as_upstreams(failure: Error) -> Error {
    if failure.status() != StatusCode::PAYLOAD_TOO_LARGE {
        return failure;
    }
    let text = failure.message().to_owned();
    Error::upstream(StatusCode::BAD_GATEWAY, "response_payload_too_large", text)
}
