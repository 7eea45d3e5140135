//! `hmac-auth-apisix`: who signs a request as Apache APISIX's clients do comes in (plugins spec §15).
//!
//! The client chooses what it signs; `signed_headers` says what it must. Nobody is told to be a consumer before
//! signature and digest have been found right.

mod authorization;
mod config;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use http::header::{AUTHORIZATION, DATE};
use http_body::Body as _;
use serde_json::{Value, json};
use tollgate_base::{ConfigError, Error, clock};
use tollgate_body::{Request, Response};
use tollgate_plugin::{CredentialPlace, Exchange, Next, Plugin};

use crate::auth_rules::{Ask, EmptyList};
use crate::credentials::recognised;
use crate::local_reply::answer;
use crate::signing::{is_near, signed_header, target, text};
use crate::table::ParseContext;
use authorization::Authorization;
pub(crate) use config::FIELDS;
use config::{Config, Holder};

/// Largest body that is read for its digest, in bytes.
const BODY_LIMIT: usize = 32 * 1024 * 1024;
const BODY_LIMIT_NAME: &str = "body limit of hmac-auth-apisix";
/// `Mon, 02 Jan 2006 15:04:05 GMT`: the one form of a date that counts.
const DATE_LENGTH: usize = 29;

/// Compiles the global config, or a rule on top of it.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    Ok(Arc::new(HmacAuthApisix {
        ask: config::READER.read(global, rule, context)?,
    }))
}

struct HmacAuthApisix {
    ask: Ask<Config>,
}

/// Why a request does not come in, as the client is told.
type Refusal = Cow<'static, str>;

#[async_trait(?Send)]
impl Plugin for HmacAuthApisix {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let Some(config) = self.ask.consumers() else {
            return next.run(exchange, request).await;
        };
        let refusal = match self.who(config, &request) {
            Ok(Who::Anonymous(name)) => {
                recognised(exchange, &mut request, name);
                return next.run(exchange, request).await;
            }
            Ok(Who::Signed(holder)) => match has_digest(config, &mut request).await? {
                true => {
                    exchange.found_credential(CredentialPlace::Header(AUTHORIZATION));
                    recognised(exchange, &mut request, &holder.name);
                    if config.hide_credentials {
                        request.headers_mut().remove(AUTHORIZATION);
                    }
                    return next.run(exchange, request).await;
                }
                false => "Invalid digest".into(),
            },
            Err(refusal) => refusal,
        };
        let body = json!({ "message": format!("client request can't be validated: {refusal}") });
        Ok(answer(exchange, StatusCode::UNAUTHORIZED, "", body.to_string()))
    }

    fn admits(&self, consumer: Option<&str>) -> bool {
        let anonymous = self
            .ask
            .consumers()
            .and_then(|config| config.anonymous.as_deref());
        self.ask.admits(consumer.or(anonymous), EmptyList::Everybody)
    }
}

/// Whom a request comes from.
enum Who<'c> {
    Anonymous(&'c Arc<str>),
    /// The signature is right; the body has not been looked at.
    Signed(&'c Holder),
}

impl HmacAuthApisix {
    fn who<'c>(&self, config: &'c Config, request: &Request) -> Result<Who<'c>, Refusal> {
        let presented = Authorization::of(request).and_then(|authorization| {
            let holder = config.find(authorization.key);
            Ok((authorization, holder.ok_or("Invalid keyId")?))
        });
        let (authorization, holder) = match (presented, &config.anonymous) {
            (Ok(known), _) => known,
            (Err(_), Some(anonymous)) => {
                self.is_allowed(anonymous)?;
                return Ok(Who::Anonymous(anonymous));
            }
            (Err(refusal), None) => return Err(refusal.into()),
        };
        self.is_allowed(&holder.name)?;
        is_fresh(config, request, clock::wall())?;
        is_signed(config, holder, &authorization, request)?;
        Ok(Who::Signed(holder))
    }

    fn is_allowed(&self, name: &str) -> Result<(), Refusal> {
        match self.ask.lets_in(Some(name), EmptyList::Everybody) {
            true => Ok(()),
            false => Err(format!("consumer '{name}' is not allowed").into()),
        }
    }
}

fn is_fresh(config: &Config, request: &Request, now: SystemTime) -> Result<(), Refusal> {
    let Some(most) = config.clock_skew else {
        return Ok(());
    };
    let date = text(request, DATE.as_str());
    if date.is_empty() {
        return Err("Date header missing. failed to validate clock skew".into());
    }
    let is_long_form = date.len() == DATE_LENGTH && date.ends_with(" GMT");
    match httpdate::parse_http_date(date) {
        Ok(moment) if is_long_form && is_near(moment, now, most) => Ok(()),
        Ok(_) if is_long_form => Err("Clock skew exceeded".into()),
        _ => Err("Invalid GMT format time".into()),
    }
}

fn is_signed(
    config: &Config,
    holder: &Holder,
    authorization: &Authorization<'_>,
    request: &Request,
) -> Result<(), Refusal> {
    let allowed = config
        .algorithms
        .iter()
        .find(|allowed| allowed.name == authorization.algorithm);
    let Some(allowed) = allowed else {
        return Err("Invalid algorithm".into());
    };
    let listed = || authorization.headers.split(' ').filter(|name| !name.is_empty());
    if !config.signed_headers.is_empty() && listed().next().is_none() {
        return Err("headers missing".into());
    }
    let is_listed = |name: &str| listed().any(|listed| listed.eq_ignore_ascii_case(name));
    if let Some(missing) = config.signed_headers.iter().find(|name| !is_listed(name)) {
        return Err(format!("expected header \"{missing}\" missing in signing").into());
    }
    let mut signed = format!("{}\n", authorization.key).into_bytes();
    for name in listed() {
        if name == "@request-target" {
            let line = format!("{} {}\n", request.method(), target(request.uri()));
            signed.extend_from_slice(line.as_bytes());
        } else if let Some(value) = signed_header(request, name).map_err(|_| "Invalid signature")? {
            signed.extend_from_slice(format!("{name}: ").as_bytes());
            signed.extend_from_slice(value);
            signed.push(b'\n');
        }
    }
    match holder
        .secret
        .signed(allowed.algorithm, &signed, authorization.signature.as_bytes())
    {
        true => Ok(()),
        false => Err("Invalid signature".into()),
    }
}

/// Whether the body is the one that `Digest` tells of; also where nobody asks, and where there is none.
async fn has_digest(config: &Config, request: &mut Request) -> Result<bool, Error> {
    if !config.validate_body || request.body().is_end_stream() {
        return Ok(true);
    }
    let body: Bytes = request.body_mut().buffer(BODY_LIMIT_NAME, BODY_LIMIT).await?;
    let digest = STANDARD.encode(digest::digest(&digest::SHA256, &body));
    let mut told = request.headers().get_all("digest").iter();
    let first = told.next().map(|value| value.as_bytes());
    Ok(told.next().is_none() && first == Some(format!("SHA-256={digest}").as_bytes()))
}
