//! Route-level CORS (`enable-cors`): preflights are answered here, other answers get their headers.
//!
//! Stands before the plugins, as in Higress, so that a preflight needs no credentials.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method};
use tollgate_body::{Body, Request, Response};
use tollgate_snapshot::policy::{Cors, OriginMatch};

use crate::route::Router;

/// What to do before the chain.
pub(crate) enum Begin<'a> {
    /// A preflight: this is the answer.
    Answer(Response),
    /// Go on, and run [`Pending::finish`] on whatever comes of it.
    Continue(Pending<'a>),
}

/// Headers owed to the answer, whoever gives it: a page that may not read a refusal cannot tell why.
#[derive(Default)]
pub(crate) struct Pending<'a>(Option<(&'a Cors, HeaderValue)>);

/// Looks at a request's origin.
pub(crate) fn begin<'a>(router: &Router<'a>, request: &Request) -> Begin<'a> {
    let nothing = Begin::Continue(Pending::default());
    let Some(cors) = router.route().and_then(|route| route.policy.cors.as_deref()) else {
        return nothing;
    };
    let Some(origin) = request.headers().get(ORIGIN) else {
        return nothing;
    };
    if !origin
        .to_str()
        .is_ok_and(|text| cors.origins.iter().any(|allowed| is_allowed(allowed, text)))
    {
        return nothing;
    }
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !preflight {
        return Begin::Continue(Pending(Some((cors, origin.clone()))));
    }
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    allow(headers, cors, origin.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone());
    headers.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    Begin::Answer(response)
}

impl Pending<'_> {
    /// Adds the headers to an answer; those of the upstream are overwritten.
    pub(crate) fn finish(self, response: &mut Response) {
        let Some((cors, origin)) = self.0 else { return };
        let headers = response.headers_mut();
        allow(headers, cors, origin);
        if let Some(expose) = &cors.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

fn allow(headers: &mut HeaderMap, cors: &Cors, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

fn is_allowed(allowed: &OriginMatch, origin: &str) -> bool {
    match allowed {
        OriginMatch::Any => true,
        OriginMatch::Exact(wanted) => **wanted == *origin,
        OriginMatch::Regex(pattern) => pattern.is_match(origin),
    }
}
