//! TLS towards clients: the certificate is looked up in the snapshot in force at each handshake.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tollgate_snapshot::Live;

/// Server side of the HTTPS listener.
#[derive(Clone)]
pub(crate) struct ServerSide {
    /// ALPN offers h2, then HTTP/1.1.
    both: Arc<ServerConfig>,
    /// ALPN offers HTTP/1.1 only (`disableAlpnH2`).
    http1: Arc<ServerConfig>,
}

impl ServerSide {
    /// # Errors
    /// When the crypto provider lacks what TLS 1.2 and 1.3 need.
    pub(crate) fn new(live: &Live) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut both = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(FromSnapshot(live.clone())));
        let mut http1 = both.clone();
        both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            both: Arc::new(both),
            http1: Arc::new(http1),
        })
    }

    /// For one handshake, as the settings in force want it.
    pub(crate) fn acceptor(&self, offer_h2: bool) -> TlsAcceptor {
        let config = if offer_h2 { &self.both } else { &self.http1 };
        TlsAcceptor::from(config.clone())
    }
}

#[derive(Debug)]
struct FromSnapshot(Live);

impl ResolvesServerCert for FromSnapshot {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificates.find(hello.server_name())
    }
}
