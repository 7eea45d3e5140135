//! `model-list`: `GET /v1/models` answered by the gateway itself, with the models of all routes that the caller may use.
//!
//! A plugin of our own; without it such a request goes to a vendor, as in Higress. Names come from the adapters'
//! mappings; a route whose authentication does not let the caller in has none.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_llm::dialect::{Dialect, error_body};
use tollgate_llm::lenient::Fields;
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::limits::source::consumer;
use crate::local_reply;
use crate::table::{Field, ParseContext, field};

const PATH: &str = "/v1/models";
/// OpenAI's clients want a time; no model has one here.
const CREATED: u64 = 0;

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    _: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let config = rule.or(global).unwrap_or(&Value::Null);
    let fields = Fields::of(config);
    let owner = match fields.text("owned_by") {
        empty if empty.is_empty() => "tollgate".to_owned(),
        owner => owner,
    };
    Ok(Arc::new(ModelList {
        owner,
        more: fields.texts("models"),
    }))
}

struct ModelList {
    owner: String,
    /// Listed besides those of the mappings.
    more: Vec<String>,
}

#[async_trait(?Send)]
impl Plugin for ModelList {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let path = request.uri().path();
        let place = path.find(PATH).filter(|_| request.method() == Method::GET);
        let rest = place.and_then(|at| path.get(at + PATH.len()..));
        let wanted = match rest {
            Some("" | "/") => None,
            Some(rest) if rest.starts_with('/') => rest.get(1..).map(str::to_owned),
            _ => return next.run(exchange, request).await,
        };
        let who = consumer(exchange, &request);
        let mut names: BTreeSet<String> = next.models(exchange, who.as_deref()).into_iter().collect();
        names.extend(self.more.iter().cloned());
        let (status, body) = match wanted {
            None => {
                let data: Vec<Value> = names.iter().map(|name| self.model(name)).collect();
                (
                    StatusCode::OK,
                    json!({"object": "list", "data": data}).to_string().into(),
                )
            }
            Some(name) if names.contains(&name) => (StatusCode::OK, self.model(&name).to_string().into()),
            Some(name) => {
                let status = StatusCode::NOT_FOUND;
                let text = format!("The model `{}` does not exist", name.escape_default());
                (
                    status,
                    error_body(Dialect::OpenAi, status, &text, Some("model_not_found")),
                )
            }
        };
        let mut response = local_reply::answer(exchange, status, "model-list", body);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        Ok(response)
    }
}

impl ModelList {
    fn model(&self, name: &str) -> Value {
        json!({"id": name, "object": "model", "created": CREATED, "owned_by": self.owner})
    }
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "models",
        "list of strings",
        "Names to list besides those of the mappings.",
    ),
    field(
        "owned_by",
        "string",
        "The owner that the list shows. Default tollgate.",
    ),
];
