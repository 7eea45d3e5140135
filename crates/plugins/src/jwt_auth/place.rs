//! One place where a token may stand.

use std::borrow::Cow;
use std::str;
use std::sync::Arc;

use http::HeaderName;
use tollgate_body::Request;
use tollgate_plugin::{CredentialPlace, Exchange};

use crate::jwt::Fault;
use crate::limits::source::cookie;
use crate::query;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind `prefix`, wherever that stands in the header's value.
    Header { name: HeaderName, prefix: String },
    /// The first parameter of this name, percent-decoded.
    Parameter(Arc<str>),
    /// The first cookie of this name.
    Cookie(Arc<str>),
}

impl Place {
    /// The text that stands here. A header that stands there twice is none that could be read: who reads it behind the
    /// gateway may take the other one.
    pub(super) fn token<'r>(&self, request: &'r Request) -> Option<Result<Cow<'r, str>, Fault>> {
        match self {
            Self::Header { name, prefix } => {
                let mut values = request.headers().get_all(name).iter();
                let value = values.next()?.as_bytes();
                if values.next().is_some() {
                    return Some(Err(Fault::FORM));
                }
                if value.is_empty() {
                    return None;
                }
                let Ok(text) = str::from_utf8(value) else {
                    return Some(Err(Fault::FORM));
                };
                let (_, token) = text.split_once(prefix.as_str())?;
                Some(Ok(token.into()))
            }
            Self::Parameter(name) => match query::parameter(request, name)? {
                Cow::Borrowed(bytes) => Some(str::from_utf8(bytes).map(Cow::from).map_err(|_| Fault::FORM)),
                Cow::Owned(bytes) => Some(String::from_utf8(bytes).map(Cow::from).map_err(|_| Fault::FORM)),
            },
            Self::Cookie(name) => cookie(request, name).map(|text| Ok(text.into())),
        }
    }

    pub(super) fn credential(&self) -> CredentialPlace {
        match self {
            Self::Header { name, .. } => CredentialPlace::Header(name.clone()),
            Self::Parameter(name) => CredentialPlace::Parameter(name.clone()),
            Self::Cookie(name) => CredentialPlace::Cookie(name.clone()),
        }
    }

    /// Keeps what stands here out of log lines. Cookies are never shown.
    pub(super) fn hide(&self, exchange: &Exchange) {
        match self {
            Self::Header { name, .. } => exchange.record.hide(&name.as_str().into()),
            Self::Parameter(name) => exchange.record.hide(name),
            Self::Cookie(_) => {}
        }
    }
}
