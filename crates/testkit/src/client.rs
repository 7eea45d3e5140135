//! A plain HTTP/1.1 and h2 client, over TCP or TLS: one connection a request, no retries, no decoding, ends reported as
//! they are.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A request's body: whole, or as long as a test makes it.
pub type RequestBody = BoxBody<Bytes, std::convert::Infallible>;

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

/// Which version of HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: with prior knowledge over TCP, by ALPN over TLS.
    Http2,
}

/// Sends a request over an HTTP/1.1 connection of its own; the URI's authority becomes the `host` header.
///
/// # Errors
/// When the connection or the exchange fails before a response head.
pub async fn open(address: SocketAddr, request: Request<Bytes>) -> Result<Opening, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|cause| cause.to_string())?;
    exchange(stream, Protocol::Http1, whole(request), &address.to_string()).await
}

/// The same with a body of any kind and either protocol.
///
/// # Errors
/// As [`open`].
pub async fn open_with(
    address: SocketAddr,
    protocol: Protocol,
    request: Request<RequestBody>,
) -> Result<Opening, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|cause| cause.to_string())?;
    exchange(stream, protocol, request, &address.to_string()).await
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
    Ok(open_with(address, Protocol::Http2, whole(request))
        .await?
        .finish()
        .await)
}

/// How a client speaks TLS.
#[derive(Debug, Clone)]
pub struct Secure<'a> {
    /// The certificate authority that is believed, as PEM.
    pub authority: &'a str,
    /// The server name that is asked for and that the certificate must carry.
    pub name: &'a str,
    /// The one protocol offered in ALPN.
    pub protocol: Protocol,
    /// The certificate that is shown when one is asked for, and its key, as PEM.
    pub identity: Option<(&'a str, &'a str)>,
}

/// Sends a request over a TLS connection of its own.
///
/// # Errors
/// When the handshake, the choice of protocol or the exchange fails before a response head.
pub async fn open_tls(
    address: SocketAddr,
    secure: &Secure<'_>,
    request: Request<Bytes>,
) -> Result<Opening, String> {
    let stream = connect_tls(address, secure).await?;
    exchange(stream, secure.protocol, whole(request), secure.name).await
}

/// What a handshake agrees on, in the names that rustls has for version and suite.
///
/// # Errors
/// When the handshake or the choice of protocol fails.
pub async fn agreed_tls(address: SocketAddr, secure: &Secure<'_>) -> Result<String, String> {
    let stream = connect_tls(address, secure).await?;
    let (_, session) = stream.get_ref();
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    Ok(format!("{:?} {suite:?}", session.protocol_version()))
}

async fn connect_tls(address: SocketAddr, secure: &Secure<'_>) -> Result<TlsStream<TcpStream>, String> {
    let failed = |cause: &dyn std::fmt::Display| format!("tls: {cause}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(secure.authority.as_bytes()) {
        roots
            .add(certificate.map_err(|cause| failed(&cause))?)
            .map_err(|cause| failed(&cause))?;
    }
    let wanted: &[u8] = match secure.protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::Http2 => b"h2",
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| failed(&cause))?
        .with_root_certificates(roots);
    let mut config = match secure.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|cause| failed(&cause))?;
            let chain = chain.map_err(|cause| failed(&cause))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|cause| failed(&cause))?
        }
    };
    config.alpn_protocols = vec![wanted.to_vec()];
    let name = ServerName::try_from(secure.name.to_owned()).map_err(|cause| failed(&cause))?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|cause| cause.to_string())?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = connecting.await.map_err(|cause| failed(&cause))?;
    if stream.get_ref().1.alpn_protocol() != Some(wanted) {
        return Err(failed(&"the server did not choose the offered protocol"));
    }
    Ok(stream)
}

fn whole(request: Request<Bytes>) -> Request<RequestBody> {
    request.map(|body| Full::new(body).boxed())
}

/// One request on a fresh connection. `host` names the server where the request does not.
async fn exchange<S>(
    stream: S,
    protocol: Protocol,
    request: Request<RequestBody>,
    host: &str,
) -> Result<Opening, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = TokioIo::new(stream);
    let (response, connection) = match protocol {
        Protocol::Http1 => {
            let handshake = hyper::client::conn::http1::handshake(stream);
            let (mut sender, connection) = handshake.await.map_err(|cause| cause.to_string())?;
            let connection = spawn(async move { drop(connection.with_upgrades().await) });
            (sender.send_request(origin_form(request, host)?).await, connection)
        }
        Protocol::Http2 => {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
            let (mut sender, connection) = handshake.await.map_err(|cause| cause.to_string())?;
            let connection = spawn(async move { drop(connection.await) });
            (
                sender.send_request(absolute_form(request, host)?).await,
                connection,
            )
        }
    };
    let (head, body) = response.map_err(|cause| cause.to_string())?.into_parts();
    Ok(Opening {
        status: head.status,
        headers: head.headers,
        body,
        connection,
    })
}

/// HTTP/1.1's target is a path; the authority goes into the `host` header.
fn origin_form(mut request: Request<RequestBody>, host: &str) -> Result<Request<RequestBody>, String> {
    let authority = request.uri().authority().map(ToString::to_string);
    if !request.headers().contains_key(http::header::HOST) {
        let value = http::HeaderValue::from_str(authority.as_deref().unwrap_or(host));
        request
            .headers_mut()
            .insert(http::header::HOST, value.map_err(|cause| cause.to_string())?);
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    *request.uri_mut() = path.parse().map_err(|_| "bad path".to_owned())?;
    Ok(request)
}

/// HTTP/2 needs scheme and authority.
fn absolute_form(mut request: Request<RequestBody>, host: &str) -> Result<Request<RequestBody>, String> {
    if request.uri().authority().is_none() {
        let given = request.headers_mut().remove(http::header::HOST);
        let host = given
            .as_ref()
            .and_then(|value| value.to_str().ok())
            .unwrap_or(host);
        let absolute = format!("http://{host}{}", request.uri());
        *request.uri_mut() = absolute.parse().map_err(|_| format!("bad URI {absolute}"))?;
    }
    Ok(request)
}

/// A body that a test feeds: what goes into the sender comes out, and the end of the sender is its end.
#[must_use]
pub fn fed_body(room: usize) -> (mpsc::Sender<Bytes>, RequestBody) {
    let (sender, receiver) = mpsc::channel(room);
    (sender, BodyExt::boxed(Fed(receiver)))
}

struct Fed(mpsc::Receiver<Bytes>);

impl Body for Fed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
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
