//! `key-rate-limit`: so many requests a second, minute, hour or day for each listed key (plugins spec §2).
//!
//! Local to the gateway and exact across its workers. A key that is not listed is not limited. Buckets belong to the
//! config: a reload that leaves it as it is keeps them.

mod bucket;
mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use serde_json::Value;
use tollgate_base::{ConfigError, Error, clock};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::local_reply;
use crate::table::ParseContext;
use config::Config;
pub(crate) use config::FIELDS;

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let written = rule.or(global).unwrap_or(&Value::Null);
    Ok(Arc::new(KeyRateLimit {
        config: Config::parse(written, context)?,
    }))
}

struct KeyRateLimit {
    config: Config,
}

#[async_trait(?Send)]
impl Plugin for KeyRateLimit {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let bucket = self.config.bucket(&request);
        if bucket.is_none_or(|bucket| bucket.take(clock::now())) {
            return next.run(exchange, request).await;
        }
        let status = StatusCode::TOO_MANY_REQUESTS;
        Ok(local_reply::answer(
            exchange,
            status,
            "Too many requests",
            "rate_limited",
        ))
    }
}
