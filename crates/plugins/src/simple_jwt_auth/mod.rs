//! `simple-jwt-auth`: who carries a token that one shared secret has signed comes in, as nobody in particular
//! (plugins spec §16).

#[cfg(test)]
mod tests;

use std::str;
use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderName, StatusCode};
use serde_json::Value;
use tollgate_base::{ConfigError, Error, clock};
use tollgate_body::{Request, Response};
use tollgate_plugin::{CredentialPlace, Exchange, Next, Plugin};

use crate::jwt::keys::KeySet;
use crate::jwt::{Fault, Token};
use crate::local_reply::answer;
use crate::strict::Strict;
use crate::table::{Field, ParseContext, field};

/// Shorter secrets can be guessed from one token, in bytes.
const SHORT_SECRET: usize = 32;

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let fields = Strict::of(rule.or(global).unwrap_or(&Value::Null))?;
    let secret = fields.text("token_secret_key")?.unwrap_or_default();
    let name = fields.text("token_headers")?.unwrap_or_default();
    if secret.is_empty() || name.is_empty() {
        let empty = if secret.is_empty() {
            "token_secret_key"
        } else {
            "token_headers"
        };
        context.warn(ConfigError::new(empty, "is empty: nobody gets in"));
        return Ok(Arc::new(SimpleJwtAuth(None)));
    }
    if secret.len() < SHORT_SECRET {
        let text = format!("is shorter than {SHORT_SECRET} bytes: it can be guessed from a token");
        context.warn(ConfigError::new("token_secret_key", text));
    }
    let header = HeaderName::try_from(name)
        .map_err(|_| ConfigError::new("token_headers", "is no name of a header"))?;
    Ok(Arc::new(SimpleJwtAuth(Some(Asked {
        header,
        keys: KeySet::secret(secret.as_bytes()),
    }))))
}

/// `None`: the config lacks something.
struct SimpleJwtAuth(Option<Asked>);

struct Asked {
    header: HeaderName,
    keys: KeySet,
}

#[async_trait(?Send)]
impl Plugin for SimpleJwtAuth {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let Some(asked) = &self.0 else {
            return Ok(refusal(
                exchange,
                r#"{"code":400,"msg":"token or secret 不允许为空"}"#,
            ));
        };
        exchange.record.hide(&asked.header.as_str().into());
        match asked.verify(&request) {
            Ok(()) => {
                exchange.found_credential(CredentialPlace::Header(asked.header.clone()));
                next.run(exchange, request).await
            }
            Err(fault) => {
                tracing::debug!(reason = fault.0, "a token is refused");
                Ok(refusal(exchange, r#"{"code":401,"msg":"认证失败"}"#))
            }
        }
    }
}

impl Asked {
    fn verify(&self, request: &Request) -> Result<(), Fault> {
        let mut values = request.headers().get_all(&self.header).iter();
        let value = values.next().ok_or(Fault::MISSING)?;
        // Who reads the header behind the gateway may take the other one.
        if values.next().is_some() {
            return Err(Fault::FORM);
        }
        let token = Token::parse(str::from_utf8(value.as_bytes()).map_err(|_| Fault::FORM)?)?;
        token.is_current(clock::unix_seconds(), 0)?;
        self.keys.verify(&token)
    }
}

fn refusal(exchange: &Exchange, text: &'static str) -> Response {
    answer(exchange, StatusCode::UNAUTHORIZED, "", text)
}

/// Fields of the config.
pub(crate) const FIELDS: &[Field] = &[
    field(
        "token_secret_key",
        "string",
        "The secret that tokens are signed with. Empty: nobody gets in.",
    ),
    field(
        "token_headers",
        "string",
        "Name of the header that holds the token and nothing else. Empty: nobody gets in.",
    ),
];
