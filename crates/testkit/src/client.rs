//! A plain HTTP/1.1 and h2c client: one connection a request, no retries, no decoding, ends reported as they are.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, as far as it came.
    pub body: Bytes,
    /// Trailers of an h2 or chunked answer.
    pub trailers: Option<HeaderMap>,
    /// Why the body ended before its end.
    pub cut: Option<String>,
}

impl Answer {
    /// Body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header as text, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// `data:` payloads of an event stream.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let text = self.text().replace("\r\n", "\n").replace('\r', "\n");
        text.lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| data.trim_start().to_owned())
            .collect()
    }
}

/// An answer whose body has not been read.
pub struct Opening {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    body: Incoming,
    /// Dropping it closes the connection.
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Opening {
    /// The next piece of the body; `None` at a clean end.
    ///
    /// # Errors
    /// When the body ends before its end.
    pub async fn next(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(cause) => return Some(Err(cause)),
            }
        }
    }

    /// Reads until `wanted` has been seen; everything read so far.
    ///
    /// # Errors
    /// What was read, when the body ended without it.
    pub async fn read_until(&mut self, wanted: &str) -> Result<String, String> {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            match self.next().await {
                Some(Ok(data)) => seen.push_str(&String::from_utf8_lossy(&data)),
                Some(Err(cause)) => return Err(format!("{cause} after {seen:?}")),
                None => return Err(format!("ended after {seen:?}")),
            }
        }
        Ok(seen)
    }

    /// Reads the rest.
    pub async fn finish(mut self) -> Answer {
        let (mut body, mut trailers, mut cut) = (Vec::new(), None, None);
        while let Some(frame) = self.body.frame().await {
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(other) => trailers = other.into_trailers().ok(),
                },
                Err(cause) => {
                    cut = Some(cause.to_string());
                    break;
                }
            }
        }
        let (status, headers) = (self.status, std::mem::take(&mut self.headers));
        Answer {
            status,
            headers,
            body: body.into(),
            trailers,
            cut,
        }
    }
}

/// Sends a request over a connection of its own; the URI's authority becomes the `host` header.
///
/// # Errors
/// When the connection or the exchange fails before a response head.
pub async fn open(address: SocketAddr, request: Request<Bytes>) -> Result<Opening, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|cause| cause.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|cause| cause.to_string())?;
    let connection = spawn(async move { drop(connection.with_upgrades().await) });
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority().cloned() {
        let path = head
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        if !head.headers.contains_key(http::header::HOST) {
            let host = http::HeaderValue::from_str(authority.as_str()).map_err(|cause| cause.to_string())?;
            head.headers.insert(http::header::HOST, host);
        }
        head.uri = path.parse().map_err(|_| "bad path".to_owned())?;
    } else if !head.headers.contains_key(http::header::HOST) {
        let host = http::HeaderValue::from_str(&address.to_string()).map_err(|cause| cause.to_string())?;
        head.headers.insert(http::header::HOST, host);
    }
    let sent = sender
        .send_request(Request::from_parts(head, Full::new(body)))
        .await;
    let (head, body) = sent.map_err(|cause| cause.to_string())?.into_parts();
    Ok(Opening {
        status: head.status,
        headers: head.headers,
        body,
        connection,
    })
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When there is no response head.
pub async fn send(address: SocketAddr, request: Request<Bytes>) -> Result<Answer, String> {
    Ok(open(address, request).await?.finish().await)
}

/// The same over h2 with prior knowledge.
///
/// # Errors
/// When there is no response head.
pub async fn send_h2c(address: SocketAddr, request: Request<Bytes>) -> Result<Answer, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|cause| cause.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|cause| cause.to_string())?;
    let connection = spawn(async move { drop(connection.await) });
    let sent = sender.send_request(request.map(Full::new)).await;
    let (head, body) = sent.map_err(|cause| cause.to_string())?.into_parts();
    Ok(Opening {
        status: head.status,
        headers: head.headers,
        body,
        connection,
    }
    .finish()
    .await)
}

#[expect(clippy::disallowed_methods, reason = "the runtime is the test's own")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(future)
}

/// A POST of JSON text.
///
/// # Panics
/// On an invalid path, which is a mistake of the test.
#[must_use]
#[expect(clippy::expect_used, reason = "a mistake of the test")]
pub fn post_json(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(path)
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a valid request")
}

/// A GET.
///
/// # Panics
/// On an invalid path, which is a mistake of the test.
#[must_use]
#[expect(clippy::expect_used, reason = "a mistake of the test")]
pub fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).expect("a valid request")
}

/// Writes bytes as they are and reads until the other side closes; for requests no client would send.
///
/// # Errors
/// When the connection fails.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    // A reset after the answer is an answer.
    drop(stream.read_to_end(&mut answer).await);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
