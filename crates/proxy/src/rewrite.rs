//! What the route changes on the way: path, authority, headers. Runs after the whole plugin chain.

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use tollgate_base::Error;
use tollgate_base::headers::X_ENVOY_ORIGINAL_PATH;
use tollgate_body::Request;
use tollgate_snapshot::Policy;
use tollgate_snapshot::policy::{HeaderEdits, PathRewrite};

/// Applies the route's rewrites to a request that is about to go upstream.
///
/// # Errors
/// 500 when the result is no valid path.
pub(crate) fn apply(policy: &Policy, request: &mut Request) -> Result<(), Error> {
    if let Some(rewrite) = &policy.rewrite {
        let path = rewritten(rewrite, request.uri().path());
        if path != request.uri().path() {
            let before = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
            if let Ok(value) = HeaderValue::from_str(before) {
                request.headers_mut().insert(X_ENVOY_ORIGINAL_PATH, value);
            }
            let query = request
                .uri()
                .query()
                .map_or_else(String::new, |query| format!("?{query}"));
            let target = PathAndQuery::try_from(format!("{path}{query}"));
            set_target(request.uri_mut(), None, Some(target.map_err(|_| bad_rewrite())?));
        }
    }
    if let Some(host) = &policy.upstream_host {
        let authority = Authority::try_from(host.as_bytes()).map_err(|_| bad_rewrite())?;
        set_target(request.uri_mut(), Some(authority), None);
    }
    edit(request.headers_mut(), &policy.headers.request);
    Ok(())
}

fn bad_rewrite() -> Error {
    Error::gateway(
        StatusCode::INTERNAL_SERVER_ERROR,
        "invalid_rewrite",
        "the route's rewrite gives no valid target",
    )
}

fn set_target(uri: &mut Uri, authority: Option<Authority>, path: Option<PathAndQuery>) {
    let mut parts = std::mem::take(uri).into_parts();
    if authority.is_some() {
        parts.authority = authority;
    }
    if path.is_some() {
        parts.path_and_query = path;
    }
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

fn rewritten(rewrite: &PathRewrite, path: &str) -> String {
    let result = match rewrite {
        PathRewrite::Whole(whole) => whole.to_string(),
        PathRewrite::Prefix { from, to } => match path.strip_prefix(&**from) {
            Some(rest) => format!("{to}{rest}"),
            None => path.to_owned(),
        },
        PathRewrite::Regex { pattern, replacement } => pattern.replace_all(path, &**replacement).into_owned(),
    };
    if result.starts_with('/') {
        result
    } else {
        format!("/{result}")
    }
}

/// One direction's header edits: add, then set, then remove.
pub(crate) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for (name, value) in &edits.add {
        headers.append(name, value.clone());
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
    for name in &edits.remove {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use tollgate_body::Body;

    use super::*;

    #[test]
    fn the_query_is_kept_and_the_original_noted() {
        let rewrite = PathRewrite::Prefix {
            from: "/hello".into(),
            to: "/test".into(),
        };
        let policy = Policy {
            rewrite: Some(rewrite),
            ..Policy::default()
        };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("http://a/hello/x?q=1");
        apply(&policy, &mut request).expect("valid");
        assert_eq!(request.uri(), "http://a/test/x?q=1");
        assert_eq!(request.headers()[X_ENVOY_ORIGINAL_PATH], "/hello/x?q=1");
    }

    #[test]
    fn remove_comes_last() {
        let name = HeaderName::from_static("x-a");
        let edits = HeaderEdits {
            add: vec![(name.clone(), HeaderValue::from_static("1"))],
            set: Vec::new(),
            remove: vec![name],
        };
        let mut headers = HeaderMap::new();
        edit(&mut headers, &edits);
        assert!(headers.is_empty());
    }
}
