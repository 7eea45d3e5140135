//! Where a request carries a credential that is the gateway's own business: noted by authentication, taken out by
//! whoever sends the request to somebody who must not see it (a vendor).

use http::HeaderName;
use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use tollgate_body::Request;

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialPlace {
    /// A header.
    Header(HeaderName),
    /// A parameter of the query, by its decoded name.
    Parameter(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
}

impl CredentialPlace {
    /// Takes what stands here out of the request.
    pub fn take_out(&self, request: &mut Request) {
        match self {
            Self::Header(name) => drop(request.headers_mut().remove(name)),
            Self::Parameter(name) => remove_parameter(request, name),
            Self::Cookie(name) => remove_cookie(request, name),
        }
    }
}

fn remove_parameter(request: &mut Request, name: &str) {
    let Some(query) = request.uri().query() else {
        return;
    };
    let is_meant = |pair: &&str| {
        let spelled = pair.split_once('=').map_or(*pair, |(before, _)| before);
        percent_decode_str(spelled).eq(name.bytes())
    };
    if !query.split('&').any(|pair| is_meant(&pair)) {
        return;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_meant(pair)).collect();
    let path = request.uri().path();
    let target = match kept.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", kept.join("&")),
    };
    let mut parts = request.uri().clone().into_parts();
    // A part of a valid target is valid.
    if let Ok(target) = PathAndQuery::try_from(target) {
        parts.path_and_query = Some(target);
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

fn remove_cookie(request: &mut Request, name: &str) {
    let Some(text) = request.headers().get(http::header::COOKIE) else {
        return;
    };
    let is_meant = |pair: &&[u8]| {
        let pair = pair.trim_ascii_start();
        pair.strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&b'='))
    };
    let kept: Vec<&[u8]> = text
        .as_bytes()
        .split(|byte| *byte == b';')
        .filter(|pair| !is_meant(pair))
        .collect();
    let joined = kept.join(&b";"[..]);
    match http::HeaderValue::from_bytes(joined.trim_ascii()) {
        Ok(value) if !value.is_empty() => request.headers_mut().insert(http::header::COOKIE, value),
        _ => request.headers_mut().remove(http::header::COOKIE),
    };
}

#[cfg(test)]
mod tests {
    use tollgate_body::Body;

    use super::*;

    #[test]
    fn only_what_is_meant_goes() {
        let mut request = http::Request::get("http://a/p?x=1&api%6Bey=s&apikey=t&y=%20")
            .header("apikey", "s")
            .header("cookie", "a=1; token=s; b=token")
            .header("other", "1")
            .body(Body::empty())
            .unwrap();
        let places = [
            CredentialPlace::Header(HeaderName::from_static("apikey")),
            CredentialPlace::Parameter("apikey".into()),
            CredentialPlace::Cookie("token".into()),
        ];
        let take_out = |places: &[CredentialPlace], request: &mut Request| {
            places.iter().for_each(|place| place.take_out(request));
        };
        take_out(&places, &mut request);
        assert_eq!(request.uri(), "http://a/p?x=1&y=%20");
        assert_eq!(request.headers()["cookie"], "a=1; b=token");
        assert_eq!(request.headers().len(), 2);
        take_out(
            &[
                CredentialPlace::Cookie("a".into()),
                CredentialPlace::Cookie("b".into()),
            ],
            &mut request,
        );
        assert!(!request.headers().contains_key("cookie"));
        *request.uri_mut() = "http://a/p?apikey=s".parse().unwrap();
        take_out(&places, &mut request);
        assert_eq!(request.uri(), "http://a/p");
    }
}
