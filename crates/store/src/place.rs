//! Where a Redis really is and how it is spoken to, as the rest of the gateway tells: addresses, names, TLS.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use tollgate_observe::Metrics;

/// Where a host and port really are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Addresses that are known.
    pub addresses: Vec<SocketAddr>,
    /// Names to be looked up, with their ports.
    pub names: Vec<(String, u16)>,
    /// How TLS is spoken there, if it is.
    pub tls: Option<Tls>,
}

/// TLS towards a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Name to ask for and verify, if it is not the host's own.
    pub server_name: Option<String>,
    /// Who the gateway says it is, if anybody.
    pub identity: Option<Identity>,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The system's roots, or `SSL_CERT_FILE`.
    #[default]
    System,
    /// This PEM bundle only.
    Bundle(Arc<[u8]>),
    /// Any certificate.
    Anybody,
}

/// A client certificate.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// PEM chain.
    pub chain: Vec<u8>,
    /// PEM key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Identity(***)")
    }
}

/// Finds places by the configuration in force and `--resolve`; asked at each attempt to connect.
pub trait Places: Send + Sync {
    /// Port `port` of a service of the configuration (`redis.static`); `None`: it has none.
    fn service(&self, name: &str, port: u16) -> Option<Place>;
    /// A host of the command line.
    fn server(&self, host: &str, port: u16) -> Place;
}

/// What connections need.
#[derive(Clone)]
pub struct Surroundings {
    /// Where they are kept; must outlive the workers.
    pub background: Handle,
    /// Where to connect.
    pub places: Arc<dyn Places>,
    /// Where failures are counted.
    pub metrics: Arc<Metrics>,
}
