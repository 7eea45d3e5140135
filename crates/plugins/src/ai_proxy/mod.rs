//! `ai-proxy`: clients of OpenAI's and Anthropic's APIs talk to any vendor (ai-proxy spec).
//!
//! The vendor's side of it (paths, credentials, bodies, wire formats) is `tollgate-llm`; here is the order of things
//! for one request: plan → token → head → body → send, perhaps with another token → answer.

mod answer;
mod config;
mod context;
mod reply;
mod request;
mod tokens;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_llm::providers::Provider;
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::table::ParseContext;

pub(crate) use config::FIELDS;
use context::ContextText;
use request::{Plan, Prepared};
use tokens::TokenPool;
use watch::Account;

/// Name and size of the limit on bodies that are read.
const BODY_LIMIT_NAME: &str = "ai-proxy body limit";
const BODY_LIMIT: usize = 100 * 1024 * 1024;

/// Compiles one config.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let active = config::active_provider(global, rule, context)?.map(|provider| Active {
        tokens: TokenPool::new(&provider),
        context: ContextText::default(),
        provider,
    });
    Ok(Arc::new(AiProxy { active }))
}

/// The plugin with one config; without an active provider it leaves requests alone.
struct AiProxy {
    active: Option<Active>,
}

struct Active {
    provider: Provider,
    tokens: TokenPool,
    context: ContextText,
}

#[async_trait(?Send)]
impl Plugin for AiProxy {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        match &self.active {
            Some(active) => active.call(exchange, request, next).await,
            None => next.run(exchange, request).await,
        }
    }

    fn models(&self) -> Vec<String> {
        let mappings = self.active.iter().map(|active| &active.provider.model_mapping);
        mappings
            .flat_map(|mapping| mapping.names().map(str::to_owned))
            .collect()
    }
}

impl Active {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        exchange.remove_credentials(&mut request);
        exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
        exchange.record.vendor.set(Some(self.provider.row.name));
        let account = Account::begin(exchange, &request);
        let plan = Plan::of(&self.provider, &request).accounted_to(account.clone());
        let choice = self.tokens.choose(&plan, request.headers());
        let context_file = match &self.provider.context {
            Some(file) if plan.takes_context() => {
                let limit = self.provider.call_timeout;
                match Box::pin(self.context.get(file, limit, exchange, next)).await {
                    Ok(text) => Some(text),
                    Err(cause) => return Ok(reply::no_context(exchange, &cause)),
                }
            }
            _ => None,
        };
        let prepared = match request::prepare(&self.provider, plan, request, &choice, context_file).await? {
            Ok(prepared) => prepared,
            Err(refusal) => return Ok(reply::refused(exchange, refusal.dialect, &refusal.fault)),
        };
        let (prepared, response) = self.send(exchange, prepared, choice, next).await?;
        let mut answer = answer::respond(exchange, &self.provider, prepared, response).await?;
        if let Some(account) = &account {
            account.answered(&exchange.record, &mut answer);
        }
        Ok(answer)
    }

    /// Sends the request; after a failure that counts, again with another token.
    async fn send(
        &self,
        exchange: &mut Exchange,
        prepared: Prepared,
        choice: tokens::Choice,
        next: Next<'_>,
    ) -> Result<(request::Answerable, Response), Error> {
        let attempts_before = exchange.record.attempts.get();
        let spare = self
            .tokens
            .needs_spare(&choice)
            .then(|| prepared.spare())
            .flatten();
        let (answerable, request) = prepared.take();
        let response = next.run(exchange, request).await?;
        let answerable = answerable.of_upstream(exchange.record.attempts.get() > attempts_before);
        if !answerable.from_upstream || self.tokens.settle(choice.index, response.status()) {
            return Ok((answerable, response));
        }
        let Some(spare) = &spare else {
            return Ok((answerable, response));
        };
        // Boxed, as all that few requests need: its room would be carried about by every one.
        let again = Box::pin(self.try_other_tokens(exchange, spare, choice, response.status(), next));
        Ok(match again.await {
            Some(better) => (answerable, better),
            None => (answerable, response),
        })
    }

    /// A good answer with one of the other tokens, if there is one.
    async fn try_other_tokens(
        &self,
        exchange: &mut Exchange,
        spare: &request::Spare,
        choice: tokens::Choice,
        status: http::StatusCode,
        next: Next<'_>,
    ) -> Option<Response> {
        let mut retries = self.tokens.retries(choice, status);
        while let Some((index, limit)) = retries.next_token() {
            let request = spare.with_token(&self.provider, self.tokens.token(index))?;
            let attempt = tokio::time::timeout(limit, next.run(exchange, request));
            let Ok(Ok(response)) = attempt.await else {
                continue;
            };
            if self.tokens.settle(index, response.status()) {
                return Some(response);
            }
        }
        None
    }
}
