//! `ai-quota`: so many tokens for each consumer until an administrator gives more (plugins spec §5).
//!
//! A quota is a plain number in the store under a prefix and the consumer's name. A chat needs one above 0; its tokens
//! are taken away when it is over. The administrator's requests are told by their paths.

mod admin;
mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use serde_json::Value;
use tollgate_base::headers::X_MSE_CONSUMER;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};
use tollgate_store::Settlement;

use crate::limits::charge::Charge;
use crate::limits::source::consumer;
use crate::local_reply;
use crate::table::ParseContext;
pub(crate) use config::FIELDS;
use config::{Config, Purpose};

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let written = rule.or(global).unwrap_or(&Value::Null);
    Ok(Arc::new(AiQuota {
        config: Config::parse(written, context)?,
    }))
}

struct AiQuota {
    config: Config,
}

#[async_trait(?Send)]
impl Plugin for AiQuota {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let consumer = match consumer(exchange, &request) {
            Some(name) if !name.is_empty() => name.into_owned(),
            found => {
                let is_there = found.is_some() || request.headers().contains_key(X_MSE_CONSUMER);
                return Ok(nobody(exchange, is_there));
            }
        };
        match self.config.purpose(request.uri().path()) {
            Purpose::Other => next.run(exchange, request).await,
            Purpose::Chat => self.chat(exchange, request, next, consumer).await,
            Purpose::Admin(operation) => {
                admin::answer(&self.config, exchange, request, &consumer, operation).await
            }
        }
    }
}

impl AiQuota {
    async fn chat(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
        consumer: String,
    ) -> Result<Response, Error> {
        let key: Arc<str> = self.config.key(&consumer).into();
        let store = &self.config.backing.store;
        match store.get(&key).await {
            Ok(Some(quota)) if quota > 0 => {}
            Err(failure) if self.config.allows_without_store => {
                tracing::debug!(%failure, "a quota cannot be told");
            }
            Ok(_) | Err(_) => {
                let text = "Request denied by ai quota check, No quota left";
                return Ok(denied(exchange, StatusCode::FORBIDDEN, "ai-quota.noquota", text));
            }
        }
        let store = store.clone();
        let charge = Charge::at_the_end(&exchange.record, &request, move |_, amount| {
            if amount > 0 {
                store.settle(Settlement::Spend { key, amount });
            }
        });
        let mut response = next.run(exchange, request).await?;
        charge.answered(&exchange.record, &mut response);
        Ok(response)
    }
}

/// The answer to a request of nobody.
fn nobody(exchange: &Exchange, is_there: bool) -> Response {
    match is_there {
        false => denied(
            exchange,
            StatusCode::UNAUTHORIZED,
            "ai-quota.no_key",
            "Request denied by ai quota check. No Key Authentication information found.",
        ),
        true => denied(
            exchange,
            StatusCode::FORBIDDEN,
            "ai-quota.unauthorized",
            "Request denied by ai quota check. Unauthorized consumer.",
        ),
    }
}

fn denied(exchange: &Exchange, status: StatusCode, details: &'static str, text: &'static str) -> Response {
    local_reply::answer(exchange, status, details, text)
}
