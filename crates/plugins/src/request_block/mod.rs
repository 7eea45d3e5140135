//! `request-block`: refuses requests whose URL, headers or body hold what they must not (plugins spec §3).
//!
//! The URL is looked at as it came, as it goes on, and in every form into which decoding turns it. One automaton a
//! source, however many texts it looks for.

mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http_body::Body as _;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::local_reply::answer;
use crate::table::ParseContext;
use config::Block;
pub(crate) use config::FIELDS;

/// Largest body that is looked at, in bytes; a larger one is refused, or a text behind its end would get through.
const BODY_LIMIT: usize = 32 * 1024 * 1024;
const BODY_LIMIT_NAME: &str = "body limit of request-block";

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    _context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let block = Block::parse(rule.or(global).unwrap_or(&Value::Null))?;
    Ok(Arc::new(RequestBlock { block }))
}

struct RequestBlock {
    block: Block,
}

#[async_trait(?Send)]
impl Plugin for RequestBlock {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let is_blocked = self.block.url(exchange, &request)
            || self.block.headers(&request)
            || self.has_blocked_body(&mut request).await?;
        if is_blocked {
            return Ok(answer(exchange, self.block.code, "", self.block.message.clone()));
        }
        next.run(exchange, request).await
    }
}

impl RequestBlock {
    async fn has_blocked_body(&self, request: &mut Request) -> Result<bool, Error> {
        let Some(bodies) = &self.block.bodies else {
            return Ok(false);
        };
        if request.body().is_end_stream() {
            return Ok(false);
        }
        let whole = request.body_mut().buffer(BODY_LIMIT_NAME, BODY_LIMIT).await?;
        Ok(bodies.is_match(&whole))
    }
}
