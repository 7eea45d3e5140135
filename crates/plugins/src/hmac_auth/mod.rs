//! `hmac-auth`: who signs a request with a known secret comes in, as the consumer that the secret belongs to (plugins
//! spec §14).
//!
//! The secret never travels. Nobody is told to be a consumer before the signature has been found right, and a body is
//! read only after everything else that could be wrong.

mod config;
mod dates;
mod string_to_sign;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use md5::{Digest, Md5};
use serde_json::Value;
use tollgate_base::{ConfigError, Error, clock};
use tollgate_body::{Request, Response};
use tollgate_plugin::{CredentialPlace, Exchange, Next, Plugin};

use crate::auth_rules::{Ask, EmptyList};
use crate::credentials::recognised;
use crate::local_reply::answer;
use crate::signing::text;
use crate::table::ParseContext;
pub(crate) use config::FIELDS;
use config::{Holder, Keys};
use string_to_sign::{Parts, StringToSign};

/// Largest body that is read, in bytes, where it is a form or has a `Content-MD5`.
const BODY_LIMIT: usize = 32 * 1024 * 1024;
const BODY_LIMIT_NAME: &str = "body limit of hmac-auth";
/// Longest string to sign that a client is told, in bytes.
const TOLD: usize = 4096;

const KEY: HeaderName = HeaderName::from_static("x-ca-key");
const SIGNATURE: HeaderName = HeaderName::from_static("x-ca-signature");
const SIGNATURE_METHOD: HeaderName = HeaderName::from_static("x-ca-signature-method");
const SIGNATURE_HEADERS: HeaderName = HeaderName::from_static("x-ca-signature-headers");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-ca-timestamp");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-ca-error-message");

/// Compiles the global config, or a rule on top of it.
pub(crate) fn parse(
    global: Option<&Value>,
    rule: Option<&Value>,
    context: &ParseContext,
) -> Result<Arc<dyn Plugin>, ConfigError> {
    Ok(Arc::new(HmacAuth {
        ask: config::READER.read(global, rule, context)?,
    }))
}

struct HmacAuth {
    ask: Ask<Keys>,
}

/// Why a request does not come in.
enum Refusal {
    Key,
    Consumer,
    NoSignature,
    /// With what the client should compare.
    Signature(Vec<u8>),
    Date,
    ContentMd5,
    BodySize,
}

#[async_trait(?Send)]
impl Plugin for HmacAuth {
    async fn call(
        &self,
        exchange: &mut Exchange,
        mut request: Request,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        let Some(keys) = self.ask.consumers() else {
            return next.run(exchange, request).await;
        };
        exchange.record.hide(&keys.hidden);
        match self.check(keys, &mut request).await? {
            Ok(holder) => {
                exchange.found_credential(CredentialPlace::Header(KEY));
                exchange.found_credential(CredentialPlace::Header(SIGNATURE));
                if let Some(name) = &holder.name {
                    recognised(exchange, &mut request, name);
                }
                next.run(exchange, request).await
            }
            Err(refusal) => Ok(refusal.answer(exchange)),
        }
    }

    fn admits(&self, consumer: Option<&str>) -> bool {
        self.ask.admits(consumer, EmptyList::Nobody)
    }
}

impl HmacAuth {
    async fn check<'k>(
        &self,
        keys: &'k Keys,
        request: &mut Request,
    ) -> Result<Result<&'k Holder, Refusal>, Error> {
        let Some(holder) = keys.find(text(request, KEY.as_str())) else {
            return Ok(Err(Refusal::Key));
        };
        if !self.ask.lets_in(holder.name.as_deref(), EmptyList::Nobody) {
            return Ok(Err(Refusal::Consumer));
        }
        if text(request, SIGNATURE.as_str()).is_empty() {
            return Ok(Err(Refusal::NoSignature));
        }
        if keys
            .offset
            .is_some_and(|offset| !dates::is_fresh(request, clock::wall(), offset))
        {
            return Ok(Err(Refusal::Date));
        }
        let md5 = request
            .headers()
            .get(CONTENT_MD5)
            .filter(|md5| !md5.is_empty())
            .cloned();
        let is_form = is_form(request);
        let mut body = Bytes::new();
        if is_form || md5.is_some() {
            body = match request.body_mut().buffer(BODY_LIMIT_NAME, BODY_LIMIT).await {
                Ok(body) => body,
                Err(failure) if failure.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                    return Ok(Err(Refusal::BodySize));
                }
                Err(failure) => return Err(failure),
            };
        }
        let form: &[u8] = if is_form { &body } else { &[] };
        if let Err(refusal) = signed(holder, request, form) {
            return Ok(Err(refusal));
        }
        let is_same = |md5: &HeaderValue| STANDARD.encode(Md5::digest(&body)).as_bytes() == md5.as_bytes();
        match md5 {
            Some(md5) if body.is_empty() || !is_same(&md5) => Ok(Err(Refusal::ContentMd5)),
            _ => Ok(Ok(holder)),
        }
    }
}

fn is_form(request: &Request) -> bool {
    let form = b"application/x-www-form-urlencoded";
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .map(|kind| kind.as_bytes().to_ascii_lowercase());
    kind.is_some_and(|kind| memchr::memmem::find(&kind, form).is_some())
}

fn signed(holder: &Holder, request: &Request, form: &[u8]) -> Result<(), Refusal> {
    let algorithm = match text(request, SIGNATURE_METHOD.as_str()) {
        "HmacSHA1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        _ => hmac::HMAC_SHA256,
    };
    let signature = text(request, SIGNATURE.as_str()).as_bytes();
    let parts = match Parts::of(request, form) {
        Ok(parts) => parts,
        Err(repeated) => {
            let told = format!("`{repeated}` stands in the request more than once");
            return Err(Refusal::Signature(told.into_bytes()));
        }
    };
    let documented = parts.string(StringToSign::Documented);
    // Clients that were written against Higress rather than its page sign `name=` for a parameter without a value.
    let is_signed = |text: &[u8]| holder.secret.signed(algorithm, text, signature);
    if is_signed(&documented) || is_signed(&parts.string(StringToSign::EveryEqualsSign)) {
        return Ok(());
    }
    let mut told = b"Server StringToSign:`".to_vec();
    told.extend(documented.iter().take(TOLD).map(|byte| match byte {
        0..0x20 | 0x7f => b'#',
        other => *other,
    }));
    told.push(b'`');
    Err(Refusal::Signature(told))
}

impl Refusal {
    fn answer(self, exchange: &Exchange) -> Response {
        let (status, text) = match self {
            Self::Key => (StatusCode::UNAUTHORIZED, "Invalid Key"),
            Self::Consumer => (StatusCode::FORBIDDEN, "Unauthorized Consumer"),
            Self::NoSignature => (StatusCode::UNAUTHORIZED, "Empty Signature"),
            Self::Signature(_) => (StatusCode::BAD_REQUEST, "Invalid Signature"),
            Self::Date => (StatusCode::BAD_REQUEST, "Invalid Date"),
            Self::ContentMd5 => (StatusCode::BAD_REQUEST, "Invalid Content-MD5"),
            Self::BodySize => (StatusCode::PAYLOAD_TOO_LARGE, "Request Body Too Large"),
        };
        let mut response = answer(exchange, status, text, text);
        if let Self::Signature(told) = self
            && let Ok(value) = HeaderValue::from_bytes(&told)
        {
            response.headers_mut().insert(ERROR_MESSAGE, value);
        }
        response
    }
}
