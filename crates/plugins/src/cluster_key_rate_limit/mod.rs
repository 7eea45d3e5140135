//! `cluster-key-rate-limit`: requests in a time, by whatever tells requests apart, counted in a store that gateways
//! may share (plugins spec §4).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_llm::lenient::Fields;
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::limits::backing::{self, Backing};
use crate::limits::charge::seconds;
use crate::limits::rules::{self, Rules, Wording};
use crate::limits::{Rejection, set_number};
use crate::table::{Field, ParseContext, field, joined};

const WORDING: Wording = Wording {
    counted: "query",
    prefix: "higress-cluster-key-rate-limit",
};
const REJECTED: &str = "cluster-key-rate-limit.rejected";

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let config = rule.or(global).unwrap_or(&Value::Null);
    Ok(Arc::new(ClusterKeyRateLimit {
        backing: Backing::parse(config, true, context)?,
        rules: Rules::parse(config, WORDING, context)?,
        rejection: Rejection::parse(config)?,
        shows_quota: Fields::of(config).flag("show_limit_quota_header", false),
    }))
}

struct ClusterKeyRateLimit {
    backing: Backing,
    rules: Rules,
    rejection: Rejection,
    shows_quota: bool,
}

#[async_trait(?Send)]
impl Plugin for ClusterKeyRateLimit {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let Some(hit) = self.rules.find(exchange, &request) else {
            return next.run(exchange, request).await;
        };
        let limit = hit.limit.count;
        let count = match self.backing.store.take(&hit.key, limit, hit.limit.window).await {
            Ok(count) => count,
            Err(failure) => {
                return match self.backing.refuse(exchange, REJECTED, &failure) {
                    Some(refusal) => Ok(refusal),
                    None => next.run(exchange, request).await,
                };
            }
        };
        let is_over = count.current > limit;
        let mut response = match is_over {
            true => self.rejection.answer(exchange, REJECTED),
            false => next.run(exchange, request).await?,
        };
        if is_over {
            set_number(&mut response, "x-ratelimit-reset", seconds(count.reset));
        }
        if self.shows_quota {
            set_number(&mut response, "x-ratelimit-limit", limit);
            set_number(
                &mut response,
                "x-ratelimit-remaining",
                limit.saturating_sub(count.current),
            );
        }
        Ok(response)
    }
}

/// Fields of the config.
pub(crate) static FIELDS: [Field; 31] = joined(&[
    &rules::FIELDS,
    &[
        field(
            "global_threshold.query_per_second",
            "integer",
            "Requests a second. Of several units the shortest counts.",
        ),
        field(
            "global_threshold.query_per_minute",
            "integer",
            "Requests a minute.",
        ),
        field("global_threshold.query_per_hour", "integer", "Requests an hour."),
        field("global_threshold.query_per_day", "integer", "Requests a day."),
        field(
            "rule_items[].limit_keys[].query_per_second",
            "integer",
            "Requests a second; minute, hour and day likewise.",
        ),
        field(
            "rule_items[].limit_keys[].query_per_day",
            "integer",
            "Requests a day.",
        ),
        field(
            "show_limit_quota_header",
            "boolean",
            "X-RateLimit-Limit and -Remaining in answers. Default false.",
        ),
        field("rejected_code", "integer", "Status of a refusal. Default 429."),
        field(
            "rejected_msg",
            "string",
            "Text of a refusal. Default Too many requests.",
        ),
    ],
    &backing::FIELDS,
]);
