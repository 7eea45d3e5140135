//! `key-auth`: who presents a known key comes in, as the consumer that the key belongs to (plugins spec §1).
//!
//! Each place is read once and hashed once, however many consumers there are. Keys stay in the request for services
//! that want them; `ai-proxy` takes them out.

mod config;
mod place;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::auth_rules::{Ask, EmptyList};
use crate::credentials::recognised;
use crate::local_reply::{answer, with_header};
use crate::table::ParseContext;
pub(crate) use config::FIELDS;
use config::Keys;

/// Compiles the global config, or a rule on top of it.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    Ok(Arc::new(KeyAuth {
        ask: config::READER.read(global, rule, context)?,
    }))
}

struct KeyAuth {
    ask: Ask<Keys>,
}

#[async_trait(?Send)]
impl Plugin for KeyAuth {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let Some(keys) = self.ask.consumers() else {
            return next.run(exchange, request).await;
        };
        let Some(holder) = keys.find(exchange, &request) else {
            let details = "Request denied by Key Auth check. Invalid API key";
            let refusal = answer(exchange, StatusCode::UNAUTHORIZED, details, "");
            let challenge = format!("Key realm={}", keys.realm);
            return Ok(with_header(refusal, WWW_AUTHENTICATE, &challenge));
        };
        let consumer = holder.name.as_ref();
        if let Some(consumer) = consumer {
            recognised(exchange, &mut request, consumer);
        }
        if !self.ask.lets_in(consumer.map(|name| &**name), EmptyList::Nobody) {
            let details = "Request denied by Key Auth check. Unauthorized consumer";
            let refusal = answer(exchange, StatusCode::FORBIDDEN, details, "");
            let challenge = format!("Basic realm={}", keys.realm);
            return Ok(with_header(refusal, WWW_AUTHENTICATE, &challenge));
        }
        next.run(exchange, request).await
    }

    fn admits(&self, consumer: Option<&str>) -> bool {
        self.ask.admits(consumer, EmptyList::Nobody)
    }
}
