//! `bot-detect`: keeps crawlers out by what they call themselves (plugins spec §13).
//!
//! A `User-Agent` is whatever a client says: this is for crawlers that tell the truth.

mod config;
mod crawlers;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::USER_AGENT;
use serde_json::{Value, json};
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::local_reply::answer;
use crate::table::ParseContext;
use config::Agents;
pub(crate) use config::FIELDS;

/// Compiles one config; a rule stands alone. No config at all is an empty one.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    _context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let written = rule.or(global).filter(|config| !config.is_null());
    let agents = Agents::parse(written.unwrap_or(&json!({})))?;
    Ok(Arc::new(BotDetect { agents }))
}

struct BotDetect {
    agents: Agents,
}

#[async_trait(?Send)]
impl Plugin for BotDetect {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let agent = request.headers().get(USER_AGENT);
        if self
            .agents
            .is_blocked(agent.map_or(&[], |agent| agent.as_bytes()))
        {
            let message = self.agents.message.clone();
            return Ok(answer(exchange, self.agents.code, "", message));
        }
        next.run(exchange, request).await
    }
}
