//! Single requests to servers outside the configuration, off the data path: module registries and the like.
//!
//! Names, `--resolve`, roots and TLS are the gateway's own; connections are not kept. Redirects are the caller's
//! business: each hop says again whom it may reach, and the address that was judged is the one that is connected to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tollgate_base::address::is_public;
use tollgate_base::clock;
use tollgate_snapshot::cluster::{ClusterTls, Verification};

use crate::Shared;
use crate::tls::{self, Offer};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Whom a request may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Any address: the operator wrote the name.
    Anywhere,
    /// Public addresses only: somebody else wrote the name.
    Public,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutsideError {
    /// The URL cannot be asked; says why.
    Url(String),
    /// The address may not be reached.
    Forbidden(String),
    /// No connection, or not the TLS that was wanted.
    Connect(String),
    /// The server did not speak HTTP, or broke off.
    Protocol(String),
    /// The body is larger than allowed.
    TooLarge(usize),
    /// It took too long.
    Timeout(Duration),
}

impl fmt::Display for OutsideError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(text) | Self::Forbidden(text) | Self::Connect(text) | Self::Protocol(text) => {
                formatter.write_str(text)
            }
            Self::TooLarge(limit) => write!(formatter, "the answer is larger than {limit} bytes"),
            Self::Timeout(limit) => write!(formatter, "no answer within {} s", limit.as_secs_f32()),
        }
    }
}

impl std::error::Error for OutsideError {}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Shared {
    /// Sends `request` (absolute `http` or `https` URI) over a connection of its own and reads the whole answer:
    /// at most `limit` bytes, within `timeout`. Redirects are not followed.
    ///
    /// # Errors
    /// See [`OutsideError`]; a status is no error.
    pub async fn ask_outside(
        &self,
        request: Request<Bytes>,
        reach: Reach,
        limit: usize,
        timeout: Duration,
    ) -> Result<Response<Bytes>, OutsideError> {
        match tokio::time::timeout(timeout, self.exchange(request, reach, limit)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(OutsideError::Timeout(timeout)),
        }
    }

    async fn exchange(
        &self,
        mut request: Request<Bytes>,
        reach: Reach,
        limit: usize,
    ) -> Result<Response<Bytes>, OutsideError> {
        let (host, port, is_tls) = target(request.uri())?;
        let stream = self.reach(&host, port, is_tls, reach).await?;
        let authority = request
            .uri()
            .authority()
            .map_or("", |authority| authority.as_str());
        let named = HeaderValue::from_str(authority).map_err(|cause| OutsideError::Url(cause.to_string()))?;
        request.headers_mut().insert(HOST, named);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path
            .parse()
            .map_err(|cause| OutsideError::Url(format!("{cause}")))?;
        let broke = |cause: hyper::Error| OutsideError::Protocol(format!("{host}: {cause}"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        let answer = async {
            let response = sender.send_request(request.map(Full::new)).await.map_err(broke)?;
            let (parts, body) = response.into_parts();
            let collected = Limited::new(body, limit)
                .collect()
                .await
                .map_err(|cause| match cause.downcast::<hyper::Error>() {
                    Ok(cause) => broke(*cause),
                    Err(_) => OutsideError::TooLarge(limit),
                })?;
            Ok(Response::from_parts(parts, collected.to_bytes()))
        };
        let driven = async {
            // The answer's own error says more; what is left over here is a connection that closed.
            drop(connection.await);
            std::future::pending().await
        };
        tokio::select! {
            biased;
            outcome = answer => outcome,
            () = driven => Err(OutsideError::Protocol(format!("{host}: connection closed"))),
        }
    }

    async fn reach(
        &self,
        host: &str,
        port: u16,
        is_tls: bool,
        reach: Reach,
    ) -> Result<Box<dyn Io>, OutsideError> {
        let addresses = self.addresses(host, port).await?;
        let allowed = |address: &SocketAddr| reach == Reach::Anywhere || is_public(address.ip());
        let Some(refused) = addresses.first().copied() else {
            return Err(OutsideError::Connect(format!("{host}: no address")));
        };
        let mut failure = None;
        for address in addresses.into_iter().filter(allowed) {
            match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.secure(stream, host, is_tls).await,
                Ok(Err(cause)) => failure = Some(format!("{host}: connect {address}: {cause}")),
                Err(_) => failure = Some(format!("{host}: connect {address}: no answer")),
            }
        }
        Err(match failure {
            Some(text) => OutsideError::Connect(text),
            None => OutsideError::Forbidden(format!("{host} leads to {}, which is not public", refused.ip())),
        })
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, OutsideError> {
        if let Some(address) = self.overridden(host, port) {
            return Ok(vec![address]);
        }
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let asked = clock::now();
        let name = self.names().of(&Arc::from(host));
        let mut known = name.watch();
        self.names().refresh(&name);
        let news = known
            .wait_for(|known| known.looked_up.is_some_and(|at| at >= asked))
            .await;
        let found = news.map_err(|_| OutsideError::Connect(format!("{host}: no look-up")))?;
        match &found.failure {
            Some(reason) => Err(OutsideError::Connect(reason.to_string())),
            None => Ok(found
                .addresses
                .iter()
                .map(|address| SocketAddr::new(*address, port))
                .collect()),
        }
    }

    async fn secure(&self, stream: TcpStream, host: &str, is_tls: bool) -> Result<Box<dyn Io>, OutsideError> {
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let wanted = ClusterTls {
            server_name: Some(host.into()),
            verification: Verification::SystemRoots,
            client_certificate: None,
        };
        let connector = self
            .tls()
            .connector(&wanted, Offer::Http1)
            .map_err(OutsideError::Connect)?;
        let bare = host.trim_matches(['[', ']']);
        let name = match bare.parse::<IpAddr>() {
            Ok(address) => tls::server_address(address),
            Err(_) => tls::server_name(bare).map_err(OutsideError::Connect)?,
        };
        match connector.connect(name.clone(), stream).await {
            Ok(session) => Ok(Box::new(session)),
            Err(cause) => Err(OutsideError::Connect(format!(
                "{host}: {}",
                tls::explain(&cause, &name)
            ))),
        }
    }
}

/// Host, port and whether TLS is wanted.
fn target(uri: &Uri) -> Result<(String, u16, bool), OutsideError> {
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => {
            return Err(OutsideError::Url(format!(
                "{uri} is neither http:// nor https://"
            )));
        }
    };
    let Some(authority) = uri.authority() else {
        return Err(OutsideError::Url(format!("{uri} names no host")));
    };
    if authority.as_str().contains('@') {
        return Err(OutsideError::Url(
            "a URL with a user in it is not asked".to_owned(),
        ));
    }
    let default = if is_tls { 443 } else { 80 };
    Ok((
        authority.host().to_owned(),
        authority.port_u16().unwrap_or(default),
        is_tls,
    ))
}
