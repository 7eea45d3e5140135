//! TLS for the mock: an authority of its own, certificates for any names, and handshakes that can go wrong.
//!
//! A client trusts the mock by trusting [`Authority::pem`] (for the gateway: a file named by `SSL_CERT_FILE`).
//! A client that asks for a server name like `slow-tls-500.example` waits 500 ms for the handshake.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// A certificate authority that lives as long as it is held; clones are the same one.
#[derive(Clone)]
pub struct Authority(Arc<CertifiedIssuer<'static, KeyPair>>);

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Authority")
    }
}

/// A certificate with its key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate, followed by no other: clients know the authority.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pair")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

fn failed(error: impl fmt::Display) -> io::Error {
    io::Error::other(format!("tls: {error}"))
}

impl Authority {
    /// A new authority with a new key.
    ///
    /// # Errors
    /// No randomness to be had.
    pub fn new() -> io::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "mock authority");
        let key = KeyPair::generate().map_err(failed)?;
        CertifiedIssuer::self_signed(params, key)
            .map(|issuer| Self(Arc::new(issuer)))
            .map_err(failed)
    }

    /// Its certificate, to be trusted.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these DNS names or addresses, signed by this authority.
    ///
    /// # Errors
    /// A name that a certificate cannot carry.
    pub fn issue(&self, names: &[&str], validity: Validity) -> io::Result<Pair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(failed)?;
        if validity == Validity::Expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.0).map_err(failed)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// Whether a certificate is still good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validity {
    /// For two thousand years.
    #[default]
    Valid,
    /// Since 2001 no longer.
    Expired,
}

/// How the mock speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The names that its certificate is for.
    pub names: Vec<String>,
    /// Who signs it.
    pub authority: Authority,
    /// Whether it is still valid.
    pub validity: Validity,
    /// The protocols to offer, preferred first. Default `h2`, `http/1.1`; empty: no ALPN.
    pub alpn: Vec<String>,
    /// Wait so long after the client's first words. Default zero.
    pub delay: Duration,
    /// Demand a client certificate signed by the authority of this PEM. Default none.
    pub client_authority: Option<String>,
}

impl Tls {
    /// TLS with a new authority and a certificate for these names.
    ///
    /// # Errors
    /// No randomness to be had.
    pub fn new(names: &[&str]) -> io::Result<Self> {
        Ok(Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            authority: Authority::new()?,
            validity: Validity::Valid,
            alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
            delay: Duration::ZERO,
            client_authority: None,
        })
    }

    pub(crate) fn config(&self) -> io::Result<Arc<ServerConfig>> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let pair = self.authority.issue(&names, self.validity)?;
        let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(failed)?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(failed)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let builder = match &self.client_authority {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(pem.as_bytes()).map_err(failed)?)
                    .map_err(failed)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(failed)?)
            }
        };
        let mut config = builder.with_single_cert(vec![certificate], key).map_err(failed)?;
        config.alpn_protocols = self.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(Arc::new(config))
    }
}

/// The delay that a server name asks for.
fn delay_in(name: &str) -> Option<Duration> {
    let (first, _) = name.split_once('.')?;
    first
        .strip_prefix("slow-tls-")?
        .parse()
        .ok()
        .map(Duration::from_millis)
}

/// What the handshake told.
pub(crate) struct Greeting {
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) client_certificate: bool,
}

/// Takes a connection through its handshake.
pub(crate) async fn accept<S>(
    stream: S,
    config: Arc<ServerConfig>,
    delay: Duration,
) -> io::Result<(TlsStream<S>, Greeting)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let server_name = start.client_hello().server_name().map(str::to_owned);
    let delay = server_name.as_deref().and_then(delay_in).unwrap_or(delay);
    tokio::time::sleep(delay).await;
    let stream = start.into_stream(config).await?;
    let (_, session) = stream.get_ref();
    let alpn = session
        .alpn_protocol()
        .map(|name| String::from_utf8_lossy(name).into_owned());
    let client_certificate = session.peer_certificates().is_some_and(|chain| !chain.is_empty());
    Ok((
        stream,
        Greeting {
            server_name,
            alpn,
            client_certificate,
        },
    ))
}
