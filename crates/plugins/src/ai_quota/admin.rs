//! The administrator's requests: ask for a quota, set it, change it.

use http::StatusCode;
use serde_json::json;
use tollgate_base::Error;
use tollgate_body::{Request, Response};
use tollgate_plugin::Exchange;
use tollgate_store::Failure;

use super::config::{Config, Operation};
use super::denied;
use crate::limits::source::parameter;
use crate::local_reply;

/// Longest body of such a request, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
const UNAUTHORIZED: &str = "ai-quota.unauthorized";

/// Does what `consumer` asks for.
pub(super) async fn answer(
    config: &Config,
    exchange: &Exchange,
    request: Request,
    consumer: &str,
    operation: Operation,
) -> Result<Response, Error> {
    if consumer != config.admin_consumer {
        let text = "Request denied by ai quota check. Unauthorized admin consumer.";
        return Ok(denied(exchange, StatusCode::FORBIDDEN, UNAUTHORIZED, text));
    }
    let store = &config.backing.store;
    let query = request.uri().query().unwrap_or_default().to_owned();
    if operation == Operation::Query {
        let Some(name) = form_value(&query, "consumer") else {
            let text = "Request denied by ai quota check. consumer can't be empty.";
            return Ok(denied(exchange, StatusCode::FORBIDDEN, UNAUTHORIZED, text));
        };
        let quota = match store.get(&config.key(&name)).await {
            Ok(quota) => quota.unwrap_or(0),
            Err(failure) => return Ok(unavailable(exchange, &failure)),
        };
        let text = json!({"consumer": name, "quota": quota}).to_string();
        let details = "ai-quota.queryquota";
        let mut response = local_reply::answer(exchange, StatusCode::OK, details, text);
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        return Ok(response);
    }
    let form = request
        .into_body()
        .buffer("ai-quota body limit", BODY_LIMIT)
        .await?;
    let form = String::from_utf8_lossy(&form);
    let (field, bad, details, done) = match operation {
        Operation::Refresh => (
            "quota",
            "Request denied by ai quota check. consumer can't be empty and quota must be integer.",
            "ai-quota.refreshquota",
            "refresh quota successful",
        ),
        Operation::Query | Operation::Delta => (
            "value",
            "Request denied by ai quota check. consumer can't be empty and value must be integer.",
            "ai-quota.deltaquota",
            "delta quota successful",
        ),
    };
    let value = form_value(&form, field).and_then(|text| text.parse::<i64>().ok());
    let (Some(name), Some(value)) = (form_value(&form, "consumer"), value) else {
        return Ok(denied(exchange, StatusCode::FORBIDDEN, UNAUTHORIZED, bad));
    };
    let key = config.key(&name);
    let outcome = match operation {
        Operation::Refresh => store.set(&key, value).await,
        Operation::Query | Operation::Delta => store.add(&key, value).await.map(drop),
    };
    Ok(match outcome {
        Ok(()) => local_reply::answer(exchange, StatusCode::OK, details, done),
        Err(failure) => unavailable(exchange, &failure),
    })
}

fn unavailable(exchange: &Exchange, failure: &Failure) -> Response {
    let text = format!("redis error:{failure}");
    local_reply::answer(exchange, StatusCode::SERVICE_UNAVAILABLE, "ai-quota.error", text)
}

/// A field of a form; empty and none are the same.
fn form_value(form: &str, name: &str) -> Option<String> {
    parameter(form, name).filter(|value| !value.is_empty())
}
