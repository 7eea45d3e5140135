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

use answer::Treated;
pub(crate) use config::FIELDS;
use context::ContextText;
use request::{Plan, Spare};
use tokens::{Choice, TokenPool};
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
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        // One future for all that every request needs: each further one would carry the request about once more.
        let Some(active) = &self.active else {
            return next.run(exchange, request).await;
        };
        let (plan, choice) = active.begin(exchange, &mut request);
        let context_file = match &active.provider.context {
            Some(file) if plan.takes_context() => {
                let limit = active.provider.call_timeout;
                match Box::pin(active.context.get(file, limit, exchange, next)).await {
                    Ok(text) => Some(text),
                    Err(cause) => return Ok(reply::no_context(exchange, &cause)),
                }
            }
            _ => None,
        };
        let prepared = request::prepare(&active.provider, &plan, &mut request, &choice, context_file);
        let mut answerable = match prepared.await? {
            Ok(answerable) => answerable,
            Err(fault) => return Ok(reply::refused(exchange, plan.dialect, &fault)),
        };
        let attempts_before = exchange.record.attempts.get();
        let spare = active.spare(&choice, &request);
        let mut response = next.run(exchange, request).await?;
        answerable.from_upstream = exchange.record.attempts.get() > attempts_before;
        let is_settled = !answerable.from_upstream || active.tokens.settle(choice.index, response.status());
        if let Some(spare) = spare.filter(|_| !is_settled) {
            // Boxed, as all that few requests need: its room would be carried about by every one.
            let again = active.try_other_tokens(exchange, &spare, choice, response.status(), next);
            if let Some(better) = Box::pin(again).await {
                response = better;
            }
        }
        let mut answer = match answer::respond(exchange, &active.provider, answerable, response) {
            Treated::Done(answer) => answer,
            Treated::Unread(unread) => Box::pin(unread.translated(exchange, &active.provider)).await?,
        };
        if let Some(account) = &plan.account {
            account.answered(&exchange.record, &mut answer);
        }
        Ok(answer)
    }

    fn models(&self) -> Vec<String> {
        let mappings = self.active.iter().map(|active| &active.provider.model_mapping);
        mappings
            .flat_map(|mapping| mapping.names().map(str::to_owned))
            .collect()
    }
}

impl Active {
    /// What is known of the request before its body is read.
    fn begin(&self, exchange: &mut Exchange, request: &mut Request) -> (Plan, Choice) {
        exchange.remove_credentials(request);
        exchange.buffer_limit = exchange.buffer_limit.max(BODY_LIMIT);
        exchange.record.vendor.set(Some(self.provider.row.name));
        let account = Account::begin(exchange, request);
        let plan = Plan::of(&self.provider, request, account);
        if let Some(account) = plan.account.as_ref().filter(|_| plan.leaves_body()) {
            account.passes(&exchange.record, request.body());
        }
        let choice = self.tokens.choose(&plan, request.headers());
        (plan, choice)
    }

    /// A copy of the request, if it may have to be sent with another token and can be.
    fn spare(&self, choice: &Choice, request: &Request) -> Option<Spare> {
        self.tokens
            .needs_spare(choice)
            .then(|| Spare::of(request))
            .flatten()
    }

    /// A good answer with one of the other tokens, if there is one.
    async fn try_other_tokens(
        &self,
        exchange: &mut Exchange,
        spare: &Spare,
        choice: Choice,
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
