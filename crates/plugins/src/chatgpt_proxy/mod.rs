//! `chatgpt-proxy`: a parameter of the URL is the prompt, a completion model's answer is the answer (plugins spec §23).
//!
//! The model is asked at the route's own destination, by a request that holds nothing of the client's but the prompt.

mod config;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tollgate_base::{ConfigError, Error, Termination};
use tollgate_body::{Body, Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::framing::remove_framing;
use crate::local_reply::answer;
use crate::query;
use crate::rounds::{Answer, Budget, Failure, Limits, Rounds, Way};
use crate::table::ParseContext;
use config::Config;
pub(crate) use config::FIELDS;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes.
const ANSWER_LIMIT: usize = 10 * 1024 * 1024;

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    _context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let config = Config::parse(rule.or(global).unwrap_or(&Value::Null))?;
    Ok(Arc::new(ChatgptProxy { config }))
}

struct ChatgptProxy {
    config: Config,
}

#[async_trait(?Send)]
impl Plugin for ChatgptProxy {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let wrong = |details: &'static str, text: &'static str| {
            Ok(answer(exchange, StatusCode::BAD_REQUEST, details, text))
        };
        let Some(query) = request.uri().query() else {
            return wrong("chatgpt-proxy.empty_query_string", "1-need prompt param");
        };
        if !is_well_formed(query) {
            return wrong("chatgpt-proxy.bad_query_string", "2-need prompt param");
        }
        let Some(prompt) = self.prompt(query) else {
            return wrong("chatgpt-proxy.no_prompt", "3-need prompt param");
        };
        exchange.record.usage.borrow_mut().model_requested = Some(self.config.model.as_str().into());
        let cluster = exchange.cluster.clone().unwrap_or_default();
        let way = Way::Service(next.caller(exchange), cluster.to_string().into());
        let limits = Limits {
            time: TIMEOUT,
            bytes: ANSWER_LIMIT,
        };
        let mut rounds = Rounds::begin(exchange, Budget::default());
        match rounds.ask(exchange, &way, self.question(&prompt), limits).await {
            Ok(told) => Ok(forwarded(exchange, told)),
            Err(failure) => Ok(unanswered(exchange, &failure)),
        }
    }
}

impl ChatgptProxy {
    /// The prompt as Go's form values decode it: here a plus sign is a blank.
    fn prompt(&self, query: &str) -> Option<String> {
        let blanks = query.replace('+', "%20");
        let found = query::parameters(blanks.as_bytes())
            .find(|(name, _)| **name == *self.config.parameter.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(&value).into_owned())
    }

    fn question(&self, prompt: &str) -> Request {
        let config = &self.config;
        let body = json!({
            "model": config.model,
            "prompt": prompt,
            "temperature": 0.9,
            "max_tokens": 150,
            "top_p": 1,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.6,
            "stop": [format!(" {}", config.human), format!(" {}", config.machine)],
        });
        let mut request = Request::new(Body::bytes(body.to_string()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = config.target.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, config.authorization.clone());
        headers.insert(HOST, config.host.clone());
        request
    }
}

/// Whether every percent sign of a query stands before two hexadecimal digits, and no semicolon separates.
fn is_well_formed(query: &str) -> bool {
    let mut parts = query.split('%');
    let is_encoded = |part: &str| {
        let digits = part.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    parts.next().is_some() && parts.all(is_encoded) && !query.contains(';')
}

/// The model's answer as the client gets it: status, body, the first value of each header.
fn forwarded(exchange: &Exchange, told: Answer) -> Response {
    *exchange.record.details.borrow_mut() = "chatgpt-proxy.forward".into();
    let mut headers = HeaderMap::with_capacity(told.head.headers.len());
    for name in told.head.headers.keys() {
        if let Some(value) = told.head.headers.get(name) {
            headers.insert(name.clone(), value.clone());
        }
    }
    remove_framing(&mut headers);
    let mut response = Response::new(Body::bytes(told.body));
    *response.status_mut() = told.head.status;
    *response.headers_mut() = headers;
    response
}

fn unanswered(exchange: &Exchange, failure: &Failure) -> Response {
    if failure.is_unknown_cluster() {
        let text = "Internal Error: the route has no destination";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return answer(exchange, status, "chatgpt-proxy.request_failed", text);
    }
    exchange.record.terminate(Termination::UpstreamError);
    answer(exchange, StatusCode::BAD_GATEWAY, "chatgpt-proxy.forward", "")
}
