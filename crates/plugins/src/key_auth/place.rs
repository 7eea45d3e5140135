//! One place where a key may stand.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderName;
use tollgate_body::Request;
use tollgate_plugin::CredentialPlace;

use crate::query;

/// A name, and whether a header, a parameter or both of it are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: Arc<str>,
    /// `None` when headers do not count, or none can have this name.
    pub(super) header: Option<HeaderName>,
    pub(super) in_query: bool,
}

impl Place {
    /// The value to be looked at and where it stands: that of the header, where it is not empty, else the parameter's.
    /// The first of several counts.
    pub(super) fn value<'a>(&self, request: &'a Request) -> Option<(Cow<'a, [u8]>, CredentialPlace)> {
        if let Some(name) = &self.header
            && let Some(value) = request.headers().get(name)
            && !value.is_empty()
        {
            return Some((value.as_bytes().into(), CredentialPlace::Header(name.clone())));
        }
        if !self.in_query {
            return None;
        }
        let value = query::parameter(request, &self.name).filter(|value| !value.is_empty())?;
        Some((value, CredentialPlace::Parameter(self.name.clone())))
    }
}
