//! `cors`: says which pages of other origins may ask, and refuses the others (plugins spec §8).
//!
//! Stands among the plugins, unlike the route's CORS (`enable-cors`): authentication in front of it sees preflights too.

mod config;
mod origin;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use tollgate_base::{ConfigError, Error};
use tollgate_body::{Request, Response};
use tollgate_plugin::{Exchange, Next, Plugin};

use crate::local_reply::answer;
use crate::table::ParseContext;
use config::Cors;
pub(crate) use config::FIELDS;

const VERSION: HeaderName = HeaderName::from_static("x-cors-version");
const VERSION_HERE: HeaderValue = HeaderValue::from_static("1.0.0");

/// Compiles one config; a rule stands alone.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    let cors = Cors::parse(rule.or(global).unwrap_or(&Value::Null), context)?;
    Ok(Arc::new(CorsPlugin { cors }))
}

struct CorsPlugin {
    cors: Cors,
}

#[async_trait(?Send)]
impl Plugin for CorsPlugin {
    async fn call(
        &self,
        exchange: &mut Exchange,
        request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let cors = &self.cors;
        let mut response;
        match judge(cors, &request) {
            Verdict::Same => {
                exchange.failure_headers.insert(VERSION, VERSION_HERE);
                response = next.run(exchange, request).await?;
                remove_own(response.headers_mut());
            }
            Verdict::Refused => {
                let text = "Invalid CORS request";
                response = answer(exchange, StatusCode::FORBIDDEN, "cors.forbidden", text);
            }
            Verdict::Preflight(origin) => {
                // The detail is spelled as Higress spells it.
                response = answer(exchange, StatusCode::OK, "cores.preflight", "");
                let headers = response.headers_mut();
                allow(headers, cors, origin);
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, cors.methods.header.clone());
                let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS);
                let names = cors.headers.answer(asked);
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
                headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
            }
            Verdict::Allowed(origin) => {
                // A page that may not read a failure cannot tell why.
                let mut on_failure = HeaderMap::new();
                allow(&mut on_failure, cors, origin.clone());
                on_failure.insert(VERSION, VERSION_HERE);
                exchange.failure_headers.extend(on_failure);
                response = next.run(exchange, request).await?;
                remove_own(response.headers_mut());
                allow(response.headers_mut(), cors, origin);
            }
        }
        response.headers_mut().insert(VERSION, VERSION_HERE);
        Ok(response)
    }
}

enum Verdict {
    /// No page of another origin.
    Same,
    Refused,
    Preflight(HeaderValue),
    Allowed(HeaderValue),
}

fn judge(cors: &Cors, request: &Request) -> Verdict {
    let headers = request.headers();
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next().filter(|origin| !origin.is_empty()) else {
        return Verdict::Same;
    };
    // A browser sends one; which of two somebody behind would read is anybody's guess.
    let text = match origins.next() {
        None => origin.to_str().unwrap_or_default().trim_end_matches('/'),
        Some(_) => "",
    };
    if origin::is_same(text, request.uri()) {
        return Verdict::Same;
    }
    if !cors.origins.allows(text) {
        return Verdict::Refused;
    }
    let Ok(echo) = HeaderValue::from_str(text) else {
        return Verdict::Refused;
    };
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
    match wanted.filter(|wanted| request.method() == Method::OPTIONS && !wanted.is_empty()) {
        Some(wanted) if cors.methods.has(wanted) && cors.headers.has_all(headers) => Verdict::Preflight(echo),
        Some(_) => Verdict::Refused,
        None if cors.methods.has_name(request.method().as_str()) => Verdict::Allowed(echo),
        None => Verdict::Refused,
    }
}

/// What the upstream says of CORS does not count.
fn remove_own(headers: &mut HeaderMap) {
    for name in [
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE,
    ] {
        headers.remove(name);
    }
}

fn allow(headers: &mut HeaderMap, cors: &Cors, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    // A cache must not give one origin's answer to another.
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(expose) = &cors.expose {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
    }
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}
