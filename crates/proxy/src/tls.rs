//! TLS towards clients: what a host shows and asks is looked up in the snapshot in force at each handshake, by the name
//! that the client gives. A request for a host that asks for certificates must come over such a handshake.

use std::io;
use std::sync::Arc;

use http::StatusCode;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tollgate_base::Error;
use tollgate_snapshot::certificate::Offers;
use tollgate_snapshot::{Certificates, Live};

/// Server side of the HTTPS listener.
#[derive(Clone)]
pub(crate) struct ServerSide(Offers);

impl ServerSide {
    /// # Errors
    /// When the crypto provider lacks what TLS 1.2 and 1.3 need.
    pub(crate) fn new(live: &Live) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(FromSnapshot(live.clone())));
        Ok(Self(Offers::new(config)))
    }

    /// One handshake, as the configuration in force wants it for the name that the client gives; and the authorities of
    /// which one vouched for the client.
    ///
    /// # Errors
    /// When the client breaks off, or does not agree.
    pub(crate) async fn handshake(
        &self,
        live: &Live,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Authorities>)> {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let snapshot = live.load();
        let served = snapshot.certificates.find(begun.client_hello().server_name());
        let terms = served.and_then(|served| served.terms.as_ref());
        let offers = terms.map_or(&self.0, |terms| &terms.offers);
        let config = offers.config(snapshot.settings.alpn_h2);
        let authorities = terms.and_then(|terms| terms.authorities.clone());
        let stream = begun.into_stream(Arc::clone(config)).await?;
        Ok((stream, authorities))
    }
}

/// PEM of the authorities of which one vouched for a client.
pub(crate) type Authorities = Arc<[u8]>;

/// Refuses a request whose host asks for certificates of clients, on a connection that was opened under another name:
/// nobody vouched for its client before this host.
pub(crate) fn misdirected(
    certificates: &Certificates,
    vouched: Option<&Authorities>,
    host: &str,
) -> Option<Error> {
    if !certificates.ask_clients || certificates.find(Some(host))?.admits(vouched) {
        return None;
    }
    let message = "the connection was opened for another host, which asked for no such certificate";
    Some(Error::client(
        StatusCode::MISDIRECTED_REQUEST,
        "misdirected_request",
        message,
    ))
}

#[derive(Debug)]
struct FromSnapshot(Live);

impl ResolvesServerCert for FromSnapshot {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificates.find(hello.server_name())?.key.clone()
    }
}
