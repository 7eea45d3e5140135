//! `ai-token-ratelimit`: tokens in a time, by whatever tells requests apart, counted in a store that gateways may
//! share (plugins spec §4).
//!
//! As in Higress a request is let in while its counter is not above the limit, and its tokens are added when it is
//! over. With `tollgate.dev/admission: reserve` its estimated cost is set aside first and corrected afterwards, so that
//! requests at once cannot overrun the limit.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_observe::metrics::{UsageLabels, UsageMetric};
use tollgate_plugin::{Exchange, Next, Plugin};
use tollgate_store::{Count, Failure, Reservation, Settlement};

use crate::limits::backing::{self, Backing};
use crate::limits::charge::{self, Admission, Charge, Estimates, Reserved, seconds};
use crate::limits::rules::{self, Hit, Rules, Wording};
use crate::limits::source::consumer;
use crate::limits::{Rejection, set_number};
use crate::table::{Field, ParseContext, field, joined};

const WORDING: Wording = Wording {
    counted: "token",
    prefix: "higress-token-ratelimit",
};
const REJECTED: &str = "ai-token-ratelimit.rejected";

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let config = rule.or(global).unwrap_or(&Value::Null);
    Ok(Arc::new(AiTokenRatelimit {
        backing: Backing::parse(config, true, context)?,
        rules: Rules::parse(config, WORDING, context)?,
        rejection: Rejection::parse(config)?,
        admission: Admission::parse(config, context)?,
        estimates: Arc::default(),
    }))
}

struct AiTokenRatelimit {
    backing: Backing,
    rules: Rules,
    rejection: Rejection,
    admission: Admission,
    estimates: Arc<Estimates>,
}

/// What becomes of a request.
enum Verdict {
    /// Its tokens are added afterwards.
    Admitted,
    /// Its tokens are set aside.
    Reserved(Reserved),
    Refused(Count),
}

#[async_trait(?Send)]
impl Plugin for AiTokenRatelimit {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let Some(hit) = self.rules.find(exchange, &request) else {
            return next.run(exchange, request).await;
        };
        let verdict = match self.admission {
            Admission::Check => self.check(&hit).await,
            Admission::Reserve => {
                let amount = self.estimates.of(exchange, &mut request).await?;
                self.reserve(&hit, amount).await
            }
        };
        match verdict {
            Ok(Verdict::Refused(count)) => Ok(self.refuse(exchange, &request, count)),
            Ok(Verdict::Admitted) => self.charge_later(exchange, request, next, hit).await,
            Ok(Verdict::Reserved(reserved)) => {
                let estimates = self.estimates.clone();
                let charge = Charge::at_the_end(&exchange.record, &request, move |record, tokens| {
                    reserved.used(tokens);
                    let usage = record.usage.borrow();
                    if usage.source.is_some() {
                        estimates.learn(usage.tokens.output);
                    }
                });
                let mut response = next.run(exchange, request).await?;
                charge.answered(&exchange.record, &mut response);
                Ok(response)
            }
            Err(failure) => match self.backing.refuse(exchange, REJECTED, &failure) {
                Some(refusal) => Ok(refusal),
                // The store may be back when the answer is over.
                None => self.charge_later(exchange, request, next, hit).await,
            },
        }
    }
}

impl AiTokenRatelimit {
    async fn check(&self, hit: &Hit) -> Result<Verdict, Failure> {
        let count = self.backing.store.read(&hit.key, hit.limit.window).await?;
        Ok(match count.current > hit.limit.count {
            true => Verdict::Refused(count),
            false => Verdict::Admitted,
        })
    }

    async fn reserve(&self, hit: &Hit, amount: u64) -> Result<Verdict, Failure> {
        let (store, limit) = (&self.backing.store, hit.limit);
        let outcome = store.reserve(&hit.key, limit.count, limit.window, amount).await?;
        Ok(match outcome {
            Reservation::Refused(count) => Verdict::Refused(count),
            Reservation::Granted { amount, ends } => Verdict::Reserved(Reserved {
                store: store.clone(),
                key: hit.key.as_str().into(),
                amount,
                ends,
            }),
        })
    }

    async fn charge_later(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
        hit: Hit,
    ) -> Result<Response, Error> {
        let store = self.backing.store.clone();
        let charge = Charge::at_the_end(&exchange.record, &request, move |_, amount| {
            if amount > 0 {
                store.settle(Settlement::Charge {
                    key: hit.key.into(),
                    limit: hit.limit.count,
                    window: hit.limit.window,
                    amount,
                });
            }
        });
        let mut response = next.run(exchange, request).await?;
        charge.answered(&exchange.record, &mut response);
        Ok(response)
    }

    fn refuse(&self, exchange: &Exchange, request: &Request, count: Count) -> Response {
        let record = &exchange.record;
        record.set_ai_log("token_ratelimit_status", "limited");
        let who = consumer(exchange, request).map(std::borrow::Cow::into_owned);
        record.on_settle(move |record, ending| {
            let (route, cluster) = (record.route.borrow(), record.cluster.borrow());
            let series = ending.metrics.usage.series(UsageLabels {
                route: route.as_deref().unwrap_or("-"),
                cluster: cluster.as_deref().unwrap_or("-"),
                model: "none",
                consumer: who.as_deref().unwrap_or("none"),
            });
            let metric = UsageMetric::TokenRatelimitCount;
            ending.metrics.usage.add(&series, metric, 1);
        });
        let mut response = self.rejection.answer(exchange, REJECTED);
        set_number(&mut response, "x-tokenratelimit-reset", seconds(count.reset));
        response
    }
}

/// Fields of the config.
pub(crate) static FIELDS: [Field; 31] = joined(&[
    &rules::FIELDS,
    &[
        field(
            "global_threshold.token_per_second",
            "integer",
            "Tokens a second. Of several units the shortest counts.",
        ),
        field("global_threshold.token_per_minute", "integer", "Tokens a minute."),
        field("global_threshold.token_per_hour", "integer", "Tokens an hour."),
        field("global_threshold.token_per_day", "integer", "Tokens a day."),
        field(
            "rule_items[].limit_keys[].token_per_second",
            "integer",
            "Tokens a second; minute, hour and day likewise.",
        ),
        field(
            "rule_items[].limit_keys[].token_per_day",
            "integer",
            "Tokens a day.",
        ),
        field("rejected_code", "integer", "Status of a refusal. Default 429."),
        field(
            "rejected_msg",
            "string",
            "Text of a refusal. Default Too many requests.",
        ),
        field(
            charge::ADMISSION,
            "string",
            "check (default) adds a request's tokens afterwards; reserve sets its estimated cost aside first. Also an annotation of the WasmPlugin.",
        ),
    ],
    &backing::FIELDS,
]);
