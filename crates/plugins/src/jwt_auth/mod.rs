//! `jwt-auth`: who carries a token that a consumer's keys have signed comes in as that consumer (plugins spec §5).
//!
//! Each token of a request is taken apart once, however many consumers there are; a consumer's signature is verified
//! only when its claims hold. Tokens go no further than the config says, and never to a vendor.

mod candidates;
mod config;
mod place;
mod remote;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use tollgate_base::{ConfigError, Error, clock};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::auth_rules::{Ask, EmptyList};
use crate::credentials::recognised;
use crate::jwt::{Fault, Token};
use crate::local_reply::{answer, with_header};
use crate::table::ParseContext;
pub(crate) use config::FIELDS;
use config::{Consumer, Consumers};

/// Prefix of the response details.
const DETAILS: &str = "jwt_authn_access_denied";
/// Longest path in a challenge, in bytes.
const LONGEST_PATH: usize = 256;

/// Compiles the global config, or a rule on top of it.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    Ok(Arc::new(JwtAuth {
        ask: config::READER.read(global, rule, context)?,
    }))
}

struct JwtAuth {
    ask: Ask<Consumers>,
}

/// Who a request comes from.
enum Verdict<'c> {
    /// One who may come, with the values of the consumer's headers, in their order, for each token.
    Comes(&'c Consumer, Vec<Vec<Option<HeaderValue>>>),
    /// Somebody who may not.
    Stranger(&'c Consumer),
    /// Nobody, as the first consumer's keys tell it.
    Nobody(Fault),
}

#[async_trait(?Send)]
impl Plugin for JwtAuth {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let Some(consumers) = self.ask.consumers() else {
            return next.run(exchange, request).await;
        };
        if !consumers.asks(&request) {
            return next.run(exchange, request).await;
        }
        match self.judge(consumers, exchange, &request, next).await {
            Verdict::Comes(consumer, values) => {
                recognised(exchange, &mut request, &consumer.name);
                consumer.tell(&mut request, &values);
                if !consumer.keep_token {
                    consumers.take_tokens(consumer, &mut request);
                }
                next.run(exchange, request).await
            }
            Verdict::Stranger(consumer) => {
                // The log shows who it was.
                recognised(exchange, &mut request, &consumer.name);
                Ok(answer(exchange, StatusCode::FORBIDDEN, DETAILS, "Access Denied"))
            }
            Verdict::Nobody(fault) => {
                let details = format!("{DETAILS}{{{}}}", fault.0);
                let refusal = answer(exchange, StatusCode::UNAUTHORIZED, details, fault.0);
                let challenge = challenge(exchange, &request, fault);
                Ok(with_header(refusal, WWW_AUTHENTICATE, &challenge))
            }
        }
    }

    fn admits(&self, consumer: Option<&str>) -> bool {
        self.ask.admits(consumer, EmptyList::Nobody)
    }
}

impl JwtAuth {
    async fn judge<'c>(
        &self,
        consumers: &'c Consumers,
        exchange: &mut Exchange,
        request: &Request,
        next: Next<'_>,
    ) -> Verdict<'c> {
        let texts: Vec<Option<Result<Cow<'_, str>, Fault>>> = consumers
            .places
            .iter()
            .map(|place| place.token(request))
            .collect();
        for (place, _) in consumers
            .places
            .iter()
            .zip(&texts)
            .filter(|(_, text)| text.is_some())
        {
            exchange.found_credential(place.credential());
            place.hide(exchange);
        }
        let tokens: Vec<Option<Result<Token<'_>, Fault>>> = texts
            .iter()
            .map(|text| {
                let text = text.as_ref()?;
                Some(
                    text.as_ref()
                        .map_err(|fault| *fault)
                        .and_then(|text| Token::parse(text)),
                )
            })
            .collect();
        let now = clock::unix_seconds();
        let (mut first_fault, mut stranger) = (None, None);
        let candidates = consumers.candidates.of(&tokens);
        for consumer in candidates.iter().filter_map(|number| consumers.all.get(*number)) {
            match consumer.verify(&tokens, now, exchange, next).await {
                Ok(values) => {
                    if self.ask.lets_in(Some(&*consumer.name), EmptyList::Nobody) {
                        return Verdict::Comes(consumer, values);
                    }
                    stranger.get_or_insert(consumer);
                }
                Err(fault) => {
                    first_fault.get_or_insert(fault);
                }
            }
        }
        match stranger {
            Some(consumer) => Verdict::Stranger(consumer),
            None => Verdict::Nobody(first_fault.unwrap_or(Fault::MISSING)),
        }
    }
}

/// The request's own address as the realm; without its query, which may hold a token.
fn challenge(exchange: &Exchange, request: &Request, fault: Fault) -> String {
    let scheme = match exchange.record.connection.tls {
        true => "https",
        false => "http",
    };
    let path: String = request
        .uri()
        .path()
        .chars()
        .filter(|character| !matches!(character, '"' | '\\'))
        .take(LONGEST_PATH)
        .collect();
    let authority = &exchange.record.original.authority;
    let mut challenge = format!("Bearer realm=\"{scheme}://{authority}{path}\"");
    if fault != Fault::MISSING {
        challenge.push_str(", error=\"invalid_token\"");
    }
    challenge
}
