//! `ext-auth`: a service of the configuration is asked about each request; only its 200 lets one pass
//! (plugins spec §7).
//!
//! The service failing is one line in the log where it begins and one where it ends, and no door unless the config
//! opens it.

mod config;
mod matcher;
mod question;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tollgate_base::headers::X_MSE_CONSUMER;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::credentials::recognised;
use crate::framing::is_framing;
use crate::local_reply;
use crate::table::ParseContext;
use config::Config;
pub(crate) use config::FIELDS;

const DETAILS: &str = "ext-auth.unauthorized";
/// Tells services behind that nobody could be asked.
const FAILURE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
/// Name of the limit on bodies that the service is told.
const BODY_LIMIT_NAME: &str = "ext-auth body limit";
/// Name and size of the limit on its answers.
const ANSWER_LIMIT_NAME: &str = "ext-auth answer limit";
const ANSWER_LIMIT: usize = 1024 * 1024;

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let written = rule.or(global).unwrap_or(&Value::Null);
    Ok(Arc::new(ExtAuth {
        config: Config::parse(written, context)?,
    }))
}

struct ExtAuth {
    config: Config,
}

/// What the service said.
struct Verdict {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[async_trait(?Send)]
impl Plugin for ExtAuth {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        // Only this plugin says so.
        request.headers_mut().remove(FAILURE_ALLOWED);
        if !self.config.requests.contain(exchange, &request) {
            return next.run(exchange, request).await;
        }
        let body = match self.config.service.body_limit {
            None => None,
            Some(limit) => {
                exchange.buffer_limit = exchange.buffer_limit.max(limit);
                Some(request.body_mut().buffer(BODY_LIMIT_NAME, limit).await?)
            }
        };
        let asked = self.ask(exchange, &request, body, next).await;
        let failure = match &asked {
            Ok(verdict) if !verdict.status.is_server_error() => None,
            Ok(verdict) => Some(format!("it answers {}", verdict.status.as_u16())),
            Err(failure) => Some(failure.to_string()),
        };
        let callee = &self.config.service.callee;
        callee.note("the authorization service", failure.as_deref());
        match asked {
            Ok(verdict) if verdict.status == StatusCode::OK => {
                self.take_headers(exchange, &mut request, &verdict.headers);
                next.run(exchange, request).await
            }
            Ok(verdict) if failure.is_none() => {
                Ok(self.refusal(exchange, verdict.status, &verdict.headers, verdict.body))
            }
            _ if self.config.failure_allows => {
                if self.config.failure_is_told {
                    request
                        .headers_mut()
                        .insert(FAILURE_ALLOWED, HeaderValue::from_static("true"));
                }
                next.run(exchange, request).await
            }
            failed => {
                // What a failing service says of itself is nobody's business.
                let headers = failed.map(|verdict| verdict.headers).unwrap_or_default();
                Ok(self.refusal(exchange, self.config.failure_status, &headers, Bytes::new()))
            }
        }
    }
}

impl ExtAuth {
    async fn ask(
        &self,
        exchange: &Exchange,
        request: &Request,
        body: Option<Bytes>,
        next: Next<'_>,
    ) -> Result<Verdict, Error> {
        let question = question::about(&self.config.service, exchange, request, body).map_err(|fault| {
            Error::gateway(
                StatusCode::INTERNAL_SERVER_ERROR,
                "ext_auth_request",
                fault.to_string(),
            )
        })?;
        let service = &self.config.service;
        let caller = next.caller(exchange);
        let answer = caller
            .call(&service.callee.cluster, question, service.timeout)
            .await?;
        let (parts, mut body) = answer.into_parts();
        Ok(Verdict {
            status: parts.status,
            headers: parts.headers,
            body: body.buffer(ANSWER_LIMIT_NAME, ANSWER_LIMIT).await?,
        })
    }

    /// What the service wants the request to go on with, the first of each name.
    fn take_headers(&self, exchange: &Exchange, request: &mut Request, answered: &HeaderMap) {
        let Some(names) = &self.config.service.to_upstream else {
            return;
        };
        for name in answered
            .keys()
            .filter(|name| names.contains(name) && !is_framing(name))
        {
            let Some(value) = answered.get(name) else { continue };
            match value.to_str() {
                Ok(consumer) if name == X_MSE_CONSUMER => recognised(exchange, request, &consumer.into()),
                _ => drop(request.headers_mut().insert(name.clone(), value.clone())),
            }
        }
    }

    fn refusal(
        &self,
        exchange: &Exchange,
        status: StatusCode,
        answered: &HeaderMap,
        body: Bytes,
    ) -> Response {
        let mut response = local_reply::answer(exchange, status, DETAILS, body);
        let names = self.config.service.to_client.as_ref();
        let is_told = |name: &HeaderName| names.is_none_or(|names| names.contains(name));
        let headers = response.headers_mut();
        if answered.contains_key(CONTENT_TYPE) && is_told(&CONTENT_TYPE) {
            headers.remove(CONTENT_TYPE);
        }
        for (name, value) in answered
            .iter()
            .filter(|(name, _)| is_told(name) && !is_framing(name))
        {
            headers.append(name.clone(), value.clone());
        }
        response
    }
}
