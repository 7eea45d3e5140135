//! The upstream request's head: path, authority and credentials (ai-proxy spec §1.7, §9).
//!
//! Pure functions of the provider, the client's head and one token; run again with another token for a retry.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use tollgate_base::headers::remove_all;

use crate::{Api, path};

use super::Provider;
use super::config::{BasePathHandling, Protocol};
use super::row::{Auth, PathRule};

/// What a path segment spells out.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Whether clients send credentials meant for the gateway in this header; no vendor gets to see them.
fn is_client_credential(header: &str) -> bool {
    matches!(
        header,
        "authorization"
            | "api-key"
            | "x-goog-api-key"
            | "x-api-key"
            | "x-authorization"
            | "x-hi-original-auth"
            | "x-mse-consumer"
    )
}

impl Provider {
    /// The API of a decoded path: the vendor's own paths under `protocol: original`, the general table otherwise.
    #[must_use]
    pub fn api_of(&self, decoded_path: &str) -> Option<Api> {
        if self.protocol == Protocol::OpenAi || self.row.original_paths.is_empty() {
            return Api::of_path(decoded_path);
        }
        let known = self.row.original_paths.iter();
        known
            .into_iter()
            .find(|row| decoded_path.contains(row.0))
            .map(|row| row.1)
    }

    /// Upstream path and query for the client's `path?query` (steps 1 to 5 of §1.7).
    #[must_use]
    pub fn upstream_path(&self, api: Option<Api>, client_path: &str) -> String {
        let stripped = match &self.base_path {
            Some(base) if base.handling == BasePathHandling::Remove => client_path
                .strip_prefix(base.prefix.as_str())
                .unwrap_or(client_path),
            _ => client_path,
        };
        let mut upstream = self.vendor_path(api, client_path, stripped);
        match &self.base_path {
            Some(base)
                if base.handling == BasePathHandling::Remove && self.protocol == Protocol::Original =>
            {
                stripped.clone_into(&mut upstream);
            }
            Some(base)
                if base.handling == BasePathHandling::Prepend && !upstream.starts_with(&base.prefix) =>
            {
                upstream = path::join(&base.prefix, &upstream);
            }
            _ => {}
        }
        if !upstream.starts_with(&self.provider_base_path) {
            upstream = self.with_base_path(&upstream);
        }
        if !upstream.starts_with('/') {
            upstream.insert(0, '/');
        }
        upstream
    }

    /// A path with `providerBasePath` in front, once.
    #[must_use]
    pub fn with_base_path(&self, upstream: &str) -> String {
        if upstream.starts_with(&self.provider_base_path) {
            return upstream.to_owned();
        }
        format!("{}{upstream}", self.provider_base_path)
    }

    fn vendor_path(&self, api: Option<Api>, client_path: &str, stripped: &str) -> String {
        let capability = api.and_then(|api| self.capability(api));
        let by_capability = |mapped: Option<&str>| match mapped {
            Some(mapped) => path::expand(mapped, client_path),
            None => stripped.to_owned(),
        };
        match &self.path {
            PathRule::Capability => by_capability(capability),
            PathRule::CapabilityUnlessOriginal if self.protocol == Protocol::OpenAi => {
                by_capability(capability)
            }
            PathRule::CapabilityWithQuery(query)
                if self.protocol == Protocol::OpenAi && capability.is_some() =>
            {
                path::append_query(by_capability(capability), &format!("?{query}"))
            }
            PathRule::FixedUnlessOriginal(fixed) if self.protocol == Protocol::OpenAi => fixed.to_string(),
            PathRule::Fixed(fixed) => fixed.to_string(),
            PathRule::CapabilityUnlessOriginal
            | PathRule::CapabilityWithQuery(_)
            | PathRule::FixedUnlessOriginal(_)
            | PathRule::Keep => stripped.to_owned(),
        }
    }

    /// A path that names the model, once the body has told it; `placeholder` where it has not, as in Higress.
    #[must_use]
    pub fn with_model(&self, upstream: String, model: &str) -> String {
        if !upstream.contains("{model}") {
            return upstream;
        }
        let name = if model.is_empty() { "placeholder" } else { model };
        let encoded = utf8_percent_encode(name, SEGMENT).to_string();
        upstream.replace("{model}", &encoded)
    }

    /// Replaces the client's credentials by `token` (empty if the provider has none).
    pub fn authorize(&self, headers: &mut HeaderMap, token: &str) {
        let own = match self.auth {
            Auth::BearerOrClients if token.is_empty() => self.client_token(headers),
            Auth::BearerOrUntouched if token.is_empty() => headers.get(AUTHORIZATION).cloned(),
            Auth::None => None,
            _ if token.is_empty() => None,
            Auth::Plain | Auth::Header(_) => HeaderValue::from_str(token).ok(),
            Auth::Bearer | Auth::BearerOrClients | Auth::BearerOrUntouched => self.own_bearer(token),
        };
        remove_all(headers, is_client_credential);
        let Some(mut value) = own else { return };
        value.set_sensitive(true);
        let name = match self.auth {
            Auth::Header(name) => HeaderName::from_static(name),
            _ => AUTHORIZATION,
        };
        headers.insert(name, value);
    }

    /// One of the provider's own tokens, made when the configuration was read.
    fn own_bearer(&self, token: &str) -> Option<HeaderValue> {
        let known = self.tokens.iter().position(|own| own.expose() == token);
        match known.and_then(|index| self.bearers.get(index)) {
            Some(made) => made.clone(),
            None => bearer(token),
        }
    }

    /// The client's own vendor token, from the configured header, `x-api-key`, `x-authorization` or `Authorization`,
    /// as a bearer token.
    fn client_token(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let usual = [
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("x-authorization"),
            AUTHORIZATION,
        ];
        let sent = self
            .client_token_header
            .iter()
            .chain(&usual)
            .filter_map(|name| headers.get(name)?.to_str().ok())
            .find(|text| !text.is_empty())?;
        bearer(sent.strip_prefix("Bearer ").unwrap_or(sent))
    }
}

/// A token as a bearer's.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(["Bearer ", token].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
