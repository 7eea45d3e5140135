//! TLS towards upstreams: client configurations, made once per (whom we believe, who we are, SNI, ALPN).
//!
//! Making one parses the whole root set, so they are shared by all workers; a pool asks once, a request never.
//! Verification is on unless the cluster says [`Verification::Off`].

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;
use tollgate_snapshot::cluster::{ClientCertificate, ClusterTls, Verification};

/// What we offer in ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Offer {
    /// `http/1.1` only.
    Http1,
    /// `h2`, else `http/1.1`.
    Http2,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    verification: Verification,
    client_certificate: Option<Arc<ClientCertificate>>,
    sni: bool,
    offer: Offer,
}

/// The process's client configurations.
#[derive(Default)]
pub(crate) struct TlsConfigs {
    /// Weak: a configuration lives as long as a pool uses it.
    made: Mutex<HashMap<Key, Weak<ClientConfig>>>,
    system_roots: OnceLock<Result<Arc<RootCertStore>, String>>,
    /// PEM bundles believed besides the system's.
    extra_roots: Vec<Vec<u8>>,
}

/// Everything a dial needs to speak TLS to one endpoint.
#[derive(Clone)]
pub(crate) struct TlsTarget {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

impl TlsConfigs {
    pub(crate) fn new(extra_roots: Vec<Vec<u8>>) -> Self {
        Self {
            extra_roots,
            ..Self::default()
        }
    }

    /// The configuration for `tls`; the error says which part of it is unusable.
    pub(crate) fn connector(&self, tls: &ClusterTls, offer: Offer) -> Result<TlsConnector, String> {
        let key = Key {
            verification: tls.verification.clone(),
            client_certificate: tls.client_certificate.clone(),
            sni: tls.server_name.is_some(),
            offer,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.get(&key).and_then(Weak::upgrade) {
            return Ok(config.into());
        }
        let config = Arc::new(self.build(&key)?);
        made.retain(|_, weak| weak.strong_count() > 0);
        made.insert(key, Arc::downgrade(&config));
        Ok(config.into())
    }

    fn build(&self, key: &Key) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| format!("TLS: {cause}"))?;
        let trusting = match &key.verification {
            Verification::SystemRoots => builder.with_root_certificates(self.system_roots()?),
            Verification::Bundle(pem) => builder.with_root_certificates(bundle(pem)?),
            Verification::Off => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAnybody(provider))),
        };
        let mut config = match &key.client_certificate {
            None => trusting.with_no_client_auth(),
            Some(certificate) => {
                let (chain, private_key) = identity(certificate)?;
                trusting
                    .with_client_auth_cert(chain, private_key)
                    .map_err(|cause| format!("TLS: client certificate: {cause}"))?
            }
        };
        config.enable_sni = key.sni;
        config.alpn_protocols = match key.offer {
            Offer::Http1 => vec![b"http/1.1".to_vec()],
            Offer::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Ok(config)
    }

    /// The system's roots or `SSL_CERT_FILE`; read once, at the first use.
    fn system_roots(&self) -> Result<Arc<RootCertStore>, String> {
        self.system_roots
            .get_or_init(|| {
                let found = rustls_native_certs::load_native_certs();
                let mut store = RootCertStore::empty();
                let (usable, unusable) = store.add_parsable_certificates(found.certs);
                if unusable > 0 {
                    tracing::warn!(unusable, usable, "some system root certificates are unusable");
                }
                for pem in &self.extra_roots {
                    add(&mut store, pem)?;
                }
                if store.is_empty() {
                    let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                    return Err(format!(
                        "TLS: no system root certificates: {}",
                        reasons.join(", ")
                    ));
                }
                Ok(Arc::new(store))
            })
            .clone()
    }
}

/// Whether a cluster's certificates and names are usable, for diagnostics at compile time.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check(tls: &ClusterTls) -> Result<(), String> {
    if let Verification::Bundle(pem) = &tls.verification {
        bundle(pem)?;
    }
    if let Some(certificate) = &tls.client_certificate {
        identity(certificate)?;
    }
    if let Some(name) = &tls.server_name {
        server_name(name)?;
    }
    Ok(())
}

fn bundle(pem: &[u8]) -> Result<Arc<RootCertStore>, String> {
    let mut store = RootCertStore::empty();
    add(&mut store, pem)?;
    if store.is_empty() {
        return Err("TLS: certificate authorities: no PEM certificate found".to_owned());
    }
    Ok(Arc::new(store))
}

fn add(store: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let der = certificate.map_err(|cause| format!("TLS: certificate authorities: {cause}"))?;
        store
            .add(der)
            .map_err(|cause| format!("TLS: certificate authorities: {cause}"))?;
    }
    Ok(())
}

fn identity(
    certificate: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&certificate.chain)
        .collect::<Result<_, _>>()
        .map_err(|cause| format!("TLS: client certificate: {cause}"))?;
    if chain.is_empty() {
        return Err("TLS: client certificate: no PEM certificate found".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&certificate.key)
        .map_err(|cause| format!("TLS: client key: {cause}"))?;
    Ok((chain, key))
}

/// The name that the certificate must carry.
pub(crate) fn server_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| format!("TLS: {text:?} is not a server name"))
}

/// The address that the certificate must carry, for an endpoint without a name.
pub(crate) fn server_address(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
}

/// A failed handshake in words of its own: which of the usual reasons it was.
pub(crate) fn explain(cause: &io::Error, name: &ServerName<'_>) -> String {
    let Some(error) = cause
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return format!("TLS: {cause}");
    };
    let rustls::Error::InvalidCertificate(reason) = error else {
        return format!("TLS: {error}");
    };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "TLS: certificate expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "TLS: certificate not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => "TLS: certificate of an unknown issuer".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("TLS: name mismatch: certificate is not for {}", name.to_str())
        }
        CertificateError::BadSignature => {
            "TLS: certificate not signed by the believed authority of that name".to_owned()
        }
        CertificateError::Revoked => "TLS: certificate revoked".to_owned(),
        other => format!("TLS: certificate refused: {other:?}"),
    }
}

/// `proxy-ssl-verify: "off"`: any certificate will do, but whoever shows it must hold its key.
#[derive(Debug)]
struct AcceptAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
