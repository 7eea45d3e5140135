//! What certificates, keys and authorities are called in a Secret, and a certificate with its key made ready to sign; for
//! the gateway's own side of TLS and for what it shows to upstreams.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tollgate_kinds::Secret;

/// Keys of a Secret that hold a certificate chain, the preferred one first.
pub(crate) const CERTIFICATE_KEYS: &[&str] = &["tls.crt", "cert"];
/// Keys that hold its private key.
pub(crate) const PRIVATE_KEY_KEYS: &[&str] = &["tls.key", "key"];
/// Keys that hold the certificates of authorities.
pub(crate) const AUTHORITY_KEYS: &[&str] = &["ca.crt", "cacert"];

/// The certificate chain and key of a Secret, ready to sign.
pub(crate) fn certified_key(secret: &Secret) -> Result<CertifiedKey, String> {
    let part = |keys: &[&str]| {
        let value = secret.spec.first(keys);
        value.ok_or_else(|| format!("`{}` is missing", keys.join("` or `")))
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(part(CERTIFICATE_KEYS)?.expose())
            .collect::<Result<_, _>>()
            .map_err(|_| "the certificate is not valid PEM".to_owned())?;
    if chain.is_empty() {
        return Err("the certificate is not valid PEM".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(part(PRIVATE_KEY_KEYS)?.expose())
        .map_err(|_| "the private key is not valid PEM".to_owned())?;
    let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| "the private key is of no supported type".to_owned())?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("the private key does not belong to the certificate".to_owned())
        }
        Err(_) => Err("the certificate cannot be read".to_owned()),
    }
}
