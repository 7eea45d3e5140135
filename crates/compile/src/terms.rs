//! What a host asks of its clients' handshakes, made ready: authorities, suites and versions (routing spec §8.13).
//!
//! What cannot be made ready closes the host over TLS: without it, somebody would get in who was meant to stay out.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite};
use tollgate_snapshot::certificate::{Offers, Terms};

use crate::Input;
use crate::annotations::DownstreamTls;
use crate::ingress::Plan;
use crate::secrets::AUTHORITY_KEYS;

/// Makes ready what `asked` says, for a host that shows `key`.
///
/// # Errors
/// Why a client could not be held to it.
pub(crate) fn terms(
    input: &Input<'_>,
    plan: &Plan<'_>,
    asked: &DownstreamTls,
    key: &Arc<CertifiedKey>,
) -> Result<Terms, String> {
    let authorities = match &asked.authorities {
        Some((namespace, name)) => Some(authorities(input, plan, namespace.as_deref(), name)?),
        None => None,
    };
    let provider = Arc::new(provider(&asked.suites));
    let verifier = match &authorities {
        Some(pem) => verifier(pem, &provider)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&asked.versions)
        .map_err(|cause| cause.to_string())?;
    let config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(key))));
    Ok(Terms {
        offers: Offers::new(config),
        authorities,
    })
}

/// The PEM of the authorities in a Secret of the Ingress's own namespace: another's could be changed by others.
fn authorities(
    input: &Input<'_>,
    plan: &Plan<'_>,
    namespace: Option<&str>,
    name: &str,
) -> Result<Arc<[u8]>, String> {
    let own = &plan.ingress.metadata.namespace;
    if namespace.is_some_and(|namespace| namespace != own) {
        return Err(format!(
            "the Secret must be in the namespace {own} of the Ingress"
        ));
    }
    let secret = input.objects.secret(own, name);
    let secret = secret.ok_or_else(|| format!("the Secret {own}/{name} does not exist"))?;
    let pem = secret.spec.first(AUTHORITY_KEYS);
    let pem = pem.ok_or_else(|| {
        format!(
            "the Secret {own}/{name} has no `{}`",
            AUTHORITY_KEYS.join("` or `")
        )
    })?;
    Ok(pem.expose().into())
}

fn verifier(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "the authorities are not valid PEM".to_owned())?;
        let added = roots.add(certificate);
        added.map_err(|_| "an authority's certificate cannot be read".to_owned())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|_| "the Secret holds no authority's certificate".to_owned())
}

/// The usual one, without the suites of TLS 1.2 that are not `chosen`.
fn provider(chosen: &[SupportedCipherSuite]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !chosen.is_empty() {
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || chosen.contains(suite));
    }
    provider
}
