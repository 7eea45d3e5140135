//! Server certificates and what a host asks of a handshake, chosen by SNI: exact name, then wildcard, then host `*`.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::sign::CertifiedKey;

/// Certificates of the HTTPS listener. Empty means that the listener stays closed.
#[derive(Debug, Default)]
pub struct Certificates {
    /// By exact lower-case name.
    pub exact: HashMap<Box<str>, Served>,
    /// By suffix including the dot (`.foo.com` for `*.foo.com`), longest first.
    pub wildcard: Vec<(Box<str>, Served)>,
    /// For host `*`: also serves handshakes without SNI.
    pub fallback: Option<Served>,
    /// Whether any host asks its clients for certificates.
    pub ask_clients: bool,
}

/// How a host is served over TLS.
#[derive(Debug, Clone)]
pub struct Served {
    /// What it shows. `None`: nobody gets in, since what it asks of its clients cannot be checked.
    pub key: Option<Arc<CertifiedKey>>,
    /// What it asks; `None` is nothing, in the usual versions of TLS.
    pub terms: Option<Arc<Terms>>,
}

/// One way to agree, with either choice of protocols.
#[derive(Debug, Clone)]
pub struct Offers {
    both: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
}

impl Offers {
    /// Of a configuration without protocols.
    #[must_use]
    pub fn new(mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut both = config.clone();
        both.alpn_protocols.insert(0, b"h2".to_vec());
        Self {
            both: Arc::new(both),
            http1: Arc::new(config),
        }
    }

    /// ALPN offers h2, then HTTP/1.1; or HTTP/1.1 only.
    #[must_use]
    pub fn config(&self, h2: bool) -> &Arc<ServerConfig> {
        if h2 { &self.both } else { &self.http1 }
    }
}

impl Served {
    /// Whether somebody must vouch for its clients.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.key.is_none()
            || self
                .terms
                .as_ref()
                .is_some_and(|terms| terms.authorities.is_some())
    }

    /// Whether a client may speak to it for whom `vouched`, or nobody.
    #[must_use]
    pub fn admits(&self, vouched: Option<&Arc<[u8]>>) -> bool {
        let asked = self.terms.as_ref().and_then(|terms| terms.authorities.as_ref());
        self.key.is_some() && (asked.is_none() || asked == vouched)
    }
}

/// What a host asks of a handshake (routing spec §8.13).
#[derive(Debug)]
pub struct Terms {
    /// What is agreed on.
    pub offers: Offers,
    /// PEM of the authorities of which one must vouch for a client; `None` asks for nobody's word.
    pub authorities: Option<Arc<[u8]>>,
}

impl Certificates {
    /// Nothing configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.fallback.is_none()
    }

    /// How the host of this name is served; without a name, what has no SNI.
    #[must_use]
    pub fn find(&self, server_name: Option<&str>) -> Option<&Served> {
        let Some(name) = server_name.map(str::to_ascii_lowercase) else {
            return self.fallback.as_ref();
        };
        if let Some(served) = self.exact.get(name.as_str()) {
            return Some(served);
        }
        let suffix = self
            .wildcard
            .iter()
            .find(|(suffix, _)| name.len() > suffix.len() && name.ends_with(&**suffix));
        suffix.map(|(_, served)| served).or(self.fallback.as_ref())
    }
}
