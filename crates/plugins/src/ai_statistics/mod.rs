//! `ai-statistics`: tokens, durations and chosen values of AI requests, in metrics, log and span (plugins spec §1).
//!
//! It looks and never touches: answers pass byte for byte and undelayed. Settlement is the record's, so what an
//! exchange cost is counted exactly once, however it ends.

mod attribute;
mod config;
mod observation;
mod request;
mod settlement;
mod stream;
mod text;
mod tool_calls;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_body::Request;
use tollgate_plugin::{Exchange, Next, Plugin, Running};

use crate::table::ParseContext;
use config::Config;
pub(crate) use config::FIELDS;
use observation::Observation;

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let config = match rule.or(global) {
        Some(written) => Config::parse(written, context)?,
        None => Config::parse(&Value::Null, context)?,
    };
    Ok(Arc::new(AiStatistics {
        config: config.map(Arc::new),
    }))
}

/// The plugin with one config; without one it is switched off.
struct AiStatistics {
    config: Option<Arc<Config>>,
}

#[async_trait(?Send)]
impl Plugin for AiStatistics {
    // Written out: the macro's future would hold the request twice, as it came and as a variable.
    fn call<'s, 'e, 'n, 'r>(
        &'s self,
        exchange: &'e mut Exchange,
        mut request: Request,
        next: Next<'n>,
    ) -> Running<'r>
    where
        's: 'r,
        'e: 'r,
        'n: 'r,
        Self: 'r,
    {
        Box::pin(async move {
            let wanted = self
                .config
                .as_ref()
                .filter(|config| config.wants_path(request.uri().path()));
            let Some(config) = wanted else {
                return next.run(exchange, request).await;
            };
            let observation = Observation::begin(config, exchange);
            observation.asked(&request);
            request::head(config, exchange, &request);
            let texts = request::body(config, exchange, &mut request).await?;
            observation.read(texts);
            let mut response = next.run(exchange, request).await?;
            observation.answered(&exchange.record, &mut response);
            Ok(response)
        })
    }
}
