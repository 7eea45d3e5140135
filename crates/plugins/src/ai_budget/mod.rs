//! `ai-budget`: so much money for each consumer a day and a month (UTC), by the price table and the usage ledger.
//!
//! A plugin of our own; Higress has none like it. A request is let in while what the consumer has used is below the
//! budget; what it costs is known when it is over.

mod config;
mod period;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use tollgate_base::{ConfigError, Error, clock};
use tollgate_body::{Request, Response};
use tollgate_llm::dialect::{Dialect, error_body};
use tollgate_plugin::{Exchange, Money, Next, Plugin};

use crate::limits::set_number;
use crate::limits::source::consumer;
use crate::local_reply;
use crate::table::ParseContext;
pub(crate) use config::FIELDS;
use config::{Budget, Config};
use period::Period;

const EXHAUSTED: &str = "ai-budget.exhausted";

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let config = rule.or(global).unwrap_or(&Value::Null);
    Ok(Arc::new(AiBudget {
        config: Config::parse(config, context)?,
    }))
}

struct AiBudget {
    config: Config,
}

#[async_trait(?Send)]
impl Plugin for AiBudget {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let name = consumer(exchange, &request).unwrap_or_default();
        let exhausted = self
            .config
            .budget(&name)
            .and_then(|budget| exhausted(budget, &name, &next.money()));
        match exhausted {
            None => next.run(exchange, request).await,
            Some(period) => Ok(refuse(exchange, &request, period)),
        }
    }
}

/// The longest period whose budget is used up.
fn exhausted(budget: &Budget, name: &str, money: &Money) -> Option<Period> {
    let over =
        |limit: Option<_>, spent: tollgate_observe::Spent| limit.is_some_and(|limit| spent.cost >= limit);
    if over(budget.month, money.spend.month(name)) {
        return Some(Period::Month);
    }
    over(budget.day, money.spend.day(name)).then_some(Period::Day)
}

fn refuse(exchange: &Exchange, request: &Request, period: Period) -> Response {
    let ends = period.ends(clock::wall());
    let status = StatusCode::TOO_MANY_REQUESTS;
    let text = format!(
        "the budget of this {} is used up; it begins again at {}",
        period.name(),
        ends.at
    );
    let dialect = Dialect::of_path(request.uri().path()).unwrap_or(Dialect::OpenAi);
    let body = error_body(dialect, status, &text, Some("budget_exhausted"));
    let mut response = local_reply::answer(exchange, status, EXHAUSTED, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(RETRY_AFTER, HeaderValue::from(ends.seconds));
    set_number(&mut response, "x-budget-reset", ends.seconds);
    response
}
