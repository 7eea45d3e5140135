//! What the plugins that limit share: windows, who a request is counted for, which store counts, and settlement.
//!
//! Keys of counters are Higress's, so that both gateways can count in one Redis.

pub(crate) mod backing;
pub(crate) mod charge;
pub(crate) mod rules;
pub(crate) mod source;
pub(crate) mod window;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tollgate_base::ConfigError;
use tollgate_body::Response;
use tollgate_plugin::Exchange;

use crate::local_reply;

/// What a refused request gets, by the config.
#[derive(Debug)]
pub(crate) struct Rejection {
    status: StatusCode,
    text: String,
}

impl Rejection {
    pub(crate) fn parse(config: &Value) -> Result<Self, ConfigError> {
        let fields = tollgate_llm::lenient::Fields::of(config);
        let status = match fields.get("rejected_code") {
            None => StatusCode::TOO_MANY_REQUESTS,
            Some(_) => u16::try_from(fields.count("rejected_code"))
                .ok()
                .filter(|code| (200..=599).contains(code))
                .and_then(|code| StatusCode::from_u16(code).ok())
                .ok_or_else(|| ConfigError::new("rejected_code", "must be a status from 200 to 599"))?,
        };
        let text = match fields.get("rejected_msg") {
            None => "Too many requests".to_owned(),
            Some(_) => fields.text("rejected_msg"),
        };
        Ok(Self { status, text })
    }

    pub(crate) fn answer(&self, exchange: &Exchange, details: &'static str) -> Response {
        local_reply::answer(exchange, self.status, details, self.text.clone())
    }
}

/// Sets a header to a number.
pub(crate) fn set_number(response: &mut Response, name: &'static str, number: u64) {
    response
        .headers_mut()
        .insert(HeaderName::from_static(name), HeaderValue::from(number));
}
