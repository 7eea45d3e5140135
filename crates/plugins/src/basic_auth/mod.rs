//! `basic-auth`: who presents a known name and password comes in, as the consumer that they belong to (plugins spec §6).
//!
//! Passwords in the config may be hashes. Hashes take long on purpose: they are made off the workers, few at once, and
//! what was found right is remembered.

mod config;
mod password;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{CredentialPlace, Exchange, Next, Plugin};

use crate::auth_rules::{Ask, EmptyList};
use crate::credentials::recognised;
use crate::local_reply::{answer, with_header};
use crate::table::ParseContext;
use config::Credentials;
pub(crate) use config::FIELDS;

const SCHEME: &[u8] = b"Basic ";

/// Compiles the global config, or a rule on top of it.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    Ok(Arc::new(BasicAuth {
        ask: config::READER.read(global, rule, context)?,
    }))
}

struct BasicAuth {
    ask: Ask<Credentials>,
}

#[async_trait(?Send)]
impl Plugin for BasicAuth {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let Some(credentials) = self.ask.consumers() else {
            return next.run(exchange, request).await;
        };
        let header = request.headers().get(AUTHORIZATION);
        let presented = header.and_then(|value| value.as_bytes().strip_prefix(SCHEME));
        let (status, reason) = match presented {
            None => (
                StatusCode::UNAUTHORIZED,
                "No Basic Authentication information found.",
            ),
            Some(presented) => match credentials.find(presented).await {
                None => (StatusCode::UNAUTHORIZED, "Invalid username and/or password"),
                Some(name) if self.ask.lets_in(name.as_deref(), EmptyList::Everybody) => {
                    exchange.found_credential(CredentialPlace::Header(AUTHORIZATION));
                    if let Some(name) = name {
                        recognised(exchange, &mut request, name);
                    }
                    return next.run(exchange, request).await;
                }
                Some(_) => (StatusCode::FORBIDDEN, "Unauthorized consumer"),
            },
        };
        let details = format!("Request denied by Basic Auth check. {reason}");
        let refusal = answer(exchange, status, details, "");
        let challenge = format!("Basic realm={}", credentials.realm);
        Ok(with_header(refusal, WWW_AUTHENTICATE, &challenge))
    }

    fn admits(&self, consumer: Option<&str>) -> bool {
        self.ask.admits(consumer, EmptyList::Everybody)
    }
}
