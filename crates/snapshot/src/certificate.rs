//! Server certificates, chosen by SNI: exact name, then wildcard, then the one of host `*`.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

/// Certificates of the HTTPS listener. Empty means that the listener stays closed.
#[derive(Debug, Default)]
pub struct Certificates {
    /// By exact lower-case name.
    pub exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By suffix including the dot (`.foo.com` for `*.foo.com`), longest first.
    pub wildcard: Vec<(Box<str>, Arc<CertifiedKey>)>,
    /// For host `*`: also serves handshakes without SNI.
    pub fallback: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Nothing configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.fallback.is_none()
    }

    /// The certificate for a handshake with this server name.
    #[must_use]
    pub fn find(&self, server_name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = server_name.map(str::to_ascii_lowercase) else {
            return self.fallback.clone();
        };
        if let Some(key) = self.exact.get(name.as_str()) {
            return Some(key.clone());
        }
        let suffix = self
            .wildcard
            .iter()
            .find(|(suffix, _)| name.len() > suffix.len() && name.ends_with(&**suffix));
        suffix
            .map(|(_, key)| key.clone())
            .or_else(|| self.fallback.clone())
    }
}
