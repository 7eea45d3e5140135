//! One file of a server: tried again when the server or the way to it fails, redirects followed without credentials.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use tollgate_upstream::{OutsideError, Reach, Shared};

/// Limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Tries of one file.
const MOST_TRIES: u32 = 5;
/// Wait before the second try; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Redirects in a row.
const MOST_HOPS: usize = 5;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) uri: Uri,
    /// Media types; empty leaves the header out.
    pub(crate) accept: &'static str,
    /// For this server only; marked sensitive.
    pub(crate) authorization: Option<HeaderValue>,
    /// Whom the first request may reach; a redirect to another host reaches public addresses only.
    pub(crate) reach: Reach,
    /// Largest answer in bytes.
    pub(crate) limit: usize,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No HTTP(S) server was reached.
    Unreachable(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Unreachable(text) | Self::Other(text) => text,
        }
    }
}

/// The answer, whatever its status, once it is neither a redirect nor worth another try.
pub(crate) async fn ask(shared: &Shared, what: &Ask) -> Result<Response<Bytes>, Failure> {
    let mut wait = FIRST_WAIT;
    for tried in 1.. {
        let outcome = follow(shared, what).await;
        let again = match &outcome {
            Ok(response) => is_passing(response.status()),
            Err(OutsideError::Connect(_) | OutsideError::Protocol(_)) => true,
            Err(_) => false,
        };
        // A local registry without TLS is known at once; nothing is gained by knocking again.
        let is_tls_refused = matches!(&outcome, Err(OutsideError::Connect(text)) if text.contains("TLS: "));
        if !again || is_tls_refused || tried == MOST_TRIES {
            return outcome.map_err(|cause| match cause {
                OutsideError::Connect(text) => Failure::Unreachable(text),
                other => Failure::Other(format!("{}: {other}", what.uri)),
            });
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    Err(Failure::Other("no try is left".to_owned()))
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && !matches!(status.as_u16(), 501 | 505 | 511)
}

async fn follow(shared: &Shared, what: &Ask) -> Result<Response<Bytes>, OutsideError> {
    let mut uri = what.uri.clone();
    for _ in 0..=MOST_HOPS {
        let is_home = uri.authority() == what.uri.authority() && uri.scheme() == what.uri.scheme();
        let reach = if is_home { what.reach } else { Reach::Public };
        let mut request = Request::get(uri.clone())
            .body(Bytes::new())
            .map_err(|cause| OutsideError::Url(cause.to_string()))?;
        if !what.accept.is_empty() {
            request
                .headers_mut()
                .insert(ACCEPT, HeaderValue::from_static(what.accept));
        }
        if let Some(value) = what.authorization.clone().filter(|_| is_home) {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let response = shared
            .ask_outside(request, reach, what.limit, REQUEST_TIMEOUT)
            .await?;
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(response);
        }
        uri = next_hop(&uri, &response)?;
    }
    Err(OutsideError::Url(format!("more than {MOST_HOPS} redirects")))
}

fn next_hop(from: &Uri, response: &Response<Bytes>) -> Result<Uri, OutsideError> {
    let wrong = || OutsideError::Url("a redirect that leads nowhere".to_owned());
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(wrong)?;
    let target: Uri = location.parse().map_err(|_| wrong())?;
    if target.scheme().is_some() {
        let is_downgrade = from.scheme_str() == Some("https") && target.scheme_str() != Some("https");
        return match is_downgrade {
            true => Err(OutsideError::Forbidden(format!(
                "a redirect from https to {target}"
            ))),
            false => Ok(target),
        };
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(
        target
            .path_and_query()
            .filter(|path| path.as_str().starts_with('/'))
            .ok_or_else(wrong)?
            .clone(),
    );
    Uri::from_parts(parts).map_err(|_| wrong())
}
