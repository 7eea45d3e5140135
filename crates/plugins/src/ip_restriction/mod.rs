//! `ip-restriction`: lets in, or keeps out, by the client's address (plugins spec §9).
//!
//! Whoever has no address that can be read is kept out, whichever list there is.

mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::local_reply::answer;
use crate::table::ParseContext;
pub(crate) use config::FIELDS;
use config::{Restriction, Verdict};

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    _context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let restriction = Restriction::parse(rule.or(global).unwrap_or(&Value::Null))?;
    Ok(Arc::new(IpRestriction { restriction }))
}

struct IpRestriction {
    restriction: Restriction,
}

#[async_trait(?Send)]
impl Plugin for IpRestriction {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        // Higress's plugin says `key-auth` here; its users' log queries do too.
        let details = match self.restriction.judge(exchange, &request) {
            Verdict::Pass => return next.run(exchange, request).await,
            Verdict::Unknown => "key-auth.get_ip_failed",
            Verdict::NotAllowed => "key-auth.ip_not_allowed",
            Verdict::Denied => "key-auth.ip_denied",
        };
        let body = self.restriction.body.clone();
        Ok(answer(exchange, self.restriction.status, details, body))
    }
}
