//! How one delivery is made: an append to a file, or a POST.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use tollgate_observe::Entry;
use tollgate_snapshot::settings::SinkTarget;
use tollgate_upstream::{Reach, Shared};

use super::render;

/// Longest delivery.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of an answer nothing is read beyond this.
const ANSWER: usize = 64 * 1024;

/// What became of a delivery.
pub(super) enum Outcome {
    Done,
    /// The endpoint will not take these rows, however often they come.
    Refused(String),
    /// Another try may help.
    Failed(String),
}

/// A sink's way out.
pub(super) enum Outlet {
    File(PathBuf),
    Post {
        /// May hold a password: never printed.
        url: String,
        headers: HeaderMap,
        render: fn(&[&Entry]) -> Vec<u8>,
        content_type: &'static str,
        upstream: Shared,
    },
}

impl Outlet {
    pub(super) fn new(target: &SinkTarget, upstream: Shared) -> Self {
        match target {
            SinkTarget::File(path) => Self::File(path.clone()),
            SinkTarget::Http { url, headers } => Self::Post {
                url: url.expose().to_owned(),
                headers: headers.clone(),
                render: render::json_lines,
                content_type: "application/x-ndjson",
                upstream,
            },
            SinkTarget::Otlp { url, headers } => Self::Post {
                url: url.expose().to_owned(),
                headers: headers.clone(),
                render: render::otlp_logs,
                content_type: "application/json",
                upstream,
            },
        }
    }

    /// The bytes of a delivery.
    pub(super) fn payload(&self, entries: &[&Entry]) -> Bytes {
        match self {
            Self::File(_) => render::json_lines(entries).into(),
            Self::Post { render, .. } => render(entries).into(),
        }
    }

    /// Delivers once.
    pub(super) async fn send(&self, payload: Bytes) -> Outcome {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let written = tokio::task::spawn_blocking(move || append(&path, &payload)).await;
                match written {
                    Ok(Ok(())) => Outcome::Done,
                    Ok(Err(cause)) => Outcome::Failed(cause.to_string()),
                    Err(cause) => Outcome::Failed(cause.to_string()),
                }
            }
            Self::Post {
                url,
                headers,
                content_type,
                upstream,
                ..
            } => post(upstream, url, headers, content_type, payload).await,
        }
    }
}

/// Appends whole lines or nothing: what a failed write has left is cut off again. The file is opened each time, so that it
/// may be rotated.
fn append(path: &PathBuf, payload: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let before = file.metadata()?.len();
    let written = file.write_all(payload);
    if written.is_err() {
        // A pipe cannot be cut.
        drop(file.set_len(before));
    }
    written
}

async fn post(
    upstream: &Shared,
    url: &str,
    headers: &HeaderMap,
    content_type: &'static str,
    payload: Bytes,
) -> Outcome {
    let mut request = match Request::builder().method(Method::POST).uri(url).body(payload) {
        Ok(request) => request,
        Err(cause) => return Outcome::Refused(cause.to_string()),
    };
    *request.headers_mut() = headers.clone();
    request
        .headers_mut()
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static(content_type));
    // The operator wrote the URL.
    let answer = upstream
        .ask_outside(request, Reach::Anywhere, ANSWER, TIMEOUT)
        .await;
    match answer {
        Ok(answer) if answer.status().is_success() => Outcome::Done,
        Ok(answer) => {
            let status = answer.status();
            let again = status.is_server_error()
                || matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                );
            match again {
                true => Outcome::Failed(format!("status {status}")),
                false => Outcome::Refused(format!("status {status}")),
            }
        }
        Err(cause) => Outcome::Failed(cause.to_string()),
    }
}
